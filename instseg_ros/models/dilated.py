"""The dilated network of MTML (Lahoud 2019), after SSCNet (Song 2017), on sparse voxels.

SSCNet looks at the scene at a quarter of its resolution through residual pairs of 3x3x3 convolutions, the last of them dilated, and
joins what all of them gave by 1x1x1 convolutions; MTML dilates further and goes back up by transposed convolutions. Here
a level of the pyramid stands for a stride of two, and "all of them joined" is a sum of 1x1x1 convolutions, which is what one
1x1x1 convolution of their concatenation is. Two things differ: the layers before are 3x3x3 at full resolution and a
strided 2x2x2 one in place of 7x7x7 with a stride of two, and on the way up the finer levels' features are added, as voxels of a
surface need them to be told from their neighbours.

With three levels and dilations 1, 1, 2, 2 an output sees 113 voxels across, which is SSCNet's 2.26 m at 2 cm; with the
default 1, 1, 3, 3 it is 145, next to the 14.2 m at 10 cm that MTML states (its figure has the dilations; the text does not).
"""

__all__ = ["DilatedNet"]

from collections.abc import Sequence

from instseg_ros.models.backbone import Backbone, Blocks, ConvNorm, Modules, Ops, ResidualBlock, T


class DilatedNet(Backbone):
    """Features at the resolution of the input with a wide view.

    Args:
        cin: input features per voxel.
        channels: channels per level, finest first; SSCNet has three levels.
        dilations: of the groups of blocks at the coarsest level.
        blocks: residual blocks per group, and per level between the finest and the coarsest.
    """

    def __init__(self, cin: int, channels: tuple[int, ...], dilations: Sequence[int] = (1, 1, 3, 3), blocks: int = 1) -> None:
        super().__init__()
        coarse, wide = len(channels) - 1, channels[-1]
        self.width = channels[0]
        self.stem = ConvNorm(27, cin, channels[0])
        self.down = Modules(ConvNorm(8, channels[i], channels[i + 1]) for i in range(coarse))
        self.middle = Modules(Blocks(ResidualBlock(c) for _ in range(blocks)) for c in channels[1:-1])
        self.groups = Modules(Blocks(ResidualBlock(wide, dilation=d) for _ in range(blocks)) for d in dilations)
        self.join = Modules(ConvNorm(1, wide, wide) for _ in dilations)
        self.mix = ConvNorm(1, wide, wide)
        self.up = Modules(ConvNorm(8, channels[i + 1], channels[i]) for i in range(coarse))

    def walk(self, ops: Ops[T], x: T) -> T:
        """Down, the dilated groups joined, up."""
        x = ops.conv("stem", self.stem, "neighbors", 0, x)
        skips, deepest = [x], len(self.up)
        for level in range(1, deepest + 1):
            x = ops.conv(f"down.{level}", self.down[level - 1], "children", level, x)
            if level < deepest:
                x = self.middle[level - 1].walk(ops, f"middle.{level}", level, x)
            skips.append(x)
        joined = None
        for number, (group, join) in enumerate(zip(self.groups, self.join, strict=True)):
            x = group.walk(ops, f"group.{number}", deepest, x)
            joined = ops.conv(f"join.{number}", join, "self", deepest, x, joined, relu=number == len(self.join) - 1)
        assert joined is not None
        x = ops.conv("mix", self.mix, "self", deepest, joined)
        for level in reversed(range(deepest)):
            x = ops.conv(f"up.{level}", self.up[level], "up", level, x, skips[level])
        return x
