"""The Triton programs of an incremental wave; `device_update.py` launches them and alone imports this file.

A layer is one launch: `update_program` recomputes the due rows, replaces those that moved, and puts the rows that read them on the
lists of the layers that do. What the map's change itself makes due is put on all lists before, by `seed_program`.
"""

__all__ = ["announce_program", "attend_program", "seed_program", "update_program"]

import triton
import triton.language as tl

from instseg_ros.sparse.triton_jit import layer_of_rows


@triton.jit
def _announce(
    row, epoch, table, stamp, due, count, length, TAPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Appends to `due` [length] the rows that `table` [*, TAPS] names for the given ones (-1 = none), each once.

    A row is taken by who first puts the epoch into its stamp, so no two programs append it. `count` goes on past the end of
    the list, and tells that it was too short. The order depends on which program comes first; what is computed does not.
    Without a table (TAPS of 1) rows name themselves; as a launch has no row twice, nobody else takes it at the same time.
    """
    if TAPS == 1:
        free = (row >= 0) & (tl.load(stamp + row, mask=row >= 0, other=0) != epoch)
        tl.store(stamp + row, tl.zeros_like(row).to(tl.int32) + epoch, mask=free)
        new = free.to(tl.int32)
        total = tl.sum(new, 0)
        if total > 0:
            at = tl.atomic_add(count, total) + tl.cumsum(new, 0) - 1
            tl.store(due + at, row.to(tl.int32), mask=(new != 0) & (at < length))
    else:
        tap = tl.arange(0, PADDED)[None, :]
        target = tl.load(table + row[:, None] * TAPS + tap, mask=(row >= 0)[:, None] & (tap < TAPS), other=-1).to(tl.int64)
        before = tl.atomic_xchg(stamp + target, tl.zeros_like(target).to(tl.int32) + epoch, mask=target >= 0)
        new = ((target >= 0) & (before != epoch)).to(tl.int32)
        of_row = tl.sum(new, 1)
        total = tl.sum(of_row, 0)
        if total > 0:
            at = tl.atomic_add(count, total) + (tl.cumsum(of_row, 0) - of_row)[:, None] + tl.cumsum(new, 1) - 1
            tl.store(due + at, target.to(tl.int32), mask=(new != 0) & (at < length))


@triton.jit
def announce_program(
    rows, moved, epoch, table, stamp, due, count, n, length,
    TAPS: tl.constexpr, PADDED: tl.constexpr, HAS_MOVED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows [n] (-1 = none), those that moved if HAS_MOVED, make due what reads them (`_announce`)."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows + place, mask=place < n, other=-1).to(tl.int64)
    if HAS_MOVED:
        row = tl.where(tl.load(moved + place, mask=place < n, other=0) != 0, row, -1)
    if tl.max(row, 0) >= 0:
        _announce(row, tl.load(epoch), table, stamp, due, count, length, TAPS, PADDED)


@triton.jit
def seed_program(plan, change, due, stamp, count, epoch, APART: tl.constexpr, BLOCK: tl.constexpr):
    """Begins the list of every layer with the rows that the map's change makes due in it; the grid is (layer, block).

    `plan` [layers, 4] int64: where the layer's seeds begin in `change`, how many places they have (unused ones hold -1), where its
    list begins in `due`, and where its stamps begin in `stamp`. The count of a layer is APART numbers from the next one's.
    """
    layer = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    seeds, places = tl.load(plan + layer * 4), tl.load(plan + layer * 4 + 1)
    row = tl.load(change + seeds + place, mask=place < places, other=-1)
    there = row >= 0
    total = tl.sum(there.to(tl.int32), 0)
    if total > 0:
        tl.store(due + tl.load(plan + layer * 4 + 2) + place, row, mask=there)
        tl.store(stamp + tl.load(plan + layer * 4 + 3) + row, tl.zeros_like(row) + tl.load(epoch), mask=there)
        tl.atomic_add(count + layer * APART, total)


@triton.jit
def _replace(
    value, row, slot, i, n, columns, cache, moved, replaced, fresh, threshold, epoch,
    table_a, stamp_a, due_a, count_a, length_a, table_b, stamp_b, due_b, count_b, length_b,
    COUT: tl.constexpr, HAS_FRESH: tl.constexpr, THRESHOLD_IN_MEMORY: tl.constexpr, HAS_REPLACED: tl.constexpr,
    TAPS_A: tl.constexpr, PADDED_A: tl.constexpr, TAPS_B: tl.constexpr, PADDED_B: tl.constexpr,
):  # fmt: skip
    """Writes to `cache`, in their slots, the rows that moved, says which, counts them, and announces them to up to two layers (0 taps = none)."""
    # What is compared is what would be stored, so that a value which rounds to the cached one has not moved.
    live = row >= 0
    kept = live[:, None] & (columns < COUT)[None, :]
    at = slot[:, None] * COUT + columns[None, :]
    old = tl.load(cache + at, mask=kept, other=0.0).to(tl.float32)
    difference = tl.max(tl.where(kept, tl.abs(value.to(tl.float32) - old), 0.0), 1)
    if THRESHOLD_IN_MEMORY:
        limit = tl.load(threshold)
    else:
        limit = threshold
    replace = difference > limit
    if HAS_FRESH:
        replace = replace | (tl.load(fresh + row, mask=live, other=0) != 0)
    replace = replace & live
    tl.store(cache + at, value, mask=kept & replace[:, None])
    tl.store(moved + i, replace.to(tl.uint8), mask=i < n)
    if HAS_REPLACED:
        tl.atomic_add(replaced, tl.sum(replace.to(tl.int32), 0))
    if TAPS_A > 0:
        row = tl.where(replace, row, -1)
        if tl.max(row, 0) >= 0:
            number = tl.load(epoch)
            _announce(row, number, table_a, stamp_a, due_a, count_a, length_a, TAPS_A, PADDED_A)
            if TAPS_B > 0:
                _announce(row, number, table_b, stamp_b, due_b, count_b, length_b, TAPS_B, PADDED_B)


@triton.jit
def update_program(
    x, table, rows, place_in, place_out, weight, bias, residual, cache, moved, replaced, fresh, threshold, n,
    epoch, table_a, stamp_a, due_a, count_a, length_a, table_b, stamp_b, due_b, count_b, length_b,
    TAPS: tl.constexpr, CIN: tl.constexpr, COUT: tl.constexpr,
    HAS_TABLE: tl.constexpr, HAS_ROWS: tl.constexpr, HAS_PLACE_IN: tl.constexpr, HAS_PLACE_OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    HAS_FRESH: tl.constexpr, THRESHOLD_IN_MEMORY: tl.constexpr, HAS_REPLACED: tl.constexpr,
    TAPS_A: tl.constexpr, PADDED_A: tl.constexpr, TAPS_B: tl.constexpr, PADDED_B: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Recomputes BLOCK_M rows of a cache, of all its channels, and replaces those that moved (`_replace`).

    HAS_PLACE_IN, HAS_PLACE_OUT: rows of x, or of cache and residual, are at other places, which `place_in` and `place_out` have.
    """
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    inside = i < n
    if HAS_ROWS:
        row = tl.load(rows + i, mask=inside, other=-1).to(tl.int64)
    else:
        row = tl.where(inside, i, -1).to(tl.int64)
    if HAS_PLACE_OUT:
        slot = tl.where(row >= 0, tl.load(place_out + row, mask=row >= 0, other=0).to(tl.int64), -1)
        row = tl.where(slot >= 0, row, -1)
    else:
        slot = row
    if tl.max(row, 0) < 0:  # the rest of a list that is longer than was needed
        tl.store(moved + i, tl.zeros_like(i).to(tl.uint8), mask=inside)
        return
    value = layer_of_rows(
        x, table, row, slot, place_in, columns, weight, bias, residual, TAPS, CIN, COUT, HAS_TABLE, HAS_PLACE_IN, HAS_BIAS, HAS_RESIDUAL,
        RELU, PRECISION, WIDEN, BLOCK_M, BLOCK_N, BLOCK_K).to(cache.dtype.element_ty)  # fmt: skip
    _replace(
        value, row, slot, i, n, columns, cache, moved, replaced, fresh, threshold, epoch, table_a, stamp_a, due_a, count_a, length_a,
        table_b, stamp_b, due_b, count_b, length_b, COUT, HAS_FRESH, THRESHOLD_IN_MEMORY, HAS_REPLACED,
        TAPS_A, PADDED_A, TAPS_B, PADDED_B)  # fmt: skip


@triton.jit
def attend_program(
    x, neighbors, order, rows, own, other, bias, score, update, out, moved, replaced, fresh, threshold, n,
    epoch, table_a, stamp_a, due_a, count_a, length_a, table_b, stamp_b, due_b, count_b, length_b,
    NEAREST: tl.constexpr, COLUMNS: tl.constexpr, F: tl.constexpr, H: tl.constexpr,
    TAPS_A: tl.constexpr, PADDED_A: tl.constexpr, TAPS_B: tl.constexpr, PADDED_B: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """`models.refine.attend` (Liang 2019, eqs. 7 to 10) for BLOCK_M rows; the softmax is summed up as the neighbours come."""
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = i < n
    row = tl.load(rows + i, mask=inside, other=-1).to(tl.int64)
    if tl.max(row, 0) < 0:
        tl.store(moved + i, tl.zeros_like(i).to(tl.uint8), mask=inside)
        return
    live = row >= 0
    f, h = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_H)
    in_f, in_h = f < F, h < H
    hidden = f[:, None] * H + h[None, :]
    to_hidden = in_f[:, None] & in_h[None, :]
    center = tl.load(x + row[:, None] * F + f[None, :], mask=live[:, None] & in_f[None, :], other=0.0)
    mine = tl.dot(center, tl.load(own + hidden, mask=to_hidden, other=0.0), input_precision="ieee")
    mine += tl.load(bias + h, mask=in_h, other=0.0)[None, :]
    theirs = tl.load(other + hidden, mask=to_hidden, other=0.0)
    weigh = tl.load(score + h, mask=in_h, other=0.0)

    best = tl.full((BLOCK_M,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mean = tl.zeros((BLOCK_M, BLOCK_F), tl.float32)
    seen = tl.zeros((BLOCK_M,), tl.int32)
    for step in range(COLUMNS):
        source = tl.where(live, tl.load(neighbors + row * 27 + tl.load(order + step), mask=live, other=0).to(tl.int64), -1)
        there = (source >= 0) & (seen < NEAREST)
        seen += there.to(tl.int32)
        around = tl.load(x + source[:, None] * F + f[None, :], mask=there[:, None] & in_f[None, :], other=0.0)
        p = tl.sum(tl.maximum(mine + tl.dot(around, theirs, input_precision="ieee"), 0.0) * weigh[None, :], 1)
        p = tl.where(there, p, -1e30)
        top = tl.maximum(best, p)
        kept, alpha = tl.exp(best - top), tl.where(there, tl.exp(p - top), 0.0)
        total = total * kept + alpha
        mean = mean * kept[:, None] + around * alpha[:, None]
        best = top
    mean = mean / tl.where(total > 0.0, total, 1.0)[:, None]

    back = f[:, None] * F + f[None, :]
    to_back = in_f[:, None] & in_f[None, :]
    value = tl.dot(center, tl.load(update + back, mask=to_back, other=0.0), input_precision="ieee")
    value = tl.dot(mean, tl.load(update + F * F + back, mask=to_back, other=0.0), value, input_precision="ieee")
    _replace(
        value, row, row, i, n, f, out, moved, replaced, fresh, threshold, epoch, table_a, stamp_a, due_a, count_a, length_a,
        table_b, stamp_b, due_b, count_b, length_b, F, True, True, True, TAPS_A, PADDED_A, TAPS_B, PADDED_B)  # fmt: skip
