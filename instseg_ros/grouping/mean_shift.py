"""Mean shift with a flat kernel on weighted items: Liang et al. 2019 group with it, MTML's proposals begin with it.

Comaniciu, Meer: "Mean Shift: A Robust Approach Toward Feature Space Analysis" (PAMI 2002). Every item walks to the mean of what
lies within the bandwidth until the window holds the same items as before; modes are taken by weight, those within the bandwidth
of a heavier one are dropped, and an item belongs to the nearest mode that is left.
"""

__all__ = ["mean_shift", "split_mean_shift"]

from types import ModuleType

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.arrays import Array, array_module, squared_distances, to_host
from instseg_ros.grouping.space import cells_of, clustering_space
from instseg_ros.grouping.splitter import Component

_STEPS = 300
_ON_LIMIT = 1.0 + 1e-9
"""What lies at the bandwidth by construction counts as within it, whatever the rounding."""


def split_mean_shift(component: Component, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split one connected component by mean shift on embeddings and predicted centres, each with its scale.

    Liang et al. cluster embeddings alone (`offset_scale` 0) with bandwidth 1.

    Args:
        component: voxels and predictions.
        config: see `GroupingConfig`.

    Returns:
        labels [n] int64 from 0, and membership [n] in 0..1: 1 within the bandwidth of the mode, less outside.
    """
    bandwidth = config.mean_shift_bandwidth
    cells = cells_of(clustering_space(component, config), min(config.cell_size, bandwidth / 4.0))
    bandwidth = max(bandwidth, cells.size)  # within a cell nothing is told apart
    labels, modes = mean_shift(cells.means, cells.counts, bandwidth, array_module(config.device))
    distance = np.sqrt(((cells.means - modes[labels]) ** 2).sum(axis=1))
    membership = bandwidth / np.maximum(distance, bandwidth)
    return labels[cells.cell_of], membership[cells.cell_of]


def mean_shift(items: np.ndarray, weights: np.ndarray, bandwidth: float, xp: ModuleType = np) -> tuple[np.ndarray, np.ndarray]:
    """Cluster weighted items.

    Args:
        items: [m, F] float64 positions.
        weights: [m] how many points an item stands for.
        bandwidth: radius of the flat kernel; what lies at this distance is within.
        xp: array module that does the work.

    Returns:
        labels [m] int64, and the modes [k, F] float64 that they name, the heaviest first.
    """
    points, mass = xp.asarray(items, dtype=np.float64), xp.asarray(weights, dtype=np.float64)
    modes, weight = _walk(xp, points, mass, bandwidth)
    modes = _separate(modes, weight, bandwidth)
    return to_host(squared_distances(xp, points, xp.asarray(modes)).argmin(axis=1)).astype(np.int64), modes


def _walk(xp: ModuleType, points: Array, mass: Array, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """The modes [k, F] that the items end in, and the weight [k] within their windows."""
    # A window is told by the sum of a random number per item in it, exact in float64. Walks with the same window have the same
    # rest of their way, so one of them goes on: a few steps leave little more than one walk per mode.
    numbers = xp.asarray(np.random.default_rng(0).integers(1, 1 << 40, len(points)).astype(np.float64))
    columns = xp.concatenate([mass[:, None], points * mass[:, None]], axis=1)
    means, before = points, xp.zeros(len(points))
    found: list[np.ndarray] = []
    for step in range(_STEPS):
        inside = (squared_distances(xp, means, points) <= bandwidth**2 * _ON_LIMIT).astype(np.float64)
        window, first = xp.unique(inside @ numbers, return_index=True)
        inside, means = inside[first], means[first]
        arrived = (window == before[first]) | (step == _STEPS - 1)
        sums = inside @ columns
        found.append(to_host(xp.concatenate([window[:, None], sums[:, :1], means], axis=1)[arrived]))
        means, before = (sums[:, 1:] / sums[:, :1])[~arrived], window[~arrived]
        if not len(means):
            break
    rows = np.concatenate(found)
    rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
    return rows[:, 2:], rows[:, 1]


def _separate(modes: np.ndarray, weight: np.ndarray, bandwidth: float) -> np.ndarray:
    """The modes [k, F] by weight (equal ones by position), without those within the bandwidth of one before."""
    left = modes[np.lexsort((*modes.T[::-1], -weight))]
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[((left - left[0]) ** 2).sum(axis=1) > bandwidth**2 * _ON_LIMIT]
    return np.array(kept)
