"""Simple solids put together to pieces of furniture: boxes, rods, prisms, cushions and sheets."""

__all__ = ["FurnitureModel", "ShapeBuilder", "rotation"]

from dataclasses import dataclass
from typing import Any

import numpy as np

Vec = Any  # anything numpy reads as three numbers


@dataclass(frozen=True)
class FurnitureModel:
    """A piece of furniture: centred on x and y, standing on z = 0, its front towards +y, its back to -y.

    Attributes:
        name: model or style name.
        kind: what a room asks for ("dining_chair", "desk", ...).
        class_name: its ScanNet class; '' = clutter without a class.
        vertices: [V, 3] float32, m.
        faces: [F, 3] int32.
        face_colors: [F, 3] uint8.
        support_z_m: height of the surface things can stand on; negative = none.
    """

    name: str
    kind: str
    class_name: str
    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray
    support_z_m: float = -1.0

    @property
    def size_m(self) -> np.ndarray:
        """Extent along x, y and z [3], m."""
        return self.vertices.max(axis=0) - self.vertices.min(axis=0)


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Rotation matrix [3, 3]: roll about x, then pitch about y, then yaw about z, radians."""
    (cz, sz), (cy, sy), (cx, sx) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return about_z @ about_y @ about_x


_BOX = np.array([[x, y, z] for z in (-0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
_BOX_FACES = np.array([
    [0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4], [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3,
        5], [3, 7, 5]])


def _grid_faces(rows: int, columns: int, wrap: bool) -> np.ndarray:
    """Triangles of a grid of vertices [rows * columns], optionally closed along the columns."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij")
    a = r * columns + c
    b = r * columns + (c + 1) % columns
    quads = np.stack([a, b, b + columns, a + columns], axis=-1).reshape(-1, 4)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


class ShapeBuilder:
    """Collects solids and makes one `FurnitureModel` of them."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._colors: list[np.ndarray] = []
        self._count = 0

    def add(self, vertices: np.ndarray, faces: np.ndarray, color: Vec) -> None:
        """Any triangles: vertices [V, 3], faces [F, 3], color [3] or [F, 3] in 0..255."""
        self._vertices.append(np.asarray(vertices, np.float64))
        self._faces.append(np.asarray(faces) + self._count)
        self._colors.append(np.broadcast_to(np.clip(np.asarray(color, np.float64), 0, 255), (len(faces), 3)).astype(np.uint8))
        self._count += len(vertices)

    def box(self, center: Vec, size: Vec, color: Vec, R: np.ndarray | None = None) -> None:
        """A box by its centre and size, turned by R about its centre."""
        corners = _BOX * np.asarray(size)
        self.add((corners if R is None else corners @ R.T) + np.asarray(center), _BOX_FACES, color)

    def slab(self, low: Vec, high: Vec, color: Vec) -> None:
        """A box between two corners."""
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        self.box((low + high) / 2, high - low, color)

    def rod(self, start: Vec, end: Vec, radius: float, color: Vec, end_radius: float | None = None, sides: int = 10) -> None:
        """A closed cylinder or cone frustum from start to end."""
        start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
        axis = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        u = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
        u /= np.linalg.norm(u)
        angle = np.arange(sides) * (2 * np.pi / sides) + np.pi / sides
        ring = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * np.cross(axis, u)
        last = radius if end_radius is None else end_radius
        vertices = np.concatenate([start + 0 * ring, start + radius * ring, end + last * ring, end + 0 * ring])
        self.add(vertices, _grid_faces(4, sides, True), color)

    def cushion(self, center: Vec, size: Vec, color: Vec, roundness: float = 0.5, R: np.ndarray | None = None,
            steps: int = 12) -> None:
        """A superellipsoid: roundness 0.1 is nearly a box, 1 an ellipsoid."""
        polar = np.linspace(-np.pi / 2, np.pi / 2, max(steps // 2 + 1, 5))
        around = np.arange(steps + 4) * (2 * np.pi / (steps + 4))

        def power(x: np.ndarray) -> np.ndarray:
            return np.sign(x) * np.abs(x) ** roundness

        p, a = np.meshgrid(polar, around, indexing="ij")
        unit = np.stack([power(np.cos(p)) * power(np.cos(a)), power(np.cos(p)) * power(np.sin(a)), power(np.sin(p))], axis=-1)
        points = unit.reshape(-1, 3) * np.asarray(size) / 2
        self.add((points if R is None else points @ R.T) + np.asarray(center), _grid_faces(len(polar), len(around), True),
            color)

    def prism(self, polygon: np.ndarray, low: float, high: float, color: Vec) -> None:
        """A polygon [P, 2] that is star-shaped about its mean, extruded from z = low to high."""
        count, middle = len(polygon), np.asarray(polygon).mean(axis=0)
        rings = [np.column_stack([xy, np.full(count, z)])
                 for xy, z in ((np.tile(middle, (count, 1)), low), (polygon, low), (polygon, high),
                         (np.tile(middle, (count, 1)), high))]
        self.add(np.concatenate(rings), _grid_faces(4, count, True), color)

    def sheet(self, points: np.ndarray, color: Vec) -> None:
        """An open surface through a grid of points [rows, columns, 3]."""
        rows, columns = points.shape[:2]
        self.add(points.reshape(-1, 3), _grid_faces(rows, columns, False), color)

    def first_color(self) -> np.ndarray:
        """Colour [3] of the first solid."""
        return self._colors[0][0]

    def raw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices [V, 3], faces [F, 3] and face colours [F, 3] of all solids, where they were put."""
        return np.concatenate(self._vertices), np.concatenate(self._faces), np.concatenate(self._colors)

    def finish(self, name: str, kind: str, class_name: str, support_z_m: float = -1.0) -> FurnitureModel:
        """The model, centred on x and y and put on the floor."""
        vertices, faces, colors = self.raw()
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        vertices = vertices - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
        return FurnitureModel(name, kind, class_name, vertices.astype(np.float32), faces.astype(np.int32), colors, support_z_m)
