"""A walk through a scene with a camera that looks where there is still something to see."""

__all__ = ["walk"]

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation, Slerp

from instseg_ros.datasets.camera import SceneRenderer
from instseg_ros.datasets.free_floor import FreeFloor, free_floor
from instseg_ros.errors import DataError
from instseg_ros.labels import BACKGROUND

KEY_FRAMES = 3
"""Frames from one chosen direction of view to the next."""
POINTS = 2500
"""Surface points whose coverage is counted."""
ENOUGH_VIEWS = 4.0
"""A surface point seen this often is not looked for any more."""
REACH_M = (0.6, 3.5)
"""From how far surfaces are seen well."""
YAW_STEPS_DEG = np.arange(-60, 61, 15)
PITCHES_DEG = np.array([-35, -20, -8, 5])
"""Camera directions to choose from at a key frame: turns from the last one, and angles above the horizon."""


@dataclass
class _Targets:
    """Surface points of a scene and how often each has been seen."""

    points: np.ndarray
    normals: np.ndarray
    weight: np.ndarray
    views: np.ndarray


def walk(renderer: SceneRenderer, seed: int, frames: int, floor: FreeFloor | None = None) -> np.ndarray:
    """Camera poses T_world_camera [frames, 4, 4] of a walk over the free floor, 0.9 to 1.7 m above it.

    The way leads past spread-out places of every part of the floor. On it the camera turns, within what a hand
    or a pan-tilt unit can do, to where it sees most of what has not been seen often enough.

    Args:
        renderer: the scene.
        seed: of way, heights and what is looked at.
        frames: length of the walk.
        floor: where one can stand; found by `free_floor` if it is not given.

    Raises:
        DataError: there is no free floor to stand on.
    """
    if frames < 1:
        raise DataError(f"a walk of {frames} frames: ask for at least 1")
    rng = np.random.default_rng([seed, 2])
    floor = floor or free_floor(renderer.mesh)
    ways = _ways(floor, rng)
    lengths = np.array([len(w) for w in ways], np.float64)
    ends = np.rint(np.cumsum(lengths) / lengths.sum() * frames).astype(int)
    targets = _targets(renderer, rng)
    poses = [
        _look_around(renderer, _eyes(way, count, floor, rng), targets, rng)
        for way, count in zip(ways, np.diff(ends, prepend=0), strict=True) if count > 0
    ]
    return np.concatenate(poses)


def _ways(floor: FreeFloor, rng: np.random.Generator) -> list[np.ndarray]:
    """One polyline [n, 2] (m) through each connected part of the free floor that is worth a visit."""
    parts, count = ndimage.label(floor.free)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    if count == 0:
        raise DataError(
            "there is no free floor in the scene: the camera needs 20 cells with nothing within 25 cm; remove furniture"
        )
    worth = np.flatnonzero(sizes >= max(20, 0.04 * sizes.max())) + 1
    return [_way(np.argwhere(parts == part), floor, rng) for part in worth]


def _way(cells: np.ndarray, floor: FreeFloor, rng: np.random.Generator) -> np.ndarray:
    """A polyline [n, 2] (m) of steps of one cell that visits places about 1.2 m apart in one part of the floor."""
    index = np.full(floor.free.shape, -1)
    index[tuple(cells.T)] = np.arange(len(cells))
    rows, columns, costs = [], [], []
    padded = np.pad(index, 1, constant_values=-1)
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
        other = padded[1 + cells[:, 0] + dx, 1 + cells[:, 1] + dy]
        there = np.flatnonzero(other >= 0)
        rows.append(there)
        columns.append(other[there])
        costs.append(np.full(len(there), float(np.hypot(dx, dy))))
    graph = csr_array((np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), shape=(len(cells),) * 2)
    here = int(rng.integers(len(cells)))
    distance, before = dijkstra(graph, directed=False, indices=[here], return_predecessors=True)
    here = int(np.argmax(np.where(np.isfinite(distance[0]), distance[0], -1)))  # start at an end of the floor
    nearest = np.full(len(cells), np.inf)
    stops = [here]
    while True:  # farthest-point sampling by walking distance
        nearest = np.minimum(nearest, dijkstra(graph, directed=False, indices=stops[-1]))
        reach = np.where(np.isfinite(nearest), nearest, -1)
        if reach.max() * floor.cell_m < 1.2 and len(stops) >= min(4, len(cells)):
            break
        if reach.max() <= 0:
            break
        stops.append(int(np.argmax(reach)))
    way, left = [here], set(stops[1:])
    while left:
        distance, before = dijkstra(graph, directed=False, indices=way[-1], return_predecessors=True)
        goal = min(left, key=lambda stop: distance[stop])
        left.discard(goal)
        steps = [goal]
        while steps[-1] != way[-1]:
            steps.append(int(before[steps[-1]]))
        way += steps[::-1][1:]
    return floor.origin_m + (cells[way] + 0.5) * floor.cell_m


