"""The bare room: outline, walls, floor, and the doors, windows and pictures on the walls."""

__all__ = ["FloorPlan", "Wall", "build_shell", "random_plan"]

from dataclasses import dataclass, field

import numpy as np

from instseg_ros.datasets.palette import fabric, paint, wood
from instseg_ros.datasets.scene_mesh import SceneInstance, SceneMesh
from instseg_ros.datasets.shapes import ShapeBuilder
from instseg_ros.labels import class_index

Rng = np.random.Generator
Rect = tuple[float, float, float, float]


@dataclass(frozen=True)
class Wall:
    """A flat piece of wall; the room lies left of the way from start to end.

    Attributes:
        start, end: [2], m.
        region: index of the part of the plan it bounds.
        low_m, high_m: from where to where it reaches up.
    """

    start: np.ndarray
    end: np.ndarray
    region: int
    low_m: float
    high_m: float

    @property
    def length_m(self) -> float:
        """Length along the floor."""
        return float(np.linalg.norm(self.end - self.start))

    @property
    def along(self) -> np.ndarray:
        """Unit vector [2] from start to end."""
        return (self.end - self.start) / self.length_m

    @property
    def inward(self) -> np.ndarray:
        """Unit normal [2] into the room."""
        return np.array([-self.along[1], self.along[0]])


@dataclass
class FloorPlan:
    """An outline on the floor in the room's own frame.

    Attributes:
        polygon: [P, 2], m, counter-clockwise.
        regions: rectangles (x0, y0, x1, y1) to be furnished; two where a door opening joins two rooms.
        areas: overlapping rectangles whose union is the floor.
        tiles: disjoint rectangles whose union is the floor.
        walls: what stands around it.
        keep_free: rectangles no furniture may stand in (door openings).
        height_m: of the walls.
    """

    polygon: np.ndarray
    regions: list[Rect]
    areas: list[Rect]
    tiles: list[Rect]
    walls: list[Wall]
    keep_free: list[Rect] = field(default_factory=list)
    height_m: float = 2.5

    def contains(self, points: np.ndarray) -> bool:
        """Whether all points [N, 2] lie on the floor."""
        inside = np.zeros(len(points), bool)
        for x0, y0, x1, y1 in self.areas:
            inside |= (points[:, 0] >= x0) & (points[:, 0] <= x1) & (points[:, 1] >= y0) & (points[:, 1] <= y1)
        return bool(inside.all())


def _outline_walls(polygon: np.ndarray, region: int, height: float) -> list[Wall]:
    return [Wall(a, b, region, 0.0, height) for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=False)]


def _rectangle(rng: Rng, height: float) -> FloorPlan:
    w, d = rng.uniform(3.0, 6.5), rng.uniform(3.0, 5.5)
    polygon = np.array([(0, 0), (w, 0), (w, d), (0, d)], np.float64)
    rect = (0.0, 0.0, w, d)
    return FloorPlan(polygon, [rect], [rect], [rect], _outline_walls(polygon, 0, height), [], height)


def _l_shape(rng: Rng, height: float) -> FloorPlan:
    w, d = rng.uniform(4.5, 7.0), rng.uniform(4.2, 6.5)
    x, y = w * rng.uniform(0.45, 0.7), d * rng.uniform(0.45, 0.7)
    polygon = np.array([(0, 0), (w, 0), (w, y), (x, y), (x, d), (0, d)], np.float64)
    whole = (0.0, 0.0, w, d)
    return FloorPlan(
        polygon, [whole], [(0.0, 0.0, w, y), (0.0, 0.0, x, d)], [(0.0, 0.0, w, y), (0.0, y, x, d)], _outline_walls(polygon, 0,
            height), [], height)


