"""Boxes of instances that are turned about the vertical (z up) so that they fit."""

__all__ = ["InstanceBoxes", "OrientedBox", "axis_aligned_box", "oriented_box"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.spatial import ConvexHull

from instseg_ros.instance import Instance

_NEARLY_AS_SMALL = 1.1
"""A box along the axes of the map is taken if its footprint is at most this much larger: voxels do not tell small turns."""
_SAME_AREA = 1.0 + 1e-6
_CORNERS = np.array(list(product((-0.5, 0.5), repeat=3)))


@dataclass(frozen=True)
class OrientedBox:
    """A box that stands upright."""

    center_m: np.ndarray
    """[3] float64, map frame."""
    size_m: np.ndarray
    """[3] float64: edges along its own x, y and z."""
    yaw_rad: float
    """Turn of its x axis about z, above -pi/4 and up to pi/4."""

    def corners_m(self) -> np.ndarray:
        """[8, 3] float64 corners; x changes slowest, z fastest, low before high."""
        return _CORNERS * self.size_m @ _rotation(self.yaw_rad) + self.center_m

    def quaternion_xyzw(self) -> tuple[float, float, float, float]:
        """Its orientation."""
        return 0.0, 0.0, float(np.sin(self.yaw_rad / 2.0)), float(np.cos(self.yaw_rad / 2.0))


def oriented_box(points_m: np.ndarray, voxel_size_m: float) -> OrientedBox:
    """The box of least footprint around whole voxels.

    One edge of the least rectangle around a convex hull lies on an edge of that hull, so the hull's edges are all turns there are to try.
    Of those as good the smallest turn is taken, and none at all if that costs no more than a tenth.

    Args:
        points_m: voxel centres [N, 3], N > 0.
        voxel_size_m: edge of a voxel, m.

    Returns:
        The box; voxels lie in it with all their corners.
    """
    points, half = np.asarray(points_m, np.float64), voxel_size_m / 2.0
    cells = np.round((points[:, :2] - points[0, :2]) / voxel_size_m).astype(np.int64)
    cells = cells[np.unique(cells[:, 0] * 2**32 + cells[:, 1], return_index=True)[1]]
    # With the corners of its voxels even a single one has an area, and edges along the axes of the map.
    corners = np.concatenate([2 * cells + (i, j) for i in (-1, 1) for j in (-1, 1)]) * half
    hull = corners[ConvexHull(corners).vertices]
    turns = _turns(hull)
    axes = np.stack([np.cos(turns), np.sin(turns)], axis=1), np.stack([-np.sin(turns), np.cos(turns)], axis=1)
    along, across = (hull @ axis.T for axis in axes)  # [H, T] each
    area = np.ptp(along, axis=0) * np.ptp(across, axis=0)
    limit = area.min() * _SAME_AREA
    best = 0 if area[0] <= limit * _NEARLY_AS_SMALL else int(np.argmax(area <= limit))
    low = np.array([along[:, best].min(), across[:, best].min(), points[:, 2].min() - half])
    high = np.array([along[:, best].max(), across[:, best].max(), points[:, 2].max() + half])
    center = (low + high) / 2.0 @ _rotation(turns[best])
    return OrientedBox(center + (*points[0, :2], 0.0), high - low, float(turns[best]))


def axis_aligned_box(box_min_m: np.ndarray, box_max_m: np.ndarray) -> OrientedBox:
    """The box between two corners [3] that is not turned."""
    low, high = np.asarray(box_min_m, np.float64), np.asarray(box_max_m, np.float64)
    return OrientedBox((low + high) / 2.0, high - low, 0.0)


def _turns(hull: np.ndarray) -> np.ndarray:
    """Directions [T] of the edges of a hull [H, 2] within a quarter turn, no turn first, then from small to large, left before right."""
    edges = np.roll(hull, -1, axis=0) - hull
    eighth = np.pi / 4.0
    turns = eighth - (eighth - np.arctan2(edges[:, 1], edges[:, 0])) % (2.0 * eighth)
    turns = np.unique(np.round(np.concatenate([[0.0], turns]), 9))
    turns[turns < 1e-8 - eighth] += 2.0 * eighth
    return turns[np.lexsort([-turns, np.abs(turns)])]


def _rotation(yaw_rad: float) -> np.ndarray:
    """[3, 3]: rows of vectors times this are turned by the yaw about z."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


class InstanceBoxes:
    """The oriented boxes of instances; one is computed when its instance is new or has changed since."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Instance, OrientedBox]] = {}

    def of(
        self, instances: Iterable[Instance], points_of: Callable[[int], np.ndarray], voxel_size_m: float
    ) -> dict[int, OrientedBox]:
        """The box of every instance by id; those of other instances are forgotten.

        Args:
            instances: as the tracker has them, which replaces an `Instance` when its voxels change.
            points_of: voxel centres [n, 3] of an instance by its id.
            voxel_size_m: edge of a voxel, m.
        """
        known = {}
        for one in instances:
            before = self._known.get(one.id)
            known[one.id] = before if before is not None and before[0] is one else (one, self._make(one, points_of(one.id), voxel_size_m))
        self._known = known
        return {i: box for i, (_, box) in known.items()}

    @staticmethod
    def _make(one: Instance, points_m: np.ndarray, voxel_size_m: float) -> OrientedBox:
        return oriented_box(points_m, voxel_size_m) if len(points_m) else axis_aligned_box(one.box_min_m, one.box_max_m)
