"""A pyramid's tables mirrored on a device: after an update only the rows it changed are sent."""

__all__ = ["DeviceTables", "LevelArray", "Part", "download", "upload"]

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from instseg_ros.sparse.neighborhood import DilatedTable
from instseg_ros.sparse.program import Layer
from instseg_ros.sparse.pyramid import Pyramid, PyramidDelta

_ALIGNED_ROWS = 16  # every level begins at an address that the GPU's widest loads take
_SMALLEST = 1024


Part = np.ndarray | tuple[np.ndarray, np.ndarray]
"""An array of four-byte numbers, or one and which of its rows."""


def upload(device: torch.device, groups: Sequence[Sequence[Part]]) -> list[Tensor]:
    """Groups of arrays of four-byte numbers on the device, sent as one; those of a group have the same columns and come one after the other.

    What is a pair is gathered straight into what is sent, which is in memory that the device reads by itself where it is a GPU.
    """
    shapes: list[tuple[int, ...]] = []
    for group in groups:
        count = sum(len(part[1] if isinstance(part, tuple) else part) for part in group)
        first = group[0][0] if isinstance(group[0], tuple) else group[0]
        shapes.append((count, *first.shape[1:]))
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    packed = torch.empty(int(ends[-1]), dtype=torch.int32, pin_memory=device.type == "cuda")
    at, kinds, numbers = 0, [], packed.numpy()
    for group in groups:
        for part in group:
            source, rows = part if isinstance(part, tuple) else (part, None)
            shape = source.shape if rows is None else (len(rows), *source.shape[1:])
            end = at + math.prod(shape)
            out = numbers[at:end].view(source.dtype).reshape(shape)
            if rows is None:
                out[...] = source
            else:
                np.take(source, rows, axis=0, out=out, mode="clip")  # a mode with which numpy writes to `out` directly
            at = end
        kinds.append(torch.float32 if source.dtype == np.float32 else torch.int32)
    sent = packed.to(device, non_blocking=True)
    return [sent[begin:end].view(kind).view(shape) for begin, end, kind, shape in zip(ends[:-1], ends[1:], kinds, shapes, strict=True)]


