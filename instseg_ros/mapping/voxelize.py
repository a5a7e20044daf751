"""Points to voxels: the mean colour of the points in each voxel, weighted by their number."""

__all__ = ["voxelize_points"]

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MAX_ABS_COORD, MapUpdate, coord_keys


def voxelize_points(
    points_m: np.ndarray, colors: np.ndarray, voxel_size_m: float, *, frame_id: str = "map", stamp_ns: int = 0,
    sequence: int = 0, full: bool = True,
) -> MapUpdate:
    """The voxels that hold the points.

    Args:
        points_m: [N, 3] finite, map frame.
        colors: [N, 3] uint8.
        voxel_size_m: edge of a voxel.
        frame_id, stamp_ns, sequence, full: handed on to the update.

    Returns:
        One voxel for each that holds a point, in the order of their keys; `weights` counts the points.

    Raises:
        InputError: a point is not finite or further out than a map can reach.
    """
    scaled = np.floor(np.asarray(points_m, np.float64) / voxel_size_m)
    if not np.isfinite(scaled).all():
        raise InputError("points are not finite: leave out points without a measurement")
    if len(scaled) and np.abs(scaled).max() > MAX_ABS_COORD:
        reach_m = MAX_ABS_COORD * voxel_size_m
        raise InputError(f"points reach {np.abs(points_m).max():.3g} m from the origin, more than {reach_m:.0f} m: check units and frame")
    coords = scaled.astype(np.int32)
    _, first, inverse, count = np.unique(coord_keys(coords), return_index=True, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)  # numpy 2.0 alone shapes it like the input
    mean = [np.bincount(inverse, colors[:, c].astype(np.float64), len(first)) / np.maximum(count, 1) for c in range(3)]
    return MapUpdate(
        coords=coords[first], colors=np.rint(np.stack(mean, axis=1)).astype(np.uint8).reshape(-1, 3),
        weights=count.astype(np.float32), voxel_size_m=voxel_size_m, frame_id=frame_id, stamp_ns=stamp_ns,
        sequence=sequence, full=full,
    )
