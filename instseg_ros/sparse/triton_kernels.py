"""The sparse convolution on CUDA: one Triton launch a layer, with bias, residual sum, ReLU and what follows from a change at its end.

Triton is imported at the first launch. With TRITON_INTERPRET=1 in the environment before that, the same programs run on CPU
tensors, slowly: that is how they are tested without a GPU.
"""

__all__ = [
    "DTYPES", "MAX_READERS", "Reader", "Tiles", "announce", "available", "conv", "conv_tiles", "installed", "interpreted", "seed",
    "update", "weight_grad",
]

import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from instseg_ros.errors import InputError, require

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Of the features; sums are kept in float32."""
MAX_UPDATE_WIDTH = 256
"""Output channels `update` can take: it compares whole rows, so one program has to hold them."""
MAX_READERS = 2
"""Layers that `update` can tell of what moved."""
APART = 4
"""Counts of layers stand so many numbers apart, 16 bytes, so that one compiled kernel serves all layers of a shape."""
_ENTRIES = 1024  # of tables, that a program of `announce` and `seed` looks at
_MAX_SPLITS = 64
_PROGRAMS_WANTED = 1024  # of a weight gradient: several for each multiprocessor of any card
_PARTIAL_FLOATS = 1 << 26  # of a weight gradient's partial sums at most (256 MB)


class Tiles(NamedTuple):
    """How a convolution is cut into programs."""

    block_m: int
    """Output rows of a program."""
    block_n: int
    """Output channels of a program."""
    block_k: int
    """Input channels taken at a time."""
    warps: int
    stages: int = 3
    """Steps in flight: an entry of the table, the rows it names, and their product are one each."""


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


def available() -> bool:
    """Whether the kernels can run: Triton is installed, and there is a CUDA device or Triton's interpreter is on."""
    return installed() and (interpreted() or torch.cuda.is_available())


def interpreted() -> bool:
    """Whether Triton's interpreter was asked for, which takes CPU tensors too."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.lru_cache(maxsize=1)
def installed() -> bool:
    """Whether there is a Triton to import (it is not imported here) that is recent enough, 3.2 or later."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        major, minor = importlib.metadata.version("triton").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:  # some builds have another name, pytorch-triton or triton-windows
        return True
    return (int(major), int(minor)) >= (3, 2)


def _programs(incremental: bool = False) -> ModuleType:
    require("triton", "run sparse convolutions on the GPU", "pip install 'triton>=3.2' (it comes with a CUDA build of torch)")
    from instseg_ros.sparse import device_jit, triton_jit

    return device_jit if incremental else triton_jit


def _power_of_two(value: int) -> int:
    """The next power of two, at least 16: the smallest side tl.dot takes."""
    return max(16, 1 << (value - 1).bit_length())


def conv_tiles(rows: int, cin: int, cout: int, dtype: torch.dtype, whole_rows: bool = False) -> Tiles:
    """Tiles by shape rather than by trial, so that no first call stalls a live map.

    Args:
        rows: output rows.
        cin, cout: channels.
        dtype: of the features.
        whole_rows: one program takes all output channels (`update`).
    """
    block_n = _power_of_two(cout) if whole_rows else min(_power_of_two(cout), 128)
    block_k = min(_power_of_two(cin), 32 if dtype == torch.float32 else 64)
    # Few rows (an incremental update) still have to fill the card; many rows read the weights less often in larger blocks.
    block_m = 16 if rows <= 4096 else 32 if rows <= 32768 or block_n >= 128 else 64
    return Tiles(block_m, block_n, block_k, warps=8 if block_m * block_n > 4096 else 4)


