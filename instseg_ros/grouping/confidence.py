"""How likely a segment is a whole object, by its size and by where its voxels see the centre."""

__all__ = ["wholeness"]

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.splitter import Component


def wholeness(component: Component, inside: np.ndarray, config: GroupingConfig) -> float:
    """What the score of a segment is multiplied by, 0 to 1.

    Segments that are no objects are mostly pieces of one. Pieces are small, and their voxels see the centre of the object somewhere
    else: over a whole object the offsets to its centre add up to nothing.

    Args:
        component: voxels and predictions.
        inside: [m] rows of the segment's voxels, m > 0.
        config: `score_surface_m2`, `score_gap`.

    Returns:
        sqrt(a / (a + score_surface_m2)) for a surface of a, times exp(-score_gap d / D) where the network predicts offsets: d is the
        length of their mean, D the diagonal of the segment's box.
    """
    surface_m2 = len(inside) * component.voxel_size_m**2
    factor = np.sqrt(surface_m2 / (surface_m2 + config.score_surface_m2))
    if component.rows.offset is not None:
        coords = component.coords[inside]
        diagonal_m = float(np.linalg.norm(coords.max(axis=0) - coords.min(axis=0) + 1)) * component.voxel_size_m
        gap_m = np.linalg.norm(component.rows.offset[inside].mean(axis=0, dtype=np.float64))
        factor *= np.exp(-config.score_gap * gap_m / diagonal_m)
    return float(factor)
