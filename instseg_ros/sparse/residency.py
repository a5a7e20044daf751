"""Which rows of a pyramid have their layers' outputs in memory, when not all of them may.

The map is divided into cubes, regions, that are wider than the network's reach, so that whatever a change can move, and
whatever is read for it, lies in the regions it touches and in those beside them. Regions are evicted whole: the one that was
not needed for longest first, or all that are far from where the map changes. A region without voxels is forgotten.
"""

__all__ = ["Residency", "reach_voxels"]

import math
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from instseg_ros.sparse.level import NEIGHBOR_OFFSETS, Level
from instseg_ros.sparse.neighborhood import nearest_radius
from instseg_ros.sparse.program import Program
from instseg_ros.sparse.pyramid import Pyramid

_NONE = np.zeros(0, np.int32)
_SMALLEST_EDGE_BITS = 6  # 64 voxels
_STEP = 2048  # rows by which the space for the finest outputs grows; a coarser level has about a quarter of the rows
_TILE_BYTES = 512_000_000  # of outputs computed at once where only the radius is limited
_LATELY = 3  # updates of which the median is where the map changes: one change far away does not move it


def reach_voxels(program: Program) -> int:
    """How far, in voxels of the finest level, an output can be from an input it depends on."""
    reach = {-1: 0}
    for i, layer in enumerate(program.layers):
        step = layer.dilation << layer.level if layer.table == "neighbors" else 0
        reach[i] = max(reach[layer.source] + step, 0 if layer.residual is None else reach[layer.residual])
    deepest = max(layer.level for layer in program.layers)
    refined = 0 if program.refinement is None else len(program.refinement.layers) * nearest_radius(program.refinement.k)
    return max(reach.values()) + (1 << deepest) - 1 + refined  # a voxel can stand at either end of the coarse one that holds it


