"""Backbones: what they are made of, what they read, and that weights files carry them."""

import numpy as np
import pytest
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.errors import ConfigError, WeightsError
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet, input_features, input_width
from instseg_ros.models.weights import initialize, load_weights, save_weights
from instseg_ros.sparse.incremental import IncrementalNetwork
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import build_tables
from instseg_ros.sparse.runner import FullPassRunner


def some_voxels(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-9, 9, (count, 3)).astype(np.int32), axis=0)
    return coords, rng.integers(0, 256, coords.shape).astype(np.uint8)


@pytest.mark.parametrize("changes", [
    {"backbone": "residual_unet", "blocks": 2, "encoder_blocks": (1, 2)},
    {"backbone": "dilated", "dilations": (1, 3), "refine_layers": 1},
    {"backbone": "dilated", "channels": (8,), "dilations": (2,)},
])
def test_the_compiled_program_is_the_network(changes):
    torch.manual_seed(0)
    config = ModelConfig(**{"channels": (8, 12, 16), **changes})
    net = InstanceNet(config).train()
    coords, colors = some_voxels(0)
    features, tables = torch.from_numpy(input_features(colors, coords, config)), build_tables(coords, len(config.channels))
    for _ in range(3):  # statistics of the norms
        net(features, tables)
    with torch.no_grad():
        want = net.eval()(features, tables)
    got = compile_network(net).run(features, tables)
    for name in ("embedding", "offset"):
        assert torch.allclose(got[name], want[name], atol=1e-4 * want[name].abs().max().item())


def test_the_residual_unet_has_the_blocks_of_a_unet34():
    net = InstanceNet(ModelConfig(backbone="residual_unet"))
    layers = compile_network(net.eval()).layers
    assert [len(level) for level in net.backbone.encoder] == [2, 3, 4, 6]
    assert [len(level) for level in net.backbone.decoder] == [2, 2, 2]
    assert sum(x.table == "self" for x in layers) == 3  # a projection where a level widens
    assert all(x.relu != (x.table == "self") for x in layers)
    assert [len(level) for level in InstanceNet(ModelConfig(backbone="residual_unet", blocks=2)).backbone.encoder] == [4, 6, 8, 12]


def test_joining_by_sums_is_joining_what_was_concatenated():
    """The sum of the groups' 1x1x1 layers is one 1x1x1 layer of their concatenation (SSCNet)."""
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(backbone="dilated", channels=(8,), dilations=(1, 2))).eval()
    layers = {x.name: (i, x) for i, x in enumerate(compile_network(net).layers)}
    (first_at, first), (_, second) = layers["join.0"], layers["join.1"]
    assert not first.relu and second.relu and second.residual == first_at and layers["mix"][1].table == "self"
    outputs = torch.randn(5, 16)
    joined = outputs @ torch.cat([first.weight[0], second.weight[0]]) + first.bias + second.bias
    assert torch.allclose(outputs[:, :8] @ first.weight[0] + first.bias + outputs[:, 8:] @ second.weight[0] + second.bias, joined, atol=1e-5)


@pytest.mark.parametrize("changes", [{"backbone": "residual_unet"}, {"backbone": "dilated", "dilations": (2, 5)}, {"label_input": True},
                                     {"refine_layers": 2, "refine_neighbors": 11, "heads": ("semantic", "embedding", "direction")}])
def test_weights_files_carry_the_model(tmp_path, changes):
    net = InstanceNet(ModelConfig(**{"channels": (8, 8), "encoder_blocks": (1,), **changes})).eval()
    save_weights(tmp_path / "net.safetensors", net, {})
    loaded = load_weights(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    for name, value in net.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name].float(), value.float(), atol=2e-3)


def test_a_network_starts_from_one_that_read_labels(tmp_path):
    config = {"channels": (8, 8), "backbone": "dilated", "dilations": (1,)}
    save_weights(tmp_path / "labels.safetensors", InstanceNet(ModelConfig(label_input=True, **config)), {})
    net = InstanceNet(ModelConfig(refine_layers=1, **config))
    new = initialize(net, tmp_path / "labels.safetensors")
    assert all(name.startswith(("backbone.stem.weight", "refine.")) for name in new) and "backbone.stem.weight" in new
    other = InstanceNet(ModelConfig(channels=(8, 8)))
    with pytest.raises(WeightsError, match="--model.backbone dilated"):
        initialize(other, tmp_path / "labels.safetensors")


def test_labels_in_place_of_colours():
    coords, colors = some_voxels(1)
    config = ModelConfig(label_input=True)
    labels = np.array([3, 255, 19], np.uint8)
    features = input_features(colors[:3], coords[:3], config, 0.0, labels)
    assert features.shape == (3, input_width(config)) == (3, 23)
    assert features[:, :20].sum(1).tolist() == [1, 0, 1] and features[0, 3] == features[2, 19] == 1
    plain = input_features(colors[:3], coords[:3], ModelConfig(), 0.0)
    assert np.array_equal(features[:, 20:], plain[:, 3:])
    with pytest.raises(ConfigError, match="labels_of"):
        input_features(colors, coords, config)


@pytest.mark.parametrize("make", [FullPassRunner, IncrementalNetwork])
def test_runners_read_labels_where_they_are_known(make):
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(channels=(8, 8), label_input=True)).eval()
    coords, colors = some_voxels(2)
    voxels, runner = VoxelMap(0.05, depth=2), make(net)
    delta = voxels.apply(MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05))
    with pytest.raises(ConfigError, match="label_input"):
        runner.refresh(voxels, delta)
    runner.labels_of = lambda coords: (np.abs(coords).sum(1) % 20).astype(np.uint8)
    runner.refresh(voxels, delta)
    with torch.no_grad():
        features = input_features(colors, coords, net.config, 0.0, runner.labels_of(coords))
        want = net(torch.from_numpy(features), build_tables(coords, 2))["embedding"].numpy()
    got = runner.prediction.embedding[voxels.lookup(coords)]
    assert np.allclose(got, want, atol=1e-4 * np.abs(want).max())