def download(x: Tensor) -> np.ndarray:
    """A tensor's values on the host; waits for the device."""
    if not x.is_cuda:
        values: np.ndarray = x.cpu().numpy()
        return values
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)  # from torch's pool of such memory: the device writes there by itself
    host.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return host.numpy()


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

    def place(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Where rows given per level are in the one tensor, [n] int32 per level."""
        return [(part + begin).astype(np.int32, copy=False) for part, begin in zip(rows, self._begin, strict=True)]

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
        layers: of the program that reads them; dilated ones have tables of their own.
    """

    def __init__(self, depth: int, device: torch.device, layers: Sequence[Layer] = ()) -> None:
        self._device = device
        self.sizes = [0] * depth
        """Rows per level that there is room for, the one for "none" among them."""
        self._neighbors = LevelArray(device, torch.int32, -1, 27)
        self._children = LevelArray(device, torch.int32, -1, 8)
        self._up = LevelArray(device, torch.int32, -1, 8)
        keys = sorted({(layer.level, layer.dilation) for layer in layers if layer.dilation > 1})
        self.dilated_levels = [level for level, _ in keys]
        """Level of each table of neighbours at a distance."""
        self._numbers = {key: i for i, key in enumerate(keys)}
        self._found = [DilatedTable(dilation) for _, dilation in keys]
        self._dilated = LevelArray(device, torch.int32, -1, 27)
        self.retabled_apart: list[np.ndarray] = [np.zeros(0, np.int32) for _ in keys]
        """Per such table: rows in use whose neighbours at a distance the last change moved."""

    def dilated_number(self, layer: Layer) -> int:
        """Which of the tables of neighbours at a distance a dilated layer reads."""
        return self._numbers[layer.level, layer.dilation]

    def fit(self, pyramid: Pyramid) -> bool:
        """Let the tables grow with the pyramid; returns whether they did (they are elsewhere in memory then)."""
        used = [level.high_water for level in pyramid.levels]
        if all(rows < size for rows, size in zip(used, self.sizes, strict=True)):
            return False
        self.sizes = [max(size, _roomy(rows)) if rows >= size else size for rows, size in zip(used, self.sizes, strict=True)]
        self._neighbors.fit(self.sizes)
        self._children.fit([0, *self.sizes[1:]])
        self._up.fit([*self.sizes[:-1], 0])
        self._dilated.fit([self.sizes[level] for level in self.dilated_levels])
        return True

    def load(self, pyramid: Pyramid) -> list[list[Part]]:
        """What `put` needs of the whole pyramid, to be uploaded."""
        for array in (self._neighbors, self._children, self._up, self._dilated):
            array.clear()
        rows = [level.live_rows() for level in pyramid.levels]
        for level, table in zip(self.dilated_levels, self._found, strict=True):
            table.load(pyramid.levels[level])
        self.retabled_apart = [rows[level] for level in self.dilated_levels]
        return self._changed(pyramid, rows, rows, rows, self.retabled_apart)

    def follow(self, pyramid: Pyramid, delta: PyramidDelta) -> list[list[Part]]:
        """What `put` needs of the rows that changed, to be uploaded."""
        def with_removed(parts: list[np.ndarray]) -> list[np.ndarray]:
            return [np.concatenate(pair) for pair in zip(parts, delta.removed, strict=True)]

        tables = zip(self.dilated_levels, self._found, strict=True)
        self.retabled_apart = [table.follow(pyramid.levels[i], delta.removed[i], delta.added[i]) for i, table in tables]
        apart = [np.concatenate([rows, delta.removed[i]]) for i, rows in zip(self.dilated_levels, self.retabled_apart, strict=True)]
        return self._changed(pyramid, with_removed(delta.retabled), with_removed(delta.rechilded), with_removed(delta.added), apart)

    def put(self, uploaded: Sequence[Tensor]) -> None:
        """Write what `load` or `follow` gave, uploaded."""
        mirrored = [self._neighbors, self._children, self._up, self._dilated]
        for array, places, values in zip(mirrored, uploaded[::2], uploaded[1::2], strict=False):
            array.put(places, values)

    @property
    def neighbors(self) -> Tensor:
        """[N, 27] int32 of the finest level."""
        return self._neighbors.levels[0]

    def read(self, layer: Layer) -> Tensor | None:
        """The table a layer reads: per output row, rows of its input; None: itself."""
        if layer.table == "self":
            return None
        if layer.dilation > 1:
            return self._dilated.levels[self.dilated_number(layer)]
        return {"neighbors": self._neighbors, "children": self._children, "up": self._up}[layer.table].levels[layer.level]

    def reached(self, layer: Layer) -> Tensor | None:
        """The same table the other way: per input row, the outputs that read it."""
        if layer.table in ("self", "neighbors"):
            return self.read(layer)
        return self._up.levels[layer.level - 1] if layer.table == "children" else self._children.levels[layer.level + 1]

    def nbytes(self) -> int:
        """Memory on the device, bytes."""
        return self._neighbors.nbytes() + self._children.nbytes() + self._up.nbytes() + self._dilated.nbytes()

    def _changed(
        self, pyramid: Pyramid, tabled: list[np.ndarray], childed: list[np.ndarray], parented: list[np.ndarray], apart: list[np.ndarray]
    ) -> list[list[Part]]:
        """Groups of places and rows for each kind of table."""
        nothing = np.zeros(0, np.int32)
        none = np.zeros((0, 8), np.int32)
        groups: list[list[Part]] = [
            [*self._neighbors.place(tabled)],
            [(level.neighbors, rows) for level, rows in zip(pyramid.levels, tabled, strict=True)],
            [*self._children.place([nothing, *childed[1:]])],
            [none, *zip(pyramid.children, childed[1:], strict=True)],
            [*self._up.place([*parented[:-1], nothing])],
            [none, *zip(pyramid.up, parented[:-1], strict=True)],
        ]
        if apart:
            groups += [[*self._dilated.place(apart)], [(table.table, rows) for table, rows in zip(self._found, apart, strict=True)]]
        return groups


def _roomy(rows: int) -> int:
    """Rows to make room for, so that a growing map seldom moves."""
    return -(-(max(_SMALLEST, rows * 5 // 4) + 1) // _ALIGNED_ROWS) * _ALIGNED_ROWS
