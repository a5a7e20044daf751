"""The Triton program that finds due rows; `device_update.py` launches it and alone imports this file."""

__all__ = ["reach_program"]

import triton
import triton.language as tl


@triton.jit
def reach_program(
    rows, moved, table, stamp, epoch, due, count, n, length,
    TAPS: tl.constexpr, PADDED: tl.constexpr, HAS_TABLE: tl.constexpr, HAS_MOVED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Appends to `due` [length] the rows that `table` [*, TAPS] names for the given ones, each once.

    A row is taken by who first puts the epoch into its stamp, so no two programs append it. `count` goes on past the end of
    the list, and tells that it was too short. The order depends on which program comes first; what is computed does not.
    """
    entry = tl.arange(0, BLOCK * PADDED)
    place = tl.program_id(0) * BLOCK + entry // PADDED
    tap = entry % PADDED
    row = tl.load(rows + place, mask=place < n, other=-1).to(tl.int64)
    if HAS_MOVED:
        row = tl.where(tl.load(moved + place, mask=place < n, other=0) != 0, row, -1)
    if tl.max(row, 0) >= 0:
        if HAS_TABLE:
            target = tl.load(table + row * TAPS + tap, mask=(row >= 0) & (tap < TAPS), other=-1).to(tl.int64)
        else:
            target = row
        named = target >= 0
        mine = tl.load(epoch)
        before = tl.atomic_xchg(stamp + target, tl.zeros_like(entry) + mine, mask=named)
        new = (named & (before != mine)).to(tl.int32)
        total = tl.sum(new, 0)
        if total > 0:
            at = tl.atomic_add(count, total) + tl.cumsum(new, 0) - 1
            tl.store(due + at, target.to(tl.int32), mask=(new != 0) & (at < length))
