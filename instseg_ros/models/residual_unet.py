"""The larger residual U-Net of SSEN (a Minkowski UNet34) and of Liang's "ResNet backbone", on our tables.

As in MinkUNet34 (Choy et al. 2019) a strided layer keeps the width and the first block after it widens, with a projection as its
residual; the encoder's levels have 2, 3, 4 and 6 blocks, the decoder's 2. What differs: skips are added and not concatenated, so
that every layer has the form `relu(conv(x) + bias + residual)`; there are as many levels as channels are given; the stem is
3x3x3 and the finest level has blocks of its own, so that four levels hold the four groups of blocks.
"""

__all__ = ["ResidualUNet"]

from collections.abc import Sequence

from instseg_ros.models.backbone import Blocks, ConvNorm, Modules, ResidualBlock
from instseg_ros.models.unet import UNet

_DECODER_BLOCKS = 2


class ResidualUNet(UNet):
    """After MinkUNet34.

    Args:
        cin: input features per voxel.
        channels: channels per level, finest first.
        encoder_blocks: blocks per level of the encoder; the last number stands for all further levels.
        blocks: both directions have this many times their blocks.
    """

    def __init__(self, cin: int, channels: tuple[int, ...], encoder_blocks: Sequence[int] = (2, 3, 4, 6), blocks: int = 1) -> None:
        super().__init__()
        coarse = len(channels) - 1
        self.width = channels[0]
        self.stem = ConvNorm(27, cin, channels[0])
        self.down = Modules(ConvNorm(8, channels[i], channels[i]) for i in range(coarse))
        self.encoder = Modules()
        for level, wide in enumerate(channels):
            count = blocks * encoder_blocks[min(level, len(encoder_blocks) - 1)]
            narrow = channels[max(level - 1, 0)]
            self.encoder.append(Blocks(ResidualBlock(wide if i else narrow, wide) for i in range(count)))
        self.up = Modules(ConvNorm(8, channels[i + 1], channels[i]) for i in range(coarse))
        self.decoder = Modules(Blocks(ResidualBlock(c) for _ in range(blocks * _DECODER_BLOCKS)) for c in channels[:-1])
