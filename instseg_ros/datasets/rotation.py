"""Turning, tilting and scaling of voxel scenes by any amount, so that surfaces stay closed and as thick as they were.

Voxels that are moved one by one tear holes, and where each is cut into sub-points and a cell kept that holds a given share of them,
surfaces get either holes or double layers, whatever the share: fused surfaces are one voxel thick. Here every voxel spreads
its weight with a quadratic B-spline, the limit of ever finer sub-points. A cell is kept if it is the densest one across the
surface it lies on, so that a line through the surface meets a cell where it crosses. That makes surfaces as thin as fusion
does; where they were thicker, the densest cells beside are kept too, until the share of such cells is what it was before.
"""

__all__ = ["Resampled", "Turn", "draw_turn", "resample", "rotate_scale", "turn_matrix"]

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from instseg_ros.datasets.scenes import VoxelScene
from instseg_ros.errors import InputError

_RIDGE = 0.2
"""Least density of a cell that is kept: in the middle of a surface it is 0.75, in that of a rod one voxel thick at least 0.25."""
_ACROSS = 0.8
"""An axis goes across the surface if the density around bends down along it by at least this share of the strongest bend of the three."""
_THICK = 1.2
"""Surfaces of fewer voxels per voxel of a ridge are taken to be one voxel thick: simulated fused maps come to 0.99 to 1.08."""
_SLICE = 8000
"""Voxels from which the thickness of a scene's surfaces is taken."""
_CELLS = 1 << 24
"""Cells of the grid that are worked on at once (300 MB); larger scenes are cut into slabs."""


