"""The compiled program and the runner against the network they come from."""

import numpy as np
import pytest
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import build_tables
from instseg_ros.sparse.runner import FullPassRunner


def small_net(seed: int = 0, **changes) -> InstanceNet:
    torch.manual_seed(seed)
    net = InstanceNet(ModelConfig(**{"channels": (8, 16, 24), **changes}))
    for module in net.modules():  # batch norm statistics as training would leave them
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    return net.eval()


def random_update(seed: int, count: int = 2000, **changes) -> MapUpdate:
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-15, 15, (count, 3)).astype(np.int32), axis=0)
    colors = rng.integers(0, 256, (len(coords), 3)).astype(np.uint8)
    return MapUpdate(**{"coords": coords, "colors": colors, "weights": np.ones(len(coords), np.float32), "voxel_size_m": 0.05, **changes})


@pytest.mark.parametrize("changes", [{}, {"blocks": 2, "embedding_dim": 3}, {"channels": (8,)}, {"height_feature": False}, {"position_scale": 3.0}])
def test_program_equals_the_network(changes):
    net, update = small_net(1, **changes), random_update(1)
    features = torch.from_numpy(input_features(update.colors, update.coords, net.config))
    tables = build_tables(update.coords, len(net.config.channels))
    with torch.no_grad():
        want = net(features, tables)
    want["semantic"] = torch.softmax(want["semantic"], 1)
    got = compile_network(net).run(features, tables)
    for name, value in want.items():
        assert torch.allclose(got[name], value, atol=1e-4 * value.abs().max().item())


def test_runner_equals_the_network_whatever_the_slots():
    """The same voxels by a history of insertions and deletions give the same outputs per voxel."""
    net, last = small_net(2), random_update(5)
    voxels, runner = VoxelMap(0.05, depth=3), FullPassRunner(net)
    for seed in (3, 4):
        runner.refresh(voxels, voxels.apply(random_update(seed)))
    changed = runner.refresh(voxels, voxels.apply(random_update(5, full=True)))
    assert set(changed) == set(voxels.live_slots())
    tables = build_tables(last.coords, 3)
    with torch.no_grad():
        want = net(torch.from_numpy(input_features(last.colors, last.coords, net.config)), tables)
    slots = voxels.lookup(last.coords)
    assert np.allclose(runner.prediction.embedding[slots], want["embedding"], atol=1e-4)
    assert np.allclose(runner.prediction.semantic[slots], torch.softmax(want["semantic"], 1), atol=1e-5)
    assert np.allclose(runner.prediction.offset[slots], want["offset"], atol=1e-4)


def test_refresh_names_what_changed():
    voxels, runner = VoxelMap(0.05, depth=3), FullPassRunner(small_net(3))
    first = random_update(6)
    runner.refresh(voxels, voxels.apply(first))
    assert len(runner.refresh(voxels, voxels.apply(first))) == 0
    far = np.array([[500, 500, 500]], np.int32)
    lone = MapUpdate(far, np.zeros((1, 3), np.uint8), np.ones(1, np.float32), 0.05)
    assert runner.refresh(voxels, voxels.apply(lone)).tolist() == voxels.lookup(far).tolist()
