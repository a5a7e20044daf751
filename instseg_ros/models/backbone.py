"""What all backbones are made of: convolutions over tables, residual blocks, and one walk that both trains and compiles.

Every layer is `relu(conv(x) + bias + residual)` once batch norm is folded. A backbone says once, in `walk`, which layer reads
what; with tensors that is its forward pass, with a recorder it is the list of layers of `sparse.program`.
"""

__all__ = ["Backbone", "Blocks", "ConvNorm", "Modules", "Ops", "ResidualBlock"]

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from instseg_ros.sparse.conv import sparse_conv
from instseg_ros.sparse.pyramid import Tables

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

_READ_TAPS = {27: 10, 8: 4, 1: 1}
"""About ten of the 27 neighbours of a surface voxel exist, and one of the eight taps of a transposed layer."""


class ConvNorm(nn.Module):
    """A convolution over a table followed by batch norm; `taps` is 27 (within a level), 8 (between levels) or 1 (a voxel itself)."""

    def __init__(self, taps: int, cin: int, cout: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(taps, cin, cout) * (2.0 / (cin * _READ_TAPS[taps])) ** 0.5)
        self.norm = nn.BatchNorm1d(cout)

    def forward(self, x: Tensor, table: Tensor, reverse: Tensor | None = None) -> Tensor:
        """[M, Cin] features of the rows the table reads -> [N, Cout]."""
        out: Tensor = self.norm(sparse_conv(x, table, self.weight, reverse).float())
        return out

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight [K, Cin, Cout] and bias [Cout] with the batch norm's running statistics folded in."""
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None and var is not None
        scale = self.norm.weight / torch.sqrt(var + self.norm.eps)
        return self.weight.detach() * scale.detach(), (self.norm.bias - mean * scale).detach()


class Ops(Protocol[T]):
    """What a walk calls: on tensors it computes, on numbers of layers it records."""

    def conv(
        self, name: str, module: ConvNorm, table: str, level: int, x: T, residual: T | None = None, relu: bool = True, dilation: int = 1,
    ) -> T:
        """relu(module(x) + residual) at a level, over a table of `sparse.program.Layer.table`."""


class _Eager:
    """The walk on tensors."""

    def __init__(self, tables: Tables) -> None:
        self._levels = tables.levels

    def conv(
        self, name: str, module: ConvNorm, table: str, level: int, x: Tensor, residual: Tensor | None = None, relu: bool = True,
        dilation: int = 1,
    ) -> Tensor:
        reverse = None  # within a level a table is its own reverse
        if table == "children":
            reverse = self._levels[level - 1].up
        elif table == "up":
            reverse = self._levels[level + 1].children
        out: Tensor = module(x, self._levels[level].read(table, dilation), reverse)
        if residual is not None:
            out = residual + out
        return torch.relu(out) if relu else out


class Modules(nn.ModuleList, Generic[M]):
    """A list of modules that says of what kind they are."""

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[M] = ()) -> None: ...
        def __iter__(self) -> Iterator[M]: ...
        def __getitem__(self, index: int) -> M: ...  # type: ignore[override]


class Backbone(nn.Module):
    """Features of the finest level [N, width] from features of the finest level [N, Cin]."""

    width: int
    """Columns of what it gives."""

    def walk(self, ops: Ops[T], x: T) -> T:
        """Call `ops` for every layer in turn; returns the last one's output."""
        raise NotImplementedError

    def forward(self, features: Tensor, tables: Tables) -> Tensor:
        """[N, Cin] -> [N, width] on the rows of the finest level."""
        return self.walk(_Eager(tables), features)


class ResidualBlock(nn.Module):
    """relu(p(x) + norm(conv(relu(norm(conv(x)))))) within a level; p is the identity, or a projection where the widths differ."""

    def __init__(self, cin: int, cout: int | None = None, dilation: int = 1) -> None:
        super().__init__()
        cout = cout or cin
        self.dilation = dilation
        self.first = ConvNorm(27, cin, cout)
        self.second = ConvNorm(27, cout, cout)
        self.project = ConvNorm(1, cin, cout) if cin != cout else None

    def walk(self, ops: Ops[T], name: str, level: int, x: T) -> T:
        """The block as two or three layers of a level."""
        hidden = ops.conv(f"{name}.first", self.first, "neighbors", level, x, dilation=self.dilation)
        own = x if self.project is None else ops.conv(f"{name}.project", self.project, "self", level, x, relu=False)
        return ops.conv(f"{name}.second", self.second, "neighbors", level, hidden, own, dilation=self.dilation)


class Blocks(Modules[ResidualBlock]):
    """Residual blocks one after the other."""

    def walk(self, ops: Ops[T], name: str, level: int, x: T) -> T:
        """All of them."""
        for i, block in enumerate(self):
            x = block.walk(ops, f"{name}.{i}", level, x)
        return x
