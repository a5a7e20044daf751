"""The incremental runner: every layer keeps its output, and an update recomputes only the rows it can have changed.

An output row is due when a row it reads has changed, is new or is gone, or when its residual has changed. Due rows are
computed anew from the cached outputs of the layers before (never accumulated, so errors cannot build up). A row that
moves by no more than the tolerance keeps its old value, and the wave stops there; so what later layers have read is
never further off than the tolerance. With tolerance 0 the outputs are those of a full pass over the same map.
"""

__all__ = ["IncrementalNetwork", "LayerStatistics"]

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.network import InstanceNet, input_features, input_width
from instseg_ros.sparse import kernels
from instseg_ros.sparse.conv import apply_conv
from instseg_ros.sparse.program import INPUT, Layer, compile_network
from instseg_ros.sparse.pyramid import Pyramid
from instseg_ros.sparse.runner import Prediction

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class LayerStatistics:
    """What the last refresh did in one layer."""

    name: str
    rows: int
    """Rows of the layer's level in use."""
    due: int
    changed: int


class IncrementalNetwork:
    """Keeps a network's outputs current at a cost that follows the change.

    Args:
        net: a network in evaluation mode.
        tolerance: a row counts as changed when one of its channels moves by more than this times the layer's mean
            magnitude; 0 = exact.
        threads: CPU threads, 0 = all.
        floor_z_m: height of the floor in the map's frame, m; None = unknown.
    """

    def __init__(self, net: InstanceNet, tolerance: float = 0.0, threads: int = 0, floor_z_m: float | None = 0.0) -> None:
        self.config, self.floor_z_m = net.config, floor_z_m
        self.program = compile_network(net)
        self.tolerance = tolerance
        if threads:
            kernels.set_threads(threads)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs; the next refresh computes the whole map."""
        self._features = torch.zeros(0, 1)
        self._cache = [torch.zeros(0, layer.weight.shape[2]) for layer in self.program.layers]
        self._scale = [0.0] * len(self.program.layers)
        self._empty = True
        self.prediction = Prediction(*(np.zeros((0, n), np.float32) for n in (NUM_CLASSES, self.config.embedding_dim, 3)))
        self.statistics: list[LayerStatistics] = []

    def refresh(self, voxels: VoxelMap, delta: MapDelta) -> np.ndarray:
        """Bring the outputs up to date with the map.

        Args:
            voxels: the map.
            delta: what was applied to it since the last refresh.

        Returns:
            Slots [n] int64 whose outputs changed, new voxels included.
        """
        pyramid = voxels.pyramid
        self._fit(pyramid)
        everything = self._empty
        self._empty = False
        self.statistics = []
        added = [level.live_rows() for level in pyramid.levels] if everything else delta.pyramid.added
        dirty = added[0] if everything else delta.dirty()
        self._features[dirty] = torch.from_numpy(input_features(voxels.colors[dirty], voxels.coords[dirty], self.config, self.floor_z_m))
        changed: dict[int, np.ndarray] = {INPUT: dirty.astype(np.int64)}
        for i, layer in enumerate(self.program.layers):
            due = added[layer.level].astype(np.int64) if everything else self._due(layer, pyramid, delta, changed)
            changed[i] = self._recompute(i, layer, pyramid, due, added[layer.level])
            self.statistics.append(LayerStatistics(layer.name, len(pyramid.levels[layer.level]), len(due), len(changed[i])))
        return self._publish(voxels, changed)

    def nbytes(self) -> int:
        """Memory held by the cached outputs, bytes."""
        tensors = [self._features, *self._cache]
        return sum(t.numel() * t.element_size() for t in tensors)

    def _due(self, layer: Layer, pyramid: Pyramid, delta: MapDelta, changed: dict[int, np.ndarray]) -> np.ndarray:
        """Rows [n] of the layer's level that can have changed, ascending."""
        level, source = layer.level, changed[layer.source]
        parts = [] if layer.residual is None else [changed[layer.residual]]
        if layer.table == "self":
            parts.append(source)
        elif layer.table == "neighbors":
            parts += [pyramid.levels[level].neighbors[source].ravel(), delta.pyramid.retabled[level]]
        elif layer.table == "children":
            parts += [pyramid.parent(level - 1, source), delta.pyramid.rechilded[level]]
        else:  # "up": a voxel's parent lasts as long as the voxel
            parts += [pyramid.children[level][source].ravel(), delta.pyramid.added[level]]
        due = np.unique(np.concatenate(parts)) if parts else _NONE
        return due[due >= 0].astype(np.int64)

    def _recompute(self, i: int, layer: Layer, pyramid: Pyramid, due: np.ndarray, added: np.ndarray) -> np.ndarray:
        """Compute due rows; returns those whose value was replaced."""
        if not len(due):
            return _NONE
        rows = torch.from_numpy(due)
        source = self._features if layer.source == INPUT else self._cache[layer.source]
        residual = None if layer.residual is None else self._cache[layer.residual][rows]
        if layer.table == "self":
            new = torch.addmm(layer.bias, source[rows], layer.weight[0])
            new = new.relu_() if layer.relu else new
        else:
            new = apply_conv(source, self._table(layer, pyramid, due), layer.weight, layer.bias, residual, layer.relu)
        moved = (new - self._cache[i][rows]).abs_().amax(dim=1).numpy() > self.tolerance * self._scale[i]
        if len(added):
            moved |= np.isin(due, added)
        self._cache[i][rows[moved]] = new[moved]
        if self._scale[i] == 0.0:  # of the first rows seen, so that a stopped wave does not depend on later ones
            self._scale[i] = float(new.abs().mean())
        return due[moved]

    @staticmethod
    def _table(layer: Layer, pyramid: Pyramid, due: np.ndarray) -> Tensor:
        if layer.table == "neighbors":
            table = pyramid.levels[layer.level].neighbors
        elif layer.table == "children":
            table = pyramid.children[layer.level - 1]
        else:
            table = pyramid.up[layer.level]
        return torch.from_numpy(table[due])

    def _publish(self, voxels: VoxelMap, changed: dict[int, np.ndarray]) -> np.ndarray:
        """Write the changed outputs into the prediction."""
        if len(self.prediction.semantic) < voxels.capacity:
            self.prediction = Prediction(*(_grown(a, voxels.capacity) for a in (
                self.prediction.semantic, self.prediction.embedding, self.prediction.offset
            )))
        for name, i in self.program.outputs.items():
            rows = changed[i]
            values = self._cache[i][torch.from_numpy(rows)]
            getattr(self.prediction, name)[rows] = (torch.softmax(values, 1) if name == "semantic" else values).numpy()
        return np.unique(np.concatenate([changed[i] for i in self.program.outputs.values()]))

    def _fit(self, pyramid: Pyramid) -> None:
        """Let the caches grow with the pyramid."""
        capacity = pyramid.levels[0].capacity
        if len(self._features) < capacity:
            self._features = _grown_tensor(self._features, capacity, input_width(self.config))
        for i, layer in enumerate(self.program.layers):
            capacity = pyramid.levels[layer.level].capacity
            if len(self._cache[i]) < capacity:
                self._cache[i] = _grown_tensor(self._cache[i], capacity, self._cache[i].shape[1])


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    out = np.zeros((rows, array.shape[1]), array.dtype)
    out[: len(array)] = array
    return out


def _grown_tensor(tensor: Tensor, rows: int, width: int) -> Tensor:
    out = torch.zeros(rows, width)
    if len(tensor):
        out[: len(tensor)] = tensor
    return out
