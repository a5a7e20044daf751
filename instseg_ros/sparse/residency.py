"""Which rows of a pyramid have their layers' outputs in memory, when not all of them may.

The map is divided into cubes, regions, that are wider than the network's reach, so that whatever a change can move, and
whatever is read for it, lies in the regions it touches and in those beside them. Regions are evicted whole, the one that was
not needed for longest first.
"""

__all__ = ["Residency", "reach_voxels"]

from collections.abc import Iterable, Iterator

import numpy as np

from instseg_ros.sparse.level import NEIGHBOR_OFFSETS, Level
from instseg_ros.sparse.neighborhood import nearest_radius
from instseg_ros.sparse.program import Program
from instseg_ros.sparse.pyramid import Pyramid

_NONE = np.zeros(0, np.int32)
_SMALLEST_EDGE_BITS = 6  # 64 voxels
_STEP = 2048  # rows by which the space for the finest outputs grows; a coarser level has about a quarter of the rows


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
        budget_bytes: outputs that may be held between updates.
    """

    def __init__(self, program: Program, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        depth = 1 + max(layer.level for layer in program.layers)
        self.row_bytes = [4 * sum(x.weight.shape[2] for x in program.layers if x.level == level) for level in range(depth)]
        self._bits = max(_SMALLEST_EDGE_BITS, int(np.ceil(np.log2(reach_voxels(program) + 1))))
        self.place = [_NONE for _ in range(depth)]
        """Per level [capacity] int32: where a row's outputs are, -1 = nowhere."""
        self.size = [0] * depth
        """Per level: places there are."""
        self._free = [_NONE for _ in range(depth)]
        self._region = [_NONE for _ in range(depth)]
        self._numbers: dict[tuple[int, int, int], int] = {}
        self._keys: list[tuple[int, int, int]] = []
        self._members: list[list[list[np.ndarray]]] = []
        self._used: dict[int, int] = {}  # resident regions -> when they were last needed
        self._now = 0

    def follow(self, pyramid: Pyramid, removed: list[np.ndarray], added: list[np.ndarray]) -> None:
        """Take in which rows (per level) came and went; new ones have no place yet."""
        self._now += 1
        for level, (gone, new) in enumerate(zip(removed, added, strict=True)):
            self._fit(level, pyramid.levels[level])
            self._release(level, gone)
            self._region[level][gone] = -1
            if not len(new):
                continue
            keys, owner = np.unique(pyramid.levels[level].coords[new] >> (self._bits - level), axis=0, return_inverse=True)
            owner = owner.reshape(-1)
            numbers = np.array([self._number(tuple(key)) for key in keys.tolist()], np.int32)
            self._region[level][new] = numbers[owner]
            for i, number in enumerate(numbers):
                self._members[number][level].append(new[owner == i])

    def touched(self, coords: np.ndarray) -> set[int]:
        """Regions in which voxels [n, 3] of the finest level lie, and those with voxels beside them."""
        if not len(coords):
            return set()
        return self.around({self._number(tuple(key)) for key in np.unique(coords >> self._bits, axis=0).tolist()})

    def around(self, regions: Iterable[int]) -> set[int]:
        """The regions and those beside them."""
        found = set()
        for region in regions:
            for key in (np.array(self._keys[region]) + NEIGHBOR_OFFSETS).tolist():
                number = self._numbers.get(tuple(key))
                if number is not None:
                    found.add(number)
        return found

    def absent(self, regions: Iterable[int]) -> set[int]:
        """Those of the regions whose outputs are not held."""
        return {r for r in regions if r not in self._used}

    def rows(self, level: int, regions: Iterable[int]) -> np.ndarray:
        """Rows [n] int32 of a level that lie in the regions."""
        return np.concatenate([_NONE, *(self._own(level, r) for r in sorted(regions))])

    def bytes(self, regions: Iterable[int]) -> int:
        """What the outputs of the regions take."""
        regions = list(regions)
        return sum(size * sum(len(self._own(level, r)) for r in regions) for level, size in enumerate(self.row_bytes))

    def held_bytes(self) -> int:
        """What the outputs held now take."""
        return self.bytes(self._used)

    def admit(self, regions: Iterable[int]) -> None:
        """Give every row of the regions a place; the regions count as needed now."""
        regions = set(regions)
        for level in range(len(self.place)):
            rows = self.rows(level, regions)
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
        while self.bytes({*self._used, *wanted}) > self.budget_bytes:
            idle = [r for r in self._used if r not in kept]
            if not idle:
                return
            self.evict([min(idle, key=lambda r: (self._used[r], r))])

    def shrink(self) -> None:
        """Evict until what is held fits into the budget."""
        self.make_room(())

    def tiles(self, regions: Iterable[int]) -> Iterator[set[int]]:
        """The regions in groups that fit into the budget together with those beside them; a group has at least one."""
        tile: set[int] = set()
        for region in sorted(regions, key=lambda r: self._keys[r]):
            if tile and self.bytes(self.around({*tile, region})) > self.budget_bytes:
                yield tile
                tile = set()
            tile.add(region)
        if tile:
            yield tile

    def _number(self, key: tuple[int, ...]) -> int:
        x, y, z = key
        if (x, y, z) not in self._numbers:
            self._numbers[x, y, z] = len(self._keys)
            self._keys.append((x, y, z))
            self._members.append([[] for _ in self.place])
        return self._numbers[x, y, z]

    def _own(self, level: int, region: int) -> np.ndarray:
        parts = self._members[region][level]
        if len(parts) > 1:
            parts[:] = [np.unique(np.concatenate(parts))]
        if not parts:
            return _NONE
        parts[0] = parts[0][self._region[level][parts[0]] == region]  # others have gone since
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
