"""Mean shift against a walk per point as published, against scikit-learn, and as a grouper."""

import numpy as np
import pytest
from grouping_scenes import CHAIR, assert_apart, assert_touched_only_equals_everything, box, group
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.mean_shift import mean_shift

CONFIG = GroupingConfig(method="mean_shift")


def blobs(seed: int, count: int, clusters: int, dim: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-3, 3, (clusters, dim))
    return centers[rng.integers(clusters, size=count)] + rng.normal(0, 0.3, (count, dim))


def slow_mean_shift(items: np.ndarray, weights: np.ndarray, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """Every item walks by itself until its window stays the same; heavy modes first; each item to its nearest mode."""
    modes: dict[tuple[float, ...], float] = {}
    for start in items:
        here, window = start, None
        while True:
            inside = [j for j in range(len(items)) if np.linalg.norm(items[j] - here) <= bandwidth]
            if inside == window:
                break
            window = inside
            here = np.average(items[inside], axis=0, weights=weights[inside])
        modes[tuple(np.round(here, 9))] = float(weights[window].sum())
    kept: list[np.ndarray] = []
    for mode in sorted(modes, key=lambda m: (-modes[m], m)):
        if all(np.linalg.norm(np.array(mode) - other) > bandwidth for other in kept):
            kept.append(np.array(mode))
    apart = np.linalg.norm(items[:, None] - np.array(kept), axis=2)
    return apart.argmin(axis=1), np.array(kept)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), clusters=st.integers(1, 4), bandwidth=st.sampled_from([0.4, 1.0, 2.5]))
def test_equals_a_walk_per_item(seed: int, count: int, clusters: int, bandwidth: float) -> None:
    items = blobs(seed, count, clusters)
    weights = np.random.default_rng(seed).integers(1, 9, count)
    labels, modes = mean_shift(items, weights, bandwidth)
    slow_labels, slow_modes = slow_mean_shift(items, weights, bandwidth)
    np.testing.assert_allclose(modes, slow_modes, atol=1e-8)
    assert np.array_equal(labels, slow_labels)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 40), bandwidth=st.sampled_from([0.5, 1.0]))
def test_a_weight_is_that_many_points(seed: int, count: int, bandwidth: float) -> None:
    items = blobs(seed, count, 3)
    weights = np.random.default_rng(seed).integers(1, 5, count)
    repeated, _ = mean_shift(np.repeat(items, weights, axis=0), np.ones(weights.sum()), bandwidth)
    assert np.array_equal(np.repeat(mean_shift(items, weights, bandwidth)[0], weights), repeated)


@pytest.mark.parametrize("seed", range(8))
def test_equals_scikit_learn_on_unit_weights(seed: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    items = blobs(seed, 200, 4)
    library = cluster.MeanShift(bandwidth=1.0).fit(items)
    labels, modes = mean_shift(items, np.ones(len(items)), 1.0)
    # The library ends a walk at a step below a thousandth of the bandwidth; ours ends where it would end without that
    assert len(modes) == len(library.cluster_centers_)
    nearest = np.linalg.norm(modes[:, None] - library.cluster_centers_, axis=2).argmin(axis=1)
    assert len(set(nearest.tolist())) == len(modes)
    assert (nearest[labels] == library.labels_).mean() > 0.995


def test_the_limit_is_within_the_bandwidth() -> None:
    items = np.arange(3.0)[:, None] * 0.1 + 12.3  # steps that binary numbers do not hold exactly
    assert len(mean_shift(items, np.ones(3), 0.1)[1]) == 1
    assert len(mean_shift(items, np.ones(3), 0.09)[1]) == 3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(3, 14), scale=st.sampled_from([0.0, 5.0]))
def test_touched_only_equals_everything(seed: int, extent: int, scale: float) -> None:
    assert_touched_only_equals_everything(GroupingConfig(method="mean_shift", min_voxels=3, min_score=0.05, offset_scale=scale), seed, extent)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_objects_come_apart(noise: float) -> None:
    parts = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8)), box((16, 2, 0), (24, 8, 8)), box((40, 0, 0), (46, 6, 6))
    assert_apart(CONFIG, *parts, noise=noise)


def test_by_embedding_alone_and_by_centre_alone() -> None:
    parts = box((0, 0, 0), (12, 8, 8)), box((12, 0, 0), (24, 8, 8))
    assert_apart(GroupingConfig(method="mean_shift", offset_scale=0.0), *parts)
    assert_apart(GroupingConfig(method="mean_shift", embedding_scale=0.0, mean_shift_bandwidth=0.9), *parts)


def test_a_wide_bandwidth_is_one_instance() -> None:
    config = GroupingConfig(method="mean_shift", mean_shift_bandwidth=50.0, score_surface_m2=0.0, score_gap=0.0)
    result, _ = group(config, box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8)))
    (segment,) = result.segments.values()
    assert len(segment.slots) == 1024 and segment.class_index == CHAIR and segment.score == pytest.approx(0.9)
