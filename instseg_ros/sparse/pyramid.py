"""The pyramid: the same voxels at strides 1, 2, 4, ..., with tables between the levels, updated in place."""

__all__ = ["LevelTables", "Pyramid", "PyramidDelta", "Tables", "build_tables"]

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from instseg_ros.sparse.level import SELF, Level
from instseg_ros.sparse.neighborhood import dilated_rows, nearest_rows


@dataclass(frozen=True)
class PyramidDelta:
    """Rows that came and went, per level (a removed row may be among the added ones, with another voxel)."""

    added: list[np.ndarray]
    removed: list[np.ndarray]
    retabled: list[np.ndarray]
    """Rows in use whose neighbour table changed, the added ones among them."""
    rechilded: list[np.ndarray]
    """Rows in use whose children changed (none at the finest level), the added ones among them."""


@dataclass(frozen=True)
class LevelTables:
    """What the layers of one level read: rows of inputs, -1 where there is none."""

    neighbors: Tensor
    """[N, 27] int32, 3x3x3 neighbourhood within the level."""
    children: Tensor | None
    """[N, 8] int32 rows of the finer level inside each voxel (None at the finest)."""
    up: Tensor | None
    """[N, 8] int32: the row of the coarser level in the column of this voxel's octant, -1 elsewhere (None at the coarsest)."""
    source: Level | None = None
    """The level they are of, which is asked for what few networks read."""
    _asked: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def read(self, table: str, dilation: int = 1) -> Tensor:
        """The table of a layer: `neighbors` [N, 27], at a distance if dilated, `self` [N, 1], `children` or `up` [N, 8]."""
        if table == "self":
            return self._ask("self", 1)
        found: Tensor = getattr(self, table) if dilation == 1 else self._ask("dilated", dilation)
        return found

    def nearest(self, k: int) -> Tensor:
        """[N, k] int32: the k nearest other voxels, nearest first, -1 beyond those there are (`neighborhood.nearest_rows`)."""
        return self._ask("nearest", k)

    def coords(self) -> Tensor:
        """[N, 3] int32: the voxels themselves (rows that are not in use hold anything)."""
        return self._ask("coords", 0)

    def to(self, device: torch.device | str) -> "LevelTables":
        """The same tables on a device."""
        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device)

        asked = {name: t.to(device) for name, t in self._asked.items()}
        return LevelTables(self.neighbors.to(device), move(self.children), move(self.up), self.source, asked)

    def _ask(self, kind: str, number: int) -> Tensor:
        """Made when it is first asked for and kept: most networks read none of these."""
        if (kind, number) not in self._asked:
            if kind == "self":
                table = self.neighbors[:, SELF : SELF + 1].contiguous()
            else:
                assert self.source is not None, "tables made by hand have no voxels to look up"
                if kind == "coords":
                    return torch.from_numpy(self.source.coords[: len(self.neighbors)]).to(self.neighbors.device)
                make = dilated_rows if kind == "dilated" else nearest_rows
                rows = self.source.live_rows()
                found = make(self.source, rows, number)
                table = torch.full((len(self.neighbors), found.shape[1]), -1, dtype=torch.int32)
                table[torch.from_numpy(rows).long()] = torch.from_numpy(found)
                table = table.to(self.neighbors.device)
            self._asked[kind, number] = table
        return self._asked[kind, number]


@dataclass(frozen=True)
class Tables:
    """The tables of all levels, finest first."""

    levels: list[LevelTables]

    def to(self, device: torch.device | str) -> "Tables":
        """The same tables on a device."""
        return Tables([level.to(device) for level in self.levels])


class _Touched:
    """Rows per level (with repetitions, -1 and dead ones among them) whose tables an operation changes."""

    def __init__(self, depth: int) -> None:
        self.tables: list[list[np.ndarray]] = [[] for _ in range(depth)]
        self.children: list[list[np.ndarray]] = [[] for _ in range(depth)]


def _in_use(level: Level, parts: list[np.ndarray]) -> np.ndarray:
    rows = level.reach(*((None, part) for part in parts))
    return rows[level.alive[rows]]


def _octant(coords: np.ndarray) -> np.ndarray:
    low = coords & 1
    return (low[:, 0] << 2) | (low[:, 1] << 1) | low[:, 2]


