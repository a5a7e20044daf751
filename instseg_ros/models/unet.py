"""Residual U-Net on sparse voxels: submanifold 3x3x3 blocks, strided and transposed 2x2x2 layers, additive skips.

Skips are added rather than concatenated, so that every layer has the form
`relu(conv(x) + bias + residual)` once batch norm is folded; `program.py` lists the layers in that form.
Nothing depends on the scene as a whole (no global pooling), so a change stays local.
"""

__all__ = ["SparseUNet", "UNet"]

from instseg_ros.models.backbone import Backbone, Blocks, ConvNorm, Modules, Ops, ResidualBlock, T


class UNet(Backbone):
    """The walk of U-Nets: blocks per level down, then up with the skips added."""

    stem: ConvNorm
    encoder: Modules[Blocks]
    """Per level."""
    down: Modules[ConvNorm]
    up: Modules[ConvNorm]
    """Per pair of levels, finest first, as `down`."""
    decoder: Modules[Blocks]
    """Per level but the coarsest."""

    def walk(self, ops: Ops[T], x: T) -> T:
        """Stem, encoder, decoder."""
        x = ops.conv("stem", self.stem, "neighbors", 0, x)
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level:
                x = ops.conv(f"down.{level}", self.down[level - 1], "children", level, x)
            x = blocks.walk(ops, f"encoder.{level}", level, x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = ops.conv(f"up.{level}", self.up[level], "up", level, x, skips[level])
            x = self.decoder[level].walk(ops, f"decoder.{level}", level, x)
        return x


class SparseUNet(UNet):
    """The U-Net of SSEN's and OccuSeg's size and below.

    Args:
        cin: input features per voxel.
        channels: channels per level, finest first.
        blocks: residual blocks per level and direction.
    """

    def __init__(self, cin: int, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        coarse = len(channels) - 1
        self.width = channels[0]
        self.stem = ConvNorm(27, cin, channels[0])
        self.encoder = Modules(Blocks(ResidualBlock(c) for _ in range(blocks)) for c in channels)
        self.down = Modules(ConvNorm(8, channels[i], channels[i + 1]) for i in range(coarse))
        self.up = Modules(ConvNorm(8, channels[i + 1], channels[i]) for i in range(coarse))
        self.decoder = Modules(Blocks(ResidualBlock(c) for _ in range(blocks)) for c in channels[:-1])