class Turn(NamedTuple):
    """How a scene is turned: about the vertical first, then tilted, scaled and moved."""

    angle_rad: float
    """About the z axis."""
    tilt_rad: tuple[float, float] = (0.0, 0.0)
    """About the x axis, then about the y axis."""
    scale: float = 1.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Voxels; fractions decide how surfaces lie in the grid."""


@dataclass(frozen=True)
class Resampled:
    """Voxels in a moved grid."""

    coords: np.ndarray
    """[M, 3] int32, unique."""
    source: np.ndarray
    """[M] int64: the voxel each was made of: of those that reach it, the one that gives it most."""
    points: np.ndarray
    """[N, 3] float64: where the centres of the original voxels went, in voxels."""


def draw_turn(
    rng: np.random.Generator, tilt_std_rad: float = np.deg2rad(5.0), tilt_max_rad: float = np.deg2rad(10.0),
    scale: tuple[float, float] = (0.8, 1.2),
) -> Turn:
    """A random turn as SSEN trains with (Zhang et al. 2020, section IV).

    Any angle about z, a tilt about x of normal deviation 5 and at most 10 degrees (the angle about z, drawn first, makes every
    direction of the scene the tilted one), a scale of 0.8 to 1.2, and a shift by a fraction of a voxel.
    """
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    tilt = float(np.clip(rng.normal(0.0, tilt_std_rad), -tilt_max_rad, tilt_max_rad))
    factor = float(rng.uniform(*scale))
    x, y, z = rng.uniform(-0.5, 0.5, 3).tolist()
    return Turn(angle, (tilt, 0.0), factor, (x, y, z))


def turn_matrix(turn: Turn) -> np.ndarray:
    """[3, 3]: scale * Ry(tilt) Rx(tilt) Rz(angle)."""
    matrix = np.eye(3) * turn.scale
    for axis, angle in ((1, turn.tilt_rad[1]), (0, turn.tilt_rad[0]), (2, turn.angle_rad)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[i, i] = rotation[j, j] = np.cos(angle)
        rotation[j, i] = np.sin(angle)
        rotation[i, j] = -rotation[j, i]
        matrix = matrix @ rotation
    return matrix


def rotate_scale(
    scene: VoxelScene, angle_rad: float, tilt_rad: tuple[float, float] = (0.0, 0.0), scale: float = 1.0,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> VoxelScene:
    """The scene turned about the vertical, tilted, scaled and moved; its voxel size stays.

    The fixed point is the grid corner next to the middle of the scene at height 0, where the floor is. A quarter turn maps voxels
    to voxels exactly. Colours and labels are those of the voxel that lay nearest.

    Args:
        scene: to turn.
        angle_rad, tilt_rad, scale, shift: see `Turn`; `rotate_scale(scene, *draw_turn(rng))`.

    Raises:
        InputError: the scale is not between 0.5 and 2 (surfaces would not stay closed, or not thin).
    """
    moved = resample(scene.coords, Turn(angle_rad, tilt_rad, scale, shift))
    return replace(
        scene, coords=moved.coords, colors=scene.colors[moved.source],
        class_index=scene.class_index[moved.source], instance=scene.instance[moved.source],
    )


def resample(coords: np.ndarray, turn: Turn) -> Resampled:
    """Turn voxels [N, 3] about the middle of their ground plan at height 0 and put them into the grid again.

    Time grows with N and with the bounding box; memory is bounded by slabs of the grid. Specks of a voxel or two may vanish.

    Raises:
        InputError: the scale is not between 0.5 and 2.
    """
    if not 0.5 <= turn.scale <= 2.0:
        raise InputError(f"scale is {turn.scale}: surfaces can be kept closed and thin from 0.5 to 2; fuse the scene at another voxel size instead")
    if len(coords) == 0:
        return Resampled(np.zeros((0, 3), np.int32), np.zeros(0, np.int64), np.zeros((0, 3)))
    pivot = np.append(np.rint((coords[:, :2].min(0) + coords[:, :2].max(0) + 1) / 2), 0.0)
    points = (coords + 0.5 - pivot) @ turn_matrix(turn).T + pivot + turn.shift
    floor = np.floor(points)
    if turn.scale == 1.0 and np.abs(points - floor - 0.5).max() < 1e-6:  # the grid has become itself
        return Resampled(floor.astype(np.int32), np.arange(len(coords)), points)
    extent = np.ptp(floor, axis=0).astype(np.int64) + 5
    width, thickness = max(1, _CELLS // int(extent[1] * extent[2])), _thickness(coords)
    cells, sources = [], []
    for start in range(int(floor[:, 0].min()) - 1, int(floor[:, 0].max()) + 2, width):
        near = np.flatnonzero((floor[:, 0] >= start - 2) & (floor[:, 0] < start + width + 2))
        if len(near):
            spread = _Spread(points[near])
            kept = spread.densest(turn.scale**2, thickness)
            found = spread.coords_of(kept)
            inside = (found[:, 0] >= start) & (found[:, 0] < start + width)
            cells.append(found[inside])
            sources.append(near[spread.greatest_share(kept[inside])])
    return Resampled(np.concatenate(cells), np.concatenate(sources), points)


def _thickness(coords: np.ndarray) -> float:
    """Voxels per voxel of a ridge, 1 where surfaces are one voxel thick; of a scene of many voxels, a slice through its middle tells."""
    share = _SLICE / len(coords)
    if share < 1.0:
        low, high = np.quantile(coords[:, 0], [0.5 - 0.5 * share, 0.5 + 0.5 * share])
        coords = coords[(coords[:, 0] >= low) & (coords[:, 0] <= high)]
    ratio = len(coords) / max(1, int(_Spread(coords + 0.5).ridges(1.0)[1].sum()))
    return ratio if ratio > _THICK else 1.0


class _Spread:
    """The density of voxels that each spread their weight over 3 x 3 x 3 cells.

    Args:
        points: [N, 3] centres of the voxels, in cells.
    """

    def __init__(self, points: np.ndarray) -> None:
        floor = np.floor(points)
        part = points - floor - 0.5
        spline = np.stack([0.5 * (0.5 - part) ** 2, 0.75 - part**2, 0.5 * (0.5 + part) ** 2], 1)  # [N, 3 cells, 3 axes]
        self.weight = np.einsum("ni,nj,nk->nijk", spline[:, :, 0], spline[:, :, 1], spline[:, :, 2]).reshape(-1)
        self.low = floor.min(0).astype(np.int64) - 2  # one cell for the spline, one to look at beyond it
        self.shape = floor.max(0).astype(np.int64) + 3 - self.low
        self.stride = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        around = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3) @ self.stride
        self.cell = (((floor.astype(np.int64) - self.low) @ self.stride)[:, None] + around).reshape(-1)
        self.density = np.bincount(self.cell, self.weight, int(self.shape.prod()))

    def ridges(self, area: float) -> tuple[np.ndarray, np.ndarray]:
        """Cells [C] that are dense enough, and which of them [C] are the densest across the surface they lie on.

        Args:
            area: by how much surfaces have grown, and are less dense.
        """
        candidate = np.flatnonzero(self.density >= _RIDGE / area)
        here = self.density[candidate]
        beside = [(self.density[candidate - s], self.density[candidate + s]) for s in self.stride]
        peak = np.stack([(here >= a) & (here > b) for a, b in beside], 1)
        bend = self._smooth(np.stack([2.0 * here - a - b for a, b in beside], 1), candidate)
        return candidate, (peak & (bend >= _ACROSS * bend.max(1, keepdims=True))).any(1)

    def densest(self, area: float, thickness: float) -> np.ndarray:
        """The cells [M] that are kept: the ridges, and the densest others up to `thickness` times the number of ridges."""
        candidate, keep = self.ridges(area)
        ridges = int(keep.sum())
        missing = min(int(thickness * ridges), len(keep)) - ridges
        if missing > 0:
            others = np.flatnonzero(~keep)
            keep[others[np.argpartition(-self.density[candidate[others]], missing - 1)[:missing]]] = True
        return candidate[keep]

    def greatest_share(self, cells: np.ndarray) -> np.ndarray:
        """The voxel [M] that gives each of the cells [M] the most."""
        entries_per_voxel = 27
        number = np.full(len(self.density), -1, np.int32)
        number[cells] = np.arange(len(cells))
        entry = np.flatnonzero(number[self.cell] >= 0)
        target, most = number[self.cell[entry]], np.zeros(len(cells))
        np.maximum.at(most, target, self.weight[entry])
        winner = self.weight[entry] == most[target]
        source = np.empty(len(cells), np.int64)
        source[target[winner]] = entry[winner] // entries_per_voxel
        return source

    def coords_of(self, cells: np.ndarray) -> np.ndarray:
        """[M, 3] int32 of cells [M]."""
        return np.stack(np.unravel_index(cells, self.shape), 1).astype(np.int32) + self.low.astype(np.int32)

    def _smooth(self, values: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Values [n, 3] of cells [n], summed over those of the cells that are among their 3 x 3 x 3 neighbours."""
        row = np.full(len(self.density), len(cells), np.int32)  # an extra row of zeros stands for all others
        row[cells] = np.arange(len(cells))
        sums = np.zeros((len(cells) + 1, values.shape[1]), np.float32)
        sums[:-1] = values
        for s in self.stride:
            sums[:-1] += sums.take(row[cells - s], 0) + sums.take(row[cells + s], 0)
        return sums[:-1]
