"""The Triton programs of the sparse convolution; `triton_kernels.py` launches them and alone imports this file.

Both are implicit matrix products: a program gathers the rows of x that its block of outputs reads, tap by tap, straight
into the tensor cores, and never writes the gathered matrix. Taps and blocks of channels are one flat loop without branches, so
that Triton keeps several steps of it in flight: the rows named by the next entries of the table are on their way while those of
this one are multiplied. Taps that no row of a block has are not left out, as it would break that: of the 27 taps of a surface's
voxels, 22 are there in a block of 64, and 26 or 27 at the coarser levels. What is loaded ahead is filled up with zeros where it is
masked: Triton 3.2 cannot compile another filling there.

WIDEN multiplies in float32 what comes in as bfloat16, which is exact and only Triton's interpreter needs (its tl.dot takes
bfloat16 for integers).
"""

__all__ = ["conv_program", "layer_of_rows", "weight_grad_program"]

import triton
import triton.language as tl


@triton.jit
def layer_of_rows(
    x, table, row, slot, place, columns, weight, bias, residual,
    TAPS: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr,
    HAS_TABLE: tl.constexpr, HAS_PLACE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """[BLOCK_M, BLOCK_N] float32 for rows (-1 = none) and columns: relu(bias + sum_k x[table[row, k]] W[k] + residual[slot]).

    HAS_PLACE: what a table names is at another place of x, which `place` has (-1 = nowhere).
    """
    live = row >= 0
    in_width = (columns < COUT)[None, :]
    steps: tl.constexpr = (CIN + BLOCK_K - 1) // BLOCK_K
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(TAPS * steps):
        tap = step // steps
        channels = step % steps * BLOCK_K + tl.arange(0, BLOCK_K)
        in_depth = channels < CIN
        if HAS_TABLE:
            source = tl.where(live, tl.load(table + row * TAPS + tap, mask=live, other=0).to(tl.int64), -1)
        else:
            source = row
        if HAS_PLACE:
            source = tl.where(source >= 0, tl.load(place + source, mask=source >= 0, other=0).to(tl.int64), -1)
        a = tl.load(x + source[:, None] * CIN + channels[None, :], mask=(source >= 0)[:, None] & in_depth[None, :], other=0.0)
        entries = (tap * CIN + channels)[:, None] * COUT + columns[None, :]
        b = tl.load(weight + entries, mask=in_depth[:, None] & in_width, other=0.0)
        if WIDEN:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)

    if HAS_BIAS:
        total += tl.load(bias + columns, mask=columns < COUT, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        at = slot[:, None] * COUT + columns[None, :]
        total += tl.load(residual + at, mask=live[:, None] & in_width, other=0.0).to(tl.float32)
    if RELU:
        total = tl.maximum(total, 0.0)
    return total


@triton.jit
def conv_program(
    x, table, rows, weight, bias, residual, out, n,
    TAPS: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr,
    HAS_TABLE: tl.constexpr, HAS_ROWS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """BLOCK_M output rows by BLOCK_N channels of `layer_of_rows`; `out` is [n, COUT] in the order of `rows`."""
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = i < n
    if HAS_ROWS:
        row = tl.load(rows + i, mask=inside, other=-1).to(tl.int64)
    else:
        row = tl.where(inside, i, -1).to(tl.int64)
    value = layer_of_rows(
        x, table, row, row, x, columns, weight, bias, residual, TAPS, CIN, COUT, HAS_TABLE, False, HAS_BIAS, HAS_RESIDUAL, RELU,
        PRECISION, WIDEN, BLOCK_M, BLOCK_N, BLOCK_K)  # fmt: skip
    at = i.to(tl.int64)[:, None] * COUT + columns[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside[:, None] & (columns < COUT)[None, :])


@triton.jit
def weight_grad_program(
    x, table, grad, partial, n,
    TAPS: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr, STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """One tile [BLOCK_I, BLOCK_O] of one tap's gradient, sum_n x[table[n, k]]^T grad[n] over a split of STEPS blocks of rows.

    The grid is (tap and tile, split); `partial` is [splits, TAPS, CIN, COUT] float32, and its sum over the splits the gradient.
    """
    tiles_o: tl.constexpr = (COUT + BLOCK_O - 1) // BLOCK_O
    tiles_i: tl.constexpr = (CIN + BLOCK_I - 1) // BLOCK_I
    tile = tl.program_id(0)
    split = tl.program_id(1).to(tl.int64)
    tap = tile // (tiles_i * tiles_o)
    channels = (tile // tiles_o) % tiles_i * BLOCK_I + tl.arange(0, BLOCK_I)
    columns = tile % tiles_o * BLOCK_O + tl.arange(0, BLOCK_O)
    in_depth, in_width = channels < CIN, columns < COUT

    total = tl.zeros((BLOCK_I, BLOCK_O), tl.float32)
    for step in range(STEPS):
        row = (split * STEPS + step) * BLOCK_R + tl.arange(0, BLOCK_R)
        source = tl.where(row < n, tl.load(table + row * TAPS + tap, mask=row < n, other=0).to(tl.int64), -1)
        present = (source >= 0)[:, None]
        a = tl.load(x + source[:, None] * CIN + channels[None, :], mask=present & in_depth[None, :], other=0.0)
        b = tl.load(grad + row[:, None] * COUT + columns[None, :], mask=present & in_width[None, :], other=0.0)
        if WIDEN:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)

    at = ((split * TAPS + tap) * CIN + channels)[:, None] * COUT + columns[None, :]
    tl.store(partial + at, total, mask=in_depth[:, None] & in_width[None, :])
