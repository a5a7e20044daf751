"""Embeddings that start from where their voxels are (`ModelConfig.position_scale`)."""

import numpy as np
import pytest
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.errors import ConfigError
from instseg_ros.models.heads import positions
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.sparse.pyramid import build_tables


def outputs(net: InstanceNet, coords: np.ndarray, colors: np.ndarray) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return net(torch.from_numpy(input_features(colors, coords, net.config, floor_z_m=None)), build_tables(coords, len(net.config.channels)))


def two_equal_cubes() -> tuple[np.ndarray, np.ndarray]:
    cube = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    coords = np.concatenate([cube, cube + np.array([64, 0, 0], np.int32)])
    return coords, np.full((len(coords), 3), 90, np.uint8)


def net_of(scale: float) -> InstanceNet:
    torch.manual_seed(0)
    return InstanceNet(ModelConfig(channels=(8, 12), voxel_size_m=0.05, embedding_dim=5, position_scale=scale)).eval()


def test_two_equal_objects_differ_by_where_they_are():
    coords, colors = two_equal_cubes()
    half = len(coords) // 2
    without = outputs(net_of(0.0), coords, colors)["embedding"]
    assert torch.allclose(without[:half], without[half:], atol=1e-6), "nothing tells the two apart"
    embedding = outputs(net_of(2.0), coords, colors)["embedding"]
    apart = torch.tensor([64 * 0.05 * 2.0, 0.0, 0.0, 0.0, 0.0])
    assert torch.allclose(embedding[half:] - embedding[:half], apart.expand(half, 5), atol=1e-5)


def test_it_is_the_head_plus_the_position():
    coords, colors = two_equal_cubes()
    plain, placed = outputs(net_of(0.0), coords, colors), outputs(net_of(2.0), coords, colors)
    start = torch.from_numpy(positions(coords, 0.05 * 2.0)).float()
    assert torch.allclose(start[0], torch.full((3,), 0.5 * 0.05 * 2.0))
    assert torch.allclose(placed["embedding"][:, :3], plain["embedding"][:, :3] + start, atol=1e-5)
    assert torch.equal(placed["embedding"][:, 3:], plain["embedding"][:, 3:])
    assert torch.equal(placed["semantic"], plain["semantic"])


@pytest.mark.parametrize("changes", [{"heads": ("semantic", "offset")}, {"embedding_dim": 2}, {"refine_layers": 1}])
def test_what_it_cannot_go_with_is_refused(changes):
    with pytest.raises(ConfigError, match="position_scale"):
        InstanceNet(ModelConfig(**{"channels": (8,), "position_scale": 1.0, **changes}))
