"""Voxels of one class that touch are one instance: the baseline "connected components" of MTML (Lahoud et al. 2019, Table 1)."""

__all__ = ["class_components", "split_connected_components"]

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.components import connect
from instseg_ros.grouping.splitter import FOREGROUND, Component


def class_components(component: Component, reach: int) -> np.ndarray:
    """[n] int64 label per voxel: voxels of the same foreground class that are linked within Chebyshev distance `reach`."""
    best = component.rows.semantic[:, FOREGROUND].argmax(axis=1)
    labels, count = np.zeros(len(component), np.int64), 0
    for class_index in np.unique(best):
        mine = best == class_index
        parts = connect(component.keys[mine], reach)
        labels[mine] = parts + count
        count += int(parts.max()) + 1
    return labels


def split_connected_components(component: Component, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split one connected component by class alone; objects of a class that touch stay one.

    Returns:
        labels [n] int64 from 0, and membership [n], which is 1.
    """
    return class_components(component, config.class_reach), np.ones(len(component))
