"""A trained network as a list of layers, each `relu(conv(input) + bias + residual)` over one table, and heads per voxel."""

__all__ = ["INPUT", "Head", "Layer", "Program", "compile_network"]

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from instseg_ros.models.heads import published
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.unet import ConvNorm
from instseg_ros.sparse.conv import apply_conv
from instseg_ros.sparse.pyramid import LevelTables, Tables

INPUT = -1
"""Stands for the input features where a layer's `source` is asked for."""


@dataclass(frozen=True)
class Layer:
    """One layer with folded batch norm."""

    name: str
    table: str
    """`neighbors`, `children` (from the finer level) or `up` (from the coarser level)."""
    level: int
    """Level of the output rows."""
    source: int
    """Layer whose output is read, or `INPUT`."""
    weight: Tensor
    """[K, Cin, Cout]."""
    bias: Tensor
    """[Cout]."""
    residual: int | None
    """Layer whose output (same level) is added, or None."""
    relu: bool

    def run(self, x: Tensor, tables: LevelTables, residual: Tensor | None) -> Tensor:
        """All rows of the level: [M, Cin] -> [N, Cout]."""
        return apply_conv(x, getattr(tables, self.table), self.weight, self.bias, residual, self.relu)


@dataclass(frozen=True)
class Head:
    """A perceptron on the last layer's output of each voxel, ReLU between its layers."""

    weights: list[Tensor]
    """[Cin, Cout] each."""
    biases: list[Tensor]

    def run(self, x: Tensor) -> Tensor:
        """[N, Cin] -> [N, Cout]."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.addmm(bias, x.relu_() if i else x, weight)
        return x


@dataclass(frozen=True)
class Program:
    """Layers in the order they run, and the heads that read the last of them."""

    layers: list[Layer]
    heads: dict[str, Head]

    @torch.inference_mode()
    def run(self, features: Tensor, tables: Tables) -> dict[str, Tensor]:
        """A full pass: outputs by name for all rows of the finest level."""
        last_use = {source: i for i, layer in enumerate(self.layers) for source in (layer.source, layer.residual) if source is not None}
        values: dict[int, Tensor] = {INPUT: features}
        for i, layer in enumerate(self.layers):
            residual = None if layer.residual is None else values[layer.residual]
            values[i] = layer.run(values[layer.source], tables.levels[layer.level], residual)
            for done in [k for k in values if last_use.get(k) == i]:
                del values[done]
        return self.read_out(values[len(self.layers) - 1])

    @torch.inference_mode()
    def read_out(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs by name [N, ...], as a `Prediction` holds them, of the last layer's output [N, C]."""
        return {name: published(name, head.run(x)) for name, head in self.heads.items()}

    def to(self, device: torch.device | str) -> "Program":
        """The same program with its weights on a device."""
        layers = [replace(x, weight=x.weight.to(device).contiguous(), bias=x.bias.to(device)) for x in self.layers]
        heads = {k: Head([w.to(device) for w in h.weights], [b.to(device) for b in h.biases]) for k, h in self.heads.items()}
        return Program(layers, heads)


def compile_network(net: InstanceNet) -> Program:
    """The layers of a network in evaluation mode, batch norm folded."""
    layers: list[Layer] = []

    def conv(name: str, table: str, level: int, source: int, module: ConvNorm, residual: int | None = None) -> int:
        weight, bias = module.folded()
        layers.append(Layer(name, table, level, source, weight.contiguous(), bias, residual, relu=True))
        return len(layers) - 1

    def residual_blocks(name: str, level: int, x: int, blocks: torch.nn.ModuleList) -> int:
        for i, block in enumerate(blocks):
            hidden = conv(f"{name}.{i}.first", "neighbors", level, x, block.first)
            x = conv(f"{name}.{i}.second", "neighbors", level, hidden, block.second, residual=x)
        return x

    unet = net.backbone
    x = conv("stem", "neighbors", 0, INPUT, unet.stem)
    skips = []
    for level, blocks in enumerate(unet.encoder):
        if level:
            x = conv(f"down.{level}", "children", level, x, unet.down[level - 1])
        x = residual_blocks(f"encoder.{level}", level, x, blocks)
        skips.append(x)
    for level in reversed(range(len(unet.up))):
        x = conv(f"up.{level}", "up", level, x, unet.up[level], residual=skips[level])
        x = residual_blocks(f"decoder.{level}", level, x, unet.decoder[level])
    heads = {}
    for name, head in net.heads.items():
        linear = (head[0], head[2])
        heads[name] = Head([part.weight.detach().t().contiguous() for part in linear], [part.bias.detach() for part in linear])
    return Program(layers, heads)
