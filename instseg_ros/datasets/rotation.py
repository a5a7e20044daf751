"""Turning, tilting and scaling of voxel scenes by any amount, so that surfaces stay closed and as thick as they were.

Voxels that are moved one by one tear holes, and where each is cut into sub-points and a cell kept that holds a given share of them,
surfaces get either holes or double layers, whatever the share: fused surfaces are one voxel thick. Here every voxel spreads
its weight with a quadratic B-spline, the limit of ever finer sub-points. A cell is kept if it is the densest one across the
surface it lies on, so that a line through the surface meets a cell where it crosses; where surfaces are thicker than
that, the densest cells beside are kept too, until there are as many as the area of the voxels asks for.
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

    Time grows with N and with the bounding box.
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
    width = max(1, _CELLS // int(extent[1] * extent[2]))
    cells, sources = [], []
    for start in range(int(floor[:, 0].min()) - 1, int(floor[:, 0].max()) + 2, width):
        near = np.flatnonzero((floor[:, 0] >= start - 2) & (floor[:, 0] < start + width + 2))
        if len(near):
            kept, source = _kept_cells(points[near], turn.scale)
            inside = (kept[:, 0] >= start) & (kept[:, 0] < start + width)
            cells.append(kept[inside])
            sources.append(near[source[inside]])
    return Resampled(np.concatenate(cells), np.concatenate(sources), points)


def _kept_cells(points: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells [M, 3] int32 that voxels at these points [N, 3] fill, and the point [M] that gives each the most."""
    floor = np.floor(points)
    part = points - floor - 0.5
    spline = np.stack([0.5 * (0.5 - part) ** 2, 0.75 - part**2, 0.5 * (0.5 + part) ** 2], 1)  # [N, 3 cells, 3 axes]
    weight = np.einsum("ni,nj,nk->nijk", spline[:, :, 0], spline[:, :, 1], spline[:, :, 2]).reshape(-1)
    low = floor.min(0).astype(np.int64) - 2  # one cell for the spline, one to look at beyond it
    shape = floor.max(0).astype(np.int64) + 3 - low
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    around = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3) @ stride
    cell = (((floor.astype(np.int64) - low) @ stride)[:, None] + around).reshape(-1)
    area = scale**2  # a surface grows by this, and its voxels are spread thinner
    kept = _choose(np.bincount(cell, weight, int(shape.prod())) * area, stride, int(np.rint(area * len(points))))

    number = np.full(int(shape.prod()), -1, np.int32)
    number[kept] = np.arange(len(kept))
    entry = np.flatnonzero(number[cell] >= 0)
    target, most = number[cell[entry]], np.zeros(len(kept))
    np.maximum.at(most, target, weight[entry])
    winner = weight[entry] == most[target]
    source = np.empty(len(kept), np.int64)
    source[target[winner]] = entry[winner] // len(around)
    return np.stack(np.unravel_index(kept, shape), 1).astype(np.int32) + low.astype(np.int32), source


def _choose(density: np.ndarray, stride: np.ndarray, wanted: int) -> np.ndarray:
    """The cells [M] of a grid that are kept: the ridges of the density [cells], then the densest others up to the number wanted."""
    candidate = np.flatnonzero(density >= _RIDGE)
    here = density[candidate]
    beside = [(density[candidate - s], density[candidate + s]) for s in stride]
    peak = np.stack([(here >= a) & (here > b) for a, b in beside], 1)
    bend = _smooth(np.stack([2.0 * here - a - b for a, b in beside], 1), candidate, stride, len(density))
    keep = (peak & (bend >= _ACROSS * bend.max(1, keepdims=True))).any(1)
    missing = min(wanted, len(keep)) - int(keep.sum())
    if missing > 0:
        others = np.flatnonzero(~keep)
        keep[others[np.argpartition(-here[others], missing - 1)[:missing]]] = True
    return candidate[keep]


def _smooth(values: np.ndarray, cell: np.ndarray, stride: np.ndarray, size: int) -> np.ndarray:
    """Values [n, 3] of cells [n] of a grid of this size, summed over the cells among their 5 x 5 x 5 neighbours, the nearer more."""
    row = np.full(size, len(cell), np.int32)  # an extra row of zeros stands for cells that are not named
    row[cell] = np.arange(len(cell))
    beside = [(row[cell - s], row[cell + s]) for s in stride]
    sums = np.zeros((len(cell) + 1, values.shape[1]), np.float32)
    sums[:-1] = values
    for before, after in (*beside, *beside):
        sums[:-1] += sums.take(before, 0) + sums.take(after, 0)
    return sums[:-1]
