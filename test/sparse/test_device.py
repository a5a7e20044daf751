"""The incremental network on a device, here the CPU: equal to a full pass and to the CPU's runner, whatever came before."""

import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_incremental import check_current, corridor_step, limits, random_step
from test_program import random_update, small_net
from test_triton_kernels import LISTED, compiled
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from instseg_ros.config import SegmenterConfig
from instseg_ros.errors import ConfigError
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.segmenter import Segmenter
from instseg_ros.sparse import device as device_module
from instseg_ros.sparse import triton_kernels, triton_updates
from instseg_ros.sparse.conv import only_path
from instseg_ros.sparse.device import DeviceIncrementalNetwork
from instseg_ros.sparse.device_tables import DeviceTables, download, upload
from instseg_ros.sparse.incremental import IncrementalNetwork
from instseg_ros.sparse.runner import FullPassRunner, Prediction

DEVICE = os.environ.get("INSTSEG_TEST_DEVICE", "cpu")
NAMES = ("semantic", "embedding", "offset")

networks = st.sampled_from([
    {}, {"channels": (8,)}, {"channels": (16, 8), "blocks": 2}, {"channels": (4, 8, 12, 16), "height_feature": False},
])

networks_with_more = st.sampled_from([
    {"backbone": "dilated", "channels": (8, 12), "dilations": (3, 2, 3), "refine_layers": 2}, {"channels": (8,), "refine_layers": 1},
])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Torch's threads wait for each other longer than these small products take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def difference(got: Prediction, want: Prediction, rows: np.ndarray) -> float:
    """Largest difference of any output, relative to that output's largest value."""
    pairs = [(getattr(got, name)[rows], getattr(want, name)[rows]) for name in NAMES]
    return max(float(np.abs(a - b).max(initial=0.0) / (np.abs(b).max(initial=0.0) + 1e-6)) for a, b in pairs)


def full_pass(net, voxels: VoxelMap) -> Prediction:
    runner = FullPassRunner(net)
    runner.refresh(voxels)
    return runner.prediction


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), networks, st.integers(1, 6), st.sampled_from([1, 4096]))
@example(1926, {"channels": (4, 8, 12, 16), "height_feature": False}, 2, 1)  # more changed children than tables
def test_exact_on_any_history(seed, changes, steps, shortest):
    """With lists that are too short at first, too."""
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    before, device_module._SHORTEST = device_module._SHORTEST, shortest
    try:
        network, on_cpu = DeviceIncrementalNetwork(net, DEVICE, replay=bool(seed % 2)), IncrementalNetwork(net)
        shadow = {}
        for _ in range(steps):
            delta = voxels.apply(random_step(rng, voxels))
            changed = network.refresh(voxels, delta)
            on_cpu.refresh(voxels, delta)
            live = voxels.live_slots()
            assert difference(network.prediction, full_pass(net, voxels), live) <= 1e-5
            assert difference(network.prediction, on_cpu.prediction, live) <= 1e-5
            assert np.isin(delta.added, changed).all() and np.isin(changed, live).all() and (np.diff(changed) > 0).all()
            for slot in np.setdiff1d(live, changed):  # what is not named must be as it was
                assert np.array_equal(shadow[slot], network.prediction.embedding[slot])
            shadow = {slot: network.prediction.embedding[slot].copy() for slot in live}
    finally:
        device_module._SHORTEST = before


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(2, 6))
def test_tables_on_the_device_are_those_of_the_map(seed, steps):
    rng, voxels, mirror = np.random.default_rng(seed), VoxelMap(0.05, depth=3), DeviceTables(3, torch.device(DEVICE))
    for step in range(steps):
        delta = voxels.apply(random_step(rng, voxels))
        mirror.fit(voxels.pyramid)
        changed = mirror.load(voxels.pyramid) if step == 0 else mirror.follow(voxels.pyramid, delta.pyramid)
        mirror.put(upload(torch.device(DEVICE), changed))
        for level, want in enumerate(voxels.pyramid.tables().levels):
            for name in ("neighbors", "children", "up"):
                table = getattr(want, name)
                if table is not None:
                    got = getattr(mirror, f"_{name}").levels[level].cpu()
                    assert torch.equal(got[: len(table)], table)
                    assert (got[len(table) :] == -1).all()


