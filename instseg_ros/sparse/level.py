"""One level of the voxel pyramid: rows of voxels with a chunked slot table and a neighbour table kept in place."""

__all__ = ["CHUNK", "NEIGHBOR_OFFSETS", "SELF", "Level"]

import numpy as np

from instseg_ros.sparse import kernels

CHUNK = 16
"""Voxels on a side of a chunk."""

NEIGHBOR_OFFSETS = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(27, 3).astype(np.int32)
"""[27, 3]: column k of a neighbour table holds the voxel at this offset; column 26 - k is its opposite."""

SELF = 13
"""The column of a neighbour table that holds the voxel itself."""

_OPPOSITE = 26 - np.arange(27)


def _chunk_keys(chunk_coords: np.ndarray) -> np.ndarray:
    c = chunk_coords.astype(np.int64) + (1 << 20)
    return (c[..., 0] << 42) | (c[..., 1] << 21) | c[..., 2]


def _chunk_coords(keys: np.ndarray) -> np.ndarray:
    low = (1 << 21) - 1
    return np.stack([keys >> 42, (keys >> 21) & low, keys & low], axis=-1) - (1 << 20)


class Level:
    """A set of voxels in which every voxel has a lasting row.

    A row stays with its voxel until the voxel is removed and is given to another voxel then. Chunks of 16x16x16 voxels
    hold dense tables from place to row, so a neighbour is found by two array look-ups and no probing.
    """

    def __init__(self) -> None:
        self.coords = np.zeros((0, 3), np.int32)
        """[capacity, 3] voxel indices (stale where not alive)."""
        self.neighbors = np.full((0, 27), -1, np.int32)
        """[capacity, 27] rows of the 3x3x3 neighbourhood, itself in column 13, -1 where there is none."""
        self.alive = np.zeros(0, bool)
        """[capacity] whether the row holds a voxel."""
        self._free = np.zeros(0, np.int32)
        self._high = 0  # rows from here on were never used
        self._chunk_of = np.zeros(0, np.int32)
        self._slots = np.full((0, CHUNK**3), -1, np.int32)
        self._chunk_neighbors = np.full((0, 27), -1, np.int32)
        self._chunk_size = np.zeros(0, np.int32)
        self._chunk_key = np.zeros(0, np.int64)
        self._sorted_keys = np.zeros(0, np.int64)
        self._sorted_chunks = np.zeros(0, np.int32)
        self._stamp = np.zeros(0, np.int32)  # scratch of `reach`
        self._epoch = 0

    @property
    def capacity(self) -> int:
        """Rows of the arrays."""
        return len(self.coords)

    @property
    def high_water(self) -> int:
        """No row from here on was ever used: whole-map work can stop there."""
        return self._high

    def __len__(self) -> int:
        return self._high - len(self._free)

    def live_rows(self) -> np.ndarray:
        """Rows in use [n] int32, ascending."""
        return np.flatnonzero(self.alive[: self._high]).astype(np.int32)

    def free_rows(self) -> np.ndarray:
        """Rows that were freed and not used again [n] int32; the last is given out first."""
        return self._free.copy()

    def arrange(self, rows: np.ndarray, free: np.ndarray) -> None:
        """Let an empty, unused level give its next voxels these rows, and be free of the others in this order; together they are 0..n."""
        self._high = len(rows) + len(free)
        self._free = np.concatenate([free, rows[::-1]]).astype(np.int32)

    def lookup(self, coords: np.ndarray) -> np.ndarray:
        """Rows [M] int32 of the voxels [M, 3], -1 where there is none."""
        coords = np.ascontiguousarray(coords, np.int32)
        chunk, _ = kernels.find_chunks(coords, self._sorted_keys, self._sorted_chunks)
        return kernels.lookup(coords, chunk, self._slots)

    def around(self, rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Rows [n, K] int32 of the voxels at offsets [K, 3] from rows in use [n], -1 where there is none."""
        return self.lookup((self.coords[rows][:, None] + offsets[None]).reshape(-1, 3)).reshape(len(rows), len(offsets))

    def insert(self, coords: np.ndarray) -> np.ndarray:
        """Give rows to voxels that are not in the level yet.

        Args:
            coords: [M, 3] int32, unique, none of them present (the caller has looked).

        Returns:
            [M] int32 rows, freed ones first.
        """
        coords = np.ascontiguousarray(coords, np.int32)
        return self._insert(coords, self._ensure_chunks(coords))

    def ensure(self, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [M] int32 of the voxels [M, 3], repetitions allowed; absent ones are inserted. Also the new rows, once each."""
        coords = np.ascontiguousarray(coords, np.int32)
        rows, absent = kernels.number_absent(coords, self._ensure_chunks(coords), self._slots)
        new = self.insert(absent)
        numbered = rows < 0
        rows[numbered] = new[-2 - rows[numbered]]
        return rows, new

    def remove(self, rows: np.ndarray) -> None:
        """Free rows in use; chunks that become empty are freed too."""
        if not len(rows):
            return
        rows = np.ascontiguousarray(rows, np.int32)
        chunk = self._chunk_of[rows]
        kernels.remove(self.coords[rows], chunk, rows, self._slots, self.neighbors)
        self.alive[rows] = False
        self._free = np.concatenate([self._free, np.sort(rows)[::-1]])
        touched, count = np.unique(chunk, return_counts=True)
        self._chunk_size[touched] -= count.astype(np.int32)
        empty = touched[self._chunk_size[touched] == 0]
        if len(empty):
            self._drop_chunks(empty)

    def reach(self, *parts: tuple[np.ndarray | None, np.ndarray]) -> np.ndarray:
        """Rows [n] int32 of this level, each once, that tables name.

        Args:
            parts: pairs of a table [*, K] of rows of this level (None: the rows themselves) and which of its rows to look at.
        """
        return kernels.reach(parts, *self.marks())

    def marks(self) -> tuple[np.ndarray, int]:
        """Scratch [capacity] int32 and a number it does not hold yet, by which each row is taken once."""
        self._epoch += 1
        if self._epoch == np.iinfo(np.int32).max:
            self._stamp[:] = 0
            self._epoch = 1
        if len(self._stamp) < self.capacity:
            self._stamp = _grown(self._stamp, self.capacity, 0)
        return self._stamp, self._epoch

    def nbytes(self) -> int:
        """Memory held by the arrays, bytes."""
        arrays = (self.coords, self.neighbors, self.alive, self._chunk_of, self._slots, self._chunk_neighbors)
        return sum(a.nbytes for a in arrays)

    # -- rows

    def _take_rows(self, count: int) -> np.ndarray:
        reused = self._free[len(self._free) - min(count, len(self._free)) :][::-1].copy()
        self._free = self._free[: len(self._free) - len(reused)]
        fresh = np.arange(self._high, self._high + count - len(reused), dtype=np.int32)
        self._high += len(fresh)
        if self._high > self.capacity:
            capacity = max(1024, self._high * 9 // 8, self.capacity * 3 // 2)
            self.coords = _grown(self.coords, capacity, 0)
            self.neighbors = _grown(self.neighbors, capacity, -1)
            self.alive = _grown(self.alive, capacity, False)
            self._chunk_of = _grown(self._chunk_of, capacity, -1)
        return np.concatenate([reused, fresh])

    def _insert(self, coords: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        rows = self._take_rows(len(coords))
        if not len(rows):
            return rows
        self.coords[rows] = coords
        self.alive[rows] = True
        self._chunk_of[rows] = chunk
        self._chunk_size += np.bincount(chunk, minlength=len(self._chunk_size)).astype(np.int32)
        kernels.insert(coords, chunk, rows, self._chunk_neighbors, self._slots, self.neighbors)
        return rows

    # -- chunks

    def _find_chunks(self, keys: np.ndarray) -> np.ndarray:
        place = np.minimum(np.searchsorted(self._sorted_keys, keys), len(self._sorted_keys) - 1)
        return np.where(self._sorted_keys[place] == keys, self._sorted_chunks[place], -1).astype(np.int32)

    def _ensure_chunks(self, coords: np.ndarray) -> np.ndarray:
        chunk, missing = kernels.find_chunks(coords, self._sorted_keys, self._sorted_chunks)
        if len(missing):
            self._add_chunks(np.unique(missing))
            chunk, _ = kernels.find_chunks(coords, self._sorted_keys, self._sorted_chunks)
        return chunk

    def _add_chunks(self, keys: np.ndarray) -> None:
        free = np.flatnonzero(self._chunk_key < 0)[: len(keys)]
        fresh = len(keys) - len(free)
        if fresh:
            start = len(self._chunk_key)
            size = max(start + fresh, start * 3 // 2, 8)
            self._slots = _grown(self._slots, size, -1)
            self._chunk_neighbors = _grown(self._chunk_neighbors, size, -1)
            self._chunk_size = _grown(self._chunk_size, size, 0)
            self._chunk_key = _grown(self._chunk_key, size, -1)
            free = np.concatenate([free, np.arange(start, start + fresh)])
        self._chunk_key[free] = keys
        self._sort_chunks()
        around = self._find_chunks(_chunk_keys(_chunk_coords(keys)[:, None, :] + NEIGHBOR_OFFSETS[None]))
        self._chunk_neighbors[free] = around
        n, k = np.nonzero(around >= 0)
        self._chunk_neighbors[around[n, k], _OPPOSITE[k]] = free[n]

    def _drop_chunks(self, chunks: np.ndarray) -> None:
        around = self._chunk_neighbors[chunks]
        n, k = np.nonzero(around >= 0)
        self._chunk_neighbors[around[n, k], _OPPOSITE[k]] = -1
        self._chunk_neighbors[chunks] = -1
        self._chunk_key[chunks] = -1
        self._sort_chunks()

    def _sort_chunks(self) -> None:
        used = np.flatnonzero(self._chunk_key >= 0)
        order = np.argsort(self._chunk_key[used])
        self._sorted_chunks = used[order].astype(np.int32)
        self._sorted_keys = self._chunk_key[self._sorted_chunks]


def _grown(array: np.ndarray, size: int, fill: int | bool) -> np.ndarray:
    """The array with more rows, the new ones filled."""
    out = np.full((size, *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out
