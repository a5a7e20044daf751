"""Who goes on as whom: counting shared voxels and assigning old things to new ones."""

__all__ = ["assign", "main_owner", "tally"]

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_MOSTLY = 0.5
"""Share of voxels from which on something is said to be made of another."""


def tally(ids: list[np.ndarray]) -> dict[tuple[int, int], int]:
    """How often id i (not 0) stands in array k: {(i, k): count}."""
    count = len(ids)
    column = np.repeat(np.arange(count), [len(a) for a in ids])
    flat = np.concatenate(ids).astype(np.int64)
    keys, numbers = np.unique(flat * count + column, return_counts=True)
    return {(int(key) // count, int(key) % count): int(n) for key, n in zip(keys, numbers, strict=True) if key >= count}


def assign(pairs: list[tuple[int, int, float]], rows: int, columns: int) -> list[tuple[int, int]]:
    """The pairs (row, column) of the greatest total value, each row and column in one at most.

    Solved for each connected block of pairs alone, so that ties in it are broken alike whatever else is there.
    """
    if not pairs:
        return []
    r, k, value = (np.array(column) for column in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(r)), (r, rows + k)), shape=(rows + columns, rows + columns))
    block_of = connected_components(graph, directed=False)[1][r]
    order = np.argsort(block_of, kind="stable")
    chosen = []
    for block in np.split(order, np.flatnonzero(np.diff(block_of[order])) + 1):
        block_rows, row = np.unique(r[block], return_inverse=True)
        block_columns, column = np.unique(k[block], return_inverse=True)
        table = np.zeros((len(block_rows), len(block_columns)))
        table[row, column] = value[block]
        for a, b in zip(*linear_sum_assignment(table, maximize=True), strict=True):
            if table[a, b] > 0.0:
                chosen.append((int(block_rows[a]), int(block_columns[b])))
    return chosen


def main_owner(ids: np.ndarray, count: int) -> int:
    """The id (not 0) that stands most often in `ids`, if on at least `_MOSTLY` of `count` voxels, else 0."""
    values, numbers = np.unique(ids[ids > 0], return_counts=True)
    if not len(values) or numbers.max() < _MOSTLY * count:
        return 0
    return int(values[numbers.argmax()])
