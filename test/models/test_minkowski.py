"""The network run by MinkowskiEngine against ours; skipped where MinkowskiEngine is not installed (`make test-minkowski`)."""

import importlib.util

import numpy as np
import pytest
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.errors import InputError, MissingDependencyError
from instseg_ros.models.minkowski import (
    MinkowskiRunner,
    load_minkowski,
    minkowski_conv,
    minkowski_tensor,
    minkowski_weight,
    our_rows,
)
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.sparse.conv import apply_conv
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import build_tables

INSTALLED = importlib.util.find_spec("MinkowskiEngine") is not None
needs_minkowski = pytest.mark.skipif(not INSTALLED, reason="MinkowskiEngine is not installed: make test-minkowski builds it")
CONFIGS = [
    ModelConfig(channels=(8, 16, 24)), ModelConfig(channels=(8,), height_feature=False, blocks=2),
    ModelConfig(channels=(8, 16), backbone="residual_unet", encoder_blocks=(1, 2), position_scale=2.0),
    ModelConfig(channels=(8, 12, 16), backbone="dilated", dilations=(1, 3), refine_layers=2),
]


def some_voxels(seed, count=700):
    """Unique voxels in no order, on both sides of the origin."""
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-9, 8, (count, 3)).astype(np.int32), axis=0)
    return coords[rng.permutation(len(coords))]


def test_taps_change_from_z_fastest_to_x_fastest():
    ours = torch.arange(27.0).reshape(27, 1, 1)
    theirs = minkowski_weight(ours).ravel()
    for x, y, z in ((0, 0, 0), (1, 0, 0), (0, 2, 1), (2, 2, 2)):
        assert theirs[x + 3 * y + 9 * z] == 9 * x + 3 * y + z
    assert minkowski_weight(torch.arange(8.0).reshape(8, 1, 1)).ravel().tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert minkowski_weight(torch.zeros(27, 4, 5)).shape == (27, 4, 5)


@pytest.mark.skipif(INSTALLED, reason="MinkowskiEngine is installed")
def test_without_minkowski_the_cure_is_named():
    with pytest.raises(MissingDependencyError, match="make test-minkowski"):
        load_minkowski()
    with pytest.raises(MissingDependencyError, match="make test-minkowski"):
        MinkowskiRunner(InstanceNet(ModelConfig(channels=(8, 8))).eval())


@needs_minkowski
def test_single_layers_of_each_kind():
    coords = some_voxels(0)
    tables = build_tables(coords, 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(coords), 6, generator=generator)
    same, down, up = (torch.randn(k, *c, generator=generator) for k, c in ((27, (6, 16)), (8, (6, 16)), (8, (16, 8))))
    with torch.inference_mode():
        first = minkowski_tensor(coords, x, 1)
        got = our_rows(minkowski_conv("neighbors", same)(first), first)
        assert torch.allclose(got, apply_conv(x, tables.levels[0].neighbors, same), atol=1e-4)
        coarse = minkowski_conv("children", down)(first)
        ours = apply_conv(x, tables.levels[1].children, down)
        # Coarse rows are in an order of their own.
        assert torch.allclose(coarse.F.sort(0).values, ours.sort(0).values, atol=1e-4)
        got = our_rows(minkowski_conv("up", up)(coarse, first.coordinate_map_key), first)
        assert torch.allclose(got, apply_conv(ours, tables.levels[0].up, up), atol=1e-4)


@needs_minkowski
@pytest.mark.parametrize("config", CONFIGS)
def test_the_network_gives_the_same(config):
    torch.manual_seed(1)
    net = InstanceNet(config)
    for module in net.modules():  # batch norm statistics as training would leave them
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.normal_(module.bias)
    net.eval()
    coords = some_voxels(1)
    colors = np.random.default_rng(1).integers(0, 256, coords.shape).astype(np.uint8)
    features = torch.from_numpy(input_features(colors, coords, config))
    program = compile_network(net)
    want = program.run(features, build_tables(coords, len(config.channels)))
    for runner in (MinkowskiRunner(net), MinkowskiRunner(program)):
        got = runner(coords, features)
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert torch.allclose(got[name], value, atol=1e-4 * value.abs().max().item()), name


@needs_minkowski
def test_malformed_input_is_refused():
    runner = MinkowskiRunner(InstanceNet(ModelConfig(channels=(8, 8))).eval())
    with pytest.raises(InputError, match="0 voxels"):
        runner(np.zeros((0, 3), np.int32), torch.zeros(0, 6))
    with pytest.raises(InputError, match="3 voxels, 2 rows"):
        runner(np.eye(3, dtype=np.int32), torch.zeros(2, 6))
