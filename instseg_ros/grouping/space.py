"""The space in which voxels are clustered: their embeddings, the centres that they vote for, where they are, and their classes."""

__all__ = ["MAX_CELLS", "MIN_CELLS", "cells_of", "clustering_space", "embedding_space", "space_heads"]

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.grouping.condense import Cells, condense
from instseg_ros.grouping.splitter import Component

MAX_CELLS = 1000
"""Clustering time grows with the square of the cells; a component that would have more gets coarser cells."""
MIN_CELLS = 200
"""Fewer cells than this are never made coarser."""


def space_heads(config: GroupingConfig) -> list[str]:
    """The heads that span the space; one with scale 0 is not read.

    Raises:
        ConfigError: both scales are 0.
    """
    scales = {"embedding": config.embedding_scale, "offset": config.offset_scale}
    heads = [head for head, scale in scales.items() if scale > 0.0]
    if not heads:
        raise ConfigError("grouping.embedding_scale and grouping.offset_scale are both 0: nothing is left to cluster voxels by")
    return heads


def clustering_space(component: Component, config: GroupingConfig) -> np.ndarray:
    """Where the voxels of a component lie in the space in which they are clustered.

    Returns:
        [n, F] float64: what has a scale above 0 of the embedding (D columns), the centre that the voxel votes for (3), where it is (3) and its class
        probabilities (20), in this order.
    """
    parts = []
    for head in space_heads(config):
        if head == "embedding":
            parts.append(component.rows.require("embedding") * float(config.embedding_scale))
        else:
            parts.append((np.asarray(component.points_m, np.float64) + component.rows.require("offset")) * config.offset_scale)
    if config.position_scale > 0.0:
        parts.append(np.asarray(component.points_m, np.float64) * config.position_scale)
    return np.concatenate([*parts, *_classes(component, config)], axis=1, dtype=np.float64)


def embedding_space(component: Component, config: GroupingConfig) -> np.ndarray:
    """As `clustering_space`, [n, D] or [n, D + 20], of the embedding whatever the scale of the centres is."""
    embedding = component.rows.require("embedding") * float(config.embedding_scale)
    return np.concatenate([embedding, *_classes(component, config)], axis=1, dtype=np.float64)


def _classes(component: Component, config: GroupingConfig) -> list[np.ndarray]:
    """Scaled class probabilities, if they count: where the class changes, an object often ends."""
    return [component.rows.semantic * np.float64(config.semantic_scale)] if config.semantic_scale > 0.0 else []


def cells_of(where: np.ndarray, cell_size: float) -> Cells:
    """Condense voxels [n, F] to at most half as many cells, and never more than `MAX_CELLS`.

    What does not condense is noise in the features, which larger cells average out.
    """
    return condense(where, cell_size, int(np.clip(len(where) // 2, MIN_CELLS, MAX_CELLS)))