def test_what_is_sent_arrives():
    numbers, table = np.arange(3, dtype=np.int32), np.arange(40, dtype=np.float32).reshape(20, 2)
    empty = np.zeros((0, 2), np.float32)
    sent = upload(torch.device(DEVICE), [[numbers, numbers[:0], numbers[1:]], [empty, (table, numbers[::-1]), table[:1]], [(table, numbers[:0])]])
    assert sent[0].tolist() == [0, 1, 2, 1, 2]
    assert sent[1].dtype == torch.float32 and np.array_equal(download(sent[1]), table[[2, 1, 0, 0]])
    assert sent[2].shape == (0, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.one_of(networks, networks_with_more), limits, st.integers(2, 6), st.sampled_from([1, 4096]))
@example(251, {"channels": (4, 8, 12, 16), "height_feature": False}, (300_000, 0.0), 6, 4096)
def test_exact_with_outputs_evicted_and_computed_anew(seed, changes, limits, steps, shortest):
    budget_bytes, radius = limits
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels, shadow = VoxelMap(0.05, depth=len(net.config.channels)), {}
    before, device_module._SHORTEST = device_module._SHORTEST, shortest
    try:
        network = DeviceIncrementalNetwork(net, DEVICE, replay=bool(seed % 2), budget_bytes=budget_bytes, radius_voxels=radius)
        for _ in range(steps):
            changed = network.refresh(voxels, voxels.apply(corridor_step(rng, voxels, 900)))
            shadow = check_current(net, voxels, network, changed, shadow, 1e-4)  # other sums: a class probability of random nets is sensitive
            assert network.held_bytes() <= (budget_bytes or np.inf)  # between updates
    finally:
        device_module._SHORTEST = before


