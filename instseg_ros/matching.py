"""Who goes on as whom: counting shared voxels and assigning old things to new ones."""

__all__ = ["assign", "highest", "main_owner", "replacements", "tally"]

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from instseg_ros.mapping.update import coord_keys

_STEPS = np.array(sorted(np.ndindex(3, 3, 3), key=lambda s: sum((v - 1) ** 2 for v in s))[1:], np.int32) - 1
"""To the 26 voxels around one, the nearest first."""

_MOSTLY = 0.5
"""Share of voxels from which on something is said to be made of another."""


def tally(ids: np.ndarray, columns: np.ndarray, weights: np.ndarray | None = None) -> dict[tuple[int, int], float]:
    """How often id i (not 0) stands with column k, or the sum of the weights there: {(i, k): number}."""
    some = ids > 0
    pairs, where = _pairs(ids[some], columns[some])
    return dict(zip(pairs, np.bincount(where, None if weights is None else weights[some]).tolist(), strict=True))


def highest(ids: np.ndarray, columns: np.ndarray, values: np.ndarray) -> dict[tuple[int, int], float]:
    """The greatest value (0 or more) where id i (not 0) stands with column k: {(i, k): value}."""
    some = ids > 0
    pairs, where = _pairs(ids[some], columns[some])
    most = np.zeros(len(pairs))
    np.maximum.at(most, where, values[some])
    return dict(zip(pairs, most.tolist(), strict=True))


def _pairs(ids: np.ndarray, columns: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The different pairs (id, column), ascending, and which of them each row is."""
    count = int(columns.max(initial=0)) + 1
    keys, where = np.unique(ids.astype(np.int64) * count + columns, return_inverse=True)
    return [divmod(key, count) for key in keys.tolist()], where


def replacements(removed: np.ndarray, added_slots: np.ndarray, added: np.ndarray) -> np.ndarray:
    """For every removed voxel [R, 3] the slot of the nearest added one (among the 26 around it), -1 where there is none."""
    heirs = np.full(len(removed), -1, np.int64)
    if not len(removed) or not len(added):
        return heirs
    keys = coord_keys(added)
    order = np.argsort(keys)
    keys = keys[order]
    for step in _STEPS:
        left = np.flatnonzero(heirs < 0)
        wanted = coord_keys(removed[left] + step)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = keys[at] == wanted
        heirs[left[hit]] = added_slots[order[at[hit]]]
    return heirs


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
