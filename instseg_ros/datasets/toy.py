"""Toy scenes: cuboids of five classes on a plane, some of them touching (MTML, Lahoud 2019, sec. 4.1).

The paper says this of its scenes: five object shapes, "represented by cubes with various edge lengths", are randomly oriented and
placed on a planar surface, and it is chosen at random whether an object touches another one; 900 scenes train, 100 test; the
input is a voxel grid with the class of each voxel. It leaves open the lengths, the number of objects, the size of the plane and
how often objects touch. What is chosen here, so that connected components of the true classes score about as in its Table 1:

* Surface voxels of 5 cm, as a fused map holds them: what another cuboid or the plane hides is not there.
* A plane of 2.4 to 3.2 m with 6 to 14 cuboids, each upright and turned about the vertical at random; no two overlap.
* Every cuboid after the first either touches one of its own class (`Shape.touch_same`), touches any other
  (`TOUCH_OTHER`), or stands at least `GAP_M` from all. Half of the touching ones stand face to face, the others at any angle.
  Connected components fail only where two of one class touch, so `touch_same` is what the five figures follow.
* Voxels are grey with a little noise: nothing but shape and the class given as input tells the classes apart.
"""

__all__ = ["SHAPES", "TOY_CLASSES", "Cuboid", "Shape", "make_toy_scene", "simulate_toy"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instseg_ros.datasets.scenes import VoxelScene, save_scene
from instseg_ros.datasets.vote import vote_voxels
from instseg_ros.errors import DataError
from instseg_ros.labels import class_index


@dataclass(frozen=True)
class Shape:
    """One of the five objects."""

    name: str
    """The class (of `labels.CLASS_NAMES`) that stands for it."""
    edges_m: tuple[float, float, float]
    """Length, width and height."""
    touch_same: float
    """Probability that a new one is put against one of its own class."""


SHAPES = (
    Shape("cabinet", (0.40, 0.40, 0.40), 0.11),
    Shape("bed", (0.80, 0.50, 0.25), 0.23),
    Shape("chair", (0.25, 0.25, 0.45), 0.21),
    Shape("sofa", (0.70, 0.35, 0.35), 0.10),
    Shape("table", (0.60, 0.60, 0.15), 0.40),
)
"""Obj1 to Obj5 of the paper's Table 1."""
TOY_CLASSES = tuple(class_index(shape.name) for shape in SHAPES)
"""Class index of Obj1 to Obj5."""
TOUCH_OTHER = 0.35
"""Probability that a cuboid that is not put against its own class is put against any object."""
GAP_M = 0.15
"""Least distance of cuboids that do not touch: at 5 cm, no voxels of the two are neighbours."""
OBJECTS = (6, 14)
PLANE_M = (2.4, 3.2)
GREY, GREY_NOISE = 150.0, 4.0
FLOOR = class_index("floor")
SPLITS = {"train": 0, "validation": 1, "test": 2}
DEFAULT_COUNTS = {"train": 900, "validation": 50, "test": 100}
_TRIES = 60


@dataclass(frozen=True)
class Cuboid:
    """An upright cuboid that stands on the plane z = 0."""

    shape: int
    """Index into `SHAPES`."""
    center_m: np.ndarray
    """[2] of its base."""
    yaw: float

    @property
    def half_m(self) -> np.ndarray:
        """[3] half its edges."""
        return np.array(SHAPES[self.shape].edges_m) / 2

    @property
    def axes(self) -> np.ndarray:
        """[2, 2] unit vectors of length and width, as rows."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, s], [-s, c]])

    def corners_m(self) -> np.ndarray:
        """[4, 2] corners of the base."""
        signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
        return self.center_m + (signs * self.half_m[:2]) @ self.axes

    def contains(self, points_m: np.ndarray) -> np.ndarray:
        """[N] bool: which of the points [N, 3] lie strictly inside."""
        inside = np.zeros(len(points_m), bool)
        reach = np.hypot(*self.half_m[:2])
        near = np.flatnonzero((np.abs(points_m[:, 0] - self.center_m[0]) < reach) & (np.abs(points_m[:, 1] - self.center_m[1]) < reach))
        local = np.column_stack([(points_m[near, :2] - self.center_m) @ self.axes.T, points_m[near, 2] - self.half_m[2]])
        inside[near] = (np.abs(local) < self.half_m - 1e-9).all(axis=1)
        return inside


def _separation(a: Cuboid, b: Cuboid) -> float:
    """Largest gap between the two bases along one of their four axes: negative if they overlap, at most their distance."""
    gaps = []
    for axis in np.concatenate([a.axes, b.axes]):
        reach = np.abs(a.axes @ axis) @ a.half_m[:2] + np.abs(b.axes @ axis) @ b.half_m[:2]
        gaps.append(abs((a.center_m - b.center_m) @ axis) - reach)
    return max(gaps)


def _against(shape: int, other: Cuboid, rng: np.random.Generator) -> Cuboid:
    """A cuboid that just touches another one, at a random side: half of the time face to face."""
    flush = rng.random() < 0.5
    yaw = other.yaw + rng.integers(4) * np.pi / 2 if flush else rng.uniform(0, 2 * np.pi)
    moved = Cuboid(shape, other.center_m, yaw)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    # rectangles are apart as soon as they are along one of their axes: the least step that gets there
    axes = np.concatenate([moved.axes, other.axes])
    reach = np.abs(axes @ moved.axes.T) @ moved.half_m[:2] + np.abs(axes @ other.axes.T) @ other.half_m[:2]
    step = (reach / np.maximum(np.abs(axes @ direction), 1e-9)).min()
    return Cuboid(shape, other.center_m + step * direction, yaw)


def _place(shape: int, placed: list[Cuboid], plane_m: np.ndarray, rng: np.random.Generator) -> Cuboid | None:
    """A cuboid that fits among the others, or None if none was found."""
    own = [c for c in placed if c.shape == shape]
    others = own if own and rng.random() < SHAPES[shape].touch_same else []
    if not others and placed and rng.random() < TOUCH_OTHER:
        others = [c for c in placed if c.shape != shape]
    for _ in range(_TRIES):
        target = others[rng.integers(len(others))] if others else None
        if target is not None:
            cuboid = _against(shape, target, rng)
        else:
            cuboid = Cuboid(shape, rng.uniform(0, plane_m), rng.uniform(0, 2 * np.pi))
        corners = cuboid.corners_m()
        if (corners < 0).any() or (corners > plane_m).any():
            continue
        if all(c is target or _separation(cuboid, c) >= GAP_M for c in placed):
            return cuboid
    return None


def _faces(cuboid: Cuboid, spacing_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] on the top and the four sides, and their outward normals [N, 3]; the base lies on the plane."""
    half, points, normals = cuboid.half_m, [], []
    lines = [(np.arange(n) + 0.5) / n * 2 - 1 for n in np.maximum(np.ceil(2 * half / spacing_m), 1).astype(int)]
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1)):
        u, v = (a for a in range(3) if a != axis)
        grid = np.stack(np.meshgrid(lines[u], lines[v], indexing="ij"), axis=-1).reshape(-1, 2)
        local = np.full((len(grid), 3), float(sign))
        local[:, [u, v]] = grid
        normal = np.zeros(3)
        normal[axis] = sign
        points.append(local * half)
        normals.append(np.repeat(normal[None], len(grid), axis=0))
    turn = np.eye(3)
    turn[:2, :2] = cuboid.axes
    offset = np.append(cuboid.center_m, half[2])
    return np.concatenate(points) @ turn + offset, np.concatenate(normals) @ turn