def conv(
    x: Tensor,
    table: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    rows: Tensor | None = None,
    allow_tf32: bool = False,
    tiles: Tiles | None = None,
) -> Tensor:
    """out[i] = bias + sum_k x[table[rows[i], k]] W[k] + residual[rows[i]], then ReLU; accumulated in float32.

    Args:
        x: [M, Cin] float32, float16 or bfloat16.
        table: [N, K] int32 rows of x, -1 = none. None: every row reads itself (K = 1).
        weight: [K, Cin, Cout].
        bias: [Cout].
        residual: [N, Cout].
        relu: whether negative values become 0.
        rows: [n] int32 or int64, the outputs wanted; -1 reads nothing. None = all N.
        allow_tf32: float32 products on the tensor cores, with ten bits of mantissa.
        tiles: other tiles than those of `conv_tiles`.

    Returns:
        [n, Cout] of the dtype of x.
    """
    count = len(rows) if rows is not None else len(x if table is None else table)
    taps, cin, cout = weight.shape
    _check(x, table, weight)
    out = torch.empty(count, cout, dtype=x.dtype, device=x.device)
    if count:
        tiles = tiles or conv_tiles(count, cin, cout, x.dtype)
        with _on(x):
            _programs().conv_program[(-(-count // tiles.block_m), -(-cout // tiles.block_n))](
                x.contiguous(), _dense(table, x), _dense(rows, x), weight.to(x.dtype).contiguous(), _dense(bias, x),
                _dense(residual, x), out, count,
                TAPS=taps, CIN=cin, COUT=cout,
                HAS_TABLE=table is not None, HAS_ROWS=rows is not None, HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None, RELU=relu, PRECISION="tf32" if allow_tf32 else "ieee", WIDEN=_widen(x),
                BLOCK_M=tiles.block_m, BLOCK_N=tiles.block_n, BLOCK_K=tiles.block_k, num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    return out


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
) -> Tensor:
    """Recompute rows of a layer's cached output, replace, in place, those that moved, and list what reads them; arguments as in `conv`.

    A row moved where one of its channels, as it would be stored, differs from the cached one by more than the threshold, or
    where it is fresh. Other rows keep their old value.

    Args:
        rows: [n] rows of the cache to recompute, none of them twice; -1 = nothing to do, so a list may have
            places left over.
        cache: [N, Cout], contiguous; float32, float16 or bfloat16. Neither x nor residual may share its memory.
        threshold: a number, or one on the device (a float32 tensor of one element), which spares a round trip.
        fresh: [N] bool or uint8: rows whose cached value means nothing.
        readers: at most `MAX_READERS` layers, none twice, on whose lists goes what reads a row that moved;
        epoch: [1] int32, with readers: what their stamps hold of rows that are listed.
        replaced: [1] int32, to which the number of rows that moved is added.

    Returns:
        moved: [n] bool.

    Raises:
        InputError: more output channels than one program can compare, or more readers than one can tell.
    """
    count = len(cache) if rows is None else len(rows)
    taps, cin, cout = weight.shape
    if cout > MAX_UPDATE_WIDTH:
        raise InputError(f"update compares whole rows and takes up to {MAX_UPDATE_WIDTH} output channels, not {cout}: use conv")
    if not cache.is_contiguous() or cache.shape[1] != cout:
        shape, strides = tuple(cache.shape), cache.stride()
        raise InputError(f"the cache must be contiguous with {cout} columns; it is {shape} with strides {strides}")
    if len(readers) > MAX_READERS or (readers and epoch is None):
        raise InputError(f"update tells up to {MAX_READERS} layers, given an epoch, not {len(readers)}: use announce for the others")
    _check(x, table, weight)
    moved = torch.empty(count, dtype=torch.uint8, device=x.device)
    if count:
        tiles = tiles or conv_tiles(count, cin, cout, x.dtype, whole_rows=True)
        nobody: tuple[object, ...] = (x, x, x, x, 0)
        told = [(_dense(r.table, x), r.stamp, r.due, r.number, len(r.due)) for r in readers] + [nobody] * (MAX_READERS - len(readers))
        widths = [_reach(r) for r in readers] + [(0, 1)] * (MAX_READERS - len(readers))
        with _on(x):
            _programs(incremental=True).update_program[(-(-count // tiles.block_m),)](
                x.contiguous(), _dense(table, x), _dense(rows, x), weight.to(x.dtype).contiguous(), _dense(bias, x),
                _dense(residual, x), cache, moved, _dense(replaced, x), cache if fresh is None else fresh.contiguous().view(torch.uint8),
                threshold if isinstance(threshold, Tensor) else float(threshold), count, _dense(epoch, x), *told[0], *told[1],
                TAPS=taps, CIN=cin, COUT=cout,
                HAS_TABLE=table is not None, HAS_ROWS=rows is not None, HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None, RELU=relu, HAS_FRESH=fresh is not None,
                THRESHOLD_IN_MEMORY=isinstance(threshold, Tensor), HAS_REPLACED=replaced is not None,
                TAPS_A=widths[0][0], PADDED_A=widths[0][1], TAPS_B=widths[1][0], PADDED_B=widths[1][1],
                PRECISION="tf32" if allow_tf32 else "ieee", WIDEN=_widen(x),
                BLOCK_M=tiles.block_m, BLOCK_N=tiles.block_n, BLOCK_K=tiles.block_k, num_warps=tiles.warps, num_stages=tiles.stages,
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
    with _on(rows):
        _programs(incremental=True).announce_program[(-(-len(rows) // block),)](
            rows, rows if moved is None else moved.view(torch.uint8), epoch, _dense(reader.table, rows), reader.stamp, reader.due,
            reader.number, len(rows), len(reader.due), TAPS=taps, PADDED=padded, HAS_MOVED=moved is not None, BLOCK=block, num_warps=4,
        )  # fmt: skip


def seed(plan: Tensor, longest: int, change: Tensor, due: Tensor, stamp: Tensor, counts: Tensor, epoch: Tensor) -> None:
    """Begin the lists of all layers with rows that are due whatever moves; arguments as in `device_jit.seed_program`.

    Args:
        longest: places that one layer has at most.
        counts: [layers, APART] int32, of which the first column is counted up.
    """
    with _on(due):
        _programs(incremental=True).seed_program[(len(plan), max(1, -(-longest // _ENTRIES)))](
            plan, change, due, stamp, counts, epoch, APART=APART, BLOCK=_ENTRIES, num_warps=4)


def _reach(reader: Reader) -> tuple[int, int]:
    """Columns of a reader's table (1 without), and the next power of two."""
    taps = 1 if reader.table is None else reader.table.shape[1]
    return taps, 1 << (taps - 1).bit_length()


def _check(x: Tensor, table: Tensor | None, weight: Tensor) -> None:
    taps, cin, _ = weight.shape
    if x.shape[1] != cin or taps != (1 if table is None else table.shape[1]):
        given = f"features {tuple(x.shape)} and a table {None if table is None else tuple(table.shape)}"
        raise InputError(f"weights {tuple(weight.shape)} [K, Cin, Cout] do not fit {given}")


def _dense(optional: Tensor | None, stand_in: Tensor) -> Tensor:
    """A contiguous tensor; for one that is not there any pointer will do, as the program does not read it."""
    return stand_in if optional is None else optional.contiguous()


def _widen(x: Tensor) -> bool:
    return interpreted() and x.dtype == torch.bfloat16


def _on(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device, which need not be the tensors' (-1 leaves it as it is)."""
    return torch.cuda.device(x.device if x.is_cuda else -1)


def weight_grad(x: Tensor, table: Tensor, grad: Tensor, allow_tf32: bool = False) -> Tensor:
    """dW[k] = sum_n x[table[n, k]]^T grad[n], the same at every run: partial sums over blocks of rows, then their sum.

    Args:
        x: [M, Cin] float32, float16 or bfloat16.
        table: [N, K] int32 rows of x, -1 = none.
        grad: [N, Cout].
        allow_tf32: as in `conv`.

    Returns:
        [K, Cin, Cout] float32.
    """
    (count, taps), cin, cout = table.shape, x.shape[1], grad.shape[1]
    if count == 0:
        return torch.zeros(taps, cin, cout, device=x.device)
    block_i, block_o = min(_power_of_two(cin), 64), min(_power_of_two(cout), 64)
    block_r = 32
    tiles = taps * -(-cin // block_i) * -(-cout // block_o)
    most = min(_MAX_SPLITS, max(1, _PARTIAL_FLOATS // (taps * cin * cout)))
    wanted = min(most, -(-_PROGRAMS_WANTED // tiles), -(-count // (4 * block_r)))
    rows_per_split = -(-count // (wanted * block_r)) * block_r
    splits = -(-count // rows_per_split)
    partial = torch.empty(splits, taps, cin, cout, device=x.device)
    with _on(x):
        _programs().weight_grad_program[(tiles, splits)](
            x.contiguous(), table.contiguous(), grad.to(x.dtype).contiguous(), partial, count, rows_per_split,
            TAPS=taps, CIN=cin, COUT=cout, PRECISION="tf32" if allow_tf32 else "ieee", WIDEN=_widen(x),
            BLOCK_R=block_r, BLOCK_I=block_i, BLOCK_O=block_o, num_warps=4, num_stages=3,
        )  # fmt: skip
    return partial.sum(0)
