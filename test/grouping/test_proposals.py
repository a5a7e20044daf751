"""MTML's proposals: scores and suppression against loops over proposals, and as a grouper."""

import numpy as np
import pytest
from grouping_scenes import (
    CHAIR,
    TABLE,
    VOXEL_M,
    assert_apart,
    assert_touched_only_equals_everything,
    box,
    component,
    group,
    random_prediction,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.proposals import score_labels, split_proposals, suppress
from instseg_ros.prediction import Prediction

CONFIG = GroupingConfig(method="proposals")


def slow_score(one, where: np.ndarray, mine: np.ndarray, config: GroupingConfig) -> float:
    points = one.points_m[mine].astype(np.float64)
    feature = np.mean([np.linalg.norm(w - where[mine].mean(axis=0)) <= config.proposal_coherence for w in where[mine]])
    cosines = []
    for point, direction in zip(points, one.rows.direction[mine], strict=True):
        towards = points.mean(axis=0) - point
        length = np.linalg.norm(towards)
        cosines.append(float(direction @ (towards / length)) if length > 1e-9 else 0.0)
    area_m2 = len(mine) * VOXEL_M**2
    prior = min(1.0, area_m2 / config.proposal_min_m2, config.proposal_max_m2 / area_m2)
    total = config.proposal_feature_weight * feature + config.proposal_direction_weight * max(0.0, np.mean(cosines))
    total += config.proposal_size_weight * prior
    return total / (config.proposal_feature_weight + config.proposal_direction_weight + config.proposal_size_weight)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(2, 7), direction=st.sampled_from([0.0, 1.0, 3.0]), low=st.sampled_from([0.01, 0.1]))
def test_scores_equal_a_slow_transcription(seed: int, extent: int, direction: float, low: float) -> None:
    rng = np.random.default_rng(seed)
    one = component(np.unique(rng.integers(0, extent, (80, 3)), axis=0))
    random_prediction(one.rows, np.arange(len(one)), rng)
    config = GroupingConfig(proposal_direction_weight=direction, proposal_min_m2=low, proposal_max_m2=0.05)
    where = one.rows.embedding.astype(np.float64)
    labels = np.unique(rng.integers(0, 3, len(one)), return_inverse=True)[1]
    expected = [slow_score(one, where, np.flatnonzero(labels == k), config) for k in range(labels.max() + 1)]
    np.testing.assert_allclose(score_labels(one, where, labels, config), expected, atol=1e-6)


def slow_suppress(proposals: list[set[int]], score: np.ndarray, min_voxels: int, overlap: float) -> list[int]:
    kept: list[int] = []
    for p in sorted(range(len(proposals)), key=lambda p: (-score[p], -len(proposals[p]), p)):
        if len(proposals[p]) >= min_voxels and all(len(proposals[p] & proposals[q]) / len(proposals[p] | proposals[q]) <= overlap for q in kept):
            kept.append(p)
    return kept


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), ways=st.integers(1, 4), count=st.integers(1, 60), overlap=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_equals_a_slow_transcription(seed: int, ways: int, count: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    rows, first = [], 0
    for _ in range(ways):
        labels = np.unique(rng.integers(0, rng.integers(1, 6), count), return_inverse=True)[1]
        rows.append(labels + first)
        first += int(labels.max()) + 1
    proposals = np.stack(rows)
    score = rng.integers(0, 5, first) / 4.0  # with equal ones
    sets = [set(np.flatnonzero((proposals == p).any(axis=0)).tolist()) for p in range(first)]
    assert suppress(proposals, score, 3, overlap) == slow_suppress(sets, score, 3, overlap)


def test_directions_tell_an_object_from_its_halves_and_from_a_pair() -> None:
    # Embeddings that do not tell the two objects apart, but for a bandwidth that also cuts each in two
    parts = box((0, 0, 0), (12, 6, 6)), box((12, 0, 0), (24, 6, 6))
    one = component(np.concatenate(parts))
    at = one.coords[:, 0].astype(np.float64)
    center = np.where(at < 12, 5.5, 17.5)
    one.rows.embedding[:] = 0.0
    one.rows.embedding[:, 0] = 0.8 * (at >= 12) + 0.3 * (at % 12 >= 6)
    towards = np.stack([center, np.full(len(at), 2.5), np.full(len(at), 2.5)], axis=1) - one.coords
    one.rows.direction[:] = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
    config = GroupingConfig(method="proposals", proposal_bandwidths=(0.2, 0.45, 5.0), cell_size=0.05)
    labels, membership = split_proposals(one, config)
    assert labels.max() == 1 and len(set(labels[at < 12].tolist())) == len(set(labels[at >= 12].tolist())) == 1
    assert (membership > 0.9).all()


def test_a_part_of_a_class_of_its_own_is_a_proposal() -> None:
    one = component(box((0, 0, 0), (16, 6, 6)))
    one.rows.embedding[:, 0] = 0.45 * (one.coords[:, 0] < 8)  # too near for any of the bandwidths
    one.rows.semantic[:] = 0.0
    one.rows.semantic[np.arange(len(one)), np.where(one.coords[:, 0] < 8, CHAIR, TABLE)] = 1.0
    config = GroupingConfig(method="proposals", proposal_bandwidths=(2.0,), proposal_direction_weight=0.0, proposal_coherence=0.2)
    assert split_proposals(one, config)[0].max() == 1


def test_the_rest_goes_to_the_nearest_or_to_none() -> None:
    one = component(box((0, 0, 0), (10, 6, 6)))
    one.rows.embedding[:5, 0] = 4.0  # too few for a proposal
    few = one.rows.embedding[:, 0] > 3.9
    one.rows.embedding[~few, 0] = 0.0
    one.rows.semantic[few] = one.rows.semantic[few][:, ::-1]  # of another class, too
    config = dict(method="proposals", proposal_bandwidths=(0.5,))
    labels, membership = split_proposals(one, GroupingConfig(**config, proposal_rest="none"))
    assert (labels[few] == -1).all() and set(labels[~few].tolist()) == {0} and (membership[few] == 0).all()
    assert set(split_proposals(one, GroupingConfig(**config))[0].tolist()) == {0}


def test_offsets_stand_in_for_directions() -> None:
    one = component(box((0, 0, 0), (10, 6, 6)))
    without = Prediction(**{name: values for name, values in one.rows.items() if name != "direction"})
    instead = type(one)(one.coords, one.colors, one.voxel_size_m, without)
    for a, b in zip(split_proposals(one, CONFIG), split_proposals(instead, CONFIG), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(3, 14), rest=st.sampled_from(["nearest", "none"]))
def test_touched_only_equals_everything(seed: int, extent: int, rest: str) -> None:
    config = GroupingConfig(method="proposals", min_voxels=3, min_score=0.0, proposal_rest=rest, proposal_min_m2=0.02)
    assert_touched_only_equals_everything(config, seed, extent)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_objects_come_apart(noise: float) -> None:
    parts = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8)), box((16, 2, 0), (24, 8, 8)), box((40, 0, 0), (46, 6, 6))
    assert_apart(CONFIG, *parts, noise=noise)


def test_objects_come_apart_by_embeddings_only() -> None:
    config = GroupingConfig(method="proposals", proposal_direction_weight=0.0)
    assert_apart(config, box((0, 0, 0), (12, 8, 8)), box((12, 0, 0), (24, 8, 8)))


def test_the_score_of_a_segment_holds_that_of_its_proposal() -> None:
    result, _ = group(CONFIG, box((0, 0, 0), (8, 8, 8)))
    (segment,) = result.segments.values()
    assert 0.9 * 0.95 < segment.score <= 0.9 + 1e-6
