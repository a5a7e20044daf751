"""The instance network: a sparse U-Net with heads per voxel."""

__all__ = ["InstanceNet", "input_features", "input_width", "resolve_device"]

import numpy as np
import torch
from torch import Tensor, nn

from instseg_ros.config import ModelConfig
from instseg_ros.models.heads import Head, head_widths, usable
from instseg_ros.models.unet import SparseUNet
from instseg_ros.sparse.pyramid import Tables

HEIGHT_RANGE_M = (-1.0, 3.0)
"""Heights beyond this are taken as the nearest end."""


def input_features(colors: np.ndarray, coords: np.ndarray, config: ModelConfig, floor_z_m: float | None = 0.0) -> np.ndarray:
    """What the network reads per voxel.

    RGB in -1..1 and a constant 1; with `config.height_feature` also the height above the floor in m, and 1 where it is known
    (0 and 0 where it is not). SSEN reads x, y, z and RGB; x and y say nothing in a map without borders and are left out.

    Args:
        colors: [N, 3] uint8.
        coords: [N, 3] int32.
        config: of the model.
        floor_z_m: where the floor is in the map's frame, m; None = unknown.

    Returns:
        [N, `input_width(config)`] float32.
    """
    features = np.ones((len(colors), input_width(config)), np.float32)
    np.divide(colors, np.float32(127.5), out=features[:, :3], casting="unsafe")
    features[:, :3] -= 1.0
    if config.height_feature:
        known = floor_z_m is not None
        height = (coords[:, 2] + 0.5) * config.voxel_size_m - (floor_z_m or 0.0)
        features[:, 4] = np.clip(height, *HEIGHT_RANGE_M) if known else 0.0
        features[:, 5] = known
    return features


def input_width(config: ModelConfig) -> int:
    """Columns of `input_features`."""
    return 6 if config.height_feature else 4


class InstanceNet(nn.Module):
    """A backbone and the heads of a preset (`ModelConfig.heads`).

    One backbone feeds all heads (SSEN trains two), which halves the cost of a live map.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = SparseUNet(input_width(config), config.channels, config.blocks)
        width = config.channels[0]
        self.heads = nn.ModuleDict({name: Head(width, cout) for name, cout in head_widths(config).items()})

    def forward(self, features: Tensor, tables: Tables) -> dict[str, Tensor]:
        """Outputs for the voxels of the finest level.

        Args:
            features: [N, Cin] of `input_features`.
            tables: of a pyramid with `len(config.channels)` levels.

        Returns:
            By head, as `Prediction` has them, but class logits [N, 20] in place of probabilities.
        """
        x = self.backbone(features, tables)
        return {name: usable(name, head(x).float()) for name, head in self.heads.items()}

    def parameter_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())


def resolve_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
