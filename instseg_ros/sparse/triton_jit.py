"""The Triton programs of the sparse convolution; `triton_kernels.py` launches them and alone imports this file.

Both are implicit matrix products: a program gathers the rows of x that its block of outputs reads, tap by tap, straight
into the tensor cores, and never writes the gathered matrix. A tap for which no row of the block has a neighbour is skipped:
a voxel of a surface has about ten of its 27 neighbours, and rows that lie together in memory mostly lack the same ones.

WIDEN multiplies in float32 what comes in as bfloat16, which is exact and only Triton's interpreter needs (its tl.dot takes
bfloat16 for integers).
"""

__all__ = ["conv_program", "weight_grad_program"]

import triton
import triton.language as tl


@triton.jit
def conv_program(
    x, table, rows, weight, bias, residual, out, moved, fresh, threshold, n,
    TAPS: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr,
    HAS_TABLE: tl.constexpr, HAS_ROWS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    UPDATE: tl.constexpr, HAS_FRESH: tl.constexpr, THRESHOLD_IN_MEMORY: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """BLOCK_M output rows by BLOCK_N channels: relu(bias + sum_k x[table[row, k]] W[k] + residual[row]).

    Without UPDATE `out` is [n, COUT] in the order of `rows`. With it `out` is the cache, indexed by row like the residual:
    a row is replaced where it moved, and `moved` [n] says so.
    """
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_width = (columns < COUT)[None, :]
    inside = i < n
    if HAS_ROWS:
        row = tl.load(rows + i, mask=inside, other=-1).to(tl.int64)
    else:
        row = tl.where(inside, i, -1).to(tl.int64)
    live = row >= 0

    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in range(TAPS):
        if HAS_TABLE:
            source = tl.load(table + row * TAPS + tap, mask=live, other=-1).to(tl.int64)
        else:
            source = row
        if tl.max(source, 0) >= 0:
            present = (source >= 0)[:, None]
            for begin in range(0, CIN, BLOCK_K):
                channels = begin + tl.arange(0, BLOCK_K)
                in_depth = channels < CIN
                a = tl.load(x + source[:, None] * CIN + channels[None, :], mask=present & in_depth[None, :], other=0.0)
                entries = (tap * CIN + channels)[:, None] * COUT + columns[None, :]
                b = tl.load(weight + entries, mask=in_depth[:, None] & in_width, other=0.0)
                if WIDEN:
                    a, b = a.to(tl.float32), b.to(tl.float32)
                total = tl.dot(a, b, total, input_precision=PRECISION)

    if HAS_BIAS:
        total += tl.load(bias + columns, mask=columns < COUT, other=0.0).to(tl.float32)[None, :]
    kept = live[:, None] & in_width
    at = row[:, None] * COUT + columns[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + at, mask=kept, other=0.0).to(tl.float32)
    if RELU:
        total = tl.maximum(total, 0.0)
    value = total.to(out.dtype.element_ty)
    if UPDATE:
        # What is compared is what would be stored, so that a value which rounds to the cached one has not moved.
        old = tl.load(out + at, mask=kept, other=0.0).to(tl.float32)
        difference = tl.max(tl.where(kept, tl.abs(value.to(tl.float32) - old), 0.0), 1)
        if THRESHOLD_IN_MEMORY:
            limit = tl.load(threshold)
        else:
            limit = threshold
        replace = difference > limit
        if HAS_FRESH:
            replace = replace | (tl.load(fresh + row, mask=live, other=0) != 0)
        replace = replace & live
        tl.store(out + at, value, mask=kept & replace[:, None])
        tl.store(moved + i, replace.to(tl.uint8), mask=inside)
    else:
        tl.store(out + i.to(tl.int64)[:, None] * COUT + columns[None, :], value, mask=inside[:, None] & in_width)


@triton.jit
def weight_grad_program(
    x, table, grad, partial, n, rows_per_split,
    TAPS: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """One tile [BLOCK_I, BLOCK_O] of one tap's gradient, sum_n x[table[n, k]]^T grad[n] over the rows of one split.

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

    first = split * rows_per_split
    total = tl.zeros((BLOCK_I, BLOCK_O), tl.float32)
    step = 0
    while step < rows_per_split:  # not a range, which some releases of the interpreter take no argument for
        row = first + step + tl.arange(0, BLOCK_R)
        source = tl.load(table + row * TAPS + tap, mask=row < n, other=-1).to(tl.int64)
        if tl.max(source, 0) >= 0:
            present = (source >= 0)[:, None]
            a = tl.load(x + source[:, None] * CIN + channels[None, :], mask=present & in_depth[None, :], other=0.0)
            b = tl.load(grad + row[:, None] * COUT + columns[None, :], mask=present & in_width[None, :], other=0.0)
            if WIDEN:
                a, b = a.to(tl.float32), b.to(tl.float32)
            total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
        step += BLOCK_R

    at = ((split * TAPS + tap) * CIN + channels)[:, None] * COUT + columns[None, :]
    tl.store(partial + at, total, mask=in_depth[:, None] & in_width[None, :])
