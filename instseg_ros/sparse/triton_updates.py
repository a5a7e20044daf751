"""The Triton launches of an incremental wave on CUDA: a layer with what follows from it, and the lists of due rows.

`device_update.py` has what they are for, and does the same in plain torch.
"""

__all__ = ["APART", "MAX_READERS", "MAX_UPDATE_WIDTH", "Reader", "announce", "attend", "seed", "update"]

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instseg_ros.errors import InputError
from instseg_ros.sparse.triton_kernels import Tiles, check, conv_tiles, dense, launching_on, power_of_two, programs, widen

MAX_UPDATE_WIDTH = 256
"""Output channels `update` can take: it compares whole rows, so one program has to hold them."""
MAX_READERS = 2
"""Layers that `update` can tell of what moved."""
APART = 4
"""Counts of layers stand so many numbers apart, 16 bytes, so that one compiled kernel serves all layers of a shape."""
_ENTRIES = 1024  # of tables, that a program of `announce` and `seed` looks at


class Reader(NamedTuple):
    """A layer that reads another's rows, and the list of its rows that are due."""

    stamp: Tensor
    """[N + 1] int32: the epoch in which a row was listed last."""
    due: Tensor
    """[length] int32: the list, -1 = none."""
    number: Tensor
    """[1] int32: rows listed; goes on when the list is full."""
    table: Tensor | None
    """[*, K] int32: by row of the other layer, those that read it, -1 = none. None: the row of the same number."""


