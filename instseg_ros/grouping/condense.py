"""Condensing: voxels of one component become weighted cells of feature space, so that clustering works on few items."""

__all__ = ["Cells", "condense"]

from dataclasses import dataclass

import numpy as np

_COARSEN = 1.25


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


def _grid(features: np.ndarray, size: float) -> np.ndarray:
    """Cell [n] of every row, numbered in the order of their hashes."""
    # From the lowest corner: a cluster may lie anywhere, also about zero, and with growing cells all end in one
    index = ((features - features.min(axis=0)) / size).astype(np.int64)
    # A row is hashed to 64 bits (odd multipliers, xor-shift between): sorting one integer a voxel instead of F. Two different
    # cells of one component meet with a chance of 1e-11 at most and would then merely be one cell.
    hashed = np.zeros(len(index), np.uint64)
    for column in index.T:
        hashed = (hashed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return np.unique(hashed, return_inverse=True)[1].reshape(-1)


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
    cell_of = _grid(features, size)
    while cell_of.max() >= max_cells:
        size *= _COARSEN
        cell_of = _grid(features, size)
    counts = np.bincount(cell_of)
    sums = np.stack([np.bincount(cell_of, column) for column in features.T], axis=1)
    return Cells(cell_of, sums / counts[:, None], counts, size)
