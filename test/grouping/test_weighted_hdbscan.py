"""Weighted HDBSCAN equals the hdbscan library on unit weights, and on repeated points where weights are not one."""

import functools
from unittest import mock

import hdbscan
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from instseg_ros.grouping.weighted_hdbscan import core_distances, weighted_hdbscan


def blobs(seed: int, count: int, clusters: int, dim: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-3, 3, (clusters, dim))
    points = centers[rng.integers(clusters, size=count)] + rng.normal(0, rng.uniform(0.1, 0.6), (count, dim))
    points[: count // 10] = rng.uniform(-4, 4, (count // 10, dim))
    return points


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.array_equal(a == -1, b == -1):
        return False
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000), count=st.integers(30, 150), clusters=st.integers(1, 5),
    size=st.integers(4, 15), epsilon=st.sampled_from([0.0, 0.3, 0.8, 2.0]),
)
def test_unit_weights_equal_the_library(seed: int, count: int, clusters: int, size: int, epsilon: float) -> None:
    points = blobs(seed, count, clusters)
    labels, membership = weighted_hdbscan(points, np.ones(count, np.int64), size, size, epsilon)
    library = hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=size, metric="precomputed", allow_single_cluster=True,
        cluster_selection_epsilon=epsilon,
    )
    # Core distances make many edges equally long; the library takes those in the order of an unstable sort: that decides
    # a few labels
    with mock.patch.object(np, "argsort", functools.partial(np.argsort, kind="stable")):
        library.fit(cdist(points, points))
    assert same_partition(labels, library.labels_)
    np.testing.assert_allclose(membership, library.probabilities_, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(12, 60), size=st.integers(6, 20), epsilon=st.sampled_from([0.0, 0.5]))
def test_a_weight_is_that_many_points(seed: int, count: int, size: int, epsilon: float) -> None:
    points = blobs(seed, count, 3)
    weights = np.random.default_rng(seed).integers(1, 6, count)  # below `size`: no item is a cluster of its own
    # With one sample no two edges are equally long, but for those of an item's own points
    labels, _ = weighted_hdbscan(points, weights, size, 1, epsilon, floor=1e-3)
    everyone = np.repeat(points, weights, axis=0)
    repeated, _ = weighted_hdbscan(everyone, np.ones(len(everyone), np.int64), size, 1, epsilon, floor=1e-3)
    assert same_partition(np.repeat(labels, weights), repeated)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 60), samples=st.integers(1, 20))
def test_core_distances_count_weights(seed: int, count: int, samples: int) -> None:
    points = blobs(seed, count, 3)
    weights = np.random.default_rng(seed).integers(1, 12, count)
    everyone = np.repeat(points, weights, axis=0)
    distances = np.sort(cdist(points, everyone), axis=1)  # the first is a point of the item itself
    expected = distances[:, min(samples, len(everyone) - 1)]
    np.testing.assert_allclose(core_distances(np, cdist(points, points, "sqeuclidean"), weights, samples), expected, atol=1e-12)


@pytest.mark.parametrize("distance, clusters", [(0.3, 1), (2.0, 2)])
def test_two_heavy_items_are_one_cluster_only_below_epsilon(distance: float, clusters: int) -> None:
    items = np.array([[0.0, 0.0], [distance, 0.0]])
    labels, membership = weighted_hdbscan(items, np.array([100, 100]), 20, 20, epsilon=0.5, floor=0.2)
    assert len(set(labels.tolist())) == clusters and (labels >= 0).all()
    assert ((membership > 0) & (membership <= 1)).all()


def test_single_item_is_a_cluster() -> None:
    labels, membership = weighted_hdbscan(np.zeros((1, 3)), np.array([50]), 20, 20)
    assert labels.tolist() == [0] and membership.tolist() == [1.0]


def test_without_the_root_near_clusters_stay_apart_and_epsilon_still_makes_one_of_all() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 0.2, (200, 2)), rng.normal((1.3, 0), 0.2, (200, 2))])
    ones = np.ones(400, np.int64)
    assert len(set(weighted_hdbscan(points, ones, 20, 20, 0.25, floor=0.2)[0]) - {-1}) == 1
    labels, _ = weighted_hdbscan(points, ones, 20, 20, 0.25, floor=0.2, root_competes=False)
    first, second = (np.bincount(part[part >= 0], minlength=2) for part in (labels[:200], labels[200:]))
    assert labels.max() == 1 and first.argmax() != second.argmax()
    assert first.max() > 190 and second.max() > 190
    assert len(set(weighted_hdbscan(points, ones, 20, 20, 2.0, floor=0.2, root_competes=False)[0]) - {-1}) == 1
