"""MTML's grouping (Lahoud et al. 2019, 3.2 "Post-processing"): many proposals, scored by the coherence of both heads, the best kept.

Proposals are the clusters that mean shift finds among the embeddings at several bandwidths, the connected parts of these
clusters, and the connected components of each class. The score adds up how many embeddings lie near the proposal's mean, how
well the predicted directions agree with those to its centre (the mean cosine), and a prior that favours regular sizes. The paper
gives no weights and no form of the prior; both are settings here.
"""

__all__ = ["proposal_heads", "score_labels", "split_proposals", "suppress"]

from types import ModuleType

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.adjacency import near_pairs
from instseg_ros.grouping.arrays import array_module
from instseg_ros.grouping.class_components import class_components
from instseg_ros.grouping.mean_shift import mean_shift
from instseg_ros.grouping.space import cells_of, embedding_space
from instseg_ros.grouping.splitter import Component
from instseg_ros.prediction import Prediction


def proposal_heads(config: GroupingConfig) -> list[str]:
    """The heads that are read; without a weight the direction is not."""
    return ["embedding"] + ["direction|offset"] * (config.proposal_direction_weight > 0.0)


def split_proposals(component: Component, config: GroupingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split one connected component into instances.

    Args:
        component: voxels and predictions.
        config: see `GroupingConfig`.

    Returns:
        labels [n] int64, the best proposal first; -1 where no proposal that was kept holds the voxel and `proposal_rest` is
        "none". Membership [n] in 0..1: the score of the voxel's proposal, relative to the largest possible.
    """
    where = embedding_space(component, config)
    partitions = _partitions(component, where, config, array_module(config.device))
    scores = [score_labels(component, where, labels, config) for labels in partitions]
    first = np.cumsum([0, *(len(s) for s in scores)])
    proposals = np.stack([labels + start for labels, start in zip(partitions, first[:-1], strict=True)])  # [partitions, n]
    score = np.concatenate(scores)
    kept = suppress(proposals, score, config.min_voxels, config.proposal_overlap)
    labels, membership = np.full(len(component), -1, np.int64), np.zeros(len(component))
    number = 0
    for p in kept:
        mine = (proposals == p).any(axis=0)
        free = mine & (labels < 0)
        if 2 * free.sum() <= mine.sum():  # better ones have taken most of it: what is left is a shred
            continue
        labels[free], membership[free] = number, score[p]
        number += 1
    if number and config.proposal_rest == "nearest":
        _rest_to_nearest(where, labels, membership)
    return labels, membership


def _partitions(component: Component, where: np.ndarray, config: GroupingConfig, xp: ModuleType) -> list[np.ndarray]:
    """Ways [n] to split the component, each into proposals that do not overlap."""
    partitions = [class_components(component, config.class_reach)]
    source, target = near_pairs(component.coords, config.bridge_voxels)
    cells = cells_of(where, min(config.cell_size, min(config.proposal_bandwidths) / 4.0))
    for bandwidth in config.proposal_bandwidths:
        clusters = mean_shift(cells.means, cells.counts, max(bandwidth, cells.size), xp)[0][cells.cell_of]
        same = clusters[source] == clusters[target]
        parts = _connected_parts(len(component), source[same], target[same])
        partitions += [clusters] if parts.max() == clusters.max() else [clusters, parts]
    return partitions


def _connected_parts(count: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[count] parts of the graph with these links."""
    graph = coo_array((np.ones(len(source), np.int8), (source, target)), shape=(count, count))
    return connected_components(graph.tocsr(), directed=False)[1].astype(np.int64)


def score_labels(component: Component, where: np.ndarray, labels: np.ndarray, config: GroupingConfig) -> np.ndarray:
    """Scores of the proposals of one partition, 0..1: the weighted mean of feature coherence, direction coherence and size prior.

    Args:
        component: voxels and predictions.
        where: [n, D] scaled embeddings (and class probabilities).
        labels: [n] proposal per voxel, 0 to k - 1.
        config: weights, `proposal_coherence`, and the sizes that are regular.

    Returns:
        [k] float64.
    """
    weights = (config.proposal_feature_weight, config.proposal_direction_weight, config.proposal_size_weight)
    size = np.bincount(labels)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(labels, column) for column in values.T], axis=1) / size[:, None]

    apart = np.sqrt(((where - mean(where)[labels]) ** 2).sum(axis=1))
    terms = [mean((apart <= config.proposal_coherence)[:, None])[:, 0]]
    if config.proposal_direction_weight > 0.0:
        points = np.asarray(component.points_m, np.float64)
        cosine = (_unit(mean(points)[labels] - points) * _directions(component.rows)).sum(axis=1)
        terms.append(np.maximum(mean(cosine[:, None])[:, 0], 0.0))
    else:
        terms.append(np.zeros(len(size)))
    area_m2 = size * component.voxel_size_m**2
    terms.append(np.minimum(1.0, np.minimum(area_m2 / config.proposal_min_m2, config.proposal_max_m2 / area_m2)))
    return np.array(weights) @ np.stack(terms) / max(sum(weights), 1e-9)


def _directions(rows: Prediction) -> np.ndarray:
    if rows.direction is not None:
        return np.asarray(rows.direction, np.float64)
    return _unit(np.asarray(rows.require("offset"), np.float64))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.sqrt((vectors**2).sum(axis=1, keepdims=True)), 1e-9)


def suppress(proposals: np.ndarray, score: np.ndarray, min_voxels: int, overlap: float) -> list[int]:
    """Non-maximum suppression: the proposals that are kept, the best first (of equal ones the larger, then the earlier).

    Args:
        proposals: [partitions, n] proposal per voxel.
        score: [k].
        min_voxels: smaller proposals are not looked at.
        overlap: IoU with a better one above which a proposal goes.
    """
    ways, count = proposals.shape
    voxels = csr_array((np.ones(ways * count, np.int32), (proposals.ravel(), np.tile(np.arange(count), ways))), shape=(len(score), count))
    size = np.bincount(proposals.ravel(), minlength=len(score))
    order = np.lexsort((-size, -score))
    order = order[size[order] >= min_voxels]
    shared = (voxels[order] @ voxels[order].T).tocsr()
    size = size[order]
    alive, kept = np.ones(len(order), bool), []
    for i, proposal in enumerate(order.tolist()):
        if alive[i]:
            kept.append(proposal)
            others, both = (values[shared.indptr[i] : shared.indptr[i + 1]] for values in (shared.indices, shared.data))
            alive[others[both / (size[i] + size[others] - both) > overlap]] = False
    return kept


def _rest_to_nearest(where: np.ndarray, labels: np.ndarray, membership: np.ndarray) -> None:
    """Give voxels without a label to the instance whose mean embedding is nearest; both arrays are changed."""
    has = labels >= 0
    if has.all():
        return
    size = np.bincount(labels[has])
    centers = np.stack([np.bincount(labels[has], column) for column in where[has].T], axis=1) / size[:, None]
    score = np.zeros(len(size))
    score[labels[has]] = membership[has]
    rest = np.flatnonzero(~has)
    nearest = ((where[rest][:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    labels[rest], membership[rest] = nearest, score[nearest]
