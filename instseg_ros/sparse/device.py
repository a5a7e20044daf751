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
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.heads import head_widths, positions
from instseg_ros.models.network import InstanceNet, input_width
from instseg_ros.prediction import Prediction
from instseg_ros.sparse.device_tables import DeviceTables, LevelArray, upload
from instseg_ros.sparse.device_update import Part, reach_rows, update_rows
from instseg_ros.sparse.program import INPUT, Layer, compile_network
from instseg_ros.sparse.refinement import IncrementalRefinement
from instseg_ros.sparse.runner import LabelsOf, map_features
from instseg_ros.sparse.statistics import LayerStatistics

_SHORTEST = 4096  # of the lists of due rows
_PATIENCE = 8  # waves for which a list is far too long before it is shortened
_APART = 4  # numbers of a layer stand 16 bytes apart, so that one compiled kernel serves all layers of a shape


@dataclass(frozen=True)
class _Wave:
    """What a wave left behind, on the device."""

    changed: list[list[tuple[Tensor, Tensor]]]
    """Per layer: lists of rows [n] int32 (-1 = none), and which of them were replaced [n] bool."""
    counts: Tensor
    """[2 * layers] int32: rows due by layer, rows replaced by layer in the order of `_layers_of_level`."""


@dataclass(frozen=True)
class _Change:
    """What the map's change alone makes due, per level lists padded with -1, in one tensor that stays in its place."""

    lengths: tuple[int, ...]
    apart: tuple[int, ...]
    """Level of each table of neighbours at a distance."""
    lists: Tensor
    dirty: Tensor
    """Rows of the finest level with new features."""
    retabled: list[Tensor]
    rechilded: list[Tensor]
    added: list[Tensor]
    retabled_apart: list[Tensor]
    """Per table of neighbours at a distance."""

    @staticmethod
    def empty(lengths: tuple[int, ...], apart: Sequence[int], device: torch.device) -> "_Change":
        """Room for so many rows per level."""
        sizes = _Change._sizes(lengths, apart)
        lists = torch.full((sum(sizes),), -1, dtype=torch.int32, device=device)
        dirty, *parts = lists.split(sizes)
        depth = len(lengths)
        return _Change(
            lengths, tuple(apart), lists, dirty, parts[:depth], parts[depth : 2 * depth], parts[2 * depth : 3 * depth], parts[3 * depth :])

    @staticmethod
    def _sizes(lengths: tuple[int, ...], apart: Sequence[int]) -> list[int]:
        return [lengths[0], *lengths, *lengths, *lengths, *(lengths[level] for level in apart)]

    def send(self, dirty: np.ndarray, *lists: Sequence[np.ndarray]) -> None:
        """Fill it from the host: rows of the finest level; retabled, rechilded and added rows per level; those retabled apart."""
        packed = np.full(len(self.lists), -1, np.int32)
        begin = 0
        every = [dirty, *(rows for parts in lists for rows in parts)]
        for rows, length in zip(every, self._sizes(self.lengths, self.apart), strict=True):
            assert len(rows) <= length
            packed[begin : begin + len(rows)] = rows
            begin += length
        self.lists.copy_(torch.from_numpy(packed))


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
        self.labels_of: LabelsOf | None = None  # set where the true classes are known, for a network with label_input
        program = compile_network(net)
        self.program = program.to(self.device)
        self._refines = program.refinement  # on the CPU: a few numbers per voxel, and the published embeddings are there
        self._weights = [layer.weight.detach().to(dtype) for layer in self.program.layers]
        levels = [layer.level for layer in self.program.layers]
        self._layers_of_level = [[i for i, own in enumerate(levels) if own == level] for level in range(max(levels) + 1)]
        self._replay = replay and self.device.type == "cuda"
        self._true = torch.ones((), dtype=torch.bool, device=self.device)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs; the next refresh computes the whole map."""
        layers, device = self.program.layers, self.device
        self._recorded: tuple[torch.cuda.CUDAGraph, _Wave] | None = None
        self._last_lengths: tuple[int, ...] = ()
        self._tables = DeviceTables(len(self.config.channels), device, layers)
        self._features = torch.zeros(0, input_width(self.config), dtype=self.dtype, device=device)
        self._cache = [torch.zeros(0, layer.weight.shape[2], dtype=self.dtype, device=device) for layer in layers]
        self._fresh, self._stamp = LevelArray(device, torch.bool, 0), LevelArray(device, torch.int32, 0)
        self._epoch = torch.arange(2, len(layers) + 2, dtype=torch.int32, device=device)[:, None].repeat(1, _APART)
        self._threshold = torch.zeros(len(layers), _APART, device=device)
        self._change = _Change.empty((0,) * len(self.config.channels), self._tables.dilated_levels, device)
        self._lengths = [_SHORTEST] * len(self.config.channels)
        self._unneeded = [0] * len(self.config.channels)
        self._refinement = None if self._refines is None else IncrementalRefinement(self._refines, self.tolerance)
        self._empty = True
        self.prediction = Prediction.empty(head_widths(self.config))
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
        wave = self._run(everything)
        due, replaced = self._read_counts(wave)
        if any(n > self._change.lengths[layer.level] for n, layer in zip(due, self.program.layers, strict=True)):
            wave = self._wave(tuple(self._tables.sizes), everything, wave.changed)
            due, replaced = self._read_counts(wave)
        names = [(layer.name, len(voxels.pyramid.levels[layer.level])) for layer in self.program.layers]
        self.statistics = [LayerStatistics(*name, int(n), int(m)) for name, n, m in zip(names, due, replaced, strict=True)]
        if not everything:
            self._choose_lengths(due)
        slots = self._read_out(wave.changed[-1], voxels.coords)
        if self._refinement is not None and self.prediction.embedding is not None:
            known = None if everything else delta
            slots, statistics = self._refinement.follow(voxels.pyramid.levels[0], known, slots, self.prediction.embedding)
            self.statistics += statistics
        return slots

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
            self._fresh.fit(sizes)
            self._stamp.fit(sizes)
        if len(self.prediction.semantic) < voxels.capacity:
            self.prediction = self.prediction.grown(voxels.capacity)
        if self._refinement is not None:
            self._refinement.fit(voxels.capacity)

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
            needed = [4 * max(len(rows) for rows in lists) for lists in zip(added, retabled, rechilded, strict=True)]
            needed[0] = max(needed[0], 4 * len(dirty))
            for level, apart in zip(self._tables.dilated_levels, self._tables.retabled_apart, strict=True):
                needed[level] = max(needed[level], 4 * len(apart))
            self._lengths = [max(n, _power_of_two(m)) for n, m in zip(self._lengths, needed, strict=True)]
        lengths = tuple(size if everything else min(n, size) for n, size in zip(self._lengths, self._tables.sizes, strict=True))
        if self._change.lengths != lengths:
            self._recorded = None
            self._change = _Change.empty(lengths, self._tables.dilated_levels, self.device)
        self._change.send(dirty, retabled, rechilded, added, self._tables.retabled_apart)
        features = map_features(voxels, dirty, self.config, self.floor_z_m, self.labels_of)
        rows, values, fresh = upload(self.device, [dirty.astype(np.int32), features, self._fresh.place(added)])
        self._features.index_put_((rows.long(),), values.to(self.dtype))
        self._fresh.clear()
        self._fresh.put(fresh, self._true)

    # -- the wave: nothing in it waits for the device

    def _run(self, everything: bool) -> _Wave:
        """The wave, replayed where it was recorded."""
        lengths = self._change.lengths
        if self._recorded is not None and not everything:
            self._recorded[0].replay()
            return self._recorded[1]
        wave = self._wave(lengths, everything)
        if self._replay and not everything:
            if self._last_lengths == lengths:  # the second time: recording takes longer than a wave, and all is compiled
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.device(self.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    recorded = self._wave(lengths, everything)
                self._recorded = (graph, recorded)
            self._last_lengths = lengths
        return wave

    def _wave(
        self, lengths: Sequence[int], everything: bool, before: list[list[tuple[Tensor, Tensor]]] | None = None
    ) -> _Wave:
        """Recompute what the change reaches.

        Args:
            lengths: of the lists of due rows, per level.
            everything: all rows are listed as new, so there is no need to follow what changed.
            before: rows replaced by an earlier wave after the same change, per layer: they count as changed.
        """
        layers = self.program.layers
        changed: list[list[tuple[Tensor, Tensor]]] = []
        self._epoch.add_(len(layers))
        due = torch.zeros(len(layers), _APART, dtype=torch.int32, device=self.device)
        lists = torch.full((sum(lengths[layer.level] for layer in layers),), -1, dtype=torch.int32, device=self.device)
        for i, (layer, rows) in enumerate(zip(layers, lists.split([lengths[layer.level] for layer in layers]), strict=True)):
            parts = self._reasons(layer, [] if everything else changed)
            reach_rows(parts, self._stamp.levels[layer.level], self._epoch[i, :1], rows, due[i, :1])
            x = self._features if layer.source == INPUT else self._cache[layer.source]
            residual = None if layer.residual is None else self._cache[layer.residual]
            moved = update_rows(
                x, self._tables.read(layer), rows, self._weights[i], layer.bias, residual, layer.relu, self._cache[i],
                self._threshold[i, :1], self._fresh.levels[layer.level])
            changed.append([(rows, moved), *(before[i] if before else [])])
            if everything and self.tolerance:  # of the first rows seen, so that a stopped wave does not depend on later ones
                magnitude = self._cache[i].abs().sum(dtype=torch.float32) / (due[i, 0] * layer.weight.shape[2]).clamp(min=1)
                self._threshold[i, 0] = self.tolerance * magnitude
        replaced = [torch.stack([changed[i][0][1] for i in group]).sum(1, dtype=torch.int32) for group in self._layers_of_level]
        return _Wave(changed, torch.cat([due[:, 0], *replaced]))

    def _reasons(self, layer: Layer, changed: list[list[tuple[Tensor, Tensor]]]) -> list[Part]:
        """What can have changed rows of a layer: the rows it reads, its residual, its table (lists of no length: nothing)."""
        change = self._change
        if layer.dilation > 1:
            rows = change.retabled_apart[self._tables.dilated_number(layer)]
        else:
            rows = {"neighbors": change.retabled, "children": change.rechilded, "up": change.added, "self": change.added}[layer.table][layer.level]
        parts = [Part(rows, None, None)]
        if layer.source == INPUT:
            parts.append(Part(self._change.dirty, None, self._tables.reached(layer)))
        elif changed:
            parts += [Part(rows, moved, self._tables.reached(layer)) for rows, moved in changed[layer.source]]
        if layer.residual is not None and changed:
            parts += [Part(rows, moved, None) for rows, moved in changed[layer.residual]]
        return parts

    # -- after the wave

    def _read_counts(self, wave: _Wave) -> np.ndarray:
        """[2, layers] rows due and rows replaced; waits for the device."""
        counts: np.ndarray = wave.counts.cpu().numpy().reshape(2, -1)
        counts[1, np.concatenate(self._layers_of_level)] = counts[1].copy()
        return counts

    def _choose_lengths(self, due: np.ndarray) -> None:
        """Lists for the next wave: twice what was needed; kept while they are not too short, nor far too long for some time."""
        for level, length in enumerate(self._lengths):
            most = max(int(n) for n, layer in zip(due, self.program.layers, strict=True) if layer.level == level)
            wanted = _power_of_two(2 * most)
            self._unneeded[level] = self._unneeded[level] + 1 if wanted * 4 < length else 0
            if most > length or self._unneeded[level] >= _PATIENCE:
                self._lengths[level], self._unneeded[level] = wanted, 0

    def _read_out(self, changed: list[tuple[Tensor, Tensor]], coords: np.ndarray) -> np.ndarray:
        """Publish the outputs of replaced rows, whose voxels are `coords` [capacity, 3]; returns them [n] int32, ascending, each once."""
        slots = np.unique(torch.cat([rows.masked_fill(~moved, -1) for rows, moved in changed]).cpu().numpy())
        slots = slots[slots >= 0]
        rows = torch.from_numpy(slots).to(self.device)
        outputs = self.program.read_out(self._cache[-1][rows.long()].float())
        names = list(outputs)
        values = torch.cat([outputs[name] for name in names], 1).cpu().numpy()
        ends = np.cumsum([outputs[name].shape[1] for name in names])
        refined = {} if self._refinement is None else {"embedding": self._refinement.initial}
        for name, part in zip(names, np.split(values, ends[:-1], axis=1), strict=True):
            refined.get(name, getattr(self.prediction, name))[slots] = part
        if self.program.position_step and self.prediction.embedding is not None:
            self.prediction.embedding[slots, :3] += positions(coords[slots], self.program.position_step)
        return slots


def _power_of_two(rows: int) -> int:
    return max(_SHORTEST, 1 << max(0, rows - 1).bit_length())


def _grown_tensor(old: Tensor, rows: int) -> Tensor:
    """With zero rows appended; the last row stays zero, it is what -1 reads."""
    new = old.new_zeros(rows, old.shape[1])
    new[: len(old)] = old
    return new
