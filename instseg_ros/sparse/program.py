"""A trained network as a list of layers, each `relu(conv(input) + bias + residual)` over one table, heads per voxel, and what refines them."""

__all__ = ["INPUT", "Head", "Layer", "Program", "Refinement", "compile_network"]

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from instseg_ros.models.backbone import ConvNorm
from instseg_ros.models.heads import positions, published
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.refine import attend
from instseg_ros.sparse.conv import apply_conv
from instseg_ros.sparse.pyramid import LevelTables, Tables

_ATTEND_ROWS = 1 << 13  # rows attended to at once, which keeps what is between them in the cache
INPUT = -1
"""Stands for the input features where a layer's `source` is asked for."""


@dataclass(frozen=True)
class Layer:
    """One layer with folded batch norm."""

    name: str
    table: str
    """`neighbors`, `self` (no others: a 1x1x1 layer), `children` (from the finer level) or `up` (from the coarser level)."""
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
    dilation: int = 1
    """How far apart the taps of a `neighbors` layer are, in voxels of its level."""

    def run(self, x: Tensor, tables: LevelTables, residual: Tensor | None) -> Tensor:
        """All rows of the level: [M, Cin] -> [N, Cout]."""
        return apply_conv(x, tables.read(self.table, self.dilation), self.weight, self.bias, residual, self.relu)


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
class Refinement:
    """Layers of attention over the k nearest voxels that refine the embedding (`models.refine`)."""

    layers: list[tuple[Tensor, ...]]
    """What `attend` takes after the neighbours, per layer."""
    k: int

    @torch.inference_mode()
    def layer(self, i: int, x: Tensor, center: Tensor, nearest: Tensor) -> Tensor:
        """Layer i for voxels with embeddings `center` [n, F] and their nearest rows [n, k] of x [N, F]; [n, F]."""
        out = torch.empty_like(center)
        for begin in range(0, len(center), _ATTEND_ROWS):
            part = slice(begin, begin + _ATTEND_ROWS)
            out[part] = attend(x, center[part], nearest[part], *self.layers[i])
        return out

    def run(self, x: Tensor, nearest: Tensor) -> Tensor:
        """All layers for all voxels: [N, F] -> [N, F]."""
        for i in range(len(self.layers)):
            x = self.layer(i, x, x, nearest)
        return x


@dataclass(frozen=True)
class Program:
    """Layers in the order they run, the heads that read the last of them, and what becomes of the embedding after them."""

    layers: list[Layer]
    heads: dict[str, Head]
    refinement: Refinement | None = None
    position_step: float = 0.0
    """The embedding starts from `positions` by this; 0 = from nothing."""

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
        return self.refined(self.read_out(values[len(self.layers) - 1]), tables.levels[0])

    @torch.inference_mode()
    def read_out(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs by name [N, ...], as a `Prediction` holds them, of the last layer's output [N, C]; the embedding is as the head says it."""
        return {name: published(name, head.run(x)) for name, head in self.heads.items()}

    def refined(self, outputs: dict[str, Tensor], tables: LevelTables) -> dict[str, Tensor]:
        """The same outputs with the embedding starting from positions, or refined, where the network does that; tables of the finest level."""
        if self.position_step:
            outputs["embedding"][:, :3] += positions(tables.coords(), self.position_step)
        if self.refinement is None:
            return outputs
        x = outputs["embedding"]
        return {**outputs, "embedding": self.refinement.run(x, tables.nearest(self.refinement.k).to(x.device))}

    def to(self, device: torch.device | str) -> "Program":
        """The same program with its weights on a device."""
        layers = [replace(x, weight=x.weight.to(device).contiguous(), bias=x.bias.to(device)) for x in self.layers]
        heads = {k: Head([w.to(device) for w in h.weights], [b.to(device) for b in h.biases]) for k, h in self.heads.items()}
        refinement = self.refinement
        if refinement is not None:
            refinement = replace(refinement, layers=[tuple(t.to(device) for t in parts) for parts in refinement.layers])
        return Program(layers, heads, refinement, self.position_step)


class _Recorder:
    """A backbone's walk on numbers of layers."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    def conv(
        self, name: str, module: ConvNorm, table: str, level: int, x: int, residual: int | None = None, relu: bool = True, dilation: int = 1,
    ) -> int:
        weight, bias = module.folded()
        self.layers.append(Layer(name, table, level, x, weight.contiguous(), bias, residual, relu, dilation))
        return len(self.layers) - 1


def compile_network(net: InstanceNet) -> Program:
    """The layers of a network in evaluation mode, batch norm folded."""
    recorder = _Recorder()
    last = net.backbone.walk(recorder, INPUT)
    assert last == len(recorder.layers) - 1  # the heads read the last layer
    heads = {}
    for name, head in net.heads.items():
        linear = (head[0], head[2])
        heads[name] = Head([part.weight.detach().t().contiguous() for part in linear], [part.bias.detach() for part in linear])
    refinement = None
    if net.refine:
        layers = [tuple(part.detach().contiguous() for part in layer.parts()) for layer in net.refine]
        refinement = Refinement(layers, net.config.refine_neighbors)
    return Program(recorder.layers, heads, refinement, net.config.position_step)
