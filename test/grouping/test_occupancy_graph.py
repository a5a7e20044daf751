"""Supervoxels and OccuSeg's merging against slow transcriptions of what was published, and as a grouper."""

import itertools
import math

import numpy as np
import pytest
from grouping_scenes import assert_apart, assert_touched_only_equals_everything, box, component, group, random_prediction, shell
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.adjacency import near_pairs
from instseg_ros.grouping.occupancy_graph import merge_graph, occupancy_ratio, split_occupancy_graph
from instseg_ros.grouping.supervoxels import edge_weights, normals, supervoxels
from instseg_ros.sparse import kernels

CONFIG = GroupingConfig(method="occupancy_graph")


# Pairs, normals, supervoxels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(1, 9), reach=st.integers(1, 4), far=st.sampled_from([0, 5000]))
def test_near_pairs_equal_brute_force(seed: int, extent: int, reach: int, far: int) -> None:
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-extent, extent + 1, (60, 3)), axis=0)
    coords[len(coords) // 2 :, 0] += far  # too wide for a box around them
    source, target = near_pairs(coords, reach)
    near = np.abs(coords[:, None] - coords).max(axis=2) <= reach
    assert sorted(zip(source.tolist(), target.tolist(), strict=True)) == sorted(zip(*(x.tolist() for x in np.nonzero(np.triu(near, 1))), strict=True))


def test_normals_of_planes() -> None:
    for axis in range(3):
        high = [9, 9, 9]
        high[axis] = 1
        coords = box((0, 0, 0), (high[0], high[1], high[2]))
        normal = normals(coords, *near_pairs(coords, 2))
        assert np.allclose(np.abs(normal[:, axis]), 1.0)
    slope = box((0, 0, 0), (12, 12, 1))
    slope[:, 2] = slope[:, 0]
    slope = slope[np.lexsort(slope.T[::-1])]
    assert np.allclose(np.abs(normals(slope, *near_pairs(slope, 2)) @ np.array([1.0, 0.0, -1.0])), math.sqrt(2.0), atol=1e-6)


def test_edge_weights_are_bend_and_shade() -> None:
    normal = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    colors = np.array([[0, 0, 0], [255, 255, 255], [0, 0, 0]], np.uint8)
    weight = edge_weights(normal, colors, np.array([0, 0]), np.array([1, 2]), 2.0)
    assert np.allclose(weight, [2.0, 1.0])


def slow_segments(edges: list[tuple[int, int, float]], count: int, scale: float, min_size: int) -> list[set[int]]:
    """Felzenszwalb and Huttenlocher's algorithm 1 as it stands: Int(C) is the heaviest edge of C's minimum spanning tree."""
    parts = [{i} for i in range(count)]

    def holds(part: set[int]) -> float:
        inner = sorted((w, i) for i, (a, b, w) in enumerate(edges) if a in part and b in part)
        tree, heaviest = {i: {i} for i in part}, 0.0
        for w, i in inner:
            a, b = edges[i][:2]
            if tree[a] is not tree[b]:
                tree[a] |= tree[b]
                for node in tree[b]:
                    tree[node] = tree[a]
                heaviest = w
        return heaviest + scale / len(part)

    def sweep(joins) -> None:
        for a, b, w in edges:
            pa, pb = (next(p for p in parts if node in p) for node in (a, b))
            if pa is not pb and joins(pa, pb, w):
                pa |= pb
                parts.remove(pb)

    sweep(lambda pa, pb, w: w <= min(holds(pa), holds(pb)))
    sweep(lambda pa, pb, w: min(len(pa), len(pb)) < min_size)
    return parts


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 24), scale=st.sampled_from([0.0, 0.3, 1.0, 4.0]), min_size=st.integers(1, 4))
def test_graph_segments_equal_the_published_algorithm(seed: int, count: int, scale: float, min_size: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(count), 2) if rng.random() < 0.3]
    weight = np.sort(rng.random(len(pairs)))
    edges = [(a, b, float(w)) for (a, b), w in zip(pairs, weight, strict=True)]
    source, target = np.array(pairs, np.int32).reshape(-1, 2).T
    first = kernels.graph_segments(source, target, weight, count, scale, min_size)
    expected = slow_segments(edges, count, scale, min_size)
    assert sorted(map(sorted, expected)) == sorted(np.flatnonzero(first == f).tolist() for f in np.unique(first))
    assert all(first[f] == f for f in first)