def update(
    x: Tensor,
    table: Tensor | None,
    rows: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    cache: Tensor,
    threshold: float | Tensor,
    fresh: Tensor | None = None,
    allow_tf32: bool = False,
    tiles: Tiles | None = None,
    readers: Sequence[Reader] = (),
    epoch: Tensor | None = None,
    replaced: Tensor | None = None,
    place_in: Tensor | None = None,
    place_out: Tensor | None = None,
) -> Tensor:
    """Recompute rows of a layer's cached output, replace, in place, those that moved, and list what reads them.

    A row moved where one of its channels, as it would be stored, differs from the cached one by more than the threshold, or
    where it is fresh. Other rows keep their old value.

    Arguments that are not named here are those of `triton_kernels.conv`.

    Args:
        rows: [n] rows of the cache to recompute, none of them twice; -1 = nothing to do, so a list may have
            places left over.
        cache: [N, Cout], contiguous; float32, float16 or bfloat16. Neither x nor residual may share its memory.
        threshold: a number, or one on the device (a float32 tensor of one element), which spares a round trip.
        fresh: [N] bool or uint8: rows whose cached value means nothing.
        readers: at most `MAX_READERS` layers, none twice, on whose lists goes what reads a row that moved;
        epoch: [1] int32, with readers: what their stamps hold of rows that are listed.
        replaced: [1] int32, to which the number of rows that moved is added.
        place_in: [*] int32: where in x a row is that the table names, -1 = nowhere; None = in the row of its own number.
        place_out: the same for the cache and the residual; a row that is nowhere is left out.

    Returns:
        moved: [n] bool.

    Raises:
        InputError: more output channels than one program can compare, or more readers than one can tell.
    """
    count = len(cache) if rows is None else len(rows)
    taps, cin, cout = weight.shape
    _check_cache(cache, cout)
    if len(readers) > MAX_READERS or (readers and epoch is None):
        raise InputError(f"update tells up to {MAX_READERS} layers, given an epoch, not {len(readers)}: use announce for the others")
    check(x, table, weight)
    moved = torch.empty(count, dtype=torch.uint8, device=x.device)
    if count:
        tiles = tiles or conv_tiles(count, cin, cout, x.dtype, whole_rows=True)
        told, widths = _told(readers, x)
        with launching_on(x):
            programs("device_jit").update_program[(-(-count // tiles.block_m),)](
                x.contiguous(), dense(table, x), dense(rows, x), dense(place_in, x), dense(place_out, x),
                weight.to(x.dtype).contiguous(), dense(bias, x),
                dense(residual, x), cache, moved, dense(replaced, x), cache if fresh is None else fresh.contiguous().view(torch.uint8),
                threshold if isinstance(threshold, Tensor) else float(threshold), count, dense(epoch, x), *told,
                TAPS=taps, CIN=cin, COUT=cout,
                HAS_TABLE=table is not None, HAS_ROWS=rows is not None,
                HAS_PLACE_IN=place_in is not None, HAS_PLACE_OUT=place_out is not None, HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None, RELU=relu, HAS_FRESH=fresh is not None,
                THRESHOLD_IN_MEMORY=isinstance(threshold, Tensor), HAS_REPLACED=replaced is not None,
                **widths, PRECISION="tf32" if allow_tf32 else "ieee", WIDEN=widen(x),
                BLOCK_M=tiles.block_m, BLOCK_N=tiles.block_n, BLOCK_K=tiles.block_k, num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    return moved.view(torch.bool)


def _check_cache(cache: Tensor, cout: int) -> None:
    if cout > MAX_UPDATE_WIDTH:
        raise InputError(f"update compares whole rows and takes up to {MAX_UPDATE_WIDTH} output channels, not {cout}: use conv")
    if not cache.is_contiguous() or cache.shape[1] != cout:
        shape, strides = tuple(cache.shape), cache.stride()
        raise InputError(f"the cache must be contiguous with {cout} columns; it is {shape} with strides {strides}")


def attend(
    x: Tensor,
    neighbors: Tensor,
    order: Tensor,
    k: int,
    rows: Tensor,
    parts: Sequence[Tensor],
    out: Tensor,
    threshold: Tensor,
    fresh: Tensor,
    readers: Sequence[Reader],
    epoch: Tensor,
    replaced: Tensor,
) -> Tensor:
    """A layer of `models.refine.attend` for some rows, those of `out` replaced that moved, and what reads them listed, as in `update`.

    Args:
        x: [N, F] float32 embeddings; out: [N, F] those of the next layer.
        neighbors: [N, 27] int32 rows, -1 = none.
        order: [26] int32: columns of it, the nearest first.
        k: nearest voxels that are looked at.
        rows: [n] int32, none of them twice, -1 = none.
        parts: own, other [F, H]; bias [H]; score [H]; update [2 F, F].
        threshold, fresh, readers, epoch, replaced: as in `update`.

    Returns:
        moved: [n] bool.
    """
    count, width, hidden = len(rows), x.shape[1], parts[0].shape[1]
    moved = torch.empty(count, dtype=torch.uint8, device=x.device)
    if count:
        told, widths = _told(readers, x)
        block = 16 if hidden > 64 else 32
        with launching_on(x):
            programs("device_jit").attend_program[(-(-count // block),)](
                x, neighbors, order, rows, *parts, out, moved, replaced, fresh.view(torch.uint8), threshold, count, epoch, *told,
                NEAREST=k, COLUMNS=len(order), F=width, H=hidden, **widths,
                BLOCK_M=block, BLOCK_F=power_of_two(width), BLOCK_H=power_of_two(hidden), num_warps=4,
            )  # fmt: skip
    return moved.view(torch.bool)


def announce(rows: Tensor, moved: Tensor | None, reader: Reader, epoch: Tensor) -> None:
    """List what reads some rows, as `update` does for those that moved.

    Args:
        rows: [n] int32, none of them twice, -1 = none.
        moved: [n] bool: which of them count; None = all.
        reader: whose list it is.
        epoch: [1] int32.
    """
    if not len(rows):
        return
    taps, padded = _reach(reader)
    block = _ENTRIES // padded
    with launching_on(rows):
        programs("device_jit").announce_program[(-(-len(rows) // block),)](
            rows, rows if moved is None else moved.view(torch.uint8), epoch, dense(reader.table, rows), reader.stamp, reader.due,
            reader.number, len(rows), len(reader.due), TAPS=taps, PADDED=padded, HAS_MOVED=moved is not None, BLOCK=block, num_warps=4,
        )  # fmt: skip


def seed(plan: Tensor, longest: int, change: Tensor, due: Tensor, stamp: Tensor, counts: Tensor, epoch: Tensor) -> None:
    """Begin the lists of all layers with rows that are due whatever moves; arguments as in `device_jit.seed_program`.

    Args:
        longest: places that one layer has at most.
        counts: [layers, APART] int32, of which the first column is counted up.
    """
    with launching_on(due):
        programs("device_jit").seed_program[(len(plan), max(1, -(-longest // _ENTRIES)))](
            plan, change, due, stamp, counts, epoch, APART=APART, BLOCK=_ENTRIES, num_warps=4)


def _told(readers: Sequence[Reader], stand_in: Tensor) -> tuple[list[object], dict[str, int]]:
    """What a program that announces is launched with: arguments, and constants."""
    arguments: list[object] = []
    constants: dict[str, int] = {}
    for name, reader in zip("AB", [*readers, None, None], strict=False):
        if reader is None:
            arguments += [stand_in, stand_in, stand_in, stand_in, 0]
            taps, padded = 0, 1
        else:
            arguments += [dense(reader.table, stand_in), reader.stamp, reader.due, reader.number, len(reader.due)]
            taps, padded = _reach(reader)
        constants |= {f"TAPS_{name}": taps, f"PADDED_{name}": padded}
    return arguments, constants


def _reach(reader: Reader) -> tuple[int, int]:
    """Columns of a reader's table (1 without), and the next power of two."""
    taps = 1 if reader.table is None else reader.table.shape[1]
    return taps, 1 << (taps - 1).bit_length()
