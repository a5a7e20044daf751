"""The incremental runner on a CUDA device: tables, cached outputs and the bookkeeping of due rows stay there.

The rule is that of `incremental.py`. What differs is that the host never learns how many rows are due while the wave runs:
lists of rows have a fixed length and are padded with -1, so that all layers are launched without asking the device for a
count. The counts are read once at the end; if a list was too short after all, the wave runs once more with room for every row.
"""

__all__ = ["DeviceIncrementalNetwork"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instseg_ros.errors import ConfigError
from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.network import InstanceNet, input_features, input_width
from instseg_ros.sparse.device_tables import DeviceTables, LevelArray, upload
from instseg_ros.sparse.device_update import update_rows
from instseg_ros.sparse.incremental import LayerStatistics
from instseg_ros.sparse.program import INPUT, Layer, compile_network
from instseg_ros.sparse.runner import Prediction

_SHORTEST = 4096  # of the lists of due rows
_ALIGNED_FLOATS = 4  # thresholds stand 16 bytes apart, so that one compiled kernel serves all layers of a shape


@dataclass(frozen=True)
class _Wave:
    """What a wave left behind, on the device."""

    changed: list[Tensor]
    """Per layer [n] int32: rows that were replaced, -1 between them."""
    counts: Tensor
    """[2, layers] int32: rows due, rows replaced."""


class DeviceIncrementalNetwork:
    """Keeps a network's outputs current on a device at a cost that follows the change; the interface of `IncrementalNetwork`.

    Args:
        net: a network in evaluation mode.
        device: where tables, caches and work are. On "cpu" it runs too, in plain torch (`IncrementalNetwork` is faster there).
        tolerance: a row counts as changed when one of its channels moves by more than this times the layer's mean
            magnitude; 0 = exact.
        floor_z_m: height of the floor in the map's frame, m; None = unknown.
        dtype: of the cached outputs: float32, or float16 for half the memory.
        replay: record the wave's launches as a CUDA graph and replay it while the lists keep their length.

    Raises:
        ConfigError: a CUDA device was asked for and there is none.
    """

    def __init__(
        self,
        net: InstanceNet,
        device: torch.device | str,
        tolerance: float = 0.0,
        floor_z_m: float | None = 0.0,
        dtype: torch.dtype = torch.float32,
        replay: bool = False,
    ) -> None:
        self.config, self.floor_z_m, self.tolerance, self.dtype = net.config, floor_z_m, tolerance, dtype
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("torch sees no GPU: set device to cpu or install a driver and a CUDA torch (docs/gpu.md)")
        self.program = compile_network(net).to(self.device)
        self._weights = [layer.weight.detach().to(dtype) for layer in self.program.layers]
        self._replay = replay and self.device.type == "cuda"
        self._true = torch.ones((), dtype=torch.bool, device=self.device)  # numbers that are no tensors would be sent each time
        self._none = torch.full((), -1, dtype=torch.int32, device=self.device)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs; the next refresh computes the whole map."""
        layers, device = self.program.layers, self.device
        self._recorded: tuple[tuple[int, ...], torch.cuda.CUDAGraph, _Wave] | None = None
        self._last_lengths: tuple[int, ...] = ()
        self._tables = DeviceTables(len(self.config.channels), device)
        self._features = torch.zeros(0, input_width(self.config), dtype=self.dtype, device=device)
        self._cache = [torch.zeros(0, layer.weight.shape[2], dtype=self.dtype, device=device) for layer in layers]
        self._added, self._retabled, self._rechilded = (LevelArray(device, torch.bool, 0) for _ in range(3))
        self._reading, self._mark = (LevelArray(device, torch.bool, 0) for _ in range(2))
        self._numbers = torch.zeros(0, dtype=torch.int32, device=device)
        self._threshold = torch.zeros(len(layers), _ALIGNED_FLOATS, device=device)
        self._lengths = [_SHORTEST] * len(self.config.channels)
        self._empty = True
        self.prediction = Prediction(*(np.zeros((0, n), np.float32) for n in (NUM_CLASSES, self.config.embedding_dim, 3)))
        self.statistics: list[LayerStatistics] = []

    @property
    def recorded(self) -> bool:
        """Whether the wave is recorded, to be replayed while it fits."""
        return self._recorded is not None

    @torch.no_grad()
    def refresh(self, voxels: VoxelMap, delta: MapDelta) -> np.ndarray:
        """Bring the outputs up to date with the map.

        Args:
            voxels: the map.
            delta: what was applied to it since the last refresh.

        Returns:
            Slots [n] int32 whose outputs changed, new voxels included, ascending.
        """
        everything = self._empty
        self._empty = everything and not len(voxels)
        self._fit(voxels)
        self._take_in(voxels, delta, everything)
        lengths = tuple(size if everything else min(n, size) for n, size in zip(self._lengths, self._tables.sizes, strict=True))
        wave = self._run(lengths, everything)
        due, replaced = wave.counts.cpu().numpy()
        if self._too_long(due, lengths):
            wave = self._wave(tuple(self._tables.sizes), everything, wave.changed)
            due, replaced = wave.counts.cpu().numpy()
        names = [(layer.name, len(voxels.pyramid.levels[layer.level])) for layer in self.program.layers]
        self.statistics = [LayerStatistics(*name, int(n), int(m)) for name, n, m in zip(names, due, replaced, strict=True)]
        if not everything:
            self._choose_lengths(due)
        return self._read_out(wave.changed[-1])

    def nbytes(self) -> int:
        """Device memory held by the cached outputs, bytes."""
        return sum(t.numel() * t.element_size() for t in (self._features, *self._cache))

    # -- before the wave

    def _fit(self, voxels: VoxelMap) -> None:
        """Let everything grow with the map."""
        if self._tables.fit(voxels.pyramid):
            self._recorded = None  # it holds addresses
            sizes = self._tables.sizes
            self._features = _grown_tensor(self._features, sizes[0])
            for i, layer in enumerate(self.program.layers):
                self._cache[i] = _grown_tensor(self._cache[i], sizes[layer.level])
            for array in (self._added, self._retabled, self._rechilded, self._reading, self._mark):
                array.fit(sizes)
            self._numbers = torch.arange(1, max(sizes) + 1, dtype=torch.int32, device=self.device)
        p = self.prediction
        if len(p.semantic) < voxels.capacity:
            self.prediction = Prediction(*(_grown(a, voxels.capacity) for a in (p.semantic, p.embedding, p.offset)))

    def _take_in(self, voxels: VoxelMap, delta: MapDelta, everything: bool) -> None:
        """Send what changed: rows of tables, features, and which rows are new or read others than before."""
        pyramid = voxels.pyramid
        if everything:
            self._tables.load(pyramid)
            added = retabled = rechilded = [level.live_rows() for level in pyramid.levels]
            dirty = added[0]
        else:
            self._tables.follow(pyramid, delta.pyramid)
            added, retabled, rechilded = delta.pyramid.added, delta.pyramid.retabled, delta.pyramid.rechilded
            dirty = delta.dirty()
            self._lengths = [max(n, _power_of_two(4 * len(rows))) for n, rows in zip(self._lengths, retabled, strict=True)]
        features = input_features(voxels.colors[dirty], voxels.coords[dirty], self.config, self.floor_z_m)
        marks = (self._added, self._retabled, self._rechilded)
        places = [array.place(rows) for array, rows in zip(marks, (added, retabled, rechilded), strict=True)]
        rows, values, *sent = upload(self.device, [dirty.astype(np.int32), features, *places])
        self._features.index_put_((rows.long(),), values.to(self.dtype))
        for array, place in zip(marks, sent, strict=True):
            array.clear()
            array.put(place, self._true)
        # What reads the input is due where that changed. It is marked here, as the length of this list is not fixed.
        for layer in self.program.layers:
            if layer.source == INPUT:
                reading = self._reading.levels[layer.level]
                reading.copy_(self._seed(layer))
                reading.index_put_((self._tables.reached(layer)[rows.long()].long(),), self._true)

    def _seed(self, layer: Layer) -> Tensor:
        """[size] bool: rows of the layer that are due whatever its source did."""
        marks = {"neighbors": self._retabled, "children": self._rechilded, "up": self._added}[layer.table]
        return marks.levels[layer.level]

    # -- the wave: nothing in it waits for the device

    def _run(self, lengths: tuple[int, ...], everything: bool) -> _Wave:
        """The wave, replayed where it was recorded with the same lengths."""
        if everything or not self._replay:
            return self._wave(lengths, everything)
        if self._recorded is not None and self._recorded[0] == lengths:
            self._recorded[1].replay()
            return self._recorded[2]
        wave = self._wave(lengths, everything)
        if self._last_lengths == lengths:  # the second time: recording takes longer than a wave, and all kernels are compiled
            graph = torch.cuda.CUDAGraph()
            self._recorded = None
            with torch.cuda.device(self.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                recorded = self._wave(lengths, everything)
            self._recorded = (lengths, graph, recorded)
        self._last_lengths = lengths
        return wave

    def _wave(self, lengths: Sequence[int], everything: bool, before: list[Tensor] | None = None) -> _Wave:
        """Recompute what the change reaches.

        Args:
            lengths: of the lists of due rows, per level.
            everything: all rows are marked as new, so there is no need to follow what changed.
            before: rows replaced by an earlier wave after the same change, per layer: they count as changed.
        """
        changed: list[Tensor] = []
        counts = torch.zeros(2, len(self.program.layers), dtype=torch.int32, device=self.device)
        for i, layer in enumerate(self.program.layers):
            rows = self._due(layer, changed, lengths[layer.level], counts[0, i : i + 1], everything)
            x = self._features if layer.source == INPUT else self._cache[layer.source]
            residual = None if layer.residual is None else self._cache[layer.residual]
            moved = update_rows(
                x, self._tables.read(layer), rows, self._weights[i], layer.bias, residual, layer.relu, self._cache[i],
                self._threshold[i, :1], self._added.levels[layer.level])
            torch.sum(moved, 0, keepdim=True, dtype=torch.int32, out=counts[1, i : i + 1])
            replaced = torch.where(moved, rows, self._none)
            changed.append(replaced if before is None else torch.cat([before[i], replaced]))
            if everything and self.tolerance:  # of the first rows seen, so that a stopped wave does not depend on later ones
                magnitude = self._cache[i].abs().sum(dtype=torch.float32) / (counts[0, i] * layer.weight.shape[2]).clamp(min=1)
                self._threshold[i, 0] = self.tolerance * magnitude
        return _Wave(changed, counts)

    def _due(self, layer: Layer, changed: list[Tensor], length: int, count: Tensor, everything: bool) -> Tensor:
        """Rows [length] int32 of the layer's level that can have changed, ascending, then -1; their number goes to `count`."""
        if layer.source == INPUT:
            mark = self._reading.levels[layer.level]
        else:
            mark = self._mark.levels[layer.level]
            mark.copy_(self._seed(layer))
            if not everything:
                mark.index_put_((self._tables.reached(layer)[changed[layer.source].long()].long(),), self._true)
        if layer.residual is not None and not everything:
            mark.index_put_((changed[layer.residual].long(),), self._true)
        place = torch.cumsum(mark[:-1], 0, dtype=torch.int32)  # without the row for "none"
        count.copy_(place[-1:])
        rows = torch.searchsorted(place, self._numbers[:length], out_int32=True)  # the k-th is where the count reaches k
        return torch.where(rows < len(place), rows, self._none)

    # -- after the wave

    def _too_long(self, due: np.ndarray, lengths: Sequence[int]) -> bool:
        return any(n > lengths[layer.level] for n, layer in zip(due, self.program.layers, strict=True))

    def _choose_lengths(self, due: np.ndarray) -> None:
        """Lists for the next wave: twice what was needed; kept while they are neither too short nor far too long."""
        for level, length in enumerate(self._lengths):
            most = max(int(n) for n, layer in zip(due, self.program.layers, strict=True) if layer.level == level)
            wanted = _power_of_two(2 * most)
            if most > length or wanted * 4 < length:
                self._lengths[level] = wanted

    def _read_out(self, changed: Tensor) -> np.ndarray:
        """Publish the outputs of rows [n] (-1 among them, repetitions allowed); returns them ascending, each once."""
        slots = np.unique(changed.cpu().numpy())
        slots = slots[slots >= 0]
        rows = torch.from_numpy(slots).to(self.device)
        outputs = self.program.read_out(self._cache[-1][rows.long()].float())
        names = list(outputs)
        values = torch.cat([outputs[name] for name in names], 1).cpu().numpy()
        ends = np.cumsum([outputs[name].shape[1] for name in names])
        for name, part in zip(names, np.split(values, ends[:-1], axis=1), strict=True):
            getattr(self.prediction, name)[slots] = part
        return slots


def _power_of_two(rows: int) -> int:
    return max(_SHORTEST, 1 << max(0, rows - 1).bit_length())


def _grown_tensor(old: Tensor, rows: int) -> Tensor:
    """With zero rows appended; the last row stays zero, it is what -1 reads."""
    new = old.new_zeros(rows, old.shape[1])
    new[: len(old)] = old
    return new


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    out = np.zeros((rows, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
