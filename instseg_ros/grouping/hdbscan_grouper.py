"""Splitting a component by HDBSCAN on embeddings and predicted centres: SSEN's grouping with a spatial offset added."""

__all__ = ["split_hdbscan"]

import numpy as np
from scipy.spatial import cKDTree

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.arrays import array_module
from instseg_ros.grouping.space import cells_of, clustering_space
from instseg_ros.grouping.splitter import Component
from instseg_ros.grouping.weighted_hdbscan import weighted_hdbscan


def split_hdbscan(component: Component, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split one connected component into instances.

    Args:
        component: voxels and predictions.
        config: see `GroupingConfig`.

    Returns:
        labels [n] int64 from 0 (-1 = noise; this splitter gives noise to the nearest cluster) and membership [n] in 0..1.
    """
    count = len(component)
    one = np.zeros(count, np.int64), np.ones(count)
    if count < 2 * config.min_cluster_voxels:  # too little for two clusters
        return one
    where = clustering_space(component, config)
    radius = np.sqrt(((where - where.mean(axis=0)) ** 2).sum(axis=1).max())
    if 2.0 * radius <= config.merge_distance:
        return one
    cells = cells_of(where, config.cell_size)
    size = config.min_cluster_voxels
    merge_distance = max(config.merge_distance, cells.size)  # within a cell nothing is told apart
    labels, membership = weighted_hdbscan(
        cells.means, cells.counts, size, size, merge_distance, floor=cells.size, root_competes=False, xp=array_module(config.device)
    )
    labels = _noise_to_nearest(cells.means, labels)
    return labels[cells.cell_of], membership[cells.cell_of]


def _noise_to_nearest(items: np.ndarray, labels: np.ndarray) -> np.ndarray:
    clustered = labels >= 0
    if not clustered.any():
        return np.zeros_like(labels)
    noise = np.flatnonzero(~clustered)
    if len(noise):
        labels = labels.copy()
        labels[noise] = labels[clustered][cKDTree(items[clustered]).query(items[noise])[1]]
    return labels
