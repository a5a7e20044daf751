"""A network whose answer is known: every voxel is a chair, so instances are what touches. For benchmarks and tests of what is around it."""

__all__ = ["chair_net", "chair_weights"]

from pathlib import Path

import torch
from torch import nn

from instseg_ros.config import ModelConfig
from instseg_ros.labels import class_index
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights


def chair_net() -> InstanceNet:
    """A real network, of two levels, that calls every voxel a chair; the same one every time."""
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(channels=(4, 4))).eval()
    with torch.no_grad():
        for name, head in net.heads.items():
            last = head[-1]  # type: ignore[index]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.zero_()
            if name == "semantic":
                last.bias[class_index("chair")] = 10.0
    return net


def chair_weights(path: Path) -> None:
    """Write the weights of `chair_net`."""
    save_weights(path, chair_net(), {})
