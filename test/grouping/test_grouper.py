"""Grouping: regrouping what was touched equals grouping everything, and made-up scenes come apart where they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.grouping.components import canonical_keys
from instseg_ros.grouping.grouper import Grouper, merge_small
from instseg_ros.grouping.segmentation import Segmentation
from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.prediction import Prediction

VOXEL_M = 0.05
CHAIR, TABLE, WALL = 4, 6, 0


def update(coords: np.ndarray, deleted: np.ndarray | None = None) -> MapUpdate:
    gone = np.zeros((0, 3), np.int32) if deleted is None else deleted
    count = len(coords)
    return MapUpdate(
        coords.astype(np.int32), np.zeros((count, 3), np.uint8), np.ones(count, np.float32), VOXEL_M, deleted=gone
    )


def empty_prediction(capacity: int, dim: int = 4) -> Prediction:
    return Prediction.empty({"semantic": NUM_CLASSES, "embedding": dim, "offset": 3}, capacity)


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    axes = [np.arange(a, b, dtype=np.int32) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def predict(
    prediction: Prediction, slots: np.ndarray, class_index: int, embedding: float, offset: np.ndarray | float = 0.0
) -> None:
    prediction.semantic[slots] = 0.1 / (NUM_CLASSES - 1)
    prediction.semantic[slots, class_index] = 0.9
    prediction.embedding[slots] = embedding
    prediction.offset[slots] = offset


def contents(result: Segmentation, coords: np.ndarray) -> dict[frozenset[tuple[int, ...]], tuple[int, float]]:
    return {
        frozenset(map(tuple, coords[s.slots].tolist())): (s.class_index, s.score) for s in result.segments.values()
    }


def assert_consistent(result: Segmentation, voxel_map: VoxelMap) -> None:
    expected = np.full(voxel_map.capacity, -1, np.int32)
    for s, segment in result.segments.items():
        assert (expected[segment.slots] == -1).all() and voxel_map.alive[segment.slots].all()
        expected[segment.slots] = s
        assert np.array_equal(segment.slots, segment.slots[np.argsort(canonical_keys(voxel_map.coords[segment.slots]))])
        assert segment.class_index >= 2 and 0.0 <= segment.score <= 1.0
    assert np.array_equal(result.segment, expected)
    assert result.touched <= set(result.segments) and not result.gone & set(result.segments)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), bridge=st.integers(1, 3), extent=st.integers(3, 14))
def test_touched_only_equals_everything(seed: int, bridge: int, extent: int) -> None:
    rng = np.random.default_rng(seed)
    config = GroupingConfig(bridge_voxels=bridge, min_voxels=3, min_cluster_voxels=5, min_score=0.05)
    grouper, voxel_map, prediction = Grouper(config), VoxelMap(VOXEL_M), empty_prediction(0)
    known: set[int] = set()
    for _ in range(6):
        fresh = np.unique(rng.integers(0, extent, (int(rng.integers(1, 150)), 3)), axis=0).astype(np.int32)
        live = voxel_map.coords[voxel_map.live_slots()]
        gone = live[rng.random(len(live)) < rng.choice([0.0, 0.02, 0.3])]
        gone = gone[~np.isin(canonical_keys(gone), canonical_keys(fresh))]
        delta = voxel_map.apply(update(fresh, gone))
        prediction = prediction.grown(voxel_map.capacity)
        live_slots = voxel_map.live_slots()
        changed = np.union1d(delta.added, live_slots[rng.random(len(live_slots)) < rng.choice([0.0, 0.02, 0.2])])
        kind = rng.integers(0, 3, len(changed))
        prediction.semantic[changed] = rng.dirichlet(np.full(NUM_CLASSES, 0.05), len(changed))
        prediction.embedding[changed] = kind[:, None] + rng.normal(0, 0.1, (len(changed), 4))
        prediction.offset[changed] = rng.normal(0, 0.1, (len(changed), 3))
        before = {s: segment for s, segment in grouper._segments.items()}
        result = grouper.regroup(voxel_map, prediction, changed, delta)
        assert_consistent(result, voxel_map)
        assert result.gone == set(before) - set(result.segments) and not known & (result.touched - set(before))
        known |= set(result.segments)
        for s in set(result.segments) - result.touched:
            assert np.array_equal(before[s].slots, result.segments[s].slots) and before[s].score == result.segments[s].score

        # From scratch, in a map whose slots are dealt out differently
        other = VoxelMap(VOXEL_M)
        order = rng.permutation(live_slots)
        other_delta = other.apply(update(voxel_map.coords[order]))
        slots = other.lookup(voxel_map.coords[order])
        moved = empty_prediction(other.capacity)
        for name, values in moved.items():
            values[slots] = getattr(prediction, name)[order]
        scratch = contents(Grouper(config).regroup(other, moved, other.live_slots(), other_delta), other.coords)
        online = contents(result, voxel_map.coords)
        assert scratch.keys() == online.keys()
        for voxels, (class_index, score) in scratch.items():
            assert online[voxels][0] == class_index and online[voxels][1] == pytest.approx(score, abs=1e-5)


def one_update(*parts: np.ndarray) -> tuple[VoxelMap, MapDelta, Prediction, list[np.ndarray]]:
    voxel_map = VoxelMap(VOXEL_M)
    delta = voxel_map.apply(update(np.concatenate(parts)))
    return voxel_map, delta, empty_prediction(voxel_map.capacity), [voxel_map.lookup(p) for p in parts]


def test_touching_objects_come_apart_by_embedding_and_by_predicted_centre() -> None:
    left, right = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8))
    for by_offset in (False, True):
        voxel_map, delta, prediction, (a, b) = one_update(left, right)
        for slots, part, sign in ((a, left, 0.0), (b, right, 1.0)):
            towards = (part.mean(axis=0) - part) * VOXEL_M if by_offset else -part * VOXEL_M
            predict(prediction, slots, CHAIR, 0.0 if by_offset else sign, towards)
        config = GroupingConfig(offset_scale=4.0)
        result = Grouper(config).regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
        assert sorted(map(len, (s.slots for s in result.segments.values()))) == [512, 512]
        assert len(set(result.segment[a])) == len(set(result.segment[b])) == 1


def test_an_even_component_is_one_segment_and_walls_are_none() -> None:
    chair, wall = box((0, 0, 0), (6, 6, 6)), box((6, 0, 0), (7, 20, 20))
    voxel_map, delta, prediction, (a, b) = one_update(chair, wall)
    predict(prediction, a, CHAIR, 0.0, -chair * VOXEL_M)
    predict(prediction, b, WALL, 0.0)
    result = Grouper(GroupingConfig()).regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
    (segment,) = result.segments.values()
    assert segment.class_index == CHAIR and segment.score == pytest.approx(0.9) and set(segment.slots) == set(a)
    assert (result.segment[b] == -1).all()


def test_a_gap_within_the_bridge_is_closed_and_a_wider_one_is_not() -> None:
    for gap, expected in ((1, 1), (2, 2)):
        first, second = box((0, 0, 0), (4, 4, 4)), box((4 + gap, 0, 0), (8 + gap, 4, 4))
        voxel_map, delta, prediction, _ = one_update(first, second)
        predict(prediction, voxel_map.live_slots(), TABLE, 0.0)
        grouper = Grouper(GroupingConfig(bridge_voxels=2, offset_scale=0.0))
        result = grouper.regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
        assert len(result.segments) == expected


def test_only_the_touched_component_is_regrouped() -> None:
    first, second = box((0, 0, 0), (4, 4, 4)), box((20, 0, 0), (24, 4, 4))
    voxel_map, delta, prediction, (a, b) = one_update(first, second)
    predict(prediction, a, CHAIR, 0.0)
    predict(prediction, b, TABLE, 0.0)
    grouper = Grouper(GroupingConfig())
    before = dict(grouper.regroup(voxel_map, prediction, voxel_map.live_slots(), delta).segments)
    other = int(grouper._segment[b[0]])
    more = box((4, 0, 0), (5, 4, 4))
    delta = voxel_map.apply(update(more))
    predict(prediction, delta.added, CHAIR, 0.0)
    result = grouper.regroup(voxel_map, prediction, delta.added, delta)
    assert result.segments[other] is before[other] and other not in result.touched
    assert result.gone == set(before) - {other} and len(result.touched) == 1
    quiet = grouper.regroup(voxel_map, prediction, a, voxel_map.apply(update(np.zeros((0, 3), np.int32))))
    assert not quiet.touched and not quiet.gone  # looked at again, found the same


def test_reset_reports_the_old_segments_as_gone() -> None:
    part = box((0, 0, 0), (4, 4, 4))
    voxel_map, delta, prediction, (a,) = one_update(part)
    predict(prediction, a, CHAIR, 0.0)
    grouper = Grouper(GroupingConfig())
    first = set(grouper.regroup(voxel_map, prediction, a, delta).segments)
    grouper.reset()
    nothing = voxel_map.apply(update(np.zeros((0, 3), np.int32)))
    result = grouper.regroup(voxel_map, prediction, np.zeros(0, np.int32), nothing)
    assert result.gone == first and len(result.segments) == 1 and result.touched == set(result.segments)


def test_small_labels_go_to_what_they_touch_most() -> None:
    coords = np.array([[x, 0, 0] for x in range(12)] + [[20, 0, 0]], np.int32)
    labels = np.array([0] * 5 + [2, 2] + [1] * 5 + [3])
    new = merge_small(canonical_keys(coords), labels, 3)
    assert new.tolist() == [0] * 7 + [1] * 5 + [-1]


def test_a_component_too_rich_for_the_cap_is_still_grouped() -> None:
    rng = np.random.default_rng(0)
    left, right = box((0, 0, 0), (12, 12, 12)), box((12, 0, 0), (24, 12, 12))
    voxel_map, delta, prediction, (a, b) = one_update(left, right)
    for slots, part, embedding in ((a, left, 0.0), (b, right, 3.0)):
        predict(prediction, slots, CHAIR, embedding, (part.mean(axis=0) - part) * VOXEL_M)
        prediction.embedding[slots] += rng.normal(0, 0.15, (len(slots), 4))
    result = Grouper(GroupingConfig(cell_size=0.0)).regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
    assert sorted(map(len, (s.slots for s in result.segments.values()))) == [1728, 1728]


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="hdbscan"):
        Grouper(GroupingConfig(method="magic"))
