"""Merged updates do what the single ones do in order; differences lead from one map to the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import InputError
from instseg_ros.mapping.merge import difference, merge_updates
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxelize import voxelize_points

COORD = st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.just(0))


@st.composite
def map_updates(draw):
    voxels = draw(st.lists(COORD, unique=True, max_size=12))
    cut = draw(st.integers(0, len(voxels)))
    full = draw(st.integers(0, 5)) == 0
    values = draw(st.lists(st.integers(0, 255), min_size=cut, max_size=cut))
    return MapUpdate(
        coords=np.array(voxels[:cut], np.int32).reshape(-1, 3),
        colors=np.repeat(np.array(values, np.uint8).reshape(-1, 1), 3, axis=1),
        weights=np.array(values, np.float32) + 1,
        voxel_size_m=0.05, stamp_ns=draw(st.integers(0, 9)), sequence=draw(st.integers(0, 9)), full=full,
        deleted=np.array([] if full else voxels[cut:], np.int32).reshape(-1, 3),
    )


def apply(voxels: dict, update: MapUpdate) -> dict:
    voxels = {} if update.full else dict(voxels)
    for coord in update.deleted.tolist():
        voxels.pop(tuple(coord), None)
    for coord, color, weight in zip(update.coords.tolist(), update.colors.tolist(), update.weights.tolist(), strict=True):
        voxels[tuple(coord)] = (tuple(color), weight)
    return voxels


@settings(max_examples=300, deadline=None)
@given(map_updates(), st.lists(map_updates(), min_size=1, max_size=5))
def test_merged_equals_one_after_the_other(start, updates):
    begin = apply({}, start)
    expected = begin
    for update in updates:
        expected = apply(expected, update)
    merged = merge_updates(updates)
    merged.validate()
    assert apply(begin, merged) == expected
    assert merged.sequence == updates[-1].sequence
    assert merged.stamp_ns == max(update.stamp_ns for update in updates)


@settings(max_examples=200, deadline=None)
@given(map_updates(), map_updates())
def test_difference_leads_to_the_full_map(before, after):
    target = merge_updates([MapUpdate(**{**after.__dict__, "full": True, "deleted": np.zeros((0, 3), np.int32)})])
    old = apply({}, before)
    step = difference(target, before.coords, before.colors)
    step.validate()
    assert not step.full
    new = apply(old, step)
    # Weights alone are no reason to send a voxel again.
    assert {k: v[0] for k, v in new.items()} == {k: v[0] for k, v in apply({}, target).items()}
    same = {tuple(c) for c in before.coords.tolist() if old[tuple(c)][0] == apply({}, target).get(tuple(c), (None,))[0]}
    assert same.isdisjoint({tuple(c) for c in step.coords.tolist()})


def test_small_colour_steps_are_no_difference():
    coords = np.array([[0, 0, 0], [1, 0, 0]], np.int32)
    full = MapUpdate(coords, np.array([[10, 10, 10], [10, 10, 30]], np.uint8), np.ones(2, np.float32), 0.05, full=True)
    step = difference(full, coords, np.zeros((2, 3), np.uint8), color_step=12)
    assert step.coords.tolist() == [[1, 0, 0]] and len(step.deleted) == 0


def test_updates_of_two_maps_are_not_merged():
    a = MapUpdate(np.zeros((1, 3), np.int32), np.zeros((1, 3), np.uint8), np.ones(1, np.float32), 0.05)
    with pytest.raises(InputError, match="frame 'map'.*frame 'odom'"):
        merge_updates([a, MapUpdate(a.coords, a.colors, a.weights, 0.05, frame_id="odom")])


def test_points_to_voxels():
    points = np.array([[0.01, 0.01, 0.01], [0.02, 0.04, 0.0], [-0.01, 0.0, 0.0]])
    update = voxelize_points(points, np.array([[0, 0, 0], [200, 100, 50], [7, 8, 9]], np.uint8), 0.05)
    update.validate()
    assert update.coords.tolist() == [[-1, 0, 0], [0, 0, 0]]
    assert update.colors.tolist() == [[7, 8, 9], [100, 50, 25]] and update.weights.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_points_out_of_reach_are_refused(bad):
    with pytest.raises(InputError):
        voxelize_points(np.array([[0.0, 0.0, bad]]), np.zeros((1, 3), np.uint8), 0.05)


def test_no_points_are_no_voxels():
    update = voxelize_points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), 0.05)
    update.validate()
    assert len(update) == 0