def test_segments_may_join_across_an_edge_outside_the_minimum_spanning_tree() -> None:
    # Two single nodes beside a large even segment that takes neither of them: the edge between the two closes a cycle
    chain = [(i, i + 1, 0.0) for i in range(9)]
    edges = [*chain, (0, 10, 0.5), (1, 11, 0.5), (10, 11, 0.6)]
    source, target, weight = (np.array(column) for column in zip(*edges, strict=True))
    first = kernels.graph_segments(source, target, weight, 12, 1.0, 1)
    assert first.tolist() == [0] * 10 + [10, 10]


def test_supervoxels_keep_to_faces_and_colours() -> None:
    two = np.concatenate([box((0, 0, 0), (10, 20, 1)), box((0, 0, 1), (1, 20, 12))])  # two planes that meet
    part = supervoxels(component(two), CONFIG)
    flat = np.sort(two.view([("", two.dtype)] * 3).ravel()).view(two.dtype).reshape(-1, 3)
    away = (flat[:, 0] > 3) | (flat[:, 2] > 3)
    up = flat[:, 2] > 0
    assert not set(part[away & up].tolist()) & set(part[away & ~up].tolist()) and part.max() < 8

    plane = box((0, 0, 0), (10, 20, 1))
    colors = np.where(plane[:, 1:2] < 10, [200, 30, 30], [30, 30, 200]).astype(np.uint8)
    part = supervoxels(component(plane, colors=colors), CONFIG)
    assert part.max() == 1 and len(set(part[plane[:, 1] < 10].tolist())) == 1
    assert supervoxels(component(plane), CONFIG).max() == 0
    assert supervoxels(component(plane, colors=colors), GroupingConfig(supervoxel_color=0.0)).max() == 0


# Merging


