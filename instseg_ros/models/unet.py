"""Residual U-Net on sparse voxels: submanifold 3x3x3 blocks, strided and transposed 2x2x2 layers, additive skips.

Skips are added rather than concatenated, so that every layer has the form
`relu(conv(x) + bias + residual)` once batch norm is folded; `program.py` lists the layers in that form.
Nothing depends on the scene as a whole (no global pooling), so a change stays local.
"""

__all__ = ["ConvNorm", "ResidualBlock", "SparseUNet"]

import torch
from torch import Tensor, nn

from instseg_ros.sparse.conv import sparse_conv
from instseg_ros.sparse.pyramid import Tables


class ConvNorm(nn.Module):
    """A convolution over a table followed by batch norm; `taps` is 27 (within a level) or 8 (between levels)."""

    def __init__(self, taps: int, cin: int, cout: int) -> None:
        super().__init__()
        # About ten of the 27 neighbours of a surface voxel exist, and one of the eight taps of a transposed layer.
        fan_in = cin * (10 if taps == 27 else 4)
        self.weight = nn.Parameter(torch.randn(taps, cin, cout) * (2.0 / fan_in) ** 0.5)
        self.norm = nn.BatchNorm1d(cout)

    def forward(self, x: Tensor, table: Tensor, reverse: Tensor | None = None) -> Tensor:
        """[M, Cin] features of the rows the table reads -> [N, Cout]."""
        return self.norm(sparse_conv(x, table, self.weight, reverse).float())

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight [K, Cin, Cout] and bias [Cout] with the batch norm's running statistics folded in."""
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None and var is not None
        scale = self.norm.weight / torch.sqrt(var + self.norm.eps)
        return self.weight.detach() * scale.detach(), (self.norm.bias - mean * scale).detach()


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))) within a level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(27, channels, channels)
        self.second = ConvNorm(27, channels, channels)

    def forward(self, x: Tensor, neighbors: Tensor) -> Tensor:
        """[N, C] -> [N, C]."""
        hidden = torch.relu(self.first(x, neighbors))
        return torch.relu(x + self.second(hidden, neighbors))


def _blocks(count: int, channels: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(channels) for _ in range(count))


class SparseUNet(nn.Module):
    """Features of the finest level from features of the finest level.

    Args:
        cin: input features per voxel.
        channels: channels per level, finest first.
        blocks: residual blocks per level and direction.
    """

    def __init__(self, cin: int, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        coarse = len(channels) - 1
        self.stem = ConvNorm(27, cin, channels[0])
        self.encoder = nn.ModuleList(_blocks(blocks, c) for c in channels)
        self.down = nn.ModuleList(ConvNorm(8, channels[i], channels[i + 1]) for i in range(coarse))
        self.up = nn.ModuleList(ConvNorm(8, channels[i + 1], channels[i]) for i in range(coarse))
        self.decoder = nn.ModuleList(_blocks(blocks, c) for c in channels[:-1])

    @property
    def depth(self) -> int:
        """Levels of the pyramid it reads."""
        return len(self.encoder)

    def forward(self, features: Tensor, tables: Tables) -> Tensor:
        """[N, Cin] -> [N, channels[0]] on the rows of the finest level."""
        levels = tables.levels
        x = torch.relu(self.stem(features, levels[0].neighbors))
        skips = []
        for i, blocks in enumerate(self.encoder):
            if i:
                x = torch.relu(self.down[i - 1](x, levels[i].children, levels[i - 1].up))
            for block in blocks:
                x = block(x, levels[i].neighbors)
            skips.append(x)
        for i in reversed(range(len(self.up))):
            x = torch.relu(skips[i] + self.up[i](x, levels[i].up, levels[i + 1].children))
            for block in self.decoder[i]:
                x = block(x, levels[i].neighbors)
        return x
