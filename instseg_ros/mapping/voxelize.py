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
    with np.errstate(over="ignore"):
        cells = np.floor(np.array([low_m, high_m], np.float64) / voxel_size_m)
    if np.abs(cells).max() > MAX_ABS_COORD:
        raise InputError(f"points reach {far_m:.3g} m from the origin, more than {MAX_ABS_COORD * voxel_size_m:.0f} m: check units and frame")


def points_to_voxels(points_m: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """Indices [N, 3] int32 of the voxels that hold the points [N, 3].

    Raises:
        InputError: a point is not finite or further out than a map can reach.
    """
    if not len(points_m):
        return np.zeros((0, 3), np.int32)
    columns = points_m.T  # extremes of a column take a tenth of those along axis 0
    check_reach(np.array([c.min() for c in columns]), np.array([c.max() for c in columns]), voxel_size_m)
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
    order, first = _groups(coords)
    count = np.diff(first, append=len(order))
    mean = np.empty((len(first), 3), np.uint8)
    for channel in range(3 if len(first) else 0):
        mean[:, channel] = np.rint(np.add.reduceat(colors[:, channel][order], first, dtype=np.int64) / count)
    return MapUpdate(
        coords=coords[order[first]], colors=mean, weights=count.astype(np.float32), voxel_size_m=voxel_size_m, frame_id=frame_id,
        stamp_ns=stamp_ns,
        sequence=sequence, full=full,
    )


def _groups(coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N] ordered by voxel, and within one as they were, and where in that order each voxel [K] begins."""
    if not len(coords):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low = [int(column.min()) for column in coords.T]
    bits = [(int(column.max()) - least).bit_length() for column, least in zip(coords.T, low, strict=True)]
    at_bits = len(coords).bit_length()
    if sum(bits) + at_bits <= 63:  # place and position in one number: sorting it takes a third of a stable argsort
        packed = np.zeros(len(coords), np.int64)
        for axis in range(3):
            packed = (packed << bits[axis]) | (coords[:, axis] - low[axis])
        packed = np.sort((packed << at_bits) | np.arange(len(coords)))
        order, key = packed & ((1 << at_bits) - 1), packed >> at_bits
    else:
        key = coord_keys(coords)
        order = np.argsort(key, kind="stable")
        key = key[order]
    return order, np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
