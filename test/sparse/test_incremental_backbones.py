"""Incremental = full for every backbone and for the refined embedding, whatever the history, with and without eviction."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_incremental import check_current, corridor_step, random_step
from test_program import random_update, small_net

from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse import device as device_module
from instseg_ros.sparse.device import DeviceIncrementalNetwork
from instseg_ros.sparse.incremental import IncrementalNetwork
from instseg_ros.sparse.neighborhood import DilatedTable, NearestTable, dilated_rows, nearest_rows
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.residency import reach_voxels

DEVICE = os.environ.get("INSTSEG_TEST_DEVICE", "cpu")
NETWORKS = [
    {"backbone": "residual_unet", "encoder_blocks": (1, 2)},
    {"backbone": "residual_unet", "channels": (8,), "encoder_blocks": (1,), "refine_layers": 1, "refine_neighbors": 3},
    {"backbone": "dilated", "dilations": (1, 2)},
    {"backbone": "dilated", "channels": (8, 12), "dilations": (3, 2, 3), "refine_layers": 2},
    {"backbone": "dilated", "channels": (8,), "dilations": (2,), "height_feature": False},
    {"channels": (8, 12), "refine_layers": 3, "refine_neighbors": 12},
    {"channels": (8,), "refine_layers": 2, "refine_neighbors": 30, "embedding_dim": 3},
    {"channels": (8, 12), "embedding_dim": 5, "position_scale": 2.0},
]
networks = st.sampled_from(NETWORKS)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), networks, st.integers(1, 6))
def test_exact_on_any_history(seed, changes, steps):
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    incremental, shadow = IncrementalNetwork(net), {}
    for _ in range(steps):
        changed = incremental.refresh(voxels, voxels.apply(random_step(rng, voxels)))
        shadow = check_current(net, voxels, incremental, changed, shadow)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), networks, st.integers(1, 5), st.sampled_from([1, 4096]))
def test_exact_on_a_device(seed, changes, steps, shortest):
    """With lists that are too short at first, too."""
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels, shadow = VoxelMap(0.05, depth=len(net.config.channels)), {}
    before, device_module._SHORTEST = device_module._SHORTEST, shortest
    try:
        network, on_cpu = DeviceIncrementalNetwork(net, DEVICE, replay=bool(seed % 2)), IncrementalNetwork(net)
        for _ in range(steps):
            delta = voxels.apply(random_step(rng, voxels))
            changed = network.refresh(voxels, delta)
            shadow = check_current(net, voxels, network, changed, shadow)
            on_cpu.refresh(voxels, delta)
            assert [(s.name, s.rows) for s in network.statistics] == [(s.name, s.rows) for s in on_cpu.statistics]
    finally:
        device_module._SHORTEST = before


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 30), networks, st.sampled_from([1, 60_000, 300_000]), st.integers(2, 5))
def test_exact_with_outputs_evicted_and_computed_anew(seed, changes, budget_bytes, steps):
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    network, shadow = IncrementalNetwork(net, budget_bytes=budget_bytes), {}
    for _ in range(steps):
        changed = network.refresh(voxels, voxels.apply(corridor_step(rng, voxels, 900)))
        shadow = check_current(net, voxels, network, changed, shadow)
        assert network.held_bytes() <= budget_bytes


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 5), st.integers(1, 4), st.sampled_from([3, 8, 12, 30]))
def test_tables_kept_in_place_are_those_looked_up_anew(seed, steps, dilation, k):
    rng, voxels = np.random.default_rng(seed), VoxelMap(0.05, depth=2)
    dilated, nearest = DilatedTable(dilation), NearestTable(k)
    for step in range(steps):
        delta, level = voxels.apply(random_step(rng, voxels)), voxels.pyramid.levels[1]
        fine, before = voxels.pyramid.levels[0], nearest.table.copy()
        if step == 0:
            dilated.load(level)
            nearest.load(fine)
        else:
            changed = dilated.follow(level, delta.pyramid.removed[1], delta.pyramid.added[1])
            rows = nearest.follow(fine, delta.pyramid.retabled[0], delta.pyramid.added[0], delta.removed_coords)
            assert level.alive[changed].all() and len(np.unique(changed)) == len(changed)
            others = np.setdiff1d(fine.live_rows(), rows)
            assert np.array_equal(before[others], nearest.table[others])
        live = level.live_rows()
        assert np.array_equal(dilated.table[live], dilated_rows(level, live, dilation))
        assert (dilated.table[~level.alive[: len(dilated.table)]] == -1).all()
        assert np.array_equal(nearest.table[fine.live_rows()], nearest_rows(fine, fine.live_rows(), k))
        some = rng.permutation(fine.live_rows())[:5]
        reads = fine.live_rows()[np.isin(nearest.table[fine.live_rows()], some).any(1)]
        assert np.isin(reads, nearest.readers(fine, some)).all()


def test_a_tolerance_stops_the_refinement_too():
    net, rng = small_net(1, channels=(8, 12), refine_layers=2), np.random.default_rng(0)
    maps = [VoxelMap(0.05, depth=2) for _ in range(2)]
    exact, loose = IncrementalNetwork(net), IncrementalNetwork(net, tolerance=0.03)
    first = random_update(9)
    moved = [0, 0]
    for k in range(6):
        some = rng.random(len(first.coords)) < (1.0 if k == 0 else 0.01)
        colors = rng.integers(100, 130, (int(some.sum()), 3)).astype(np.uint8)
        update = random_update(9, coords=first.coords[some], colors=colors, weights=first.weights[some])
        for j, runner in enumerate((exact, loose)):
            runner.refresh(maps[j], maps[j].apply(update))
            moved[j] += sum(s.changed for s in runner.statistics if s.name.startswith("refine")) if k else 0
    assert 0 < moved[1] < 0.9 * moved[0]
    live = maps[0].live_slots()
    error = np.abs(exact.prediction.embedding[live] - loose.prediction.embedding[live]).max()
    assert error < 0.3 * np.abs(exact.prediction.embedding[live]).mean()


@pytest.mark.parametrize("changes, reach", [
    ({"channels": (8,), "blocks": 1}, 3),
    ({"channels": (8,), "blocks": 1, "refine_layers": 2}, 5),
    ({"channels": (8,), "blocks": 1, "refine_layers": 1, "refine_neighbors": 9}, 5),
    ({"channels": (8,), "backbone": "dilated", "dilations": (1, 4)}, 11),
    ({"channels": (8, 8, 8), "backbone": "dilated", "dilations": (1, 1, 2, 2)}, 56),  # SSCNet's 113 voxels
    ({"channels": (8, 8, 8), "backbone": "dilated"}, 72),
    ({"channels": (8, 8), "backbone": "residual_unet"}, 1 + 4 + 12 + 4 + 1),
])
def test_the_reach_counts_dilations_and_refinement(changes, reach):
    assert reach_voxels(compile_network(small_net(0, **changes))) == reach