class Pyramid:
    """Levels of stride 2**l over one set of voxels.

    A voxel of level l + 1 exists while at least one of its eight children does.
    """

    def __init__(self, depth: int) -> None:
        self.levels = [Level() for _ in range(depth)]
        self.children = [np.full((0, 8), -1, np.int32) for _ in range(depth - 1)]
        """children[l] [capacity of level l + 1, 8]: rows of level l."""
        self.up = [np.full((0, 8), -1, np.int32) for _ in range(depth - 1)]
        """up[l] [capacity of level l, 8]: the row of level l + 1 in the column of the voxel's octant."""

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.levels)

    def parent(self, level: int, rows: np.ndarray) -> np.ndarray:
        """Rows of level `level + 1` that hold the given rows of level `level`."""
        return self.up[level][rows].max(axis=1)

    def insert(self, coords: np.ndarray) -> list[np.ndarray]:
        """Insert absent voxels [M, 3] of the finest level; returns the new rows of every level."""
        return self._insert(coords, _Touched(self.depth))

    def remove(self, rows: np.ndarray) -> list[np.ndarray]:
        """Remove rows of the finest level; returns the rows that vanish from every level."""
        return self._remove(rows, _Touched(self.depth))

    def apply(self, removed_rows: np.ndarray, new_coords: np.ndarray) -> PyramidDelta:
        """Remove rows, then insert voxels; both of the finest level."""
        touched = _Touched(self.depth)
        removed = self._remove(removed_rows, touched)
        added = self._insert(new_coords, touched)
        retabled, rechilded = ([_in_use(*pair) for pair in zip(self.levels, parts, strict=True)] for parts in (touched.tables, touched.children))
        return PyramidDelta(added, removed, retabled, rechilded)

    def _insert(self, coords: np.ndarray, touched: "_Touched") -> list[np.ndarray]:
        added = [self.levels[0].insert(coords)]
        for below in range(self.depth - 1):
            rows, fine, coarse = added[below], self.levels[below], self.levels[below + 1]
            owner, new = coarse.ensure(fine.coords[rows] >> 1)
            added.append(new)
            self._fit(below)
            octant = _octant(fine.coords[rows])
            self.children[below][owner, octant] = rows
            self.up[below][rows, octant] = owner
            touched.children[below + 1].append(owner)
        for level, rows in enumerate(added):
            touched.tables[level].append(self.levels[level].neighbors[rows].ravel())
        return added

    def _remove(self, rows: np.ndarray, touched: "_Touched") -> list[np.ndarray]:
        removed = [np.asarray(rows, np.int32)]
        for below in range(self.depth - 1):
            gone = removed[below]
            octant = _octant(self.levels[below].coords[gone])
            owner = self.up[below][gone, octant]
            self.children[below][owner, octant] = -1
            self.up[below][gone] = -1
            owner = np.unique(owner)
            touched.children[below + 1].append(owner)
            removed.append(owner[(self.children[below][owner] < 0).all(axis=1)])
        for i, gone in enumerate(removed):
            touched.tables[i].append(self.levels[i].neighbors[gone].ravel())
            self.levels[i].remove(gone)
        return removed

    def tables(self) -> Tables:
        """The tables over all rows ever used, sharing memory with the pyramid (dead rows read nothing)."""
        levels = []
        for i, level in enumerate(self.levels):
            n = level.high_water
            levels.append(LevelTables(
                torch.from_numpy(level.neighbors[:n]),
                torch.from_numpy(self.children[i - 1][:n]) if i else None,
                torch.from_numpy(self.up[i][:n]) if i < self.depth - 1 else None,
                level,
            ))
        return Tables(levels)

    def nbytes(self) -> int:
        """Memory held by all tables, bytes."""
        return sum(level.nbytes() for level in self.levels) + sum(a.nbytes for a in self.children + self.up)

    def _fit(self, below: int) -> None:
        """Let the tables between two levels grow with them."""
        for tables, size in ((self.up, self.levels[below].capacity), (self.children, self.levels[below + 1].capacity)):
            if len(tables[below]) < size:
                grown = np.full((size, 8), -1, np.int32)
                grown[: len(tables[below])] = tables[below]
                tables[below] = grown


def build_tables(coords: np.ndarray, depth: int) -> Tables:
    """Tables for a fixed set of unique voxels [N, 3]; row i of the finest level is voxel i."""
    pyramid = Pyramid(depth)
    pyramid.insert(coords)
    return pyramid.tables()
