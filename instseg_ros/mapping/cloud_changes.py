"""What a cloud of the whole map changes in a map, at the cost of what is different: most points lie in voxels that are known."""

__all__ = ["cloud_changes"]

import numpy as np

from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.mapping.voxelize import points_to_voxels, voxelize_points


def cloud_changes(
    voxels: VoxelMap, points_m: np.ndarray, colors: np.ndarray, color_step: int = 0, *, frame_id: str = "map", stamp_ns: int = 0, sequence: int = 0,
) -> MapUpdate:
    """An update with the effect of `difference(voxelize_points(points), map)`; only points in unknown voxels are sorted.

    Args:
        voxels: the map; it is read only.
        points_m: [N, 3] finite, map frame: all that is there.
        colors: [N, 3] uint8.
        color_step: a voxel whose mean colour moved by no more than this in any channel has not changed; weights are not compared.
        frame_id, stamp_ns, sequence: handed on to the update.

    Raises:
        InputError: a point is not finite or further out than a map can reach.
    """
    slot = voxels.lookup(points_to_voxels(points_m, voxels.voxel_size_m))
    is_known = slot >= 0
    old, known_colors = (slot, colors) if is_known.all() else (slot[is_known], colors[is_known])
    count = np.bincount(old, minlength=voxels.capacity)
    seen = np.flatnonzero(count)
    mean = np.empty((len(seen), 3), np.uint8)
    for channel in range(3):
        total = np.bincount(old, known_colors[:, channel].astype(np.float64), voxels.capacity)
        mean[:, channel] = np.rint(total[seen] / count[seen])
    moved = np.abs(mean.astype(np.int16) - voxels.colors[seen]).max(axis=1, initial=0) > color_step
    changed = seen[moved]
    new = voxelize_points(points_m[~is_known], colors[~is_known], voxels.voxel_size_m)
    return MapUpdate(
        coords=np.concatenate([voxels.coords[changed], new.coords]), colors=np.concatenate([mean[moved], new.colors]),
        weights=np.concatenate([count[changed].astype(np.float32), new.weights]), voxel_size_m=voxels.voxel_size_m, frame_id=frame_id,
        stamp_ns=stamp_ns, sequence=sequence, deleted=voxels.coords[np.flatnonzero(voxels.alive & (count == 0))],
    )