def _eyes(way: np.ndarray, count: int, floor: FreeFloor, rng: np.random.Generator) -> np.ndarray:
    """Places of the camera [count, 3], evenly along a smoothed way, at slowly changing heights."""
    smooth = ndimage.gaussian_filter1d(way, 3.0, axis=0, mode="nearest")
    smooth = np.where(floor.is_free(smooth)[:, None], smooth, way)
    smooth = ndimage.gaussian_filter1d(smooth, 1.0, axis=0, mode="nearest")
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(smooth, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count)
    xy = np.stack([np.interp(at, length, smooth[:, k]) for k in (0, 1)], axis=1)
    middle, swing = rng.uniform(1.05, 1.5), rng.uniform(0.0, 0.2)
    phase = rng.uniform(0, 2 * np.pi) + at * rng.uniform(0.5, 1.5)
    height = np.clip(middle + swing * np.sin(phase), 0.9, 1.7)
    return np.column_stack([xy, floor.floor_z_m + height])


def _targets(renderer: SceneRenderer, rng: np.random.Generator) -> _Targets:
    """Points spread over the surfaces, as many on walls and floor as on everything else."""
    mesh = renderer.mesh
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    background = np.isin(mesh.face_class(), BACKGROUND)
    for kind in (background, ~background):
        area[kind] /= max(float(area[kind].sum()), 1e-12)
    face = rng.choice(len(area), POINTS, p=area / area.sum())
    a, b = rng.random((2, POINTS, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    c = corners[face]
    normals = cross[face] / np.maximum(np.linalg.norm(cross[face], axis=1, keepdims=True), 1e-12)
    points = c[:, 0] + a * (c[:, 1] - c[:, 0]) + b * (c[:, 2] - c[:, 0])
    return _Targets(points, normals, np.where(background[face], 0.7, 1.0), np.zeros(POINTS))


def _look_around(renderer: SceneRenderer, eyes: np.ndarray, targets: _Targets, rng: np.random.Generator) -> np.ndarray:
    """Poses [n, 4, 4] at the given places; `targets.views` counts on."""
    keys = np.unique(np.append(np.arange(0, len(eyes), KEY_FRAMES), len(eyes) - 1))
    yaw, pitch, rotations = rng.uniform(-180, 180), -15.0, []
    for k, key in enumerate(keys):
        turns = np.arange(-180, 180, 15) if k == 0 else YAW_STEPS_DEG
        grid = np.stack(np.meshgrid(yaw + turns, PITCHES_DEG, indexing="ij"), -1).reshape(-1, 2)
        candidates = _rotations(grid[:, 0], grid[:, 1], np.zeros(len(grid)))
        quality, inside = _views(renderer, eyes[key], candidates, targets)
        worth = (quality * targets.weight * np.maximum(1.0 - targets.views / ENOUGH_VIEWS, 0.02)) @ inside.T
        effort = 0.0015 * np.abs(grid[:, 0] - yaw) + 0.002 * np.abs(grid[:, 1] - pitch)
        worth = worth * (1.0 - effort) * rng.uniform(0.85, 1.0, len(grid))
        best = int(np.argmax(worth))
        yaw, pitch = grid[best]
        targets.views += quality * inside[best]
        rotations.append(_rotations(yaw + rng.normal(0, 3), pitch + rng.normal(0, 3), rng.normal(0, 2)))
    poses = np.tile(np.eye(4), (len(eyes), 1, 1))
    if len(keys) == 1:
        poses[:, :3, :3] = rotations[0]
    else:
        poses[:, :3, :3] = Slerp(keys, Rotation.from_matrix(np.stack(rotations)))(np.arange(len(eyes))).as_matrix()
    poses[:, :3, 3] = eyes
    return poses


def _rotations(yaw_deg: np.ndarray | float, pitch_deg: np.ndarray | float, roll_deg: np.ndarray | float) -> np.ndarray:
    """R_world_camera [..., 3, 3] of optical frames: yaw about z up, pitch above the horizon, roll about the axis of view."""
    yaw, pitch, roll = np.radians(yaw_deg), np.radians(pitch_deg), np.radians(roll_deg)
    zero = np.zeros_like(yaw)
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], -1)
    right = np.stack([np.sin(yaw), -np.cos(yaw), zero], -1)
    down = np.cross(forward, right)
    c, s = np.cos(roll)[..., None], np.sin(roll)[..., None]
    return np.stack([c * right + s * down, c * down - s * right, forward], -1)


def _views(
    renderer: SceneRenderer, eye: np.ndarray, R_world_camera: np.ndarray, targets: _Targets
) -> tuple[np.ndarray, np.ndarray]:
    """How well each point is seen from a place [N] (0 = hidden or far), and which are in the image of each rotation [C, N]."""
    to = targets.points - eye
    distance = np.linalg.norm(to, axis=1)
    slant = np.abs((to * targets.normals).sum(1)) / np.maximum(distance, 1e-9)
    quality = np.clip(slant / 0.5, 0.0, 1.0) * ((distance > REACH_M[0]) & (distance < REACH_M[1]))
    near = np.flatnonzero(quality > 0)
    quality[near] *= renderer.visible(eye, targets.points[near])
    camera = renderer.camera
    x, y, z = np.moveaxis(np.einsum("nk,ckj->cnj", to, R_world_camera), -1, 0)
    inside = (z > 0.3) & (np.abs(x) * camera.focal_px < z * camera.width / 2)
    inside &= np.abs(y) * camera.focal_px < z * camera.height / 2
    return quality, inside