def test_a_budget_bounds_the_memory_and_keeps_the_tolerance():
    """The same as without one, on a floor that is seen piece by piece and of which an early piece changes at the end."""
    net = small_net(0)
    voxels = [VoxelMap(0.05, depth=3) for _ in range(2)]
    limited, free = DeviceIncrementalNetwork(net, DEVICE, 0.01, budget_bytes=1_500_000), DeviceIncrementalNetwork(net, DEVICE, 0.01)
    for x in [*range(0, 640, 32), 0]:
        grid = np.stack(np.meshgrid(np.arange(x, x + 32), np.arange(20), [0], indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
        colors = (grid * 3 % 256).astype(np.uint8) if x else np.full_like(grid, len(voxels[0]) % 251, np.uint8)
        update = MapUpdate(grid, colors, np.ones(len(grid), np.float32), 0.05)
        for runner, voxel_map in zip((limited, free), voxels, strict=True):
            runner.refresh(voxel_map, voxel_map.apply(update))
        assert limited.held_bytes() <= 1_500_000
    assert limited.nbytes() < 0.6 * free.nbytes() and free.held_bytes() > 3_000_000
    live = voxels[0].live_slots()
    assert difference(limited.prediction, full_pass(net, voxels[0]), live) < 0.1
    assert difference(limited.prediction, free.prediction, live) < 0.1


def floor(size: int) -> MapUpdate:
    coords = np.argwhere(np.ones((size, size, 1), bool)).astype(np.int32)
    return MapUpdate(coords, np.full_like(coords, 120, np.uint8), np.ones(len(coords), np.float32), 0.05)


def dot(color: int) -> MapUpdate:
    return MapUpdate(np.zeros((1, 3), np.int32), np.full((1, 3), color, np.uint8), np.ones(1, np.float32), 0.05)


def test_the_wave_is_that_of_the_cpu():
    """The same rows due and replaced in every layer, but for rows that moved by just about the tolerance."""
    for tolerance in (0.0, 0.01):
        net, voxels = small_net(0), VoxelMap(0.05, depth=3)
        network, on_cpu = DeviceIncrementalNetwork(net, DEVICE, tolerance), IncrementalNetwork(net, tolerance)
        for update in (floor(120), dot(255), dot(0)):
            delta = voxels.apply(update)
            slots, expected = network.refresh(voxels, delta), on_cpu.refresh(voxels, delta)
            assert len(slots) == pytest.approx(len(expected), rel=0.02)
            for got, want in zip(network.statistics, on_cpu.statistics, strict=True):
                assert (got.name, got.rows) == (want.name, want.rows)
                assert got.due == pytest.approx(want.due, rel=0.02, abs=20)
                assert got.changed == pytest.approx(want.changed, rel=0.05, abs=20)
        assert 0 < len(slots) < 0.25 * len(voxels)


class NoHost(TorchDispatchMode):
    """Refuses operations on tensors of the host."""

    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        for leaf in tree_leaves((args, kwargs, out)):
            assert not isinstance(leaf, torch.Tensor) or leaf.device.type == "meta", f"{func} sends something"
        return out


@pytest.mark.parametrize("refine_layers", [0, 2])
def test_the_wave_never_waits_for_the_device(refine_layers):
    """On "meta" tensors have no values: whatever would ask for one, to copy it or to know a size, raises."""
    net, voxels = small_net(0, refine_layers=refine_layers), VoxelMap(0.05, depth=3)
    network = DeviceIncrementalNetwork(net, "meta", 0.01)
    delta = voxels.apply(floor(30))
    network._fit(voxels)
    for everything in (True, False):
        network._take_in(voxels, delta, everything)
        lists = network._make_lists([64, 32, 16], network._change)
        with torch.no_grad(), NoHost() as watched:
            network._wave(lists, everything)
        assert watched.operations > len(network.program.layers)
        assert [len(lists.moved[i]) for i in (0, 1)] == [64, 64]
    with pytest.raises(RuntimeError):
        network._read_counts(lists)


class Launches:
    """Stands for the Triton launches, and counts them."""

    def __init__(self, monkeypatch) -> None:
        self.made: dict[str, int] = {}
        for name in ("seed", "announce", "update", "attend"):
            monkeypatch.setattr(triton_updates, name, self.counting(name))

    def counting(self, name: str):
        def launch(*args, **_):
            self.made[name] = self.made.get(name, 0) + 1
            rows = {"update": 2, "attend": 4}.get(name)
            return None if rows is None else torch.zeros(len(args[rows]), dtype=torch.bool, device=args[0].device)

        return launch


@pytest.mark.parametrize("refine_layers", [0, 2])
def test_a_layer_is_one_launch(refine_layers, monkeypatch):
    """Beside the layers only the seeds, what reads the features, and what reads the embeddings of the head."""
    net, voxels = small_net(0, refine_layers=refine_layers), VoxelMap(0.05, depth=3)
    network = DeviceIncrementalNetwork(net, "cpu")
    network.refresh(voxels, voxels.apply(floor(30)))
    network._fit(voxels)
    network._take_in(voxels, voxels.apply(dot(0)), False)
    launches = Launches(monkeypatch)
    with only_path("triton"):
        network._wave(network._make_lists(network._change.lengths, network._change), False)
    layers, attention = len(network.program.layers), {"attend": refine_layers} if refine_layers else {}
    assert launches.made == {"seed": 1, "update": layers, "announce": 3 if refine_layers else 1, **attention}


class Recording:
    """Stands for a CUDA graph: replays the wave, and is particular that what it reads and writes lies where it lay."""

    made = 0

    def __init__(self, network: DeviceIncrementalNetwork) -> None:
        self.network, self.replays = network, 0
        self.where = self.addresses()
        Recording.made += 1

    def addresses(self) -> list[int]:
        n = self.network
        lists = [n._lists.all, n._lists.stamps, n._lists.counts, n._lists.epoch, n._lists.plan]
        arrays = [n._features, *n._cache, n._threshold, n._change.lists, *n._fresh.levels, *lists]
        tables = [*n._tables._neighbors.levels, *n._tables._children.levels, *n._tables._up.levels]
        return [t.data_ptr() for t in (*arrays, *tables)]

    def replay(self) -> None:
        assert self.where == self.addresses()
        self.replays += 1
        self.network._wave(self.network._lists, False)


@contextmanager
def launching_nothing(network: DeviceIncrementalNetwork):
    """What is recorded does not run."""
    network._wave = lambda *_: None
    yield
    del network._wave


def test_a_recorded_wave_is_replayed_only_while_it_fits(monkeypatch):
    net, voxels, rng = small_net(0), VoxelMap(0.05, depth=3), np.random.default_rng(0)
    network = DeviceIncrementalNetwork(net, "cpu")
    network._replay = True  # there is no GPU: the state around the recording is what is looked at
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Recording(network))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **_: launching_nothing(network))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(Recording, "made", 0)
    updates = [floor(40), *(dot(k) for k in range(1, 6)), floor(120), *(dot(k) for k in range(1, 6)), floor(90), dot(9)]
    replays, graph = 0, None
    for update in updates:
        colors = rng.integers(0, 256, update.coords.shape).astype(np.uint8)
        delta = voxels.apply(MapUpdate(update.coords, colors, update.weights, 0.05))
        before = graph.replays if graph else 0
        network.refresh(voxels, delta)
        graph = network._recorded
        replays += graph.replays > before if graph else 0
        assert difference(network.prediction, full_pass(net, voxels), voxels.live_slots()) <= 1e-5
    assert Recording.made == 2 and replays == 11  # the map outgrew its arrays once; before that four dots, then five and two


