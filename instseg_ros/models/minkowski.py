"""The same network run by MinkowskiEngine (Choy et al. 2019), where that library is importable.

MinkowskiEngine numbers the taps of a kernel with the first axis fastest, ours has the last one fastest; its kernels of even
size begin at the voxel itself, as our octants do. Its last release (0.5.4) is from 2021: importing it needs names that Python
3.10 took out of `collections`, which are put back here.
"""

__all__ = ["MinkowskiRunner", "load_minkowski", "minkowski_conv", "minkowski_tensor", "our_rows"]

import collections
import collections.abc
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instseg_ros.errors import InputError, require
from instseg_ros.models.network import InstanceNet
from instseg_ros.sparse.foreign import run_foreign, shifted
from instseg_ros.sparse.program import Layer, Program, compile_network
from instseg_ros.sparse.pyramid import build_tables

INSTALL = "make test-minkowski builds it from its source on PyPI, which takes a quarter of an hour"
_MOVED = ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "MutableSequence", "Sequence", "Set", "Sized")


def load_minkowski() -> ModuleType:
    """MinkowskiEngine, imported.

    Raises:
        MissingDependencyError: it is not installed; the message says how to build it.
    """
    for name in _MOVED:
        if not hasattr(collections, name):  # its functions look them up when they run, so they stay there
            setattr(collections, name, getattr(collections.abc, name))
    return require("MinkowskiEngine", "run the network with MinkowskiEngine", INSTALL)


def minkowski_weight(weight: Tensor) -> Tensor:
    """Weights [K, Cin, Cout] with the taps in MinkowskiEngine's order: x fastest in place of z."""
    side = round(len(weight) ** (1 / 3))
    cube = weight.reshape(side, side, side, *weight.shape[1:])
    return cube.permute(2, 1, 0, 3, 4).reshape(weight.shape).contiguous()


def minkowski_conv(table: str, weight: Tensor, dilation: int = 1) -> torch.nn.Module:
    """MinkowskiEngine's layer for one of ours, without bias.

    Args:
        table: `neighbors` (3x3x3), `self` (1x1x1), `children` (2x2x2, stride 2) or `up` (transposed, 2x2x2, stride 2).
        weight: [27, 1 or 8, Cin, Cout] in our order of taps.
        dilation: of a 3x3x3 layer.
    """
    engine = load_minkowski()
    kind = engine.MinkowskiConvolutionTranspose if table == "up" else engine.MinkowskiConvolution
    size, stride = {"neighbors": (3, 1), "self": (1, 1)}.get(table, (2, 2))
    module = kind(weight.shape[1], weight.shape[2], kernel_size=size, stride=stride, dilation=dilation, bias=False, dimension=3)
    with torch.no_grad():
        module.kernel.copy_(minkowski_weight(weight).reshape(module.kernel.shape))  # a 1x1x1 kernel is a matrix there
    return module.to(weight.device).eval()


def minkowski_tensor(coords: np.ndarray, features: Tensor, depth: int) -> Any:
    """A MinkowskiEngine.SparseTensor of unique voxels [N, 3] with features [N, C], on the features' device."""
    indices = torch.from_numpy(shifted(coords, depth)[0]).to(features.device)
    return load_minkowski().SparseTensor(features, coordinates=indices)


def our_rows(tensor: Any, first: Any) -> Tensor:
    """Features of a tensor of the finest level in the order of the voxels that `first` was made of."""
    return tensor.F[first.inverse_mapping.long()]


class MinkowskiRunner:
    """A trained network with MinkowskiEngine's convolutions.

    Args:
        net: the network, or its compiled program; batch norm is folded either way.
        device: where it runs; CUDA needs a MinkowskiEngine built with it.

    Raises:
        MissingDependencyError: MinkowskiEngine is not installed.
    """

    def __init__(self, net: InstanceNet | Program, device: torch.device | str = "cpu") -> None:
        self._engine = load_minkowski()
        self._program = (net if isinstance(net, Program) else compile_network(net)).to(device)
        self._device = torch.device(device)
        self._depth = 1 + max(layer.level for layer in self._program.layers)
        self._modules = [minkowski_conv(layer.table, layer.weight, layer.dilation) for layer in self._program.layers]

    @torch.inference_mode()
    def __call__(self, coords: np.ndarray, features: Tensor) -> dict[str, Tensor]:
        """All outputs of `Program.run`, row i for voxel i.

        Args:
            coords: [N, 3] int32, unique.
            features: [N, Cin] of `input_features`.

        Raises:
            InputError: there is no voxel, or coordinates and features do not have as many rows.
        """
        if not len(coords) or len(coords) != len(features):
            raise InputError(f"{len(coords)} voxels, {len(features)} rows of features: give one per voxel, and one at least")
        first = minkowski_tensor(coords, features.to(self._device), self._depth)
        last = run_foreign(self._program, first, self._apply)
        outputs = self._program.read_out(our_rows(last, first))
        return self._program.refined(outputs, build_tables(coords, 1).levels[0])

    def _apply(self, i: int, layer: Layer, x: Any, residual: Any) -> Any:
        # Upwards the finer voxels are there already: those of the residual.
        there = residual.coordinate_map_key if layer.table == "up" and residual is not None else None
        out = self._modules[i](x, there)
        values = out.F.add_(layer.bias)
        if residual is not None:
            values = values.add_(residual.F)
        if layer.relu:
            values = values.relu_()
        key, manager = out.coordinate_map_key, out.coordinate_manager
        return self._engine.SparseTensor(values, coordinate_map_key=key, coordinate_manager=manager)
