"""Where on a floor a camera can stand: a grid computed from a scene's triangles."""

__all__ = ["FreeFloor", "free_floor"]

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from instseg_ros.datasets.scene_mesh import SceneMesh
from instseg_ros.errors import DataError
from instseg_ros.labels import class_index


@dataclass(frozen=True)
class FreeFloor:
    """A grid over the floor.

    Attributes:
        free: [X, Y] bool, cells with floor below and enough room around.
        origin_m: [2], x and y of the corner of cell (0, 0).
        cell_m: edge of a cell.
        floor_z_m: height of the floor.
    """

    free: np.ndarray
    origin_m: np.ndarray
    cell_m: float
    floor_z_m: float

    def centers_m(self) -> np.ndarray:
        """Centres of the free cells [N, 2], m."""
        return self.origin_m + (np.argwhere(self.free) + 0.5) * self.cell_m

    def is_free(self, points: np.ndarray) -> np.ndarray:
        """Whether points [N, 2] (m) lie in free cells [N]."""
        cells = np.floor((np.asarray(points) - self.origin_m) / self.cell_m).astype(np.int64)
        inside = ((cells >= 0) & (cells < self.free.shape)).all(axis=1)
        result = np.zeros(len(cells), bool)
        result[inside] = self.free[tuple(cells[inside].T)]
        return result


def _samples(corners: np.ndarray, step: float) -> np.ndarray:
    """Points no more than about `step` apart on triangles [F, 3, 3]."""
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    parts = np.maximum(np.ceil(edges / step).astype(np.int64), 1)
    points = []
    for n in np.unique(parts):  # few different values: triangles of one size share their barycentric grid
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        keep = i + j <= n
        weights = np.stack([i[keep], j[keep], n - i[keep] - j[keep]], axis=1) / n
        points.append(np.einsum("bk,fkc->fbc", weights, corners[parts == n]).reshape(-1, 3))
    return np.concatenate(points) if points else np.zeros((0, 3))


def free_floor(mesh: SceneMesh, cell_m: float = 0.1, clearance_m: float = 0.25, low_m: float = 0.1,
        high_m: float = 1.6) -> FreeFloor:
    """The floor cells with nothing between two heights within a clearance, in connected parts of 20 cells or more.

    Args:
        mesh: the scene; faces of class floor tell where the floor is.
        cell_m: edge of a cell.
        clearance_m: least distance to whatever stands there.
        low_m, high_m: heights above the floor that must be free.

    Raises:
        DataError: the scene has no floor.
    """
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    is_floor = mesh.face_class() == class_index("floor")
    if not is_floor.any():
        raise DataError("the scene has no faces of class floor, so there is nowhere to stand; label its floor")
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1) / 2
    level = is_floor & (np.abs(normal[:, 2]) > 1.8 * area)
    if not level.any():
        level = is_floor
    heights = corners[level, :, 2].mean(axis=1)
    order = np.argsort(heights)
    share = np.cumsum(area[level][order]) / max(float(area[level].sum()), 1e-12)
    # A slab has as much underside as top: three quarters up is the top, and rugs do not matter.
    floor_z = float(heights[order][min(int(np.searchsorted(share, 0.75)), len(order) - 1)])
    origin = mesh.vertices[:, :2].min(axis=0).astype(np.float64) - cell_m
    shape = np.ceil((mesh.vertices[:, :2].max(axis=0) - origin) / cell_m).astype(np.int64) + 2

    def raster(triangles: np.ndarray, low: float, high: float) -> np.ndarray:
        touched = (triangles[:, :, 2].max(axis=1) >= low) & (triangles[:, :, 2].min(axis=1) <= high)
        points = _samples(triangles[touched], cell_m / 2)
        points = points[(points[:, 2] >= low) & (points[:, 2] <= high)]
        grid = np.zeros(shape, bool)
        grid[tuple(np.floor((points[:, :2] - origin) / cell_m).astype(np.int64).T)] = True
        return grid

    floor = raster(corners[level], floor_z - 0.1, floor_z + 0.1)
    occupied = raster(corners[~is_floor], floor_z + low_m, floor_z + high_m)
    away = ndimage.distance_transform_edt(~occupied) * cell_m if occupied.any() else np.full(shape, np.inf)
    parts, count = ndimage.label(floor & (away > clearance_m))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    return FreeFloor((parts > 0) & (sizes[parts] >= 20), origin, cell_m, floor_z)
