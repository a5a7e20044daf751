"""Labelled points to labelled voxels by majority, and labels of voxels back to the points."""

__all__ = ["VotedVoxels", "majority", "vote_voxels"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.labels import IGNORE
from instseg_ros.mapping.update import MAX_ABS_COORD, coord_keys

GREY = 160
"""Colour of voxels whose points have none."""


@dataclass(frozen=True)
class VotedVoxels:
    """The voxels that hold the points, in the order of their keys."""

    coords: np.ndarray
    """[V, 3] int32."""
    colors: np.ndarray
    """[V, 3] uint8: mean of the points."""
    class_index: np.ndarray
    """[V] uint8."""
    instance: np.ndarray
    """[V] int32, -1 = none."""
    voxel_of_point: np.ndarray
    """[N] int64: row of the voxel that each point lies in. `labels[voxel_of_point]` projects labels of voxels back."""


def majority(groups: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The most frequent value of each group, the smallest of those that tie.

    Args:
        groups: [N] int, 0 to count - 1; each occurs.
        values: [N] int.
        count: number of groups.
    """
    distinct, value = np.unique(values, return_inverse=True)
    cells, votes = np.unique(groups.astype(np.int64) * max(len(distinct), 1) + value.reshape(-1), return_counts=True)
    group = cells // max(len(distinct), 1)
    order = np.lexsort((cells, -votes, group))  # the first row of a group has most votes, and the smallest value among those
    winner = cells[order[np.searchsorted(group[order], np.arange(count))]]
    return distinct[winner % max(len(distinct), 1)]


def vote_voxels(
    points_m: np.ndarray, colors: np.ndarray | None, class_index: np.ndarray, instance: np.ndarray, voxel_size_m: float
) -> VotedVoxels:
    """Voxelise labelled points: each voxel takes the pair (class, instance) that most of its points have.

    Class and instance are voted for together, so that a voxel never pairs the class of one object with the number of another.

    Args:
        points_m: [N, 3] finite.
        colors: [N, 3] uint8; None = grey.
        class_index: [N] uint8, 255 = not labelled.
        instance: [N] int32, -1 = none.
        voxel_size_m: edge of a voxel.

    Raises:
        InputError: lengths differ, or a point is not finite or too far out.
    """
    points_m = np.asarray(points_m, np.float64)
    if not len(points_m) == len(class_index) == len(instance) == (len(points_m) if colors is None else len(colors)):
        raise InputError(f"{len(points_m)} points, {len(class_index)} classes, {len(instance)} instances: the lengths must agree")
    scaled = np.floor(points_m / voxel_size_m)
    if not np.isfinite(scaled).all():
        raise InputError("points are not finite: leave out points without a measurement")
    if len(scaled) and np.abs(scaled).max() > MAX_ABS_COORD:
        raise InputError(f"points reach {np.abs(points_m).max():.3g} m from the origin: check the unit, or subtract an offset")
    coords = scaled.astype(np.int32)
    _, first, voxel = np.unique(coord_keys(coords), return_index=True, return_inverse=True)
    voxel = voxel.reshape(-1)
    count = len(first)
    pair = (np.asarray(class_index, np.int64) << 32) | (np.asarray(instance, np.int64) + 1)
    won = majority(voxel, pair, count)
    if colors is None:
        mean = np.full((count, 3), GREY, np.uint8)
    else:
        share = np.maximum(np.bincount(voxel, minlength=count), 1)
        sums = np.stack([np.bincount(voxel, np.asarray(colors)[:, c].astype(np.float64), count) for c in range(3)], axis=1)
        mean = np.rint(sums / share[:, None]).astype(np.uint8)
    classes = (won >> 32).astype(np.uint8) if count else np.zeros(0, np.uint8)
    numbers = ((won & 0xFFFFFFFF) - 1).astype(np.int32)
    numbers[classes == IGNORE] = -1
    return VotedVoxels(coords[first], mean, classes, numbers, voxel)
