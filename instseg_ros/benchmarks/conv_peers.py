"""What the convolution benchmark compares: the same layers by this package, plain torch, spconv and MinkowskiEngine."""

__all__ = ["PEERS", "Layer", "Missing", "Network", "Peer"]

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instseg_ros.errors import InstSegError, MissingDependencyError, require
from instseg_ros.models.minkowski import MinkowskiRunner, load_minkowski, minkowski_conv, minkowski_tensor, our_rows
from instseg_ros.sparse import triton_kernels
from instseg_ros.sparse.conv import apply_conv, only_path
from instseg_ros.sparse.device_pyramid import build_tables_on
from instseg_ros.sparse.foreign import run_foreign, shifted
from instseg_ros.sparse.program import Layer as ProgramLayer
from instseg_ros.sparse.program import Program
from instseg_ros.sparse.pyramid import build_tables

Layer = Callable[[Tensor], Tensor]
"""[N, Cin] features -> [N, Cout], tables cached."""
Network = Callable[[np.ndarray, Tensor], dict[str, Tensor]]
"""coords [N, 3] int32 and features [N, Cin] -> outputs of `Program.run`, tables built from nothing."""


class Missing(InstSegError):
    """A peer cannot run here; the message says why."""


class Peer(ABC):
    """One way to compute a layer and a network; rows come and go in the order of the voxels given.

    Args:
        device: where it computes.

    Raises:
        Missing: it is not installed, or not for this device.
    """

    package = ""
    """Distribution whose version is reported."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def version(self) -> str:
        """Version of the peer's library, as installed."""
        return importlib.metadata.version(self.package) if self.package else ""

    @abstractmethod
    def layer(self, coords: np.ndarray, weight: Tensor) -> Layer:
        """A submanifold layer with weight [27, Cin, Cout] on voxels [N, 3] whose tables are built here."""

    @abstractmethod
    def network(self, program: Program) -> Network:
        """A whole network; its weights are converted here."""


class Ours(Peer):
    """This package's kernels."""

    def layer(self, coords: np.ndarray, weight: Tensor) -> Layer:
        table = build_tables(coords, 1).levels[0].neighbors.to(self.device)
        return lambda x: apply_conv(x, table, weight)

    def network(self, program: Program) -> Network:
        depth = _depth(program)
        if self.device.type == "cpu":
            return lambda coords, features: program.run(features, build_tables(coords, depth))
        return lambda coords, features: program.run(features, build_tables_on(torch.from_numpy(coords).to(self.device), depth))


class Torch(Ours):
    """This package's tables with convolutions in plain torch: what runs where no kernel does."""

    package = "torch"

    def layer(self, coords: np.ndarray, weight: Tensor) -> Layer:
        return self._plain(super().layer(coords, weight))

    def network(self, program: Program) -> Network:
        return self._plain(super().network(program))

    @staticmethod
    def _plain(call: Callable[..., Any]) -> Callable[..., Any]:
        def plain(*args: Any) -> Any:
            with only_path("torch"):
                return call(*args)

        return plain


