"""OccuSeg's grouping (Han et al. 2020, 3.2): supervoxels are merged along a graph, best edge first, held by the occupancy predicted."""

__all__ = ["graph_heads", "merge_graph", "occupancy_ratio", "split_occupancy_graph"]

import heapq

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.adjacency import near_pairs
from instseg_ros.grouping.splitter import Component
from instseg_ros.grouping.supervoxels import supervoxels

_DIVISOR = 0.5
"""The occupancy ratio below which a merge is helped no further (eq. 14)."""
_RATIO = (0.3, 2.0)
"""What the occupancy ratio of an instance lies between."""
_LEAST = 1e-6
"""Least covariance, so that a head that says 0 makes no division by it."""


def graph_heads(config: GroupingConfig) -> list[str]:
    """The heads that the terms of the weight need, as far as they are not left out."""
    heads = ["embedding"] * config.graph_feature + ["offset"] * config.graph_spatial + ["occupancy"] * config.graph_occupancy
    return heads + ["covariance"] * (config.graph_feature or config.graph_spatial)


def split_occupancy_graph(component: Component, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split one connected component into instances.

    Args:
        component: voxels and predictions.
        config: see `GroupingConfig`.

    Returns:
        labels [n] int64 from 0, -1 where an instance was refused for its occupancy ratio, and membership [n] in 0..1: the
        probability of eq. 8 that the voxel belongs to its instance.
    """
    part = supervoxels(component, config)
    columns, layout = _columns(component, config)
    sums = np.stack([np.bincount(part, column) for column in columns.T], axis=1)
    one, other = (part[ends] for ends in near_pairs(component.coords, config.bridge_voxels))
    apart = one != other
    codes = np.unique(np.minimum(one, other)[apart] * len(sums) + np.maximum(one, other)[apart])
    pairs = np.stack(np.divmod(codes, len(sums)), axis=1)
    merged, sums = merge_graph(sums, pairs, layout, config)
    labels = merged[part]
    membership = np.exp(-_apart(columns, sums[labels], layout, sums[labels]))
    if config.graph_occupancy and config.graph_rejected == "drop":
        ratio = occupancy_ratio(sums, layout, config.occupancy_ratio)
        kept = (ratio > _RATIO[0]) & (ratio < _RATIO[1])
        labels = np.where(kept[labels], labels, -1)
    return labels, membership


Layout = dict[str, slice]
"""Where the sums of a supervoxel stand: "voxels", and as far as they are used "s", "d", "sigma_s", "sigma_d", "occupancy"."""


def _columns(component: Component, config: GroupingConfig) -> tuple[np.ndarray, Layout]:
    """What is summed up over voxels [n, C] float64 (eq. 12), and where it stands."""
    rows, parts = component.rows, {"voxels": np.ones((len(component), 1))}
    if config.graph_feature:
        parts["s"], parts["sigma_s"] = rows.require("embedding"), rows.require("covariance")[:, :1]
    if config.graph_spatial:
        parts["d"], parts["sigma_d"] = component.points_m + rows.require("offset"), rows.require("covariance")[:, 1:]
    if config.graph_occupancy:
        parts["occupancy"] = rows.require("occupancy")
    if config.semantic_scale > 0.0:
        parts["classes"] = rows.semantic * np.float64(config.semantic_scale)
    ends = np.cumsum([values.shape[1] for values in parts.values()])
    layout = {name: slice(end - values.shape[1], end) for (name, values), end in zip(parts.items(), ends.tolist(), strict=True)}
    return np.concatenate(list(parts.values()), axis=1, dtype=np.float64), layout


def occupancy_ratio(sums: np.ndarray, layout: Layout, direction: str = "clustered_over_predicted") -> np.ndarray:
    """How many voxels a set has, against how many the voxels say that their instance has.

    Eq. 13 prints r = predicted / clustered. Its sentence ("r > 1 indicates that there are too many voxels"), the divisor
    max(r, 0.5) of eq. 14, which is to hold back a set that is too large, and the final filter only agree with
    r = clustered / predicted, which is what is used; the printed one is there for comparison.

    Args:
        sums: [..., C] sums over the voxels of sets.
        layout: where they stand.
        direction: "clustered_over_predicted" or "predicted_over_clustered".

    Returns:
        [...] ratio; what a set predicts is the exponential of its mean log count.
    """
    voxels = sums[..., 0]
    log_ratio = np.log(voxels) - sums[..., layout["occupancy"]][..., 0] / voxels
    return np.exp(np.clip(log_ratio if direction == "clustered_over_predicted" else -log_ratio, -50.0, 50.0))


def _apart(one: np.ndarray, other: np.ndarray, layout: Layout, both: np.ndarray) -> np.ndarray:
    """(|S_i - S_j| / sigma_s)^2 + (|D_i - D_j| / sigma_d)^2 of sets given by their sums; sigma is the mean over `both`.

    The squared distance of their mean class probabilities, scaled, comes on top where the layout has them.
    """
    total = np.zeros(np.broadcast_shapes(one.shape, other.shape)[:-1])
    for term in ("s", "d", "classes"):
        if term in layout:
            where, square = layout[term], 1.0
            gap = one[..., where] / one[..., :1] - other[..., where] / other[..., :1]
            if term != "classes":
                square = np.maximum(both[..., layout["sigma_" + term]][..., 0] / both[..., 0], _LEAST) ** 2
            total += (gap**2).sum(axis=-1) / square
    return total


def merge_weights(one: np.ndarray, others: np.ndarray, layout: Layout, direction: str) -> np.ndarray:
    """Eq. 14: how likely a set [C] belongs together with each of the others [m, C]; [m], sigma and r being those of the union."""
    both = one + others
    weight = np.exp(-_apart(one, others, layout, both))
    return weight / np.maximum(occupancy_ratio(both, layout, direction), _DIVISOR) if "occupancy" in layout else weight


def merge_graph(sums: np.ndarray, pairs: np.ndarray, layout: Layout, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Merge the two ends of the heaviest edge for as long as that weighs more than `graph_threshold`.

    Args:
        sums: [V, C] sums over the voxels of every supervoxel.
        pairs: [E, 2] touching supervoxels, the lower number first, each pair once.
        layout: where the sums stand.
        config: `graph_threshold`, `occupancy_ratio`.

    Returns:
        [V] int64 instance of every supervoxel, in the order of their first supervoxels, and the sums [I, C] of the instances.
    """
    count = len(sums)
    all_sums = np.concatenate([sums, np.zeros((max(0, count - 1), sums.shape[1]))])
    around: list[set[int]] = [set() for _ in range(count)]
    for a, b in pairs.tolist():
        around[a].add(b)
        around[b].add(a)
    owner = list(range(count))
    threshold, direction = config.graph_threshold, config.occupancy_ratio
    weight = merge_weights(sums[pairs[:, 0]], sums[pairs[:, 1]], layout, direction)
    heap = [(-w, a, b) for w, (a, b) in zip(weight.tolist(), pairs.tolist(), strict=True) if w > threshold]
    heapq.heapify(heap)
    while heap:
        _, a, b = heapq.heappop(heap)
        if owner[a] != a or owner[b] != b:  # an edge of what has been merged since
            continue
        new = len(owner)
        owner.append(new)
        owner[a] = owner[b] = new
        all_sums[new] = all_sums[a] + all_sums[b]
        others = (around[a] | around[b]) - {a, b}
        around.append(others)
        for k in others:
            around[k] -= {a, b}
            around[k].add(new)
        near = sorted(others)
        if near:
            weight = merge_weights(all_sums[new], all_sums[near], layout, direction)
            for w, k in zip(weight.tolist(), near, strict=True):
                if w > threshold:
                    heapq.heappush(heap, (-w, k, new))
    for node in range(len(owner) - 1, -1, -1):  # what a node was merged into has a higher number
        owner[node] = owner[owner[node]]
    roots, first, inverse = np.unique(owner[:count], return_index=True, return_inverse=True)
    by_first = np.argsort(first)
    rank = np.empty(len(roots), np.int64)
    rank[by_first] = np.arange(len(roots))
    return rank[inverse.reshape(-1)], all_sums[roots[by_first]]