def test_nothing_changed_nothing_done():
    net, voxels = small_net(2), VoxelMap(0.05, depth=3)
    network = DeviceIncrementalNetwork(net, DEVICE)
    first = random_update(3)
    nothing = MapUpdate(first.coords[:0], first.colors[:0], first.weights[:0], 0.05)
    assert len(network.refresh(voxels, voxels.apply(nothing))) == 0
    assert len(network.refresh(voxels, voxels.apply(first))) == len(voxels)
    assert len(network.refresh(voxels, voxels.apply(first))) == 0
    assert all(s.due == 0 for s in network.statistics)
    network.reset()
    assert network.nbytes() == 0
    assert len(network.refresh(voxels, voxels.apply(voxels.to_update()))) == len(voxels)


def test_a_tolerance_stops_the_wave_and_bounds_the_error():
    net, rng = small_net(1), np.random.default_rng(0)
    voxels, first = VoxelMap(0.05, depth=3), random_update(9)
    loose, tight = DeviceIncrementalNetwork(net, DEVICE, tolerance=0.03), DeviceIncrementalNetwork(net, DEVICE)
    due = [0, 0]
    for k in range(8):
        coords = first.coords[rng.random(len(first.coords)) < (1.0 if k == 0 else 0.01)]
        colors = rng.integers(100, 130, (len(coords), 3)).astype(np.uint8)
        delta = voxels.apply(MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05))
        for j, runner in enumerate((tight, loose)):
            runner.refresh(voxels, delta)
            due[j] += sum(s.due for s in runner.statistics) if k else 0
    assert due[1] < 0.8 * due[0]
    live = voxels.live_slots()
    error = np.abs(tight.prediction.embedding[live] - loose.prediction.embedding[live]).max()
    assert 0 < error < 0.3 * np.abs(tight.prediction.embedding[live]).mean()


