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

from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.network import InstanceNet, input_features, input_width
from instseg_ros.sparse import kernels
from instseg_ros.sparse.program import INPUT, Layer, compile_network
from instseg_ros.sparse.pyramid import Pyramid
from instseg_ros.sparse.runner import Prediction


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
        self._weights = [kernels.pad_channels(layer.weight) for layer in self.program.layers]
        self._biases = [kernels.pad_channels(layer.bias) for layer in self.program.layers]
        self.tolerance = tolerance
        if threads:
            kernels.set_threads(threads)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs; the next refresh computes the whole map."""
        self._features = np.zeros((0, input_width(self.config)), np.float32)
        self._cache = [np.zeros((0, layer.weight.shape[2]), np.float32) for layer in self.program.layers]
        self._fresh = [np.zeros(0, np.uint8) for _ in self.config.channels]
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
            Slots [n] int32 whose outputs changed, new voxels included, ascending.
        """
        pyramid = voxels.pyramid
        self._fit(voxels)
        everything, self._empty = self._empty, False
        added = [level.live_rows() for level in pyramid.levels] if everything else delta.pyramid.added
        dirty = added[0] if everything else delta.dirty()
        self._features[dirty] = input_features(voxels.colors[dirty], voxels.coords[dirty], self.config, self.floor_z_m)
        for fresh, rows in zip(self._fresh, added, strict=True):
            fresh[rows] = 1
        changed: dict[int, np.ndarray] = {INPUT: dirty}
        self.statistics = []
        for i, layer in enumerate(self.program.layers):
            due = added[layer.level] if everything else self._due(layer, pyramid, delta, changed)
            changed[i] = self._recompute(i, layer, pyramid, due)
            self.statistics.append(LayerStatistics(layer.name, len(pyramid.levels[layer.level]), len(due), len(changed[i])))
        for fresh, rows in zip(self._fresh, added, strict=True):
            fresh[rows] = 0
        rows = np.sort(changed[len(self.program.layers) - 1])
        outputs = self.program.read_out(torch.from_numpy(self._cache[-1][rows]))
        for name, values in outputs.items():
            getattr(self.prediction, name)[rows] = values.numpy()
        return rows

    def nbytes(self) -> int:
        """Memory held by the cached outputs, bytes."""
        return sum(a.nbytes for a in (self._features, *self._cache))

    def _due(self, layer: Layer, pyramid: Pyramid, delta: MapDelta, changed: dict[int, np.ndarray]) -> np.ndarray:
        """Rows [n] int32 of the layer's level that can have changed."""
        level, source = layer.level, changed[layer.source]
        parts: list[tuple[np.ndarray | None, np.ndarray]] = []
        if layer.table == "neighbors":
            parts += [(pyramid.levels[level].neighbors, source), (None, delta.pyramid.retabled[level])]
        elif layer.table == "children":
            parts += [(pyramid.up[level - 1], source), (None, delta.pyramid.rechilded[level])]
        else:  # "up": a voxel's parent lasts as long as the voxel
            parts += [(pyramid.children[level], source), (None, delta.pyramid.added[level])]
        if layer.residual is not None:
            parts.append((None, changed[layer.residual]))
        return pyramid.levels[level].reach(*parts)

    def _recompute(self, i: int, layer: Layer, pyramid: Pyramid, due: np.ndarray) -> np.ndarray:
        """Compute due rows; returns those whose value was replaced."""
        source = self._features if layer.source == INPUT else self._cache[layer.source]
        residual = None if layer.residual is None else self._cache[layer.residual]
        moved = kernels.conv_update(
            source, self._table(layer, pyramid), due, self._weights[i], self._biases[i], residual, layer.relu, self._cache[i],
            self.tolerance * self._scale[i], self._fresh[layer.level])
        if self._scale[i] == 0.0 and len(due):  # of the first rows seen, so that a stopped wave does not depend on later ones
            self._scale[i] = float(np.abs(self._cache[i][due]).mean())
        return due[moved]

    @staticmethod
    def _table(layer: Layer, pyramid: Pyramid) -> np.ndarray:
        if layer.table == "neighbors":
            return pyramid.levels[layer.level].neighbors
        return pyramid.children[layer.level - 1] if layer.table == "children" else pyramid.up[layer.level]

    def _fit(self, voxels: VoxelMap) -> None:
        """Let the caches grow with the map."""
        sizes = [level.high_water for level in voxels.pyramid.levels]
        _grow(self._features, sizes[0])
        for cache, layer in zip(self._cache, self.program.layers, strict=True):
            _grow(cache, sizes[layer.level])
        for fresh, size in zip(self._fresh, sizes, strict=True):
            _grow(fresh, size)
        p = self.prediction
        if len(p.semantic) < voxels.capacity:
            self.prediction = Prediction(*(_grown(a, voxels.capacity) for a in (p.semantic, p.embedding, p.offset)))


def _grow(array: np.ndarray, rows: int) -> None:
    """Give an array that nobody else looks at more rows, zero ones, in place.

    Large arrays are moved by the system's page tables and not copied, so that growth costs what is new.
    """
    if len(array) < rows:
        array.resize((max(rows, 1024, len(array) * 9 // 8), *array.shape[1:]), refcheck=False)


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    out = np.zeros((rows, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
