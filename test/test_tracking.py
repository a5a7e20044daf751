"""Lasting ids: what stays whole keeps its id, events say what happened, and ids are never dealt out twice."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig, TrackingConfig
from instseg_ros.errors import DataError
from instseg_ros.grouping.grouper import Grouper
from instseg_ros.grouping.segmentation import Segment, Segmentation
from instseg_ros.instance import TrackEvent
from instseg_ros.mapping.update import MapUpdate, coord_keys
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.prediction import Prediction
from instseg_ros.tracking import InstanceTracker

NOTHING = np.zeros(0, np.int32)
CAPACITY = 400


class Line:
    """A map whose slot s holds the voxel (s, 0, 0); those from `fold` on lie beside the first ones, at (s - fold, 1, 0)."""

    voxel_size_m = 0.1

    def __init__(self, fold: int = CAPACITY) -> None:
        y, x = np.divmod(np.arange(CAPACITY), fold)
        self.coords = np.stack([x, y, np.zeros(CAPACITY, int)], 1).astype(np.int32)


@dataclass
class Delta:
    added: np.ndarray
    removed: np.ndarray
    removed_coords: np.ndarray


class Scene:
    """Segments given as slot ranges; keeps segment ids of unchanged ones, as the grouper does."""

    def __init__(self, config: TrackingConfig | None = None, id_step: int = 1, line: Line | None = None) -> None:
        self.tracker, self.map = InstanceTracker(config or TrackingConfig()), line or Line()
        self.segments: dict[int, Segment] = {}
        self.next, self.step, self.stamp = 1000, id_step, 0

    def show(
        self, *parts: range | list[int], exchanged: range | np.ndarray = NOTHING, removed: range | np.ndarray = NOTHING,
        added: range | np.ndarray = NOTHING,
    ) -> list[TrackEvent]:
        """Exchanged slots held voxels far away before; removed ones held the voxels of the map."""
        exchanged, removed = np.array(exchanged, np.int32), np.array(removed, np.int32)
        old = {tuple(s.slots): i for i, s in self.segments.items() if not np.isin(s.slots, exchanged).any()}
        now, touched = {}, set()
        for part in parts:
            slots = np.array(part, np.int32)
            key = old.get(tuple(slots))
            if key is None:
                key = self.next
                self.next += self.step
                touched.add(key)
            now[key] = Segment(slots, 4, 0.8)
        gone = set(self.segments) - set(now)
        self.segments = now
        segment = np.full(CAPACITY, -1, np.int32)
        for i, s in now.items():
            segment[s.slots] = i
        self.stamp += 100
        coords = self.map.coords
        delta = Delta(
            np.concatenate([exchanged, np.array(added, np.int32)]), np.concatenate([exchanged, removed]),
            np.concatenate([coords[exchanged] + 1000, coords[removed]]),
        )
        return self.tracker.associate(Segmentation(segment, now, touched, gone), self.map, self.stamp, delta)

    def ids(self) -> list[int]:
        """Ids of the segments, in order of their first slot; checks that each has exactly one."""
        found = []
        for s in sorted(self.segments.values(), key=lambda s: s.slots[0]):
            (i,) = set(self.tracker.instance_of[s.slots].tolist())
            assert i > 0
            assert self.tracker.instances[i].voxels == len(s.slots)
            found.append(i)
        assert sorted(found) == sorted(self.tracker.instances) and len(set(found)) == len(found)
        assert np.count_nonzero(self.tracker.instance_of) == sum(len(s.slots) for s in self.segments.values())
        return found


def brief(events: list[TrackEvent]) -> list[tuple[str, int, int]]:
    return [(e.kind, e.id, e.other) for e in events]


def test_born_updated_and_described() -> None:
    scene = Scene()
    assert brief(scene.show(range(0, 10), range(20, 30))) == [("born", 1, 0), ("born", 2, 0)]
    assert scene.show(range(0, 10), range(20, 30)) == []
    assert brief(scene.show(range(0, 12), range(20, 30))) == [("updated", 1, 0)]
    one = scene.tracker.instances[1]
    assert (one.voxels, one.class_index, one.first_seen_ns, one.last_changed_ns) == (12, 4, 100, 300)
    np.testing.assert_allclose(one.center_m, [0.6, 0.05, 0.05], atol=1e-6)
    np.testing.assert_allclose(one.box_min_m, [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(one.box_max_m, [1.2, 0.1, 0.1], atol=1e-6)
    assert scene.tracker.instances[2].last_changed_ns == 100


def test_an_object_seen_for_the_second_time_keeps_its_id_though_it_grew_tenfold() -> None:
    scene = Scene()
    scene.show(range(100, 110))
    assert brief(scene.show(range(50, 150))) == [("updated", 1, 0)]


def test_merge_goes_to_the_larger_and_the_other_gets_its_id_back_when_it_splits_again() -> None:
    scene = Scene()
    scene.show(range(0, 30), range(30, 50))
    assert brief(scene.show(range(0, 50))) == [("updated", 1, 0), ("merged", 2, 1)]
    assert brief(scene.show(range(0, 51))) == [("updated", 1, 0)]
    assert brief(scene.show(range(0, 30), range(30, 51))) == [("updated", 1, 0), ("split", 2, 1)]
    assert scene.ids() == [1, 2]


def test_a_merged_id_returns_to_its_own_voxels_even_if_they_are_more_now() -> None:
    scene = Scene()
    scene.show(range(0, 30), range(30, 50))
    scene.show(range(0, 80))
    scene.show(range(0, 30), range(30, 80))
    assert scene.ids() == [1, 2]


def test_an_instance_that_comes_back_smaller_forgets_the_voxels_it_had() -> None:
    scene = Scene()
    scene.show(range(0, 30))
    scene.show()
    scene.show(range(20, 30))
    scene.show()
    assert brief(scene.show(range(0, 15))) == [("born", 2, 0)]
    assert brief(scene.show(range(0, 15), range(20, 30))) == [("updated", 1, 0)]


def test_a_sleeping_instance_is_measured_by_its_voxels_that_still_exist() -> None:
    scene = Scene()
    scene.show(range(0, 114), range(200, 224))
    scene.show(range(200, 224), removed=range(0, 30))
    events = scene.show([*range(67, 114), *range(200, 224), *range(230, 380)], removed=range(30, 67))
    assert brief(events) == [("updated", 1, 0), ("merged", 2, 1)]


def test_an_object_whose_surface_moves_by_a_voxel_keeps_its_id() -> None:
    scene = Scene(line=Line(fold=200))
    scene.show(range(0, 30), range(50, 80))
    assert brief(scene.show(range(200, 230), range(50, 80), removed=range(0, 30), added=range(200, 230))) == [("updated", 1, 0)]
    assert scene.ids() == [2, 1]
    scene.show(range(50, 80))  # 1 sleeps, and its surface moves back meanwhile
    scene.show(range(50, 80), removed=range(200, 230), added=range(0, 30))
    assert brief(scene.show(range(0, 30), range(50, 80))) == [("updated", 1, 0)]
    scene.show(range(50, 80), removed=range(0, 30))
    assert brief(scene.show(range(200, 230), range(50, 80), added=range(200, 230))) == [("born", 3, 0)]


def test_halves_that_join_again_are_the_first_id_though_the_other_half_is_larger() -> None:
    scene = Scene()
    scene.show(range(0, 40))
    scene.show(range(0, 40))
    scene.show(range(0, 21), range(21, 40))
    scene.show(range(0, 15), range(15, 40))
    assert brief(scene.show(range(0, 40))) == [("updated", 1, 0), ("merged", 2, 1)]


def test_what_is_left_of_a_merged_pair_is_the_object_that_it_was_before() -> None:
    scene = Scene()
    for _ in range(2):
        scene.show(range(0, 40), range(40, 70))
    scene.show(range(0, 80))
    assert brief(scene.show(range(38, 80))) == [("split", 2, 1)]
    assert brief(scene.show(range(0, 38), range(38, 80))) == [("updated", 1, 0)]


def test_an_object_that_grew_while_merged_leaves_the_other_its_id() -> None:
    scene = Scene()
    for _ in range(3):
        scene.show(range(100, 140))
    scene.show(range(100, 185))  # a neighbour that is larger, but was never seen alone
    assert brief(scene.show(range(100, 140), range(140, 185))) == [("updated", 1, 0), ("split", 2, 1)]


def test_ids_survive_a_merger_whose_result_vanishes() -> None:
    scene = Scene()
    scene.show(range(0, 30), range(30, 50))
    scene.show(range(0, 50))
    scene.show()
    scene.show(range(0, 30), range(30, 50))
    assert scene.ids() == [1, 2]


def test_split_of_an_object_that_was_always_one_gives_a_new_id_to_the_smaller_part() -> None:
    scene = Scene()
    scene.show(range(0, 50))
    assert brief(scene.show(range(0, 20), range(20, 50))) == [("split", 2, 1), ("updated", 1, 0)]


def test_of_two_that_join_the_one_there_for_longer_has_more_weight() -> None:
    for size, kept in ((44, [1]), (80, [2])):  # a little larger, and much larger, than the 40 voxels of the first
        scene = Scene()
        for _ in range(6):
            scene.show(range(40))
        for _ in range(6):
            scene.show(range(40), range(40, 40 + size))
        scene.show(range(40 + size))
        assert scene.ids() == kept


def test_a_new_segment_takes_the_id_that_would_end_with_a_trace_in_it() -> None:
    scene = Scene()
    scene.show(range(40))
    events = scene.show(range(32, 232))  # a fifth of it is in a segment too large to be claimed
    assert scene.ids() == [1]
    assert [(e.kind, e.id) for e in events] == [("updated", 1)]


def test_less_than_a_trace_is_another_object() -> None:
    for size, left in ((80, 7), (20, 4)):  # under a tenth, under five voxels
        scene = Scene()
        scene.show(range(size))
        scene.show(range(size - left, size + 200))
        assert scene.ids() == [2]


def test_a_trace_does_not_take_the_id_from_what_is_left() -> None:
    scene = Scene()
    scene.show(range(40))
    scene.show(range(32), range(32, 232))
    assert scene.ids() == [1, 2]


def test_flicker_keeps_the_id_and_a_long_absence_retires_it() -> None:
    scene = Scene(TrackingConfig(retire_after=3))
    scene.show(range(0, 30))
    for _ in range(3):
        assert scene.show() == []
        assert not scene.tracker.instances
        assert brief(scene.show(range(1, 28))) == [("updated", 1, 0)]
        assert scene.tracker.instances[1].first_seen_ns == 100
    assert [brief(scene.show()) for _ in range(4)] == [[], [], [], [("retired", 1, 0)]]
    assert brief(scene.show(range(0, 30))) == [("born", 2, 0)]


def test_without_memory_an_instance_retires_at_once() -> None:
    scene = Scene(TrackingConfig(retire_after=0))
    scene.show(range(0, 30))
    assert brief(scene.show()) == [("retired", 1, 0)]


def test_an_instance_whose_voxels_are_deleted_retires_at_once() -> None:
    scene = Scene()
    scene.show(range(0, 30))
    assert brief(scene.show(removed=range(0, 30))) == [("retired", 1, 0)]


def test_slots_that_hold_other_voxels_now_carry_no_id_over() -> None:
    scene = Scene()
    scene.show(range(0, 30))
    assert brief(scene.show(range(0, 30), exchanged=range(0, 30))) == [("born", 2, 0), ("retired", 1, 0)]
    scene.show()  # 2 sleeps on these slots
    assert brief(scene.show(range(0, 30), exchanged=range(0, 30))) == [("born", 3, 0)]


def test_a_piece_that_is_claimed_by_nobody_in_a_shuffle_is_the_smallest() -> None:
    scene = Scene()
    scene.show(range(0, 40), range(40, 80))
    scene.show(range(0, 20), range(20, 60), range(60, 80))  # the middle one could be either
    assert len(set(scene.ids()) & {1, 2}) == 2


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), retire_after=st.integers(0, 4))
def test_ids_are_unique_and_independent_of_segment_ids_and_of_saving(seed: int, retire_after: int) -> None:
    rng = np.random.default_rng(seed)
    config = TrackingConfig(retire_after=retire_after)
    scene, renamed, restored = Scene(config), Scene(config, id_step=-7), Scene(config)
    cuts = np.sort(rng.choice(np.arange(1, 120), 8, replace=False))
    finished: set[int] = set()
    for _ in range(8):
        if rng.random() < 0.7:
            cuts[rng.integers(8)] = rng.integers(1, 120)
            cuts = np.unique(cuts)
            more = rng.choice(np.setdiff1d(np.arange(1, 120), cuts), 8 - len(cuts), replace=False)
            cuts = np.sort(np.concatenate([cuts, more]))
        parts = [range(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True) if rng.random() < 0.8]
        exchanged = np.flatnonzero(rng.random(120) < rng.choice([0.0, 0.1]))
        events = scene.show(*parts, exchanged=exchanged)
        assert events == renamed.show(*parts, exchanged=exchanged)
        assert events == restored.show(*parts, exchanged=exchanged)
        assert scene.ids() == renamed.ids() == restored.ids()
        for e in events:
            assert e.id not in finished and e.other != e.id
            if e.kind == "retired":
                finished.add(e.id)
        restored.tracker = InstanceTracker.from_state(config, restored.tracker.state())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_an_object_that_stays_whole_keeps_its_id(seed: int) -> None:
    """Objects grow out of disjoint cores, lose some voxels, vanish for a while; neighbours do as they like."""
    rng = np.random.default_rng(seed)
    scene = Scene()
    low, high = np.arange(6) * 60 + 18, np.arange(6) * 60 + 38
    id_of: dict[int, int] = {}
    for _ in range(12):
        low = np.maximum(low - rng.integers(0, 4, 6), np.arange(6) * 60)
        high = np.minimum(high + rng.integers(0, 4, 6), np.arange(6) * 60 + 60)
        shown = [k for k in range(6) if rng.random() < 0.8]
        parts = [[int(v) for v in range(low[k], high[k]) if rng.random() < 0.9] for k in shown]
        scene.show(*parts)
        for k, i in zip(shown, scene.ids(), strict=True):
            assert id_of.setdefault(k, i) == i


def test_untouched_instances_are_not_looked_at() -> None:
    scene = Scene()
    scene.show(*[range(k * 4, k * 4 + 4) for k in range(90)])
    before = dict(scene.tracker.instances)
    tracker = scene.tracker
    asked: list[int] = []

    class Watched(dict):  # type: ignore[type-arg]
        def __getitem__(self, key: int) -> np.ndarray:
            asked.append(key)
            return dict.__getitem__(self, key)

        def __iter__(self):  # type: ignore[no-untyped-def]
            raise AssertionError("went through all instances")

        values = items = keys = __iter__  # type: ignore[assignment]

    tracker._slots = Watched(tracker._slots)
    segments = dict(scene.segments)
    key = next(i for i, s in segments.items() if s.slots[0] == 40)
    segments[9999] = Segment(np.arange(40, 43, dtype=np.int32), 4, 0.8)
    del segments[key]
    segmentation = Segmentation(np.zeros(CAPACITY, np.int32), segments, {9999}, {key})
    tracker.associate(segmentation, Line(), 7, Delta(NOTHING, NOTHING, np.zeros((0, 3), np.int32)))
    assert set(asked) == {11}
    assert all(tracker.instances[i] is before[i] for i in before if i != 11)


def test_damaged_state_is_refused() -> None:
    scene = Scene()
    scene.show(range(0, 10), range(20, 30))
    state = scene.tracker.state()
    for damage in (
        {"counters": np.array([1, 1])}, {"home": np.zeros(3, np.uint32)},
        {"instance_of": np.zeros(CAPACITY, np.uint32)}, {"live.id": np.array([1])},
    ):
        with pytest.raises(DataError, match="damaged"):
            InstanceTracker.from_state(TrackingConfig(), {**state, **damage})
    del state["home"]
    with pytest.raises(DataError, match="home"):
        InstanceTracker.from_state(TrackingConfig(), state)


def test_reset_starts_at_one() -> None:
    scene = Scene()
    scene.show(range(0, 10))
    scene.tracker.reset()
    scene.segments = {}
    assert brief(scene.show(range(0, 10))) == [("born", 1, 0)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ids_follow_the_segments_of_a_growing_and_changing_map(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxel_map = VoxelMap(0.05)
    grouper = Grouper(GroupingConfig(min_voxels=3, min_cluster_voxels=5, min_score=0.0))
    tracker = InstanceTracker(TrackingConfig(retire_after=2))
    kind = np.zeros(0, int)
    for step in range(8):
        fresh = np.unique(rng.integers(0, 12, (60, 3)), axis=0).astype(np.int32)
        live = voxel_map.coords[voxel_map.live_slots()]
        gone = live[(rng.random(len(live)) < 0.2) & ~np.isin(coord_keys(live), coord_keys(fresh))]
        colors, weights = np.zeros((len(fresh), 3), np.uint8), np.ones(len(fresh), np.float32)
        delta = voxel_map.apply(MapUpdate(fresh, colors, weights, 0.05, deleted=gone))
        kind = np.concatenate([kind, np.zeros(voxel_map.capacity - len(kind), int)])
        kind[delta.added] = rng.integers(0, 3, len(delta.added))
        embedding, offset = kind[:, None] * np.ones((1, 4), np.float32), np.zeros((len(kind), 3), np.float32)
        prediction = Prediction(np.eye(20, dtype=np.float32)[kind * 3], embedding, offset)
        if step == 5:
            grouper.reset()
        result = grouper.regroup(voxel_map, prediction, delta.added, delta)
        events = tracker.associate(result, voxel_map, step, delta)
        assert np.array_equal(tracker.instance_of > 0, result.segment >= 0)
        ids = {s: set(tracker.instance_of[segment.slots].tolist()) for s, segment in result.segments.items()}
        assert all(len(i) == 1 for i in ids.values()) and set.union(set(), *ids.values()) == set(tracker.instances)
        assert len(tracker.instances) == len(result.segments)
        for s, (i,) in ids.items():
            assert tracker.instances[i].voxels == len(result.segments[s].slots)
        born = [e.id for e in events if e.kind == "born"]
        assert all(tracker.instances[i].first_seen_ns == step for i in born)
