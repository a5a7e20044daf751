"""Neighbourhoods of a level beyond the adjacent voxels: at a distance (dilated layers), and the k nearest (attention).

They are looked up by coordinates, so they do not depend on the order of rows, and what they reach is bounded and known.
"""

__all__ = ["DilatedTable", "NearestTable", "dilated_rows", "nearest_columns", "nearest_radius", "nearest_rows"]

import functools

import numpy as np

from instseg_ros.sparse.level import NEIGHBOR_OFFSETS, Level


def dilated_rows(level: Level, rows: np.ndarray, dilation: int) -> np.ndarray:
    """[n, 27] int32: the rows at `dilation` times the offsets of the 3x3x3 neighbourhood of rows in use [n], -1 = none."""
    return level.around(rows, NEIGHBOR_OFFSETS * np.int32(dilation))


def nearest_radius(k: int) -> int:
    """How far, in voxels along an axis, the k nearest are looked for: a surface has about nine others within one voxel, 24 within two."""
    return 1 if k <= 8 else 2 if k <= 24 else 3


@functools.lru_cache
def _by_distance(radius: int) -> np.ndarray:
    """Offsets [(2 radius + 1)^3 - 1, 3] of a window but for its middle, by distance; ties by x, then y, then z."""
    side = np.arange(-radius, radius + 1)
    window = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    order = np.argsort((window**2).sum(1), kind="stable")
    return window[order[1:]]


def nearest_columns() -> np.ndarray:
    """[26] int32: the columns of a table of neighbours [*, 27] by distance, which has the nearest where `nearest_radius` is 1."""
    columns: np.ndarray = ((_by_distance(1) + 1) @ np.array([9, 3, 1])).astype(np.int32)
    return columns


def nearest_rows(level: Level, rows: np.ndarray, k: int) -> np.ndarray:
    """[n, k] int32: the k nearest other voxels of rows in use [n] within a window of `nearest_radius(k)`, nearest first, -1 = no more.

    Of voxels at the same distance those of smaller x come first, then y, then z.
    """
    radius = nearest_radius(k)
    if radius == 1:  # the table of the neighbours has them all
        around = level.neighbors[rows][:, nearest_columns()]
    else:
        around = level.around(rows, _by_distance(radius))
    there = around >= 0
    place = np.cumsum(there, axis=1, dtype=np.int32) - 1
    n, column = np.nonzero(there & (place < k))
    found = np.full((len(rows), k), -1, np.int32)
    found[n, place[n, column]] = around[n, column]
    return found


class DilatedTable:
    """The neighbours at a distance of every row of a level, kept in place while the level changes."""

    def __init__(self, dilation: int) -> None:
        self.dilation = dilation
        self.table = np.full((0, 27), -1, np.int32)
        """[capacity, 27], -1 where there is none, and for rows not in use."""

    def load(self, level: Level) -> None:
        """Look up every row."""
        self.table = np.full((level.capacity, 27), -1, np.int32)
        rows = level.live_rows()
        self.table[rows] = dilated_rows(level, rows, self.dilation)

    def follow(self, level: Level, removed: np.ndarray, added: np.ndarray) -> np.ndarray:
        """Take in which rows came and went; returns the rows in use [n] whose neighbours changed, the added ones among them."""
        if len(self.table) < level.capacity:
            self.table = np.concatenate([self.table, np.full((level.capacity - len(self.table), 27), -1, np.int32)])
        left = self.table[removed]
        self._tell(left, np.full(len(removed), -1, np.int32))
        self.table[removed] = -1
        met = dilated_rows(level, added, self.dilation)
        self._tell(met, added)
        self.table[added] = met
        rows = level.reach((None, left.ravel()), (None, met.ravel()))
        return rows[level.alive[rows]]

    def _tell(self, around: np.ndarray, rows: np.ndarray) -> None:
        """Write rows [n] into the tables of those around them [n, 27]."""
        n, column = np.nonzero(around >= 0)
        self.table[around[n, column], 26 - column] = rows[n]


class NearestTable:
    """The k nearest other voxels of every row of a level, kept in place while the level changes."""

    def __init__(self, k: int) -> None:
        self.table = np.full((0, k), -1, np.int32)
        """[capacity, k], nearest first; old for rows not in use."""
        self._radius = nearest_radius(k)
        self._window = np.concatenate([_by_distance(self._radius), np.zeros((1, 3), np.int32)])

    def load(self, level: Level) -> None:
        """Look up every row."""
        self.table = np.full((level.capacity, self.table.shape[1]), -1, np.int32)
        self._write(level, level.live_rows())

    def follow(self, level: Level, retabled: np.ndarray, added: np.ndarray, removed_coords: np.ndarray) -> np.ndarray:
        """Take in a change; returns the rows in use [n] whose nearest may be others now.

        Args:
            retabled: rows whose neighbours changed, the added ones among them.
            added: new rows.
            removed_coords: [R, 3] voxels that went.
        """
        if len(self.table) < level.capacity:
            more = np.full((level.capacity - len(self.table), self.table.shape[1]), -1, np.int32)
            self.table = np.concatenate([self.table, more])
        rows = retabled
        if self._radius > 1:
            changed = np.concatenate([level.coords[added], removed_coords.astype(np.int32)])
            rows = level.reach((None, level.lookup((changed[:, None] + self._window).reshape(-1, 3))))
        self._write(level, rows)
        return rows

    def readers(self, level: Level, rows: np.ndarray) -> np.ndarray:
        """Rows in use [n], each once, that may have one of the given rows in use among their nearest, and these."""
        if self._radius == 1:
            return level.reach((level.neighbors, rows))
        return level.reach((None, level.around(rows, self._window).ravel()))

    def _write(self, level: Level, rows: np.ndarray) -> None:
        self.table[rows] = nearest_rows(level, rows, self.table.shape[1])
