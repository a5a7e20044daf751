"""The voxel map and its tables against a brute-force dictionary, on random histories."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MAX_ABS_COORD, MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse.level import NEIGHBOR_OFFSETS, Level
from instseg_ros.sparse.pyramid import build_tables

coordinate = st.integers(-20, 20)
voxel = st.tuples(coordinate, coordinate, st.integers(-2, 2))
step = st.tuples(st.dictionaries(voxel, st.integers(0, 255), max_size=40), st.sets(voxel, max_size=20), st.booleans())


def make_update(values: dict, gone: set, full: bool = False, **changes) -> MapUpdate:
    coords = np.array(list(values), np.int32).reshape(-1, 3)
    colors = np.repeat(np.array(list(values.values()), np.uint8)[:, None], 3, axis=1).reshape(-1, 3)
    deleted = np.array(sorted(gone - set(values)), np.int32).reshape(-1, 3)
    fields = {"coords": coords, "colors": colors, "weights": np.ones(len(coords), np.float32), "deleted": deleted, "full": full}
    return MapUpdate(**{"voxel_size_m": 0.05, **fields, **changes})


def check_tables(voxels: VoxelMap, expected: dict) -> None:
    """Every table of every level against dictionaries."""
    coords = {tuple(c) for c in expected}
    for depth, level in enumerate(voxels.pyramid.levels):
        live = level.live_rows()
        assert {tuple(c) for c in level.coords[live].tolist()} == coords
        rows = {tuple(level.coords[r].tolist()): r for r in live}
        for c, row in rows.items():
            around = [rows.get(tuple((np.array(c) + o).tolist()), -1) for o in NEIGHBOR_OFFSETS]
            assert level.neighbors[row].tolist() == around
        dead = np.setdiff1d(np.arange(level.capacity), live)
        assert (level.neighbors[dead] == -1).all()
        if depth:
            finer = voxels.pyramid.levels[depth - 1]
            below = {tuple(finer.coords[r].tolist()): r for r in finer.live_rows()}
            for c, row in rows.items():
                children = [below.get((2 * c[0] + i, 2 * c[1] + j, 2 * c[2] + k), -1) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
                assert voxels.pyramid.children[depth - 1][row].tolist() == children
            for c, row in below.items():
                assert voxels.pyramid.parent(depth - 1, np.array([row]))[0] == rows[tuple(x >> 1 for x in c)]
        coords = {tuple(x >> 1 for x in c) for c in coords}


@settings(max_examples=60, deadline=None)
@given(st.lists(step, min_size=1, max_size=6))
def test_histories_equal_a_dictionary(history):
    voxels, expected = VoxelMap(0.05, depth=3), {}
    for values, deleted, full in history:
        before = dict(expected)
        delta = voxels.apply(make_update(values, deleted, full))
        for c in deleted - set(values):
            expected.pop(c, None)
        if full:
            expected = {}
        expected.update(values)
        live = voxels.live_slots()
        assert {tuple(voxels.coords[s].tolist()): int(voxels.colors[s, 0]) for s in live} == expected
        assert len(voxels) == len(expected)
        assert {tuple(voxels.coords[s].tolist()) for s in delta.added} == set(expected) - set(before)
        assert {tuple(c) for c in delta.removed_coords.tolist()} == set(before) - set(expected)
        changed = {c for c in set(before) & set(expected) if before[c] != expected[c]}
        assert {tuple(voxels.coords[s].tolist()) for s in delta.changed} == changed
    check_tables(voxels, expected)


def test_slots_last_until_the_voxel_is_deleted():
    voxels = VoxelMap(0.05)
    voxels.apply(make_update({(0, 0, 0): 1, (5, 5, 5): 2}, set()))
    slot = voxels.lookup(np.array([[5, 5, 5]]))[0]
    voxels.apply(make_update({(i, 0, 1): 3 for i in range(3000)}, {(0, 0, 0)}))
    assert voxels.lookup(np.array([[5, 5, 5]]))[0] == slot
    assert voxels.lookup(np.array([[0, 0, 0], [9, 9, 9]])).tolist() == [-1, -1]


def test_empty_chunks_are_given_back():
    voxels = VoxelMap(0.05, depth=2)
    for i in range(50):  # a window that moves on
        voxels.apply(make_update({(i * 16, 0, 0): 1}, {((i - 1) * 16, 0, 0)}))
    assert len(voxels) == 1
    assert len(voxels.pyramid.levels[0]._slots) <= 16


GOOD = {(0, 0, 0): 1, (1, 0, 0): 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coords": np.zeros((2, 2), np.int32)}, "coords"),
        ({"coords": np.zeros((2, 3), np.float32)}, "coords"),
        ({"coords": np.zeros((2, 3), np.int32)}, "more than once"),
        ({"colors": np.zeros((1, 3), np.uint8)}, "lengths"),
        ({"weights": np.ones(3, np.float32)}, "lengths"),
        ({"weights": np.array([1, np.nan], np.float32)}, "finite"),
        ({"weights": np.array([1, 0], np.float32)}, "positive"),
        ({"coords": np.array([[0, 0, 0], [MAX_ABS_COORD + 1, 0, 0]], np.int32)}, "units"),
        ({"deleted": np.array([[0, 0, 0]], np.int32)}, "more than once"),
        ({"voxel_size_m": 0.02}, "voxel_size_m"),
        ({"voxel_size_m": float("nan")}, "voxel_size"),
        ({"frame_id": "odom"}, "frame"),
        ({"frame_id": ""}, "frame_id"),
    ],
)
def test_malformed_updates_are_refused_and_change_nothing(changes, words):
    voxels = VoxelMap(0.05)
    voxels.apply(make_update({**GOOD, (7, 7, 7): 9}, set()))
    before = voxels.to_update()
    with pytest.raises(InputError, match=words):
        voxels.apply(make_update(GOOD, set(), **changes))
    after = voxels.to_update()
    assert np.array_equal(before.coords, after.coords) and np.array_equal(before.colors, after.colors)


def test_numpy_neighbours_equal_the_kernels(monkeypatch):
    coords = np.unique(np.random.default_rng(0).integers(-40, 40, (4000, 3)).astype(np.int32), axis=0)
    tables = [build_tables(coords, 3)]
    monkeypatch.setattr("instseg_ros.sparse.kernels.available", lambda: False)
    tables.append(build_tables(coords, 3))
    for a, b in zip(tables[0].levels, tables[1].levels, strict=True):
        assert a.neighbors.equal(b.neighbors)


def test_reach_goes_on_when_its_counter_ends():
    level = Level()
    rows = level.insert(np.argwhere(np.ones((3, 3, 1), bool)).astype(np.int32))
    level.reach((None, rows))
    level._epoch = np.iinfo(np.int32).max - 2
    for _ in range(4):
        assert sorted(level.reach((level.neighbors, rows[:1]), (None, rows[4:5]))) == sorted(set(level.neighbors[rows[0]]) - {-1} | {rows[4]})
