"""The heads of a network: what each gives per voxel, and in what form that is published."""

__all__ = ["HEADS", "Head", "head_widths", "positions", "published", "usable"]

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instseg_ros.config import ModelConfig
from instseg_ros.labels import NUM_CLASSES

HEADS = ("semantic", "embedding", "offset", "direction", "covariance", "occupancy")
"""Names of all heads, those of `Prediction`."""

_LOG_SCATTER = 5.0  # covariances stay within exp(+-5): no division by nothing, no overflow


class Head(nn.Sequential):
    """A two-layer perceptron on each voxel."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(nn.Linear(cin, cin), nn.ReLU(), nn.Linear(cin, cout))


def head_widths(config: ModelConfig) -> dict[str, int]:
    """Columns of each head of a network, in the order of `config.heads`."""
    widths = {"semantic": NUM_CLASSES, "embedding": config.embedding_dim, "offset": 3, "direction": 3, "covariance": 2, "occupancy": 1}
    return {name: widths[name] for name in config.heads}


Array = TypeVar("Array", np.ndarray, Tensor)


def positions(coords: Array, step: float) -> Array:
    """What the first three dimensions of the embeddings of voxels [n, 3] start from: their centres in voxels times `ModelConfig.position_step`."""
    scaled: Array = (coords + 0.5) * step
    return scaled


def usable(name: str, x: Tensor) -> Tensor:
    """What losses and groupers read, [N, C], of a head's last layer: unit directions, positive covariances, the rest as it is."""
    if name == "direction":
        return F.normalize(x, dim=1, eps=1e-6)
    return x.clamp(-_LOG_SCATTER, _LOG_SCATTER).exp() if name == "covariance" else x


def published(name: str, x: Tensor) -> Tensor:
    """What a `Prediction` holds, [N, C], of a head's last layer: as `usable`, and class probabilities for logits."""
    return torch.softmax(x, 1) if name == "semantic" else usable(name, x)