def slow_merging(one, part: np.ndarray, config: GroupingConfig) -> np.ndarray:
    """Eqs. 12 to 14 over sets of voxels, every weight computed anew after every merge."""
    rows = one.rows
    sets = {i: np.flatnonzero(part == i).tolist() for i in range(part.max() + 1)}
    touch = np.abs(one.coords[:, None] - one.coords).max(axis=2) <= config.bridge_voxels

    def ratio(voxels: list[int]) -> float:
        predicted = math.exp(np.mean(rows.occupancy[voxels, 0], dtype=np.float64))
        return len(voxels) / predicted if config.occupancy_ratio == "clustered_over_predicted" else predicted / len(voxels)

    def weight(a: list[int], b: list[int]) -> float:
        exponent = 0.0
        for used, values, column in (
            (config.graph_feature, rows.embedding, 0), (config.graph_spatial, one.points_m.astype(np.float64) + rows.offset, 1),
        ):
            if used:
                gap = np.linalg.norm(np.mean(values[a], axis=0, dtype=np.float64) - np.mean(values[b], axis=0, dtype=np.float64))
                exponent -= (gap / np.mean(rows.covariance[a + b, column], dtype=np.float64)) ** 2
        return math.exp(exponent) / (max(ratio(a + b), 0.5) if config.graph_occupancy else 1.0)

    while True:
        pairs = [(weight(sets[a], sets[b]), a, b) for a, b in itertools.combinations(sets, 2) if touch[np.ix_(sets[a], sets[b])].any()]
        best = max(pairs, default=(0.0, 0, 0), key=lambda p: p[0])
        if best[0] <= config.graph_threshold:
            break
        sets[best[1]] = sorted(sets[best[1]] + sets.pop(best[2]))
    labels = np.full(len(part), -1)
    for number, voxels in enumerate(sorted(sets.values(), key=min)):
        dropped = config.graph_occupancy and config.graph_rejected == "drop" and not 0.3 < ratio(voxels) < 2.0
        labels[voxels] = -1 if dropped else number
    return labels


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), extent=st.integers(2, 6), left_out=st.sampled_from(["", "graph_feature", "graph_spatial", "graph_occupancy"]),
    ratio=st.sampled_from(["clustered_over_predicted", "predicted_over_clustered"]), rejected=st.sampled_from(["drop", "keep"]),
)
def test_merging_equals_a_slow_transcription(seed: int, extent: int, left_out: str, ratio: str, rejected: str) -> None:
    rng = np.random.default_rng(seed)
    one = component(np.unique(rng.integers(0, extent, (60, 3)), axis=0), colors=None)
    random_prediction(one.rows, np.arange(len(one)), rng)
    config = GroupingConfig(
        method="occupancy_graph", supervoxel_min_voxels=3, occupancy_ratio=ratio, graph_rejected=rejected, **({left_out: False} if left_out else {})
    )
    labels, membership = split_occupancy_graph(one, config)
    expected = slow_merging(one, supervoxels(one, config), config)
    assert np.array_equal(labels == -1, expected == -1)
    pairs = set(zip(labels.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert ((membership >= 0) & (membership <= 1)).all()


def test_occupancy_ratio_both_ways() -> None:
    layout = {"voxels": slice(0, 1), "occupancy": slice(1, 2)}
    sums = np.array([[50.0, 50 * math.log(100.0)], [300.0, 300 * math.log(100.0)]])
    assert np.allclose(occupancy_ratio(sums, layout), [0.5, 3.0])
    assert np.allclose(occupancy_ratio(sums, layout, "predicted_over_clustered"), [2.0, 1 / 3])


def test_a_set_that_is_too_large_is_held_back_and_a_partial_one_is_helped() -> None:
    layout = {"voxels": slice(0, 1), "occupancy": slice(1, 2)}
    for predicted, instances in ((100.0, 1), (150.0, 1), (300.0, 1), (40.0, 2)):  # r of the union: 1, 0.67, 0.33, 2.5
        sums = np.array([[50.0, 50 * math.log(predicted)]] * 2)
        assert merge_graph(sums, np.array([[0, 1]]), layout, CONFIG)[0].max() + 1 == instances
    gap = {**layout, "d": slice(2, 3), "sigma_d": slice(3, 4)}
    for predicted, instances in ((100.0, 2), (300.0, 1)):  # centres that alone would be too far apart: exp(-1) = 0.37
        sums = np.array([[50.0, 50 * math.log(predicted), 50.0 * at, 50.0] for at in (0.0, 1.0)])
        assert merge_graph(sums, np.array([[0, 1]]), gap, CONFIG)[0].max() + 1 == instances


def test_an_instance_of_the_wrong_size_is_dropped_or_kept() -> None:
    one = component(shell((0, 0, 0), (8, 8, 8)))
    for size_factor, kept in ((1.0, True), (0.6, True), (0.4, False), (3.0, True), (4.0, False)):
        one.rows.occupancy[:] = math.log(len(one) * size_factor)
        labels, _ = split_occupancy_graph(one, GroupingConfig(graph_threshold=0.05))
        assert set(labels.tolist()) == ({0} if kept else {-1})
        labels, _ = split_occupancy_graph(one, GroupingConfig(graph_threshold=0.05, graph_rejected="keep"))
        assert set(labels.tolist()) == {0}


def test_membership_is_the_probability_of_equation_8() -> None:
    one = component(shell((0, 0, 0), (8, 8, 8)))
    one.rows.offset[0] += 0.1
    labels, membership = split_occupancy_graph(one, CONFIG)
    votes = one.points_m.astype(np.float64) + one.rows.offset
    apart = np.linalg.norm(votes - votes.mean(axis=0), axis=1)
    assert set(labels.tolist()) == {0} and np.allclose(membership, np.exp(-((apart / 0.2) ** 2)), atol=1e-5)


# As a grouper


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(3, 14), rejected=st.sampled_from(["drop", "keep"]), bridge=st.integers(1, 3))
def test_touched_only_equals_everything(seed: int, extent: int, rejected: str, bridge: int) -> None:
    config = GroupingConfig(
        method="occupancy_graph", min_voxels=3, min_score=0.0, graph_rejected=rejected, bridge_voxels=bridge, supervoxel_min_voxels=4
    )
    assert_touched_only_equals_everything(config, seed, extent)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_objects_come_apart(noise: float) -> None:
    parts = shell((0, 0, 0), (8, 8, 8)), shell((8, 0, 0), (16, 8, 8)), shell((16, 2, 0), (26, 8, 6)), shell((40, 0, 0), (46, 6, 6))
    assert_apart(CONFIG, *parts, noise=noise)


@pytest.mark.parametrize("left_out", ["graph_feature", "graph_spatial", "graph_occupancy"])
def test_objects_come_apart_without_one_of_the_terms(left_out: str) -> None:
    parts = shell((0, 0, 0), (10, 8, 8)), shell((10, 0, 0), (20, 8, 8))
    assert_apart(GroupingConfig(method="occupancy_graph", **{left_out: False}), *parts)


def test_parts_across_a_bridged_gap_are_one() -> None:
    whole = np.concatenate([shell((0, 0, 0), (6, 6, 6)), shell((7, 0, 0), (13, 6, 6))])
    result, _ = group(CONFIG, whole)
    assert len(result.segments) == 1 and (result.segment[: len(whole)] >= 0).all()
    assert supervoxels(component(whole), CONFIG).max() > 0