def test_half_precision_halves_the_memory_and_stays_close():
    net, rng = small_net(4), np.random.default_rng(5)
    voxels = VoxelMap(0.05, depth=3)
    whole, half = DeviceIncrementalNetwork(net, DEVICE), DeviceIncrementalNetwork(net, DEVICE, dtype=torch.float16)
    for _ in range(4):
        delta = voxels.apply(random_step(rng, voxels))
        whole.refresh(voxels, delta)
        half.refresh(voxels, delta)
    assert half.nbytes() * 2 == whole.nbytes()
    assert 0 < difference(half.prediction, whole.prediction, voxels.live_slots()) < 0.03


def test_lists_follow_what_is_needed():
    net, voxels = small_net(0), VoxelMap(0.05, depth=3)
    network = DeviceIncrementalNetwork(net, DEVICE)
    network.refresh(voxels, voxels.apply(floor(150)))
    network.refresh(voxels, voxels.apply(dot(0)))
    most = max(s.due for s in network.statistics)
    assert network._lengths[0] == 4096 >= most
    flat = floor(150)
    recolored = MapUpdate(flat.coords, flat.colors // 2, flat.weights, 0.05)
    assert len(network.refresh(voxels, voxels.apply(recolored))) == len(voxels)  # more than the lists hold
    assert network._lengths[0] >= 2 * len(voxels)
    assert difference(network.prediction, full_pass(net, voxels), voxels.live_slots()) <= 1e-5
    for color in range(50, 58):
        assert network._lengths[0] > 4096
        network.refresh(voxels, voxels.apply(dot(color)))
    assert network._lengths[0] == 4096


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told():
    with pytest.raises(ConfigError, match="no GPU"):
        Segmenter(SegmenterConfig(device="cuda", passes="incremental"), small_net(0))


@pytest.mark.skipif(not triton_kernels.installed() or not DEVICE == "cpu", reason="Triton is not installed")
def test_by_the_triton_kernel():
    """In a process of its own: Triton's interpreter has to be asked for before Triton is imported."""
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("device_checks.py")], env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(not triton_kernels.installed() or triton_kernels.interpreted(), reason="needs Triton, and its compiler")
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("taps", [1, 8, 27])
def test_the_lists_compile_for_real_cards(arch, taps, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from instseg_ros.sparse.device_jit import announce_program, attend_program, seed_program

    padded = 1 << (taps - 1).bit_length()
    lists = {name: "*i32" for name in ("epoch", "table", "stamp", "due", "count")}
    announce = compiled(
        announce_program, {"rows": "*i32", "moved": "*u8", **lists, "n": "i32", "length": "i32"},
        {"TAPS": taps, "PADDED": padded, "HAS_MOVED": True, "BLOCK": 1024 // padded}, arch, 4)
    assert announce.asm["cubin"] and "atom" in announce.asm["ptx"]
    attention = {name: "*fp32" for name in ("x", "own", "other", "bias", "score", "update", "out", "threshold")}
    attend = compiled(
        attend_program, {**attention, "neighbors": "*i32", "order": "*i32", "rows": "*i32", "moved": "*u8", "replaced": "*i32",
                         "fresh": "*u8", "n": "i32", "epoch": "*i32", **LISTED, "length_a": "i32", "length_b": "i32"},
        {"NEAREST": 8, "COLUMNS": 26, "F": 5, "H": 10, "TAPS_A": taps, "PADDED_A": padded, "TAPS_B": 0, "PADDED_B": 1,
         "BLOCK_M": 32, "BLOCK_F": 16, "BLOCK_H": 16}, arch, 4)  # fmt: skip
    assert attend.asm["cubin"] and ".local" not in attend.asm["ptx"]
    seeds = {name: "*i32" for name in ("change", "due", "stamp", "count", "epoch")}
    assert compiled(seed_program, {"plan": "*i64", **seeds}, {"APART": 4, "BLOCK": 1024}, arch, 4).asm["cubin"]
