"""The steps of an incremental wave on a device: which rows are due, their new values, and whom they make due in turn.

A layer is one Triton launch, or some operations of plain torch where there is no Triton. None of them waits for the device.
"""

__all__ = ["Change", "DueLists", "update_attention", "update_layer"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instseg_ros.models.refine import attend
from instseg_ros.sparse import conv, triton_kernels, triton_updates
from instseg_ros.sparse.device_tables import Part
from instseg_ros.sparse.program import Layer
from instseg_ros.sparse.triton_updates import APART, Reader

_GATHER_FLOATS = 1 << 24  # rows are gathered in blocks of this many floats (64 MB)
_ATTEND_ROWS = 1 << 15  # rows attended to at once
_TILE_ROWS = 16_384  # tiles are chosen as for this many rows


@dataclass(frozen=True)
class Change:
    """What the map's change alone makes due, lists padded with -1, in one tensor that stays in its place."""

    lengths: tuple[int, ...]
    """Per level."""
    lists: Tensor
    """Rows of the finest level with new features; per level those with other neighbours, with other children, new ones; per table of
    neighbours at a distance those with others in it."""
    places: list[tuple[int, int]]
    """Where each list begins, and its length."""

    @staticmethod
    def empty(lengths: tuple[int, ...], apart: Sequence[int], device: torch.device) -> "Change":
        """Room for so many rows per level; `apart` has the level of each table of neighbours at a distance."""
        sizes = [lengths[0], *lengths, *lengths, *lengths, *(lengths[level] for level in apart)]
        places = [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]
        return Change(lengths, torch.full((sum(sizes),), -1, dtype=torch.int32, device=device), places)

    @property
    def retabled(self) -> tuple[int, int]:
        """Where the rows of the finest level with other neighbours are: begin and length."""
        return self.places[1]

    @property
    def dirty(self) -> Tensor:
        """Rows of the finest level with new features."""
        return self.lists[: self.lengths[0]]

    def of_layer(self, layer: Layer, number_apart: int) -> tuple[int, int]:
        """Where the rows of a layer are whose table, or whose very existence, is new: begin and length."""
        depth = len(self.lengths)
        if layer.dilation > 1:
            return self.places[1 + 3 * depth + number_apart]
        kind = {"neighbors": 0, "children": 1, "up": 2, "self": 2}[layer.table]  # a voxel's parent lasts as long as the voxel
        return self.places[1 + kind * depth + layer.level]

    def listed(self, *rows: np.ndarray) -> tuple[list[Part], list[Part]]:
        """Places in the tensor, and what to write to them, for the rows of all lists in their order."""
        assert all(len(part) <= length for part, (_, length) in zip(rows, self.places, strict=True))
        places = [np.arange(begin, begin + len(part), dtype=np.int32) for part, (begin, _) in zip(rows, self.places, strict=True)]
        return [*places], [part.astype(np.int32, copy=False) for part in rows]

    def put(self, places: Tensor, rows: Tensor) -> None:
        """Let the lists hold these rows and nothing else."""
        self.lists.fill_(-1)
        self.lists.index_put_((places.long(),), rows)


class DueLists:
    """Lists of due rows, one for each layer, and for whatever else has to hear of rows that were replaced.

    Lists have a fixed length, and unused places hold -1, so that nobody has to know how many rows are due. With Triton a row is appended
    when it is announced; without, it is marked in the stamps, and the list is made of them when its layer's turn comes.

    Args:
        levels: per list, the level of its rows.
        lengths: per level, of its lists.
        sizes: per level, rows there are, the one for "none" among them.
        change: what is due whatever moves.
        seeds: per list, where its seeds begin in the change's lists, and how many places they have there.
    """

    def __init__(
        self, levels: Sequence[int], lengths: Sequence[int], sizes: Sequence[int], change: Change, seeds: Sequence[tuple[int, int]]
    ) -> None:
        device, self.change = change.lists.device, change
        long, many = [lengths[level] for level in levels], [sizes[level] for level in levels]
        self.lengths = long
        """Places per list."""
        self.all = torch.full((sum(long),), -1, dtype=torch.int32, device=device)
        self.rows = list(self.all.split(long))
        """Per list [length] int32, each row once, -1 = none."""
        self.counts = torch.zeros(2 * len(long), APART, dtype=torch.int32, device=device)
        """[2 * lists, APART] int32, of which the first column counts: rows due per list, more than its length if it was too short; then
        rows replaced per list."""
        self.moved: dict[int, Tensor] = {}
        """Per list that was worked off [length] bool: which of its rows were replaced."""
        self.stamps = torch.zeros(sum(many), dtype=torch.int32, device=device)
        self.epoch = torch.zeros(1, dtype=torch.int32, device=device)  # of the wave: rows listed in it are stamped by it
        counts = list(self.counts[:, :1].unbind())
        self.replaced = counts[len(long) :]
        """Per list [1] int32: rows replaced."""
        self.own = [Reader(*parts, None) for parts in zip(self.stamps.split(many), self.rows, counts[: len(long)], strict=True)]
        """Per list: who reads another layer's rows by their own number."""
        self.readers: dict[int, list[Reader]] = {}
        """By list: who reads its rows, those replaced; for the lists' owner to fill in. Without an entry nobody does."""
        begins = zip(_begins(long), _begins(many), strict=True)
        self._seeds = list(seeds)
        self.plan = torch.tensor([(*given, *begin) for given, begin in zip(seeds, begins, strict=True)], dtype=torch.int64).to(device)
        """[lists, 4] int64, of `device_jit.seed_program`."""

    def begin(self) -> None:
        """Begin a wave, with the rows listed that are due whatever moves."""
        change = self.change.lists
        self.epoch.add_(1)
        self.all.fill_(-1)
        self.counts.zero_()
        self.moved = {}
        if self._by_triton():
            longest = max(places for _, places in self._seeds)
            triton_updates.seed(self.plan, longest, change, self.all, self.stamps, self.counts, self.epoch)
            return
        for reader, (begin, places) in zip(self.own, self._seeds, strict=True):
            self.announce(change[begin : begin + places], None, reader)

    def announce(self, rows: Tensor, moved: Tensor | None, reader: Reader) -> None:
        """List what reads some rows; arguments as in `triton_updates.announce`."""
        if self._by_triton():
            triton_updates.announce(rows, moved, reader, self.epoch)
            return
        rows = (rows if moved is None else rows.masked_fill(~moved, -1)).long()
        # The index -1 leads to the last row, that of "none": of a table it names none, and whether it is stamped does not count.
        reader.stamp.index_put_((rows if reader.table is None else reader.table[rows].long(),), self.epoch)

    def collect(self, i: int) -> Tensor:
        """List i [length] int32, now that everything was announced to it."""
        stamp, due, number, _ = self.own[i]
        if not self._by_triton():
            place = torch.cumsum(stamp[:-1] == self.epoch, 0, dtype=torch.int32)
            number.copy_(place[-1:])
            numbers = torch.arange(1, len(due) + 1, dtype=torch.int32, device=due.device)
            found = torch.searchsorted(place, numbers, out_int32=True)  # the k-th row is where the count reaches k
            due.copy_(found.masked_fill_(found == len(place), -1))
        return due

    def _by_triton(self) -> bool:
        return conv.path_on(self.all.device, torch.float32) == "triton"


def _begins(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


def update_layer(
    x: Tensor, table: Tensor | None, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool, cache: Tensor, threshold: Tensor,
    fresh: Tensor, lists: DueLists, layer: int, place_in: Tensor | None = None, place_out: Tensor | None = None,
) -> None:
    """Recompute the due rows of a layer, replace, in place, those that moved, and announce them to the layers that read them.

    The last rows of x, cache and residual are zero and stand for "none", the index -1.

    Args:
        x: [M, Cin]; table: [N, K] int32 rows of x, -1 = none (None: every row reads itself, K = 1); weight: [K, Cin, Cout]; bias: [Cout].
        residual: [N, Cout], added to the sum; cache: [N, Cout].
        threshold: [1] float32: a row is replaced if one of its columns moves by more than this,
        fresh: [N] bool: or if it is marked here.
        lists: in whose list `layer` the due rows are, and whose `readers` hear of those that moved; they are left in `moved` and `replaced`.
        place_in, place_out: as in `triton_updates.update`; their last rows are -1.
    """
    rows, replaced, readers = lists.collect(layer), lists.replaced[layer], lists.readers.get(layer, [])
    if conv.path_on(x.device, x.dtype) == "triton":
        # The same tiles whatever the length of the list: a kernel compiled in the middle of a run would stall a live map.
        tiles = triton_kernels.conv_tiles(_TILE_ROWS, weight.shape[1], weight.shape[2], x.dtype, whole_rows=True)
        most = triton_updates.MAX_READERS
        moved = triton_updates.update(
            x, table, rows, weight, bias, residual, relu, cache, threshold, fresh, torch.backends.cuda.matmul.allow_tf32, tiles,
            readers[:most], lists.epoch, replaced, place_in, place_out)
        readers = readers[most:]
    else:
        moved = _plain_update(x, table, rows, weight, bias, residual, relu, cache, threshold, fresh, place_in, place_out)
        replaced.copy_(moved.sum(dtype=torch.int32))
    lists.moved[layer] = moved
    for reader in readers:
        lists.announce(rows, moved, reader)


def update_attention(
    x: Tensor, neighbors: Tensor, order: Tensor, k: int, parts: Sequence[Tensor], out: Tensor, threshold: Tensor, fresh: Tensor,
    lists: DueLists, layer: int,
) -> None:
    """The same for a layer of attention over the k nearest voxels; arguments as in `triton_updates.attend` and `update_layer`."""
    rows, replaced, readers = lists.collect(layer), lists.replaced[layer], lists.readers.get(layer, [])
    if conv.path_on(x.device, x.dtype) == "triton":
        most = triton_updates.MAX_READERS
        moved = triton_updates.attend(
            x, neighbors, order, k, rows, parts, out, threshold, fresh, readers[:most], lists.epoch, replaced)
        readers = readers[most:]
    else:
        moved = torch.empty(len(rows), dtype=torch.bool, device=x.device)
        for begin in range(0, len(rows), _ATTEND_ROWS):
            part = rows[begin : begin + _ATTEND_ROWS].long()
            around = neighbors[part][:, order.long()]
            nearest = around.masked_fill((around >= 0).cumsum(1) > k, -1)
            moved[begin : begin + _ATTEND_ROWS] = _replace(attend(x, x[part], nearest, *parts), part, part, out, threshold, fresh)
        replaced.copy_(moved.sum(dtype=torch.int32))
    lists.moved[layer] = moved
    for reader in readers:
        lists.announce(rows, moved, reader)


def _replace(value: Tensor, rows: Tensor, slots: Tensor, out: Tensor, threshold: Tensor, fresh: Tensor) -> Tensor:
    """Write what moved to slots [n] of `out`, which are those of rows [n]; [n] bool."""
    replace = (value.float() - out[slots].float()).abs().amax(1) > threshold
    replace |= fresh[rows]
    replace &= slots >= 0
    out.index_put_((slots.masked_fill(~replace, -1),), value)
    out[-1].zero_()
    return replace


def _plain_update(
    x: Tensor, table: Tensor | None, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool,
    cache: Tensor, threshold: Tensor, fresh: Tensor, place_in: Tensor | None, place_out: Tensor | None,
) -> Tensor:
    taps, cin, cout = weight.shape
    matrix = weight.reshape(taps * cin, cout).float()
    moved = torch.empty(len(rows), dtype=torch.bool, device=x.device)
    block = max(1, _GATHER_FLOATS // (taps * cin))
    for begin in range(0, len(rows), block):
        part = rows[begin : begin + block].long()
        read = part if table is None else table[part].long()
        read = read if place_in is None else place_in[read].long()
        slots = part if place_out is None else place_out[part].long()
        new = torch.addmm(bias, x[read].reshape(len(part), taps * cin).float(), matrix)
        if residual is not None:
            new += residual[slots]
        if relu:
            new.relu_()
        # What is compared is what would be stored.
        moved[begin : begin + block] = _replace(new.to(cache.dtype), part, slots, cache, threshold, fresh)
    return moved
