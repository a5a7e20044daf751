"""Condensing: voxels of one component become weighted cells of feature space, so that clustering works on few items."""

__all__ = ["Cells", "condense"]

from dataclasses import dataclass

import numpy as np

_COARSEN = 1.25
_SAMPLE = 3
"""How many times as many voxels as cells are looked at first."""


@dataclass(frozen=True)
class Cells:
    """Cells that hold at least one voxel."""

    cell_of: np.ndarray
    """[n] cell of every voxel."""
    means: np.ndarray
    """[m, F] float64 mean features of the voxels in a cell."""
    counts: np.ndarray
    """[m] int64 voxels in a cell."""
    size: float
    """Edge of the cells, in units of the features; 0 = every voxel is a cell."""


def _hashes(columns: np.ndarray, size: float) -> np.ndarray:
    """[n] hash of the cell of every voxel; columns [F, n] count from the lowest corner."""
    # A row is hashed to 64 bits (odd multipliers, xor-shift between): sorting one integer a voxel instead of F. Two different
    # cells of one component meet with a chance of 1e-11 at most and would then merely be one cell.
    hashed = np.zeros(columns.shape[1], np.uint64)
    for column in columns:
        hashed ^= (column / size).astype(np.int64).view(np.uint64)
        hashed *= np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return hashed


def _distinct(hashes: np.ndarray) -> np.ndarray:
    """The different hashes, ascending."""
    hashes = np.sort(hashes)
    return hashes[np.concatenate([[True], hashes[1:] != hashes[:-1]])]


def condense(features: np.ndarray, cell_size: float, max_cells: int) -> Cells:
    """Put voxels into the cells of a grid over feature space.

    Args:
        features: [n, F] float64.
        cell_size: edge of a cell; 0 = no condensing.
        max_cells: the edge is enlarged until there are no more cells than this.
    """
    count = len(features)
    if cell_size <= 0.0 and count <= max_cells:
        return Cells(np.arange(count), features, np.ones(count, np.int64), 0.0)
    size = cell_size if cell_size > 0.0 else max(float(np.ptp(features, axis=0).max()) / 64.0, 1e-9)
    # From the lowest corner: a cluster may lie anywhere, also about zero, and with growing cells all end in one
    columns = np.ascontiguousarray((features - features.min(axis=0)).T)
    some = np.ascontiguousarray(columns[:, :: max(1, count // (_SAMPLE * max_cells))])
    while True:
        if len(_distinct(_hashes(some, size))) <= max_cells:  # if some voxels are in too many cells, all are
            hashes = _hashes(columns, size)
            cells = _distinct(hashes)
            if len(cells) <= max_cells:
                break
        size *= _COARSEN
    cell_of = np.searchsorted(cells, hashes)  # cells are numbered in the order of their hashes
    counts = np.bincount(cell_of)
    sums = np.stack([np.bincount(cell_of, column) for column in features.T], axis=1)
    return Cells(cell_of, sums / counts[:, None], counts, size)