def _two_rooms(rng: Rng, height: float) -> FloorPlan:
    """Two rectangles side by side; the wall between them has an opening without a door leaf."""
    a, b, t = rng.uniform(3.0, 4.5), rng.uniform(2.8, 4.2), rng.uniform(0.1, 0.2)
    da, db = rng.uniform(3.2, 5.0), rng.uniform(3.2, 5.0)
    top, gap = rng.uniform(2.0, 2.15), rng.uniform(0.85, 1.6)
    y0 = rng.uniform(0.3, min(da, db) - gap - 0.3)
    y1 = y0 + gap
    polygon = np.array([
        (0, 0), (a, 0), (a, y0), (a + t, y0), (a + t, 0), (a + t + b, 0), (a + t + b, db), (a + t, db), (a + t, y1), (a,
            y1), (a, da), (0, da)])
    left, right, door = (0.0, 0.0, a, da), (a + t, 0.0, a + t + b, db), (a - 0.01, y0, a + t + 0.01, y1)
    walls = []
    for k, (p, q) in enumerate(zip(polygon, np.roll(polygon, -1, axis=0), strict=False)):
        jamb = k in (2, 8)
        walls.append(Wall(p, q, 1 if 3 <= k <= 8 else 0, 0.0, top if jamb else height))
    walls.append(Wall(np.array([a, y0]), np.array([a, y1]), 0, top, height))
    walls.append(Wall(np.array([a + t, y1]), np.array([a + t, y0]), 1, top, height))
    keep = [(a - 0.5, y0, a + t + 0.5, y1)]
    return FloorPlan(polygon, [left, right], [left, right, door], [left, (a, y0, a + t, y1), right], walls, keep, height)


def random_plan(rng: Rng) -> FloorPlan:
    """A rectangle (60 %), an L (20 %) or two rooms joined by an opening (20 %)."""
    height, roll = rng.uniform(2.4, 2.8), rng.uniform()
    return _rectangle(rng, height) if roll < 0.6 else _l_shape(rng, height) if roll < 0.8 else _two_rooms(rng, height)


def _panel(b: ShapeBuilder, rng: Rng, origin: np.ndarray, u: np.ndarray, v: np.ndarray, step: float, color: np.ndarray,
        noise: float) -> None:
    """A parallelogram of tiles, each with its own shade of the colour."""
    nu, nv = (max(1, round(float(np.linalg.norm(s)) / step)) for s in (u, v))
    grid = (origin + (np.arange(nu + 1) / nu)[:, None, None] * u + (np.arange(nv + 1) / nv)[None, :, None] * v)
    i, j = np.meshgrid(np.arange(nu), np.arange(nv), indexing="ij")
    a = (i * (nv + 1) + j).ravel()
    quads = np.stack([a, a + nv + 1, a + nv + 2, a + 1], axis=1)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    shade = np.tile(rng.normal(0, noise, (nu * nv, 1)), (2, 1)) + np.tile(rng.normal(0, noise / 3, (nu * nv, 3)), (2, 1))
    b.add(grid.reshape(-1, 3), faces, color + shade)


def _on_wall(b: ShapeBuilder, wall: Wall, t: float, low: float, w: float, h: float, thick: float, color: np.ndarray) -> None:
    """A slab flush with the wall, centred t metres from its start."""
    xy = wall.start + wall.along * t + wall.inward * thick / 2
    c, s = wall.along
    b.box((xy[0], xy[1], low + h / 2), (w, thick, h), color, np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))


