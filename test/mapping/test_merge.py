"""Merged updates do what the single ones do in order; differences lead from one map to the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import InputError
from instseg_ros.mapping.cloud_changes import cloud_changes
from instseg_ros.mapping.merge import difference, merge_updates
from instseg_ros.mapping.update import MapUpdate, coord_keys
from instseg_ros.mapping.voxel_map import VoxelMap
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


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changes_of_a_cloud_equal_the_difference(data):
    seed, count, spread = data.draw(st.integers(0, 2**32)), data.draw(st.integers(0, 60)), data.draw(st.sampled_from([0.2, 1.0, 50_000.0]))
    rng = np.random.default_rng(seed)
    voxels, step = VoxelMap(0.05, depth=2), data.draw(st.integers(0, 40))
    for size in (40, count):  # a map with slots that were freed
        points, colors = rng.uniform(-spread, spread, (size, 3)), rng.integers(0, 256, (size, 3)).astype(np.uint8)
        voxels.apply(voxelize_points(points, colors, 0.05))
    stay = rng.random(count) < 0.8
    more = rng.uniform(-spread, spread, (data.draw(st.integers(0, 20)), 3))
    points = np.concatenate([points[stay], points[stay], more])
    colors = rng.integers(0, 256, points.shape).astype(np.uint8)
    head = {"frame_id": "map", "stamp_ns": 7, "sequence": 3}
    changes = cloud_changes(voxels, points, colors, step, **head)
    changes.validate()
    live = voxels.live_slots()
    wanted = difference(voxelize_points(points, colors, 0.05, **head), voxels.coords[live], voxels.colors[live], step)
    assert (changes.full, changes.stamp_ns, changes.sequence, changes.frame_id) == (False, 7, 3, "map")
    for one, other in zip(_sorted(changes), _sorted(wanted), strict=True):
        np.testing.assert_array_equal(one, other)


def _sorted(update: MapUpdate) -> tuple[np.ndarray, ...]:
    order = np.argsort(coord_keys(update.coords))
    return update.coords[order], update.colors[order], update.weights[order], np.sort(coord_keys(update.deleted))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.2, 3.0, 52_000.0]))
def test_voxels_of_points_equal_a_loop(seed, spread):
    rng = np.random.default_rng(seed)
    points, colors = rng.uniform(-spread, spread, (int(rng.integers(1, 80)), 3)), rng.integers(0, 256, (80, 3)).astype(np.uint8)
    cells: dict[tuple[int, ...], list] = {}
    for point, color in zip(points, colors, strict=False):
        cells.setdefault(tuple(np.floor(point / 0.05).astype(int).tolist()), []).append(color.astype(float))
    update = voxelize_points(points, colors[: len(points)], 0.05)
    assert list(map(tuple, update.coords.tolist())) == sorted(cells)
    for coord, color, weight in zip(update.coords.tolist(), update.colors, update.weights, strict=True):
        np.testing.assert_array_equal(color, np.rint(np.mean(cells[tuple(coord)], axis=0)))
        assert weight == len(cells[tuple(coord)])