def _plane(plane_m: np.ndarray, spacing_m: float) -> tuple[np.ndarray, np.ndarray]:
    lines = [(np.arange(n) + 0.5) / n * size for n, size in zip(np.ceil(plane_m / spacing_m).astype(int), plane_m, strict=True)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.concatenate([grid, np.zeros((len(grid), 1))], axis=1), np.tile([0.0, 0.0, 1.0], (len(grid), 1))


def _surface(cuboids: list[Cuboid], plane_m: np.ndarray, voxel_size_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] of all that can be seen, and the cuboid [N] they are of (-1 = plane).

    A point is hidden if half a voxel in front of it there is another cuboid.
    """
    spacing_m = voxel_size_m / 4
    points, owners = [], []
    for number in range(-1, len(cuboids)):
        part, normals = _plane(plane_m, spacing_m) if number < 0 else _faces(cuboids[number], spacing_m)
        in_front = part + normals * (voxel_size_m / 2)
        hidden = np.zeros(len(part), bool)
        for other, cuboid in enumerate(cuboids):
            if other != number:
                hidden |= cuboid.contains(in_front)
        points.append(part[~hidden])
        owners.append(np.full(int((~hidden).sum()), number))
    return np.concatenate(points), np.concatenate(owners)


def make_toy_scene(seed: int | list[int], name: str = "toy", voxel_size_m: float = 0.05) -> VoxelScene:
    """One toy scene; the same for the same seed.

    Args:
        seed: of everything random in it.
        name: of the scene.
        voxel_size_m: edge of a voxel.

    Returns:
        Surface voxels: class floor for the plane, `TOY_CLASSES` for the cuboids, which are numbered from 0 on.
    """
    rng = np.random.default_rng(seed)
    plane_m = rng.uniform(*PLANE_M, size=2)
    cuboids: list[Cuboid] = []
    for shape in rng.integers(len(SHAPES), size=rng.integers(OBJECTS[0], OBJECTS[1] + 1)).tolist():
        cuboid = _place(shape, cuboids, plane_m, rng)
        if cuboid is not None:
            cuboids.append(cuboid)
    points_m, owner = _surface(cuboids, plane_m, voxel_size_m)
    # the plane runs through the middle of its voxels, and the grid lies anywhere on it
    points_m = points_m + np.append(rng.uniform(0, voxel_size_m, 2) - plane_m / 2, voxel_size_m / 2)
    classes = np.array([*(TOY_CLASSES[c.shape] for c in cuboids), FLOOR], np.uint8)[owner]
    voxels = vote_voxels(points_m, None, classes, owner.astype(np.int32), voxel_size_m)
    grey = np.clip(np.rint(rng.normal(GREY, GREY_NOISE, len(voxels.coords))), 0, 255).astype(np.uint8)
    metadata: dict[str, Any] = {
        "kind": "toy", "seed": seed, "objects": [SHAPES[c.shape].name for c in cuboids], "plane_m": plane_m.tolist(),
    }
    colors = np.repeat(grey[:, None], 3, axis=1)
    return VoxelScene(name, voxel_size_m, voxels.coords, colors, voxels.class_index, voxels.instance, metadata)


def simulate_toy(
    out: Path | str, seed: int = 1, counts: dict[str, int] | None = None, voxel_size_m: float = 0.05, progress: bool = True
) -> dict[str, list[int]]:
    """Write toy scenes to `out/<split>/toy_0000.npz` and on.

    Every scene has a seed of its own, made of `seed`, its split and its number, so no scene is in two splits.

    Args:
        out: folder of the data set.
        seed: the same seed gives the same files.
        counts: scenes per split; default `DEFAULT_COUNTS`.
        voxel_size_m: edge of a voxel.
        progress: show a progress bar.

    Returns:
        Voxels of every scene, per split.

    Raises:
        DataError: an unknown split, a negative number.
    """
    counts = DEFAULT_COUNTS if counts is None else counts
    if seed < 0 or set(counts) - set(SPLITS) or any(count < 0 for count in counts.values()):
        raise DataError(f"seed {seed}, counts {counts}: seed and counts must be 0 or more, the splits are {', '.join(SPLITS)}")
    sizes: dict[str, list[int]] = {}
    for split, count in counts.items():
        sizes[split] = []
        for number in tqdm(range(count), unit="scene", desc=split, disable=not progress):
            scene = make_toy_scene([seed, SPLITS[split], number], f"toy_{number:04d}", voxel_size_m)
            save_scene(Path(out) / split / f"{scene.name}.npz", scene)
            sizes[split].append(len(scene))
    return sizes