def _dress(b: ShapeBuilder, rng: Rng, plan: FloorPlan) -> None:
    """Doors, windows, pictures and skirting boards."""
    walls = [w for w in plan.walls if w.length_m > 1.3 and w.low_m == 0.0]
    skirting = rng.uniform() < 0.5
    for wall in walls:
        if skirting:
            _on_wall(b, wall, wall.length_m / 2, 0.0, wall.length_m, 0.08, 0.015, np.full(3, 225.0))
        if rng.uniform() < 0.35:
            w, t = rng.uniform(0.7, 1.8), rng.uniform(0.5, wall.length_m - 0.5)
            w = min(w, 2 * min(t, wall.length_m - t) - 0.1)
            low, h = rng.uniform(0.75, 1.0), rng.uniform(1.0, 1.4)
            _on_wall(b, wall, t, low, w, h, 0.03, np.full(3, rng.uniform(200, 245)))
            _on_wall(b, wall, t, low + 0.06, w - 0.12, h - 0.12, 0.034, np.array([150, 180, 205]) * rng.uniform(0.5, 1.2))
        for _ in range(rng.integers(0, 3)):
            w, h = rng.uniform(0.25, 1.1), rng.uniform(0.25, 0.8)
            t = rng.uniform(w / 2 + 0.05, wall.length_m - w / 2 - 0.05)
            low = rng.uniform(1.15, 1.6)
            _on_wall(b, wall, t, low, w, h, 0.025, wood(rng))
            _on_wall(b, wall, t, low + 0.03, w - 0.06, h - 0.06, 0.03, fabric(rng))
    for region in range(len(plan.regions)):
        own = [w for w in walls if w.region == region]
        if own and rng.uniform() < 0.8:
            wall = own[rng.integers(len(own))]
            w = rng.uniform(0.78, 0.98)
            t = rng.uniform(w / 2 + 0.1, wall.length_m - w / 2 - 0.1)
            color = wood(rng)
            _on_wall(b, wall, t, 0.0, w + 0.12, 2.08, 0.02, color * 0.9)
            _on_wall(b, wall, t, 0.0, w, 2.02, 0.04, color)
            side = wall.start + wall.along * (t + w * 0.4) + wall.inward * 0.07
            b.cushion((side[0], side[1], 1.02), (0.1, 0.1, 0.03), (120, 120, 120), 0.8, steps=8)
            here = np.stack([wall.start + wall.along * (t + s * w / 2) + wall.inward * e for s in (-1, 1) for e in (0.0, 0.6)])
            plan.keep_free.append((*here.min(axis=0).tolist(), *here.max(axis=0).tolist()))  # type: ignore[arg-type]


def build_shell(plan: FloorPlan, rng: Rng) -> SceneMesh:
    """Floor (instance 0, with rugs) and walls (instance 1, with doors, windows and pictures) as a mesh.

    Doors, windows and pictures count as wall: the recipe does not train those classes, and a house that has them
    should not surprise the network. Adds the space before doors to `plan.keep_free`.
    """
    floor, walls = ShapeBuilder(), ShapeBuilder()
    floor_color, step, noise = (wood(rng) if rng.uniform() < 0.6 else fabric(rng)), rng.uniform(0.2, 0.6), rng.uniform(1, 12)
    for x0, y0, x1, y1 in plan.tiles:
        _panel(floor, rng, np.array([x0, y0, 0.0]), np.array([x1 - x0, 0, 0]), np.array([0, y1 - y0, 0]), step, floor_color,
            noise)
    for x0, y0, x1, y1 in plan.regions:
        if rng.uniform() < 0.4:
            w, d = rng.uniform(0.3, 0.6) * (x1 - x0), rng.uniform(0.3, 0.6) * (y1 - y0)
            x, y = x0 + rng.uniform(0.05, 0.35) * (x1 - x0), y0 + rng.uniform(0.05, 0.35) * (y1 - y0)
            if plan.contains(np.array([(x, y), (x + w, y), (x + w, y + d), (x, y + d)])):
                _panel(floor, rng, np.array([x, y, 0.012]), np.array([w, 0, 0]), np.array([0, d, 0]), 0.3, fabric(rng), 6)
    common = paint(rng)
    for wall in plan.walls:
        color = common if rng.uniform() < 0.7 else paint(rng)
        rise = np.array([0, 0, wall.high_m - wall.low_m])
        _panel(walls, rng, np.array([*wall.start, wall.low_m]), np.array([*(wall.end - wall.start), 0]), rise, 0.5, color, 2.5)
    _dress(walls, rng, plan)
    parts = [(floor.raw(), "floor"), (walls.raw(), "wall")]
    base = len(parts[0][0][0])
    return SceneMesh(
        np.concatenate([p[0][0] for p in parts]).astype(np.float32),
        np.concatenate([parts[0][0][1], parts[1][0][1] + base]).astype(np.int32),
        np.concatenate([p[0][2] for p in parts]),
        np.repeat(np.arange(2), [len(p[0][1]) for p in parts]).astype(np.int32),
        [SceneInstance(name, class_index(name)) for _, name in parts],
    )
