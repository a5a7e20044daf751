"""Where furniture stands: oriented footprints that may touch and not overlap, spots along walls, at tables and on tops."""

__all__ = ["Arranger", "Placement"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.datasets.floor_plan import FloorPlan, Wall
from instseg_ros.datasets.shapes import FurnitureModel

_OVERLAP_M = 0.01  # how deep two footprints may run into each other and still only touch


@dataclass(frozen=True)
class Placement:
    """A model put into the room: turned by yaw about z, then moved to (x, y, z)."""

    model: FurnitureModel
    x: float
    y: float
    yaw: float
    z: float = 0.0

    def to_room(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 2] of the model's frame in the room."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray(points) @ np.array([[c, s], [-s, c]]) + (self.x, self.y)

    def corners(self, shrink: float = 0.0) -> np.ndarray:
        """Corners of the footprint [4, 2], counter-clockwise."""
        w, d = np.maximum(self.model.size_m[:2] / 2 - shrink, 0.01)
        return self.to_room(np.array([(-w, -d), (w, -d), (w, d), (-w, d)]))

    def vertices(self) -> np.ndarray:
        """The model's vertices in the room [V, 3] float32."""
        moved = np.empty_like(self.model.vertices)
        moved[:, :2] = self.to_room(self.model.vertices[:, :2])
        moved[:, 2] = self.model.vertices[:, 2] + self.z
        return moved


def _overlaps(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which rectangles [N, 4, 2] overlap the rectangle [4, 2]: separating axes [N] bool."""
    hit = np.ones(len(others), bool)
    for axes in (np.broadcast_to(np.stack([one[1] - one[0], one[3] - one[0]]), (len(others), 2, 2)),
                 np.stack([others[:, 1] - others[:, 0], others[:, 3] - others[:, 0]], axis=1)):
        mine, theirs = np.einsum("pk,nak->nap", one, axes), np.einsum("npk,nak->nap", others, axes)
        hit &= ((mine.max(axis=2) > theirs.min(axis=2)) & (theirs.max(axis=2) > mine.min(axis=2))).all(axis=1)
    return hit


class Arranger:
    """Puts furniture into a floor plan and remembers what stands where."""

    def __init__(self, plan: FloorPlan, rng: np.random.Generator) -> None:
        self.plan = plan
        self.rng = rng
        self.placed: list[Placement] = []
        self.on_top: list[Placement] = []
        self.attached: list[Placement] = []  # parts of something placed, inside its footprint
        self._blocked = np.array([[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in plan.keep_free]).reshape(-1,
            4, 2)

    def fits(self, new: Placement, partners: tuple[Placement, ...] = ()) -> bool:
        """Whether it stands on the floor and runs into nothing but its partners."""
        corners = new.corners(_OVERLAP_M)
        if not self.plan.contains(np.concatenate([corners, (corners + np.roll(corners, 1, axis=0)) / 2])):
            return False
        low, high = new.z, new.z + float(new.model.size_m[2])
        if low < 2.0 and len(self._blocked) and _overlaps(corners, self._blocked).any():
            return False
        near = [p for p in self.placed if all(p is not q for q in partners) and p.z < high and low < p.z + p.model.size_m[2]]
        return not near or not _overlaps(corners, np.stack([p.corners() for p in near])).any()

    def put(self, new: Placement, partners: tuple[Placement, ...] = ()) -> Placement | None:
        """Adds it if it fits."""
        if not self.fits(new, partners):
            return None
        self.placed.append(new)
        return new

    def walls(self, region: int) -> list[Wall]:
        """The walls of a region furniture can stand at."""
        return [w for w in self.plan.walls if w.region == region and w.low_m == 0.0 and w.length_m > 0.6]

    def at_wall(self, model: FurnitureModel, region: int, gap: float = 0.0, z: float = 0.0, wall: Wall | None = None,
                tries: int = 12, turn: float = 0.0) -> Placement | None:
        """Somewhere along a wall with its back to it; a third of the time in a corner."""
        walls = [wall] if wall is not None else self.walls(region)
        w, d = model.size_m[:2]
        for _ in range(tries):
            one = walls[self.rng.integers(len(walls))]
            if one.length_m < w + 0.02:
                continue
            t = self.rng.uniform(w / 2, one.length_m - w / 2)
            if self.rng.uniform() < 0.33:
                t = (w / 2 + 0.005, one.length_m - w / 2 - 0.005)[self.rng.integers(2)]
            spot = one.start + one.along * t + one.inward * (d / 2 + gap + 0.005)
            done = self.put(Placement(model, spot[0], spot[1], float(np.arctan2(one.along[1], one.along[0])) + turn, z))
            if done:
                return done
        return None

    def beside(self, model: FurnitureModel, other: Placement, gap: float = 0.0, z: float | None = None) -> Placement | None:
        """At the left or right of another, backs in line."""
        first = (-1, 1)[self.rng.integers(2)]
        for side in (first, -first):
            x = side * ((model.size_m[0] + other.model.size_m[0]) / 2 + gap)
            spot = other.to_room(np.array([[x, (model.size_m[1] - other.model.size_m[1]) / 2]]))[0]
            done = self.put(Placement(model, spot[0], spot[1], other.yaw, other.z if z is None else z))
            if done:
                return done
        return None

    def relative(self, model: FurnitureModel, other: Placement, x: float, y: float, turn: float,
            touching: bool = False) -> Placement | None:
        """At (x, y) of another's frame, turned against it; `touching` allows it to be partly under the other."""
        spot = other.to_room(np.array([[x, y]]))[0]
        return self.put(Placement(model, spot[0], spot[1], other.yaw + turn), (other,) if touching else ())

    def anywhere(self, model: FurnitureModel, region: int, tries: int = 12) -> Placement | None:
        """Free in the room, turned at random."""
        x0, y0, x1, y1 = self.plan.regions[region]
        for _ in range(tries):
            yaw = self.rng.uniform(-np.pi, np.pi) if self.rng.uniform() < 0.6 else self.rng.integers(4) * np.pi / 2
            done = self.put(Placement(model, self.rng.uniform(x0, x1), self.rng.uniform(y0, y1), yaw))
            if done:
                return done
        return None

    def on(self, model: FurnitureModel, support: Placement, x: float | None = None, y: float | None = None,
            turn: float = 0.0) -> Placement | None:
        """On the top of another, where nothing stands yet; x and y are shares (-1 to 1) of half its size."""
        if support.model.support_z_m <= 0:
            return None
        half = support.model.size_m[:2] / 2
        if max(model.size_m[:2] / 2) > 0.9 * max(half) or min(model.size_m[:2] / 2) > 0.9 * min(half):
            return None
        reach = np.maximum(half - np.linalg.norm(model.size_m[:2]) / 2, 0.0)
        for _ in range(6):
            share = np.array([self.rng.uniform(-1, 1) if v is None else v for v in (x, y)])
            if x is None and y is None:
                share /= max(1.0, float(np.linalg.norm(share)))
            spot = support.to_room((share * reach)[None])[0]
            new = Placement(model, spot[0], spot[1], support.yaw + turn, support.z + support.model.support_z_m)
            if not self.on_top or not _overlaps(new.corners(0.005), np.stack([p.corners() for p in self.on_top])).any():
                self.on_top.append(new)
                return new
        return None

    def covered(self) -> float:
        """Share of the floor under furniture."""
        x0, y0 = self.plan.polygon.min(axis=0)
        px, py = (self.plan.polygon - (x0, y0)).T
        area = 0.5 * abs(float(np.dot(px, np.roll(py, -1)) - np.dot(py, np.roll(px, -1))))
        return float(sum(p.model.size_m[0] * p.model.size_m[1] for p in self.placed if p.z < 0.5)) / area
