"""Voxels of a made-up building for benchmarks: any size within seconds, from no data and no furniture library.

A map's surfaces are thin, so a voxel has about ten of its 26 neighbours; what a sparse convolution costs depends on that, which
is why the benchmarks do not use random voxels. The building stands askew to the grid, as a real one does.
"""

__all__ = ["VOXEL_SIZE_M", "surface_voxels"]

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

VOXEL_SIZE_M = 0.05
_SPACING_M = VOXEL_SIZE_M / 2  # between sampled points; half a voxel leaves no holes
_CELL_M = np.array([6.0, 5.0])  # pitch of the rooms
_GAP_M = 0.2  # at least this much between two rooms, so that no voxel is in both
_DOOR_M = (0.9, 2.0)  # width, height


def surface_voxels(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Surface voxels of rooms beside each other, with floor, walls, a doorway each and furniture of boxes, cylinders and balls.

    The rooms come one after the other, so what is generated for a smaller count is the beginning of what is generated for
    a larger one; the last room is half seen.

    Args:
        count: voxels wanted.
        seed: of sizes, furniture, colours and the angle of the building.

    Returns:
        coords [count, 3] int32, unique, at 5 cm; colors [count, 3] uint8.
    """
    angle = np.random.default_rng([seed, 0]).uniform(0.1, 0.7)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    coords, colors, total, room = [], [], 0, 0
    while total < count:
        one = _room_voxels(np.random.default_rng([seed, 1, room]), _cell(room) * _CELL_M, turn)
        coords.append(one[0])
        colors.append(one[1])
        total += len(one[0])
        room += 1
    if not coords:
        return np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
    return np.concatenate(coords)[:count], np.concatenate(colors)[:count]


def _cell(room: int) -> np.ndarray:
    """Where a room stands: squares of rooms grow around the first one, so that the building is compact at any size."""
    shell = int(np.sqrt(room))
    rest = room - shell * shell
    return np.array([shell, rest] if rest <= shell else [2 * shell - rest, shell], np.float64)


def _room_voxels(rng: np.random.Generator, corner_m: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique voxels of one room in grid order; where two objects share a voxel, the first one has it."""
    points, colors = [], []
    for surface in _objects(rng, _CELL_M - _GAP_M - rng.uniform(0, 1, 2)):
        points.append(surface)
        colors.append(np.broadcast_to(rng.integers(40, 216, 3), surface.shape))
    points_m = np.concatenate(points)
    points_m[:, :2] = (points_m[:, :2] + corner_m) @ turn.T
    coords = np.floor(points_m / VOXEL_SIZE_M).astype(np.int32)
    shifted = coords.astype(np.int64) + (1 << 20)
    key = (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]
    first = np.unique(key, return_index=True)[1]
    noisy = np.concatenate(colors)[first] + rng.normal(0, 8, (len(first), 3))
    return coords[first], np.clip(noisy, 0, 255).astype(np.uint8)


def _objects(rng: np.random.Generator, size_m: np.ndarray) -> Iterator[np.ndarray]:
    """Surface points [n, 3] in m per object of a room with a corner at the origin, z >= 0."""
    height = rng.uniform(2.4, 2.8)
    middle_of_floor_m = VOXEL_SIZE_M / 2
    yield _rectangle(size_m, lambda u, v: (u, v, middle_of_floor_m))
    door = rng.uniform(0.2, size_m[0] - _DOOR_M[0] - 0.2)
    for far in (0.0, size_m[1]):
        wall = _rectangle((size_m[0], height), lambda u, v, far=far: (u, far, v))
        opening = (np.abs(wall[:, 0] - door - _DOOR_M[0] / 2) < _DOOR_M[0] / 2) & (wall[:, 2] < _DOOR_M[1])
        yield wall if far else wall[~opening]
    for far in (0.0, size_m[0]):
        yield _rectangle((size_m[1], height), lambda u, v, far=far: (far, u, v))
    taken = np.zeros((0, 3))
    for _ in range(rng.integers(8, 16)):
        half = rng.uniform(0.15, 0.6)
        place = rng.uniform(half + 0.1, size_m - half - 0.1)
        if (np.linalg.norm(taken[:, :2] - place, axis=1) < taken[:, 2] + half).any():
            continue  # no room there
        taken = np.vstack([taken, [*place, half]])
        make = (_box, _box, _cylinder, _ball)[rng.integers(4)]
        yield make(rng, half) + [*place, middle_of_floor_m]


def _steps(length_m: float) -> np.ndarray:
    return np.linspace(0, length_m, int(np.ceil(length_m / _SPACING_M)) + 1)


def _rectangle(size_m: Any, place: Callable[[np.ndarray, np.ndarray], tuple[Any, Any, Any]]) -> np.ndarray:
    """Points of a rectangle; `place(u, v)` says where its points u, v are."""
    u, v = (a.ravel() for a in np.meshgrid(_steps(size_m[0]), _steps(size_m[1]), indexing="ij"))
    return np.stack(np.broadcast_arrays(*place(u, v)), -1).astype(np.float64)


def _box(rng: np.random.Generator, half_m: float) -> np.ndarray:
    """A box turned by any angle, without its underside."""
    width, depth = half_m * rng.uniform(0.8, 1.3, 2)
    height, angle = rng.uniform(0.4, 1.8), rng.uniform(0, np.pi)
    points = np.concatenate([
        _rectangle((width, depth), lambda u, v: (u, v, height)),
        *(_rectangle((width, height), lambda u, v, far=far: (u, far, v)) for far in (0.0, depth)),
        *(_rectangle((depth, height), lambda u, v, far=far: (far, u, v)) for far in (0.0, width)),
    ]) - [width / 2, depth / 2, 0]
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _cylinder(rng: np.random.Generator, half_m: float) -> np.ndarray:
    """An upright cylinder with its lid."""
    radius, height = half_m * rng.uniform(0.3, 0.9), rng.uniform(0.4, 1.6)
    side = _rectangle((2 * np.pi * radius, height), lambda u, v: (radius * np.cos(u / radius), radius * np.sin(u / radius), v))
    lid = _rectangle((2 * radius, 2 * radius), lambda u, v: (u - radius, v - radius, height))
    return np.concatenate([side, lid[np.hypot(lid[:, 0], lid[:, 1]) <= radius]])


def _ball(rng: np.random.Generator, half_m: float) -> np.ndarray:
    """A ball on the floor or at some height."""
    radius, raised = half_m * rng.uniform(0.5, 1.0), rng.uniform(0, 0.8)
    ball = _rectangle((2 * np.pi * radius, np.pi * radius), lambda u, v: (
        radius * np.cos(u / radius) * np.sin(v / radius), radius * np.sin(u / radius) * np.sin(v / radius),
        radius * np.cos(v / radius)))
    return ball + [0, 0, radius + raised]
