"""The two steps of an incremental layer on a device: which rows are due, and their new values.

Both are one Triton launch, or a few operations of plain torch where there is no Triton. Neither waits for the device.
"""

__all__ = ["Part", "reach_rows", "update_rows"]

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instseg_ros.sparse import conv, triton_kernels

_GATHER_FLOATS = 1 << 24  # rows are gathered in blocks of this many floats (64 MB)
_TILE_ROWS = 16_384  # tiles are chosen as for this many rows
_REACH_ENTRIES = 1024  # of tables, that a program of `reach` looks at


class Part(NamedTuple):
    """Rows that name due ones."""

    rows: Tensor
    """[n] int32, -1 = none."""
    moved: Tensor | None
    """[n] bool: which of them count; None = all."""
    table: Tensor | None
    """[*, K] int32: the rows they name, -1 = none; its last row names none. None: themselves."""


def reach_rows(parts: Sequence[Part], stamp: Tensor, epoch: Tensor, due: Tensor, count: Tensor) -> None:
    """Find the rows that any of the parts names, each once.

    Args:
        parts: at least one.
        stamp: [N + 1] int32 scratch, one for each row and one for "none".
        epoch: [1] int32: a number above 1 that `stamp` does not hold yet.
        due: [length] int32 of -1, receives the rows from its beginning on, in any order.
        count: [1] int32 of 0, receives their number, which can be above the length.
    """
    if conv._path(stamp.new_zeros(0, dtype=torch.float32)) == "triton":
        _triton_reach(parts, stamp, epoch, due, count)
        return
    stamp.zero_()
    one = stamp.new_ones(())
    for rows, moved, table in parts:
        rows = (rows if moved is None else rows.masked_fill(~moved, -1)).long()
        stamp.index_put_((rows if table is None else table[rows].long(),), one)
    place = torch.cumsum(stamp[:-1], 0, dtype=torch.int32)
    count.copy_(place[-1:])
    numbers = torch.arange(1, len(due) + 1, dtype=torch.int32, device=due.device)
    found = torch.searchsorted(place, numbers, out_int32=True)  # the k-th row is where the count reaches k
    due.copy_(found.masked_fill_(found == len(place), -1))


def _triton_reach(parts: Sequence[Part], stamp: Tensor, epoch: Tensor, due: Tensor, count: Tensor) -> None:
    from instseg_ros.sparse import device_jit

    with torch.cuda.device(stamp.device if stamp.is_cuda else -1):
        for rows, moved, table in parts:
            taps = 1 if table is None else table.shape[1]
            padded = 1 << (taps - 1).bit_length()
            block = _REACH_ENTRIES // padded
            if len(rows):
                device_jit.reach_program[(-(-len(rows) // block),)](
                    rows, rows if moved is None else moved.view(torch.uint8), rows if table is None else table,
                    stamp, epoch, due, count, len(rows), len(due), TAPS=taps, PADDED=padded,
                    HAS_TABLE=table is not None, HAS_MOVED=moved is not None, BLOCK=block, num_warps=4,
                )  # fmt: skip


def update_rows(
    x: Tensor, table: Tensor | None, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool,
    cache: Tensor, threshold: Tensor, fresh: Tensor,
) -> Tensor:
    """Recompute rows of a cache and replace, in place, those that moved; never waits for the device.

    The last rows of x, cache and residual are zero and stand for "none", the index -1.

    Args:
        x: [M, Cin]; table: [N, K] int32 rows of x, -1 = none (None: every row reads itself, K = 1); weight: [K, Cin, Cout]; bias: [Cout].
        rows: [n] int32, none of them twice; -1 = nothing to do.
        residual: [N, Cout], added to the sum; cache: [N, Cout].
        threshold: [1] float32: a row is replaced if one of its columns moves by more than this,
        fresh: [N] bool: or if it is marked here.

    Returns:
        [n] bool: which rows were replaced.
    """
    if conv._path(x) == "triton":
        # The same tiles whatever the length of the list: a kernel compiled in the middle of a run would stall a live map.
        tiles = triton_kernels.conv_tiles(_TILE_ROWS, weight.shape[1], weight.shape[2], x.dtype, whole_rows=True)
        return triton_kernels.update(
            x, table, rows, weight, bias, residual, relu, cache, threshold, fresh,
            allow_tf32=torch.backends.cuda.matmul.allow_tf32, tiles=tiles)
    return _plain_update(x, table, rows, weight, bias, residual, relu, cache, threshold, fresh)


def _plain_update(
    x: Tensor, table: Tensor | None, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool,
    cache: Tensor, threshold: Tensor, fresh: Tensor,
) -> Tensor:
    taps, cin, cout = weight.shape
    matrix = weight.reshape(taps * cin, cout).float()
    moved = torch.empty(len(rows), dtype=torch.bool, device=x.device)
    block = max(1, _GATHER_FLOATS // (taps * cin))
    for begin in range(0, len(rows), block):
        part = rows[begin : begin + block].long()
        read = part if table is None else table[part].long()
        new = torch.addmm(bias, x[read].reshape(len(part), taps * cin).float(), matrix)
        if residual is not None:
            new += residual[part]
        if relu:
            new.relu_()
        value = new.to(cache.dtype)  # what is compared is what would be stored
        replace = (value.float() - cache[part].float()).abs().amax(1) > threshold
        replace |= fresh[part]
        replace &= part >= 0
        cache.index_put_((part.masked_fill(~replace, -1),), value)
        cache[-1].zero_()
        moved[begin : begin + block] = replace
    return moved
