"""The sparse convolution on CUDA: one Triton launch a layer, with bias, residual sum and ReLU at its end.

Triton is imported at the first launch. With TRITON_INTERPRET=1 in the environment before that, the same programs run on CPU
tensors, slowly: that is how they are tested without a GPU.
"""

__all__ = [
    "DTYPES", "Tiles", "available", "check", "conv", "conv_tiles", "dense", "installed", "interpreted", "launching_on", "power_of_two",
    "programs", "weight_grad", "widen",
]

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from instseg_ros.errors import InputError, require

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Of the features; sums are kept in float32."""
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


def programs(module: str = "triton_jit") -> ModuleType:
    """The module of Triton programs of that name, imported at the first launch."""
    require("triton", "run sparse convolutions on the GPU", "pip install 'triton>=3.2' (it comes with a CUDA build of torch)")
    return importlib.import_module(f"instseg_ros.sparse.{module}")


def power_of_two(value: int) -> int:
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
    block_n = power_of_two(cout) if whole_rows else min(power_of_two(cout), 128)
    block_k = min(power_of_two(cin), 32 if dtype == torch.float32 else 64)
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
    check(x, table, weight)
    out = torch.empty(count, cout, dtype=x.dtype, device=x.device)
    if count:
        tiles = tiles or conv_tiles(count, cin, cout, x.dtype)
        with launching_on(x):
            programs().conv_program[(-(-count // tiles.block_m), -(-cout // tiles.block_n))](
                x.contiguous(), dense(table, x), dense(rows, x), weight.to(x.dtype).contiguous(), dense(bias, x),
                dense(residual, x), out, count,
                TAPS=taps, CIN=cin, COUT=cout,
                HAS_TABLE=table is not None, HAS_ROWS=rows is not None, HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None, RELU=relu, PRECISION="tf32" if allow_tf32 else "ieee", WIDEN=widen(x),
                BLOCK_M=tiles.block_m, BLOCK_N=tiles.block_n, BLOCK_K=tiles.block_k, num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    return out


def check(x: Tensor, table: Tensor | None, weight: Tensor) -> None:
    """Whether features, table and weights fit each other; raises InputError."""
    taps, cin, _ = weight.shape
    if x.shape[1] != cin or taps != (1 if table is None else table.shape[1]):
        given = f"features {tuple(x.shape)} and a table {None if table is None else tuple(table.shape)}"
        raise InputError(f"weights {tuple(weight.shape)} [K, Cin, Cout] do not fit {given}")


def dense(optional: Tensor | None, stand_in: Tensor) -> Tensor:
    """A contiguous tensor; for one that is not there any pointer will do, as the program does not read it."""
    return stand_in if optional is None else optional.contiguous()


def widen(x: Tensor) -> bool:
    """Whether products are to be in float32, which bfloat16 needs in the interpreter."""
    return interpreted() and x.dtype == torch.bfloat16


def launching_on(x: Tensor) -> torch.cuda.device:
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
    block_i, block_o = min(power_of_two(cin), 64), min(power_of_two(cout), 64)
    block_r = 32
    tiles = taps * -(-cin // block_i) * -(-cout // block_o)
    most = min(_MAX_SPLITS, max(1, _PARTIAL_FLOATS // (taps * cin * cout)))
    wanted = min(most, -(-_PROGRAMS_WANTED // tiles), -(-count // (4 * block_r)))
    steps = 1 << (-(-count // (wanted * block_r)) - 1).bit_length()  # a power of two, so that few programs are compiled
    splits = -(-count // (steps * block_r))
    partial = torch.empty(splits, taps, cin, cout, device=x.device)
    with launching_on(x):
        programs().weight_grad_program[(tiles, splits)](
            x.contiguous(), table.contiguous(), grad.to(x.dtype).contiguous(), partial, count,
            TAPS=taps, CIN=cin, COUT=cout, STEPS=steps, PRECISION="tf32" if allow_tf32 else "ieee", WIDEN=widen(x),
            BLOCK_R=block_r, BLOCK_I=block_i, BLOCK_O=block_o, num_warps=4, num_stages=3,
        )  # fmt: skip
    return partial.sum(0)
