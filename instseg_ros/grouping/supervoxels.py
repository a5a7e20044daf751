"""Supervoxels: graph-based segmentation of a component's voxels by surface normal and colour, as OccuSeg begins (Han et al. 2020, 3.2)."""

__all__ = ["edge_weights", "normals", "supervoxels"]

import numpy as np
from scipy.sparse import coo_array

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.adjacency import near_pairs
from instseg_ros.grouping.splitter import Component
from instseg_ros.sparse import kernels

_NORMAL_REACH = 2
"""A normal is that of the voxels up to this far away."""


def supervoxels(component: Component, config: GroupingConfig) -> np.ndarray:
    """Parts of even surface and colour.

    Args:
        component: voxels and colours.
        config: `supervoxel_scale`, `supervoxel_min_voxels`, `supervoxel_color`.

    Returns:
        [n] int64 supervoxel per voxel, from 0 in the order of their first voxels.
    """
    coords = component.coords
    normal = normals(coords, *near_pairs(coords, _NORMAL_REACH))
    source, target = near_pairs(coords, 1)
    weight = edge_weights(normal, component.colors, source, target, config.supervoxel_color)
    order = np.argsort(weight, kind="stable")
    first = kernels.graph_segments(
        source[order], target[order], weight[order], len(coords), config.supervoxel_scale, config.supervoxel_min_voxels
    )
    return np.unique(first, return_inverse=True)[1].reshape(-1)


def edge_weights(normal: np.ndarray, colors: np.ndarray, source: np.ndarray, target: np.ndarray, color_weight: float) -> np.ndarray:
    """How unlike the two voxels of each pair [P] are: 1 - |cosine of their normals| + weighted distance of their colours, 0..1.

    The sign of a normal means nothing here, as it comes of no viewpoint.
    """
    bend = 1.0 - np.abs(np.einsum("pi,pi->p", normal[source], normal[target]))
    shade = np.asarray(colors, np.float64) / (255.0 * np.sqrt(3.0))
    gap = shade[source] - shade[target]
    return np.maximum(bend, 0.0) + color_weight * np.sqrt(np.einsum("pi,pi->p", gap, gap))


def normals(coords: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Normals of a surface of voxels, up to their sign.

    Args:
        coords: [n, 3] voxels.
        source, target: [P] pairs of near voxels, each once.

    Returns:
        [n, 3] float64: the direction in which a voxel and its near ones extend least.
    """
    count = len(coords)
    at = (coords - coords[0]).astype(np.float64)  # whole numbers: all sums below are exact
    moments = np.concatenate([np.ones((count, 1)), at, at[:, [0, 0, 0, 1, 1, 2]] * at[:, [0, 1, 2, 1, 2, 2]]], axis=1)
    near = coo_array((np.ones(len(source)), (source, target)), shape=(count, count)).tocsr()
    sums = moments + near @ moments + near.T @ moments
    mean = sums[:, 1:] / sums[:, :1]
    product = mean[:, [0, 0, 0, 1, 1, 2]] * mean[:, [0, 1, 2, 1, 2, 2]]
    spread = (mean[:, 3:] - product)[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    return np.linalg.eigh(spread)[1][:, :, 0]
