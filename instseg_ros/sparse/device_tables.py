"""A pyramid's tables mirrored on a device: after an update only the rows it changed are sent, all of them in one transfer."""

__all__ = ["DeviceTables", "LevelArray", "upload"]

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from instseg_ros.sparse.program import Layer
from instseg_ros.sparse.pyramid import Pyramid, PyramidDelta

_ALIGNED_ROWS = 16  # every level begins at an address that the GPU's widest loads take
_SMALLEST = 1024


def upload(device: torch.device, arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """Arrays of four-byte numbers on the device, sent as one."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    packed = torch.from_numpy(np.concatenate([array.reshape(-1).view(np.int32) for array in arrays])).to(device)
    parts = packed.split([array.size for array in arrays])
    return [
        (part.view(torch.float32) if array.dtype == np.float32 else part).view(array.shape)
        for part, array in zip(parts, arrays, strict=True)
    ]


class LevelArray:
    """Rows of all levels in one tensor, so that one call writes to all of them.

    The last row of a level stands for "none": the index -1 leads there, so lists and tables padded with -1 need no masks.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, fill: int, width: int | None = None) -> None:
        self._device, self._dtype, self._fill = device, dtype, fill
        self._width = () if width is None else (width,)
        self.levels: list[Tensor] = []
        """Per level [size] or [size, width], parts of one tensor."""
        self._begin: list[int] = []
        self._all = torch.zeros(0)

    def fit(self, sizes: Sequence[int]) -> None:
        """Give every level so many rows (no fewer than before), the one for "none" among them."""
        before = self.levels
        self._all = torch.full((sum(sizes), *self._width), self._fill, dtype=self._dtype, device=self._device)
        self.levels = list(self._all.split(list(sizes)))
        self._begin = [0, *np.cumsum(sizes)[:-1].tolist()]
        for old, new in zip(before, self.levels, strict=False):
            if len(old):
                new[: len(old) - 1] = old[:-1]

    def place(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Where rows given per level are in the one tensor [n] int32."""
        return np.concatenate([(part + begin).astype(np.int32) for part, begin in zip(rows, self._begin, strict=True)])

    def put(self, places: Tensor, values: Tensor) -> None:
        """Write values (one for each place, or one for all) to places [n]."""
        self._all.index_put_((places.long(),), values)

    def clear(self) -> None:
        """Fill everything anew."""
        self._all.fill_(self._fill)

    def nbytes(self) -> int:
        """Memory, bytes."""
        return self._all.numel() * self._all.element_size()


class DeviceTables:
    """The tables of all levels on a device.

    Args:
        depth: levels.
        device: where they are kept.
    """

    def __init__(self, depth: int, device: torch.device) -> None:
        self._device = device
        self.sizes = [0] * depth
        """Rows per level that there is room for, the one for "none" among them."""
        self._neighbors = LevelArray(device, torch.int32, -1, 27)
        self._children = LevelArray(device, torch.int32, -1, 8)
        self._up = LevelArray(device, torch.int32, -1, 8)

    def fit(self, pyramid: Pyramid) -> bool:
        """Let the tables grow with the pyramid; returns whether they did (they are elsewhere in memory then)."""
        used = [level.high_water for level in pyramid.levels]
        if all(rows < size for rows, size in zip(used, self.sizes, strict=True)):
            return False
        self.sizes = [max(size, _roomy(rows)) if rows >= size else size for rows, size in zip(used, self.sizes, strict=True)]
        self._neighbors.fit(self.sizes)
        self._children.fit([0, *self.sizes[1:]])
        self._up.fit([*self.sizes[:-1], 0])
        return True

    def load(self, pyramid: Pyramid) -> None:
        """Send everything."""
        for array in (self._neighbors, self._children, self._up):
            array.clear()
        rows = [level.live_rows() for level in pyramid.levels]
        self._send(pyramid, rows, rows, rows)

    def follow(self, pyramid: Pyramid, delta: PyramidDelta) -> None:
        """Send the rows that changed."""
        def with_removed(parts: list[np.ndarray]) -> list[np.ndarray]:
            return [np.concatenate(pair) for pair in zip(parts, delta.removed, strict=True)]

        self._send(pyramid, with_removed(delta.retabled), with_removed(delta.rechilded), with_removed(delta.added))

    def read(self, layer: Layer) -> Tensor:
        """The table a layer reads: per output row, rows of its input."""
        return {"neighbors": self._neighbors, "children": self._children, "up": self._up}[layer.table].levels[layer.level]

    def reached(self, layer: Layer) -> Tensor:
        """The same table the other way: per input row, the outputs that read it."""
        if layer.table == "neighbors":
            return self._neighbors.levels[layer.level]
        return self._up.levels[layer.level - 1] if layer.table == "children" else self._children.levels[layer.level + 1]

    def nbytes(self) -> int:
        """Memory on the device, bytes."""
        return self._neighbors.nbytes() + self._children.nbytes() + self._up.nbytes()

    def _send(
        self, pyramid: Pyramid, tabled: list[np.ndarray], childed: list[np.ndarray], parented: list[np.ndarray]
    ) -> None:
        nothing = np.zeros(0, np.int32)
        none = np.zeros((0, 8), np.int32)
        childed, parented = [nothing, *childed[1:]], [*parented[:-1], nothing]
        arrays = [
            self._neighbors.place(tabled),
            np.concatenate([level.neighbors[rows] for level, rows in zip(pyramid.levels, tabled, strict=True)]),
            self._children.place(childed),
            np.concatenate([none, *(table[rows] for table, rows in zip(pyramid.children, childed[1:], strict=True))]),
            self._up.place(parented),
            np.concatenate([none, *(table[rows] for table, rows in zip(pyramid.up, parented[:-1], strict=True))]),
        ]
        sent = upload(self._device, arrays)
        for array, places, values in zip((self._neighbors, self._children, self._up), sent[::2], sent[1::2], strict=True):
            array.put(places, values)


def _roomy(rows: int) -> int:
    """Rows to make room for, so that a growing map seldom moves."""
    return -(-(max(_SMALLEST, rows * 5 // 4) + 1) // _ALIGNED_ROWS) * _ALIGNED_ROWS
