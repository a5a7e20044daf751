"""From voxel predictions to instance segments."""
