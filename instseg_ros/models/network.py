"""The instance network: a backbone on sparse voxels with heads per voxel."""

__all__ = ["InstanceNet", "input_features", "input_width", "make_backbone", "resolve_device"]

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instseg_ros.config import ModelConfig
from instseg_ros.errors import ConfigError
from instseg_ros.labels import NUM_CLASSES
from instseg_ros.models.backbone import Backbone, Modules
from instseg_ros.models.dilated import DilatedNet
from instseg_ros.models.heads import Head, head_widths, positions, usable
from instseg_ros.models.refine import AttentionKnn
from instseg_ros.models.residual_unet import ResidualUNet
from instseg_ros.models.unet import SparseUNet
from instseg_ros.sparse.pyramid import Tables

HEIGHT_RANGE_M = (-1.0, 3.0)
"""Heights beyond this are taken as the nearest end."""


def input_features(
    colors: np.ndarray, coords: np.ndarray, config: ModelConfig, floor_z_m: float | None = 0.0, class_index: np.ndarray | None = None
) -> np.ndarray:
    """What the network reads per voxel.

    RGB in -1..1 and a constant 1; with `config.height_feature` also the height above the floor in m, and 1 where it is known
    (0 and 0 where it is not). With `config.label_input` one column per class stands in place of RGB, 1 in that of the
    voxel's true class (MTML); a voxel without a class has zeros. SSEN reads x, y, z and RGB; x and y say nothing in a map
    without borders and are left out; `ModelConfig.position_scale` puts them behind the network instead.

    Args:
        colors: [N, 3] uint8.
        coords: [N, 3] int32.
        config: of the model.
        floor_z_m: where the floor is in the map's frame, m; None = unknown.
        class_index: [N] true classes, for a network with `label_input` (others do not look at them).

    Returns:
        [N, `input_width(config)`] float32.

    Raises:
        ConfigError: the network reads labels and there are none.
    """
    features = np.ones((len(colors), input_width(config)), np.float32)
    if config.label_input:
        if class_index is None:
            raise ConfigError(
                "this network reads the true class of every voxel (model.label_input), which a live map does not have: use weights "
                "trained with label_input false, or give the runner `labels_of` where the labels are known (evaluation, toy scenes)")
        features[:, :NUM_CLASSES] = np.asarray(class_index)[:, None] == np.arange(NUM_CLASSES)
    else:
        np.divide(colors, np.float32(127.5), out=features[:, :3], casting="unsafe")
        features[:, :3] -= 1.0
    if config.height_feature:
        known = floor_z_m is not None
        height = (coords[:, 2] + 0.5) * config.voxel_size_m - (floor_z_m or 0.0)
        features[:, -2] = np.clip(height, *HEIGHT_RANGE_M) if known else 0.0
        features[:, -1] = known
    return features


def input_width(config: ModelConfig) -> int:
    """Columns of `input_features`."""
    return (NUM_CLASSES if config.label_input else 3) + 1 + (2 if config.height_feature else 0)


def make_backbone(config: ModelConfig) -> Backbone:
    """The backbone that `config.backbone` names."""
    cin = input_width(config)
    if config.backbone == "residual_unet":
        return ResidualUNet(cin, config.channels, config.encoder_blocks, config.blocks)
    if config.backbone == "dilated":
        return DilatedNet(cin, config.channels, config.dilations, config.blocks)
    return SparseUNet(cin, config.channels, config.blocks)


class InstanceNet(nn.Module):
    """A backbone and the heads of a preset (`ModelConfig.heads`).

    One backbone feeds all heads (SSEN trains two), which halves the cost of a live map.

    Raises:
        ConfigError: the embedding is to be refined or to start from positions and there is none, or both at once.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.refine_layers and "embedding" not in config.heads:
            raise ConfigError(f"model.refine_layers = {config.refine_layers} refines the embedding: add it to model.heads, or set refine_layers to 0")
        if config.position_scale > 0.0 and ("embedding" not in config.heads or config.embedding_dim < 3):
            raise ConfigError(f"model.position_scale = {config.position_scale} lets the embedding start from positions: add it to "
                              "model.heads, with an embedding_dim of 3 or more, or set position_scale to 0")
        if config.position_scale > 0.0 and config.refine_layers:
            raise ConfigError("model.refine_layers attends to embeddings that are the same wherever an object stands: set model.position_scale to 0, "
                              "or refine_layers to 0")
        self.backbone = make_backbone(config)
        self.heads = nn.ModuleDict({name: Head(self.backbone.width, cout) for name, cout in head_widths(config).items()})
        self.refine = Modules(AttentionKnn(config.embedding_dim) for _ in range(config.refine_layers))

    def forward(self, features: Tensor, tables: Tables) -> dict[str, Tensor]:
        """Outputs for the voxels of the finest level.

        Args:
            features: [N, Cin] of `input_features`.
            tables: of a pyramid with `len(config.channels)` levels.

        Returns:
            By head, as `Prediction` has them, but class logits [N, 20] in place of probabilities. With `config.refine_layers` there
            is also "embedding_initial" [N, D], from which "embedding" is refined (Liang applies its losses to both).
        """
        x = self.backbone(features, tables)
        outputs = {name: usable(name, head(x).float()) for name, head in self.heads.items()}
        if self.config.position_scale > 0.0:
            outputs["embedding"] = outputs["embedding"] + F.pad(
                positions(tables.levels[0].coords(), self.config.position_step), (0, self.config.embedding_dim - 3))
        if self.refine:
            outputs["embedding_initial"] = outputs["embedding"]
            nearest = tables.levels[0].nearest(self.config.refine_neighbors)
            for layer in self.refine:
                outputs["embedding"] = layer(outputs["embedding"], nearest).float()
        return outputs

    def parameter_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())


def resolve_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
