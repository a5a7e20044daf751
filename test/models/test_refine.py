"""Liang's attention over the nearest voxels against a slow transcription of his equations."""

import math

import numpy as np
import pytest
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.errors import ConfigError
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.models.refine import AttentionKnn, attend
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import build_tables


def slowly(x: list[list[float]], neighbors: list[list[int]], layer: AttentionKnn) -> list[list[float]]:
    """Eqs. 7 to 10, number by number."""
    own, other, bias, score, update = (part.detach().double().numpy() for part in layer.parts())
    width, hidden = own.shape
    out = []
    for i, around in enumerate(neighbors):
        p = []
        for j in around:
            value = 0.0
            for h in range(hidden):
                inner = bias[h] + sum(x[i][f] * own[f, h] + x[j][f] * other[f, h] for f in range(width))
                value += max(inner, 0.0) * score[h]
            p.append(value)
        total = sum(math.exp(v) for v in p)
        aggregate = [sum(math.exp(v) / total * x[j][f] for v, j in zip(p, around, strict=True)) for f in range(width)]
        both = [*x[i], *aggregate]
        out.append([sum(both[g] * update[g, f] for g in range(2 * width)) for f in range(width)])
    return out


def some_layer(width: int, seed: int = 0) -> AttentionKnn:
    torch.manual_seed(seed)
    layer = AttentionKnn(width)
    with torch.no_grad():
        layer.bias.normal_()
        layer.update.normal_()
    return layer


def random_neighbors(rng: np.random.Generator, rows: int, k: int) -> tuple[list[list[int]], torch.Tensor]:
    """Lists of 0 to k rows, and the same as a table."""
    lists = [rng.choice(rows, int(rng.integers(0, k + 1)), replace=False).tolist() for _ in range(rows)]
    return lists, torch.tensor([[*around, *[-1] * (k - len(around))] for around in lists], dtype=torch.int32)


@pytest.mark.parametrize("width", [1, 4, 7])
def test_a_layer_is_its_equations(width):
    rng = np.random.default_rng(width)
    lists, table = random_neighbors(rng, 12, 5)
    x, layer = rng.normal(size=(12, width)), some_layer(width)
    got = layer.double()(torch.from_numpy(x), table)
    assert np.allclose(got.detach(), slowly(x.tolist(), lists, layer), atol=1e-12)


def test_a_voxel_alone_has_nothing_to_add():
    layer, x = some_layer(3), torch.randn(1, 3)
    got = layer(x, torch.full((1, 4), -1, dtype=torch.int32))
    assert torch.allclose(got, x @ layer.update[:3])


def test_it_begins_as_a_mean():
    torch.manual_seed(0)
    layer, x = AttentionKnn(4), torch.randn(1, 4).expand(6, 4)
    got = layer(x, torch.tensor([[1, 2], [0, 3], [4, -1], [5, 1], [0, 1], [2, 3]], dtype=torch.int32))
    assert torch.allclose(got, x, atol=0.15)


def test_gradients():
    rng = np.random.default_rng(3)
    _, table = random_neighbors(rng, 7, 4)
    layer = some_layer(3).double()
    x = torch.from_numpy(rng.normal(size=(7, 3))).requires_grad_()
    parts = [part.detach().clone().requires_grad_() for part in layer.parts()]
    assert torch.autograd.gradcheck(lambda x, *parts: attend(x, x, table, *parts), (x, *parts))


def test_the_network_gives_the_embedding_before_and_after():
    torch.manual_seed(0)
    config = ModelConfig(channels=(8, 12), refine_layers=2, refine_neighbors=5)
    net = InstanceNet(config).eval()
    coords = np.unique(np.random.default_rng(0).integers(0, 9, (200, 3)), axis=0).astype(np.int32)
    features = torch.from_numpy(input_features(np.full_like(coords, 90, np.uint8), coords, config))
    tables = build_tables(coords, 2)
    with torch.no_grad():
        out = net(features, tables)
        x = out["embedding_initial"]
        for layer in net.refine:
            x = layer(x, tables.levels[0].nearest(5))
    assert torch.equal(out["embedding"], x) and not torch.allclose(x, out["embedding_initial"])
    compiled = compile_network(net).run(features, tables)
    assert "embedding_initial" not in compiled and torch.allclose(compiled["embedding"], x, atol=1e-5)


def test_without_an_embedding_there_is_nothing_to_refine():
    with pytest.raises(ConfigError, match="model.heads"):
        InstanceNet(ModelConfig(heads=("semantic", "offset"), refine_layers=1))