class Spconv(Peer):
    """spconv (SECOND, Yan et al. 2018): SubMConv3d, SparseConv3d and SparseInverseConv3d with cached pairs.

    Bias, residual sum and ReLU are torch's, in place, since spconv's layers for the CPU have none of them.
    """

    module = "spconv"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        try:
            self._spconv = require(f"{self.module}.pytorch", "compare with it", f"pip install {self.module.replace('_', '-')}")
        except MissingDependencyError as error:
            raise Missing(str(error)) from error
        self._require(device)

    def _require(self, device: torch.device) -> None:
        """Raises Missing where what is installed cannot run on the device."""
        from spconv.cppconstants import CPU_ONLY_BUILD

        if device.type != "cpu" and CPU_ONLY_BUILD:
            raise Missing("the spconv installed is built for the CPU only: pip install spconv-cu126 or the like")

    @property
    def version(self) -> str:
        """Version of spconv; its distribution has another name for every version of CUDA."""
        return str(importlib.import_module(self.module).__version__)

    def _tensor(self, coords: np.ndarray, features: Tensor, depth: int) -> Any:
        indices, shape = shifted(coords, depth)
        return self._spconv.SparseConvTensor(features, torch.from_numpy(indices).to(self.device), shape, 1)

    def _module(self, table: str, level: int, weight: Tensor) -> torch.nn.Module:
        cin, cout = weight.shape[1:]
        if table == "neighbors":
            module = self._spconv.SubMConv3d(cin, cout, 3, bias=False, indice_key=f"level{level}")
        elif table == "children":
            module = self._spconv.SparseConv3d(cin, cout, 2, 2, bias=False, indice_key=f"between{level - 1}")
        else:
            module = self._spconv.SparseInverseConv3d(cin, cout, 2, bias=False, indice_key=f"between{level}")
        side = module.kernel_size[0]
        with torch.no_grad():  # [Cout, x, y, z, Cin]; ours is [x y z, Cin, Cout]
            module.weight.copy_(weight.reshape(side, side, side, cin, cout).permute(4, 0, 1, 2, 3))
        return module.to(self.device).eval()

    def layer(self, coords: np.ndarray, weight: Tensor) -> Layer:
        module = self._module("neighbors", 0, weight)
        cached = module(self._tensor(coords, weight.new_zeros(len(coords), weight.shape[1]), 0))  # carries the pairs on
        return lambda x: module(cached.replace_feature(x)).features

    def network(self, program: Program) -> Network:
        modules = [self._module(layer.table, layer.level, layer.weight) for layer in program.layers]
        depth = _depth(program)

        def apply(i: int, layer: ProgramLayer, x: Any, residual: Any) -> Any:
            out = modules[i](x)
            values = out.features.add_(layer.bias)
            if residual is not None:
                values = values.add_(residual.features)
            return out.replace_feature(values.relu_() if layer.relu else values)

        def run(coords: np.ndarray, features: Tensor) -> dict[str, Tensor]:
            return program.read_out(run_foreign(program, self._tensor(coords, features, depth), apply).features)

        return run


class SpconvTriton(Spconv):
    """spconv-triton (Reichardt): spconv's layers as Triton kernels, which compile for whatever card and CUDA there is."""

    module = "spconv_triton"

    def _require(self, device: torch.device) -> None:
        if device.type == "cpu" and not triton_kernels.interpreted():
            raise Missing("spconv-triton runs on a GPU")


class Minkowski(Peer):
    """MinkowskiEngine (Choy et al. 2019) as `models/minkowski.py` runs it."""

    package = "MinkowskiEngine"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        try:
            engine = load_minkowski()
        except MissingDependencyError as error:
            raise Missing(str(error)) from error
        if device.type != "cpu" and not engine.is_cuda_available():
            raise Missing("the MinkowskiEngine installed is built for the CPU only")
        self._engine = engine

    def layer(self, coords: np.ndarray, weight: Tensor) -> Layer:
        module = minkowski_conv("neighbors", weight)
        first = minkowski_tensor(coords, weight.new_zeros(len(coords), weight.shape[1]), 0)
        module(first)  # the manager keeps the kernel map
        order = first.unique_index.to(self.device)
        in_order = bool((order == torch.arange(len(order), device=self.device)).all())

        key, manager = first.coordinate_map_key, first.coordinate_manager

        def run(x: Tensor) -> Tensor:
            rows = x if in_order else x[order]
            out = module(self._engine.SparseTensor(rows, coordinate_map_key=key, coordinate_manager=manager))
            return out.F if in_order else our_rows(out, first)

        return run

    def network(self, program: Program) -> Network:
        return MinkowskiRunner(program, self.device)


PEERS: dict[str, type[Peer]] = {"ours": Ours, "spconv": Spconv, "spconv_triton": SpconvTriton, "torch": Torch, "minkowski": Minkowski}
"""By name, ours first."""


def _depth(program: Program) -> int:
    return 1 + max(layer.level for layer in program.layers)
