"""The instance network: a sparse U-Net with a class, an embedding and an offset head per voxel."""

__all__ = ["InstanceNet", "input_features", "resolve_device"]

import numpy as np
import torch
from torch import Tensor, nn

from instseg_ros.config import ModelConfig
from instseg_ros.labels import NUM_CLASSES
from instseg_ros.models.unet import SparseUNet
from instseg_ros.sparse.pyramid import Tables


def input_features(colors: np.ndarray, coords: np.ndarray, config: ModelConfig) -> np.ndarray:
    """What the network reads per voxel [N, 4 or 5] float32: RGB in -1..1, a constant 1 and, if configured, the height in m.

    Args:
        colors: [N, 3] uint8; coords: [N, 3] int32.
    """
    parts = [colors.astype(np.float32) / 127.5 - 1.0, np.ones((len(colors), 1), np.float32)]
    if config.height_feature:
        parts.append((coords[:, 2:3].astype(np.float32) + 0.5) * np.float32(config.voxel_size_m))
    return np.concatenate(parts, axis=1)


class Head(nn.Sequential):
    """A two-layer perceptron on each voxel."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(nn.Linear(cin, cin), nn.ReLU(), nn.Linear(cin, cout))


class InstanceNet(nn.Module):
    """SSEN's outputs (Zhang et al. 2020: classes and an 8-d embedding) with a spatial offset beside them.

    One backbone feeds all heads (SSEN trains two), which halves the cost of a live map.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = SparseUNet(5 if config.height_feature else 4, config.channels, config.blocks)
        width = config.channels[0]
        self.heads = nn.ModuleDict({
            "semantic": Head(width, NUM_CLASSES),
            "embedding": Head(width, config.embedding_dim),
            "offset": Head(width, 3),
        })

    def forward(self, features: Tensor, tables: Tables) -> dict[str, Tensor]:
        """Outputs for the voxels of the finest level.

        Args:
            features: [N, Cin] of `input_features`.
            tables: of a pyramid with `len(config.channels)` levels.

        Returns:
            semantic: [N, 20] logits; embedding: [N, D]; offset: [N, 3] m from the voxel to its instance's centre.
        """
        x = self.backbone(features, tables)
        return {name: head(x).float() for name, head in self.heads.items()}

    def parameter_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())


def resolve_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
