"""Voxels of a made-up building for benchmarks: any size within seconds, from no data and no furniture library.

A map's surfaces are thin, so a voxel has about ten of its 26 neighbours; what a sparse convolution costs depends on that, which
is why the benchmarks do not use random voxels. The building stands askew to the grid, as a real one does.
"""

__all__ = ["VOXEL_SIZE_M", "RoomOfSurfaces", "surface_voxels"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VOXEL_SIZE_M = 0.05
_SPACING_M = VOXEL_SIZE_M / 2  # between sampled points; half a voxel leaves no holes
_CELL_M = np.array([6.0, 5.0])  # pitch of the rooms
_GAP_M = 0.2  # at least this much between two rooms, so that no voxel is in both
_DOOR_M = (0.9, 2.0)  # width, height


@dataclass(frozen=True)
class RoomOfSurfaces:
    """One room of the building of `surface_voxels`."""

    coords: np.ndarray
    """[n, 3] int32, unique, and in no other room."""
    colors: np.ndarray
    """[n, 3] uint8."""
    surface: np.ndarray
    """[n] int64: 0 floor, 1 to 4 walls, then the furniture."""

    @classmethod
    def made_up(cls, room: int, seed: int) -> "RoomOfSurfaces":
        """The room of a number: rooms s * s to (s + 1) * (s + 1) - 1 stand around the square of those before, each beside the next."""
        angle = np.random.default_rng([seed, 0]).uniform(0.1, 0.7)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return cls(*_room_voxels(np.random.default_rng([seed, 1, room]), _cell(room) * _CELL_M, turn))


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
    coords, colors, total, room = [], [], 0, 0
    while total < count:
        one = RoomOfSurfaces.made_up(room, seed)
        coords.append(one.coords)
        colors.append(one.colors)
        total += len(one.coords)
        room += 1
    if not coords:
        return np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
    return np.concatenate(coords)[:count], np.concatenate(colors)[:count]


def _cell(room: int) -> np.ndarray:
    """Where a room stands: squares of rooms grow around the first one, so that the building is compact at any size."""
    shell = int(np.sqrt(room))
    rest = room - shell * shell
    return np.array([shell, rest] if rest <= shell else [2 * shell - rest, shell], np.float64)


def _room_voxels(rng: np.random.Generator, corner_m: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unique voxels of one room in grid order, colours, surfaces; where two surfaces share a voxel, the first one has it."""
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
    surface = np.repeat(np.arange(len(points)), [len(p) for p in points])
    return coords[first], np.clip(noisy, 0, 255).astype(np.uint8), surface[first]


def _objects(rng: np.random.Generator, size_m: np.ndarray) -> Iterator[np.ndarray]:
    """Surface points [n, 3] in m per object of a room with a corner at the origin, z >= 0."""
    height = rng.uniform(2.4, 2.8)
    middle_of_floor_m = VOXEL_SIZE_M / 2
    yield _points(*_grid(*size_m), middle_of_floor_m)
    u, v = _grid(size_m[0], height)
    door = rng.uniform(0.2, size_m[0] - _DOOR_M[0] - 0.2)
    wall = ~((u > door) & (u < door + _DOOR_M[0]) & (v < _DOOR_M[1]))
    yield _points(u[wall], 0.0, v[wall])
    yield _points(u, size_m[1], v)
    u, v = _grid(size_m[1], height)
    yield _points(0.0, u, v)
    yield _points(size_m[0], u, v)
    taken = np.zeros((0, 3))
    for _ in range(rng.integers(8, 16)):
        half = rng.uniform(0.15, 0.6)
        place = rng.uniform(half + 0.1, size_m - half - 0.1)
        if (np.linalg.norm(taken[:, :2] - place, axis=1) < taken[:, 2] + half).any():
            continue  # no room there
        taken = np.vstack([taken, [*place, half]])
        make = (_box, _box, _cylinder, _ball)[rng.integers(4)]
        yield make(rng, half) + [*place, middle_of_floor_m]


def _grid(length_m: float, width_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a rectangle: u [n] in 0..length, v [n] in 0..width."""
    axes = [np.linspace(0, size, int(np.ceil(size / _SPACING_M)) + 1) for size in (length_m, width_m)]
    u, v = np.meshgrid(*axes, indexing="ij")
    return u.ravel(), v.ravel()


def _points(x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float) -> np.ndarray:
    return np.stack(np.broadcast_arrays(x, y, z), -1)


def _box(rng: np.random.Generator, half_m: float) -> np.ndarray:
    """A box turned by any angle, without its underside."""
    width, depth = half_m * rng.uniform(0.8, 1.3, 2)
    height, angle = rng.uniform(0.4, 1.8), rng.uniform(0, np.pi)
    front, side = _grid(width, height), _grid(depth, height)
    points = np.concatenate([
        _points(*_grid(width, depth), height),
        _points(front[0], 0.0, front[1]), _points(front[0], depth, front[1]),
        _points(0.0, *side), _points(width, *side),
    ]) - [width / 2, depth / 2, 0]
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _cylinder(rng: np.random.Generator, half_m: float) -> np.ndarray:
    """An upright cylinder with its lid."""
    radius, height = half_m * rng.uniform(0.3, 0.9), rng.uniform(0.4, 1.6)
    around, z = _grid(2 * np.pi * radius, height)
    u, v = (a - radius for a in _grid(2 * radius, 2 * radius))
    lid = np.hypot(u, v) <= radius
    return np.concatenate([
        _points(radius * np.cos(around / radius), radius * np.sin(around / radius), z), _points(u[lid], v[lid], height),
    ])


def _ball(rng: np.random.Generator, half_m: float) -> np.ndarray:
    """A ball on the floor or at some height."""
    radius, raised = half_m * rng.uniform(0.5, 1.0), rng.uniform(0, 0.8)
    u, v = (a / radius for a in _grid(2 * np.pi * radius, np.pi * radius))
    return radius * _points(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)) + [0, 0, radius + raised]
