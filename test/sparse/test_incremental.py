"""Incremental = full: after any history the cached outputs are those of a full pass over the same map."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_program import random_update, small_net

from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse.incremental import IncrementalNetwork
from instseg_ros.sparse.runner import FullPassRunner


def random_step(rng: np.random.Generator, voxels: VoxelMap) -> MapUpdate:
    """Insert a patch, recolour and delete some voxels, or now and then replace the whole map."""
    if rng.random() < 0.1:
        return random_update(int(rng.integers(1 << 30)), int(rng.integers(1, 400)), full=True)
    live = voxels.coords[voxels.live_slots()]
    center, spread = rng.integers(-25, 25, 3), rng.integers(1, 8)
    patch = center + rng.integers(-spread, spread + 1, (int(rng.integers(0, 120)), 3))
    some = live[rng.random(len(live)) < rng.choice([0.0, 0.02, 0.5])]
    gone = live[rng.random(len(live)) < rng.choice([0.0, 0.05, 0.9])]
    coords = np.unique(np.concatenate([patch, some]).astype(np.int32), axis=0)
    gone = np.array(sorted(set(map(tuple, gone.tolist())) - set(map(tuple, coords.tolist()))), np.int32).reshape(-1, 3)
    colors = rng.integers(0, 256, (len(coords), 3)).astype(np.uint8)
    return MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05, deleted=gone)


networks = st.sampled_from([{}, {"channels": (8,)}, {"channels": (16, 8), "blocks": 2}, {"channels": (4, 8, 12, 16), "height_feature": False}])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), networks, st.integers(1, 6))
def test_exact_on_any_history(seed, changes, steps):
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    incremental, shadow = IncrementalNetwork(net), {}
    for _ in range(steps):
        delta = voxels.apply(random_step(rng, voxels))
        changed = incremental.refresh(voxels, delta)
        shadow = check_current(net, voxels, incremental, changed, shadow)


def check_current(
    net, voxels: VoxelMap, network: IncrementalNetwork, changed: np.ndarray, shadow: dict, relative: float = 1e-5
) -> dict:
    """The outputs are those of a full pass, and what is not named as changed is as it was; returns the outputs by slot."""
    live = voxels.live_slots()
    full = FullPassRunner(net)
    full.refresh(voxels)
    for name in ("semantic", "embedding", "offset"):
        want, got = getattr(full.prediction, name)[live], getattr(network.prediction, name)[live]
        assert np.abs(got - want).max(initial=0.0) <= relative * (np.abs(want).max(initial=0.0) + 1e-6)
    for slot in np.setdiff1d(live, changed):
        assert np.array_equal(shadow[slot], network.prediction.embedding[slot])
    return {slot: network.prediction.embedding[slot].copy() for slot in live}


def test_work_follows_the_change():
    net = small_net(0)
    voxels, runner = VoxelMap(0.05, depth=3), IncrementalNetwork(net)
    flat = np.argwhere(np.ones((150, 150, 1), bool)).astype(np.int32)
    runner.refresh(voxels, voxels.apply(MapUpdate(flat, np.zeros_like(flat, np.uint8), np.ones(len(flat), np.float32), 0.05)))
    dot = MapUpdate(flat[:1], np.full((1, 3), 255, np.uint8), np.ones(1, np.float32), 0.05)
    changed = runner.refresh(voxels, voxels.apply(dot))
    assert 0 < len(changed) < 0.25 * len(flat)
    assert all(s.due < 0.4 * s.rows or s.rows < 2000 for s in runner.statistics)
    assert len(runner.refresh(voxels, voxels.apply(dot))) == 0


def test_a_tolerance_stops_the_wave_and_bounds_the_error():
    net, rng = small_net(1), np.random.default_rng(0)
    maps = [VoxelMap(0.05, depth=3) for _ in range(2)]
    exact, loose = IncrementalNetwork(net), IncrementalNetwork(net, tolerance=0.03)
    due = [0, 0]
    first = random_update(9)
    for k in range(8):
        coords = first.coords[rng.random(len(first.coords)) < (1.0 if k == 0 else 0.01)]
        colors = rng.integers(100, 130, (len(coords), 3)).astype(np.uint8)
        update = MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05)
        for j, runner in enumerate((exact, loose)):
            runner.refresh(maps[j], maps[j].apply(update))
            due[j] += sum(s.due for s in runner.statistics) if k else 0
    assert due[1] < 0.8 * due[0]
    live = maps[0].live_slots()
    error = np.abs(exact.prediction.embedding[live] - loose.prediction.embedding[live]).max()
    assert error < 0.3 * np.abs(exact.prediction.embedding[live]).mean()


def corridor_step(rng: np.random.Generator, voxels: VoxelMap, length: int) -> MapUpdate:
    """Somewhere along a corridor of so many voxels: insert, recolour and delete."""
    x, width = int(rng.integers(0, length)), int(rng.integers(2, 120))
    patch = np.stack([rng.integers(x, x + width, 400), rng.integers(0, 6, 400), rng.integers(0, 6, 400)], 1)
    live = voxels.coords[voxels.live_slots()]
    gone = live[(np.abs(live[:, 0] - rng.integers(0, length)) < 9) & (rng.random(len(live)) < 0.7)]
    coords = np.unique(patch.astype(np.int32), axis=0)
    gone = np.array(sorted(set(map(tuple, gone.tolist())) - set(map(tuple, coords.tolist()))), np.int32).reshape(-1, 3)
    colors = rng.integers(0, 256, (len(coords), 3)).astype(np.uint8)
    return MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05, deleted=gone)


limits = st.sampled_from([(1, 0.0), (60_000, 0.0), (300_000, 0.0), (0, 0.1), (0, 150.0), (0, 400.0), (300_000, 200.0)])  # bytes, voxels


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), networks, limits, st.integers(2, 8))
@example(251, {"channels": (4, 8, 12, 16), "height_feature": False}, (300_000, 0.0), 6)  # regions beside the change were let go to make room
def test_exact_with_outputs_evicted_and_computed_anew(seed, changes, limits, steps):
    budget_bytes, radius = limits
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    network = IncrementalNetwork(net, budget_bytes=budget_bytes, radius_voxels=radius)
    shadow = {}
    for _ in range(steps):
        update = corridor_step(rng, voxels, 900)
        changed = network.refresh(voxels, voxels.apply(update))
        shadow = check_current(net, voxels, network, changed, shadow)
        assert network.held_bytes() <= (budget_bytes or np.inf)  # between updates


def voxels_with_outputs(network: IncrementalNetwork, voxels: VoxelMap) -> np.ndarray:
    """Coordinates [n, 3] of the voxels whose outputs are held."""
    place = network._residency.place[0]
    return voxels.coords[: len(place)][place >= 0]


def walk_along(network: IncrementalNetwork, voxels: VoxelMap, starts: range, delete: bool = False) -> None:
    """A floor is seen piece by piece, and forgotten again behind."""
    gone = np.zeros((0, 3), np.int32)
    for x in starts:
        floor = np.stack(np.meshgrid(np.arange(x, x + starts.step), np.arange(8), [0], indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
        update = MapUpdate(floor, np.full_like(floor, 200, np.uint8), np.ones(len(floor), np.float32), 0.05, deleted=gone)
        network.refresh(voxels, voxels.apply(update))
        gone = floor if delete else gone


def test_outputs_out_of_the_radius_are_let_go_of_wherever_the_map_grows():
    net, voxels = small_net(0), VoxelMap(0.05, depth=3)
    network = IncrementalNetwork(net, radius_voxels=200.0)
    walk_along(network, voxels, range(0, 3000, 100))
    x = voxels_with_outputs(network, voxels)[:, 0]
    middle = np.median([100 * (k + 0.5) for k in range(27, 30)])
    assert x.max() == 2999 and len(np.unique(x)) == np.ptp(x) + 1  # all about the last updates
    assert middle - 200 - 64 <= x.min() <= middle - 200 + 1, "a region goes when no voxel of it is near"
    dot = MapUpdate(np.zeros((1, 3), np.int32), np.zeros((1, 3), np.uint8), np.ones(1, np.float32), 0.05)
    network.refresh(voxels, voxels.apply(dot))
    x = voxels_with_outputs(network, voxels)[:, 0]
    assert x.min() == 0 and x.max() == 2999, "one change far away: what it needs, and still what is about the others"
    assert not ((x > 200) & (x < 2000)).any()


def test_a_whole_map_at_once_leaves_outputs_within_the_radius_only():
    net, voxels = small_net(0), VoxelMap(0.05, depth=3)
    whole = np.stack(np.meshgrid(np.arange(3000), np.arange(8), [0], indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    network = IncrementalNetwork(net, radius_voxels=200.0)
    network.refresh(voxels, voxels.apply(MapUpdate(whole, np.full_like(whole, 200, np.uint8), np.ones(len(whole), np.float32), 0.05)))
    x = voxels_with_outputs(network, voxels)[:, 0]
    assert 1500 - 200 - 64 <= x.min() <= 1500 - 200 and 1500 + 200 <= x.max() <= 1500 + 200 + 64


def test_a_map_that_moves_on_leaves_nothing_behind():
    net, voxels = small_net(0), VoxelMap(0.05, depth=3)
    network = IncrementalNetwork(net, budget_bytes=10_000_000)
    walk_along(network, voxels, range(0, 500, 50), delete=True)
    places, regions = list(network._residency.size), len(network._residency._members)
    walk_along(network, voxels, range(600, 5000, 50), delete=True)
    assert len(network._residency) <= 5 and len(network._residency._members) == regions
    assert all(now <= 2 * before for now, before in zip(network._residency.size, places, strict=True))


def test_what_is_far_from_the_change_is_let_go_and_not_computed_again():
    net = small_net(0)
    voxels = VoxelMap(0.05, depth=3)
    floor = np.stack(np.meshgrid(np.arange(2000), np.arange(8), [0], indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    white = np.full_like(floor, 200, np.uint8)
    network = IncrementalNetwork(net, budget_bytes=600_000)
    network.refresh(voxels, voxels.apply(MapUpdate(floor, white, np.ones(len(floor), np.float32), 0.05)))
    assert network.nbytes() < 0.6 * bytes_without_a_budget(net, voxels)
    dot = MapUpdate(floor[:8], np.zeros((8, 3), np.uint8), np.ones(8, np.float32), 0.05)
    changed = network.refresh(voxels, voxels.apply(dot))
    assert 0 < len(changed) < 0.1 * len(floor)
    again = network.refresh(voxels, voxels.apply(MapUpdate(floor[:8], white[:8], np.ones(8, np.float32), 0.05)))
    assert sum(s.due for s in network.statistics) < 0.1 * sum(s.rows for s in network.statistics)  # its regions were at hand
    assert set(again) == set(changed)


def bytes_without_a_budget(net, voxels) -> int:
    """What a network without a budget holds for this map."""
    network = IncrementalNetwork(net)
    network.refresh(voxels, voxels.apply(voxels.to_update()))
    return network.nbytes()