class Residency:
    """Places of rows in the layers' outputs, by level.

    Args:
        program: whose outputs are held.
        budget_bytes: outputs that may be held between updates, 0 = any number.
        radius_voxels: regions further than this from where the map changed lately are evicted, 0 = none is for that.
        value_bytes: of one value of an output.
    """

    def __init__(self, program: Program, budget_bytes: int = 0, radius_voxels: float = 0.0, value_bytes: int = 4) -> None:
        self._budget = budget_bytes or math.inf
        self._radius = radius_voxels or math.inf
        depth = 1 + max(layer.level for layer in program.layers)
        self.row_bytes = np.array([value_bytes * sum(x.weight.shape[2] for x in program.layers if x.level == level) for level in range(depth)])
        self._bits = max(_SMALLEST_EDGE_BITS, int(np.ceil(np.log2(reach_voxels(program) + 1))))
        self.place = [_NONE for _ in range(depth)]
        """Per level [capacity] int32: where a row's outputs are, -1 = nowhere."""
        self.size = [0] * depth
        """Per level: places there are."""
        self._free = [_NONE for _ in range(depth)]
        self._region = [_NONE for _ in range(depth)]
        self._added = [_NONE for _ in range(depth)]  # by the newest update
        self._numbers: dict[tuple[int, ...], int] = {}
        self._unused: list[int] = []  # numbers of regions that were forgotten
        self._keys = np.zeros((0, 3), np.int64)
        self._count = np.zeros((0, depth), np.int64)
        self._members: list[list[list[np.ndarray]]] = []
        self._used: dict[int, int] = {}  # resident regions -> when they were last needed
        self._now = 0
        self._middles: deque[np.ndarray] = deque(maxlen=_LATELY)

    def __len__(self) -> int:
        """Regions with voxels."""
        return len(self._numbers)

    def follow(self, pyramid: Pyramid, removed: list[np.ndarray], added: list[np.ndarray], coords: np.ndarray) -> set[int]:
        """Take in which rows (per level) came and went; new ones have no place yet.

        Args:
            pyramid: after the update.
            removed, added: rows per level.
            coords: [n, 3] voxels of the finest level that are new, changed or gone.

        Returns:
            The regions that are needed now: those with these voxels and those beside them.
        """
        self._now += 1
        emptied: set[int] = set()
        for level, (gone, new) in enumerate(zip(removed, added, strict=True)):
            self._fit(level, pyramid.levels[level])
            self._release(level, gone)
            left, count = np.unique(self._region[level][gone], return_counts=True)
            self._count[left, level] -= count
            emptied.update(left.tolist())
            self._region[level][gone] = -1
            self._added[level] = new
            if len(new):
                self._enter(level, new, pyramid.levels[level].coords[new] >> (self._bits - level))
        for region in emptied:
            if not self._count[region].any():
                self._forget(region)
        if not len(coords):
            return set()
        self._middles.append(coords.mean(axis=0))
        return self._beside(np.unique(coords >> self._bits, axis=0))

    def fits(self, regions: Iterable[int]) -> bool:
        """May the outputs of the regions be held together?"""
        return self.bytes(regions) <= self._budget

    def around(self, regions: Iterable[int]) -> set[int]:
        """The regions and those beside them."""
        return self._beside(self._keys[list(regions)])

    def absent(self, regions: Iterable[int]) -> set[int]:
        """Those of the regions whose outputs are not held."""
        return {r for r in regions if r not in self._used}

    def rows(self, level: int, regions: Iterable[int]) -> np.ndarray:
        """Rows [n] int32 of a level that lie in the regions."""
        return np.concatenate([_NONE, *(self._own(level, r) for r in sorted(regions))])

    def bytes(self, regions: Iterable[int]) -> int:
        """What the outputs of the regions take."""
        return int((self._count[list(regions)] @ self.row_bytes).sum())

    def held_bytes(self) -> int:
        """What the outputs held now take."""
        return self.bytes(self._used)

    def admit(self, regions: Iterable[int]) -> None:
        """Give every row of the regions a place; the regions count as needed now."""
        regions = set(regions)
        lacking = self.absent(regions)
        for level, new in enumerate(self._added):
            rows = np.union1d(self.rows(level, lacking), new[np.isin(self._region[level][new], list(regions))])
            self._occupy(level, rows[self.place[level][rows] < 0])
        for region in regions:
            self._used[region] = self._now

    def evict(self, regions: Iterable[int]) -> None:
        """Let go of the outputs of regions."""
        for region in regions:
            if self._used.pop(region, None) is not None:
                for level in range(len(self.place)):
                    self._release(level, self._own(level, region))

    def make_room(self, wanted: Iterable[int], keep: Iterable[int] = ()) -> None:
        """Evict what was not needed for longest until the wanted regions fit into the budget beside the rest."""
        wanted, kept = set(wanted), {*wanted, *keep}
        total = self.bytes({*self._used, *wanted})
        for region in sorted(self._used, key=lambda r: (self._used[r], r)):
            if total <= self._budget:
                return
            if region not in kept:
                total -= self.bytes([region])
                self.evict([region])

    def shrink(self, near: Iterable[int] = ()) -> None:
        """Evict what is out of the radius, unless it is near the newest change, and then until what is held fits into the budget."""
        self.evict(self._far() - set(near))
        self.make_room(())

    def tiles(self, regions: Iterable[int]) -> Iterator[set[int]]:
        """The regions in groups that fit into the budget together with those beside them; a group has at least one."""
        tile: set[int] = set()
        most = self._budget if self._budget < math.inf else _TILE_BYTES
        for region in sorted(regions, key=lambda r: tuple(self._keys[r].tolist())):
            if tile and self.bytes(self.around({*tile, region})) > most:
                yield tile
                tile = set()
            tile.add(region)
        if tile:
            yield tile

    def _far(self) -> set[int]:
        """Resident regions of which no voxel is within the radius."""
        if self._radius == math.inf or not self._used or not self._middles:
            return set()
        held = np.array(list(self._used))
        low = self._keys[held] << self._bits
        nearest = np.clip(np.median(self._middles, axis=0), low, low + (1 << self._bits))
        distance = np.linalg.norm(nearest - np.median(self._middles, axis=0), axis=1)
        return set(held[distance > self._radius].tolist())

    def _beside(self, keys: np.ndarray) -> set[int]:
        """The regions with these keys [n, 3] and those beside them, as far as they have voxels."""
        found = (self._numbers.get(tuple(key)) for key in np.unique((keys[:, None] + NEIGHBOR_OFFSETS).reshape(-1, 3), axis=0).tolist())
        return {number for number in found if number is not None}

    def _enter(self, level: int, rows: np.ndarray, keys: np.ndarray) -> None:
        """New rows [n] lie in the regions with these keys [n, 3]."""
        unique, owner = np.unique(keys, axis=0, return_inverse=True)
        owner = owner.reshape(-1)
        numbers = np.array([self._number(tuple(key)) for key in unique.tolist()], np.int32)
        self._region[level][rows] = numbers[owner]
        self._count[numbers, level] += np.bincount(owner)
        order = np.argsort(owner, kind="stable")
        for number, part in zip(numbers.tolist(), np.split(rows[order], np.cumsum(np.bincount(owner))[:-1]), strict=True):
            self._members[number][level].append(part)

    def _number(self, key: tuple[int, ...]) -> int:
        number = self._numbers.get(key)
        if number is None:
            if not self._unused:
                have, more = len(self._keys), max(16, len(self._keys) // 2)
                self._unused = list(range(have + more - 1, have - 1, -1))
                self._keys = np.concatenate([self._keys, np.zeros((more, 3), np.int64)])
                self._count = np.concatenate([self._count, np.zeros((more, len(self.place)), np.int64)])
                self._members += [[[] for _ in self.place] for _ in range(more)]
            number = self._numbers[key] = self._unused.pop()
            self._keys[number] = key
        return number

    def _forget(self, region: int) -> None:
        """A region has no voxels any more."""
        del self._numbers[tuple(self._keys[region].tolist())]
        self._used.pop(region, None)
        self._members[region] = [[] for _ in self.place]
        self._unused.append(region)

    def _own(self, level: int, region: int) -> np.ndarray:
        """Rows [n] of a level in a region."""
        parts = self._members[region][level]
        if len(parts) != 1 or len(parts[0]) != self._count[region, level]:
            rows = np.unique(np.concatenate([_NONE, *parts]))
            parts[:] = [rows[self._region[level][rows] == region]]  # others have gone since
        return parts[0]

    def _fit(self, level: int, rows: Level) -> None:
        for arrays in (self.place, self._region):
            if len(arrays[level]) < rows.capacity:
                grown = np.full(rows.capacity, -1, np.int32)
                grown[: len(arrays[level])] = arrays[level]
                arrays[level] = grown

    def _occupy(self, level: int, rows: np.ndarray) -> None:
        short = len(rows) - len(self._free[level])
        if short > 0:
            step = max(32, _STEP >> (2 * level))
            more = -(-short // step) * step
            self._free[level] = np.concatenate([self._free[level], np.arange(self.size[level], self.size[level] + more, dtype=np.int32)])
            self.size[level] += more
        self.place[level][rows], self._free[level] = self._free[level][: len(rows)], self._free[level][len(rows) :]

    def _release(self, level: int, rows: np.ndarray) -> None:
        places = self.place[level][rows]
        self._free[level] = np.concatenate([places[places >= 0], self._free[level]])
        self.place[level][rows] = -1
