"""Splitting a component by HDBSCAN on embeddings and predicted centres: SSEN's grouping with a spatial offset added."""

__all__ = ["MAX_CELLS", "features", "split_hdbscan"]

import numpy as np
from scipy.spatial import cKDTree

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.condense import condense
from instseg_ros.grouping.weighted_hdbscan import weighted_hdbscan
from instseg_ros.prediction import Prediction

MAX_CELLS = 1000
"""Clustering time grows with the square of the cells; a component that would have more gets coarser cells."""
MIN_CELLS = 200
"""Fewer cells than this are never made coarser."""


def features(points_m: np.ndarray, rows: Prediction, config: GroupingConfig) -> np.ndarray:
    """Where voxels lie in the space in which they are clustered.

    Args:
        points_m: [n, 3] voxel centres, m.
        rows: their predictions.
        config: weights of embedding and predicted centre.

    Returns:
        [n, D + 3] float64: scaled embedding, then the scaled centre that the voxel votes for.
    """
    votes_m = np.asarray(points_m, np.float64) + rows.require("offset")
    return np.concatenate([rows.require("embedding") * float(config.embedding_scale), votes_m * config.offset_scale], axis=1)


def split_hdbscan(points_m: np.ndarray, rows: Prediction, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split one connected component into instances.

    Args:
        points_m: [n, 3] voxel centres in canonical order, m.
        rows: their predictions.
        config: see `GroupingConfig`.

    Returns:
        labels [n] int64 from 0 (-1 = noise; this splitter gives noise to the nearest cluster) and membership [n] in 0..1.
    """
    count = len(points_m)
    one = np.zeros(count, np.int64), np.ones(count)
    if count < 2 * config.min_cluster_voxels:  # too little for two clusters
        return one
    where = features(points_m, rows, config)
    radius = np.sqrt(((where - where.mean(axis=0)) ** 2).sum(axis=1).max())
    if 2.0 * radius <= config.merge_distance:
        return one
    # At most half as many cells as voxels: what does not condense is noise in the features, which larger cells average out
    cells = condense(where, config.cell_size, int(np.clip(count // 2, MIN_CELLS, MAX_CELLS)))
    size = config.min_cluster_voxels
    merge_distance = max(config.merge_distance, cells.size)  # within a cell nothing is told apart
    labels, membership = weighted_hdbscan(
        cells.means, cells.counts, size, size, merge_distance, floor=cells.size, root_competes=False
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
