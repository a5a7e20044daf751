"""Points to voxels: the mean colour of the points in each voxel, weighted by their number."""

__all__ = ["check_reach", "points_to_voxels", "voxelize_points"]

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MAX_ABS_COORD, MapUpdate, coord_keys


def check_reach(low_m: np.ndarray, high_m: np.ndarray, voxel_size_m: float) -> None:
    """Whether points between the corners [3] and [3] of a box lie where a map can be.

    Raises:
        InputError: a corner is not finite or further out than a map can reach.
    """
    far_m = np.abs([low_m, high_m]).max()
    if not np.isfinite(far_m):
        raise InputError("points are not finite: leave out points without a measurement")
    if np.abs(np.floor(np.array([low_m, high_m], np.float64) / voxel_size_m)).max() > MAX_ABS_COORD:
        raise InputError(f"points reach {far_m:.3g} m from the origin, more than {MAX_ABS_COORD * voxel_size_m:.0f} m: check units and frame")


def points_to_voxels(points_m: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """Indices [N, 3] int32 of the voxels that hold the points [N, 3].

    Raises:
        InputError: a point is not finite or further out than a map can reach.
    """
    if not len(points_m):
        return np.zeros((0, 3), np.int32)
    check_reach(points_m.min(axis=0), points_m.max(axis=0), voxel_size_m)
    return np.floor(np.asarray(points_m, np.float64) / voxel_size_m).astype(np.int32)


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
    coords = points_to_voxels(points_m, voxel_size_m)
    _, first, inverse, count = np.unique(coord_keys(coords), return_index=True, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)  # numpy 2.0 alone shapes it like the input
    mean = [np.bincount(inverse, colors[:, c].astype(np.float64), len(first)) / np.maximum(count, 1) for c in range(3)]
    return MapUpdate(
        coords=coords[first], colors=np.rint(np.stack(mean, axis=1)).astype(np.uint8).reshape(-1, 3),
        weights=count.astype(np.float32), voxel_size_m=voxel_size_m, frame_id=frame_id, stamp_ns=stamp_ns,
        sequence=sequence, full=full,
    )
