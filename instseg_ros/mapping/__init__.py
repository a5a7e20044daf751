"""The map: voxels in chunks, updates to it, and the TSDF fusion that makes them from depth images."""
