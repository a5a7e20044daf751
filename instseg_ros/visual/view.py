"""Where pictures are taken from: directions, parallel projection, and which voxels must go to see into a room."""

__all__ = ["Projection", "View", "cutaway"]

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """Where a picture is taken from, in parallel projection."""

    azimuth_deg: float = 35.0
    """The viewer stands in this direction from the map, counted from +x towards +y."""
    elevation_deg: float = 42.0
    """Height of the viewer over the horizon; 90 is straight from above."""

    @property
    def axes(self) -> np.ndarray:
        """[3, 3]: rows are the picture's right, its down, and the way the viewer looks, in the map frame."""
        azimuth, elevation = np.radians([self.azimuth_deg, self.elevation_deg])
        forward = -np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return np.stack([right, np.cross(forward, right), forward])


@dataclass(frozen=True)
class Projection:
    """How map coordinates become pixels."""

    axes: np.ndarray
    scale: float
    origin: np.ndarray

    def project(self, points_m: np.ndarray) -> np.ndarray:
        """Pixels (x, y) and depth (m) [N, 3] of points [N, 3]."""
        seen = np.asarray(points_m, np.float64) @ self.axes.T
        return np.concatenate([(seen[:, :2] - self.origin) * self.scale, seen[:, 2:]], axis=1)


def cutaway(
    points_m: np.ndarray,
    view: View,
    structure: np.ndarray | None = None,
    floor: np.ndarray | None = None,
    *,
    height_m: float = 2.1,
    stub_m: float = 0.15,
    reach_m: float = 2.5,
) -> np.ndarray:
    """Which voxels to draw so that one looks into the rooms: no ceiling, no walls between viewer and floor.

    Args:
        points_m: [N, 3] voxel centres.
        view: direction of the picture.
        structure: [N] bool, voxels of walls and what hangs on them (doors, windows, pictures, curtains); None = none known.
        floor: [N] bool, voxels of the floor; None = none known.
        height_m: everything higher than this over the floor is cut.
        stub_m: walls that are cut keep this height, so that the plan of the rooms stays visible.
        reach_m: a wall is cut if there is floor this close behind it.

    Returns:
        keep [N] bool.
    """
    if not len(points_m):
        return np.zeros(0, bool)
    has_floor = floor is not None and floor.sum() >= 50
    ground_m = (
        float(np.median(points_m[floor, 2])) if floor is not None and has_floor else float(np.percentile(points_m[:, 2], 1))
    )
    keep = points_m[:, 2] <= ground_m + height_m
    if structure is None or floor is None or not has_floor or view.elevation_deg > 80:
        return keep
    cell_m = 0.1
    low = points_m[:, :2].min(axis=0)
    cells = np.floor((points_m[:, :2] - low) / cell_m).astype(int)
    grid = np.zeros(cells.max(axis=0) + 1, bool)
    grid[tuple(cells[floor].T)] = True
    # a wall hides what lies behind it, away from the viewer: count the floor there and on the near side
    away = view.axes[2, :2] / np.linalg.norm(view.axes[2, :2])
    steps_m = np.arange(0.2, reach_m, cell_m)

    def floor_towards(direction: np.ndarray) -> np.ndarray:
        at = np.floor((points_m[structure, None, :2] + steps_m[:, None] * direction - low) / cell_m).astype(int)
        inside = ((at >= 0) & (at < np.array(grid.shape))).all(axis=2)
        at = np.clip(at, 0, np.array(grid.shape) - 1)
        return (grid[at[..., 0], at[..., 1]] & inside).sum(axis=1)

    hides = np.zeros(len(points_m), bool)
    hides[structure] = floor_towards(away) > np.maximum(3, floor_towards(-away) * 0.5)
    return keep & ~(hides & (points_m[:, 2] > ground_m + stub_m))
