"""The incremental runner on a CUDA device: tables, cached outputs and the bookkeeping of due rows stay there.

The rule is that of `incremental.py`. What differs is that a layer announces the rows it replaced to the layers that read them, and
that the host never learns how many rows are due while the wave runs: lists of rows have a fixed length and are padded with -1, so
that all layers are launched without asking the device for a count. The counts are read once at the end; if a list was too short after
all, the wave runs once more with room for every row.
"""

__all__ = ["DeviceIncrementalNetwork"]

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from instseg_ros.errors import ConfigError
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.heads import head_widths, positions
from instseg_ros.models.network import InstanceNet, input_width
from instseg_ros.prediction import Prediction
from instseg_ros.sparse.device_refinement import DeviceRefinement
from instseg_ros.sparse.device_tables import DeviceTables, LevelArray, download, upload
from instseg_ros.sparse.device_update import Change, DueLists, update_layer
from instseg_ros.sparse.neighborhood import nearest_radius
from instseg_ros.sparse.program import INPUT, compile_network
from instseg_ros.sparse.refinement import IncrementalRefinement
from instseg_ros.sparse.residency import Residency
from instseg_ros.sparse.runner import LabelsOf, map_features
from instseg_ros.sparse.statistics import LayerStatistics
from instseg_ros.sparse.triton_updates import APART

_SHORTEST = 4096  # of the lists of due rows
_PATIENCE = 8  # waves for which a list is far too long before it is shortened


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
        budget_bytes, radius_voxels: limits on the cached outputs held between updates, as in `IncrementalNetwork`.

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
        budget_bytes: int = 0,
        radius_voxels: float = 0.0,
    ) -> None:
        self.budget_bytes, self.radius_voxels = budget_bytes, radius_voxels
        self.config, self.floor_z_m, self.tolerance, self.dtype = net.config, floor_z_m, tolerance, dtype
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("torch sees no GPU: set device to cpu or install a driver and a CUDA torch (docs/gpu.md)")
        self.labels_of: LabelsOf | None = None  # set where the true classes are known, for a network with label_input
        program = compile_network(net)
        self.program = program.to(self.device)
        # With more nearest voxels than the table of neighbours has for sure, or where outputs come in parts, attention runs on the host.
        refines, limited = program.refinement, bool(budget_bytes or radius_voxels)
        self._on_host = refines if refines is not None and (limited or nearest_radius(refines.k) > 1) else None
        self._weights = [layer.weight.detach().to(dtype) for layer in self.program.layers]
        self._replay = replay and self.device.type == "cuda"
        self._true = torch.ones((), dtype=torch.bool, device=self.device)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs; the next refresh computes the whole map."""
        layers, device = self.program.layers, self.device
        self._recorded: torch.cuda.CUDAGraph | None = None
        self._launched: DueLists | None = None  # of the last wave
        self._tables = DeviceTables(len(self.config.channels), device, layers)
        self._features = torch.zeros(0, input_width(self.config), dtype=self.dtype, device=device)
        self._cache = [torch.zeros(0, layer.weight.shape[2], dtype=self.dtype, device=device) for layer in layers]
        self._fresh, self._places = LevelArray(device, torch.bool, 0), LevelArray(device, torch.int32, -1)
        self._residency: Residency | None = None
        if self.budget_bytes or self.radius_voxels:
            self._residency = Residency(self.program, self.budget_bytes, self.radius_voxels, self._features.element_size())
        self._sent_places = [np.zeros(0, np.int32) for _ in self.config.channels]
        self._measured = False  # the layers' mean magnitudes
        self._threshold = torch.zeros(len(layers), APART, device=device)
        self._thresholds = self._threshold[:, :1].unbind()
        self._always = torch.full((1,), -1.0, device=device)
        self._change = Change.empty((0,) * len(self.config.channels), self._tables.dilated_levels, device)
        self._lists: DueLists | None = None
        self._lengths = [_SHORTEST] * len(self.config.channels)
        self._unneeded = [0] * len(self.config.channels)
        self._refinement = None if self._on_host is None else IncrementalRefinement(self._on_host, self.tolerance)
        self._attention: DeviceRefinement | None = None
        if self.program.refinement is not None and self._refinement is None:
            self._attention = DeviceRefinement(self.program.refinement, self.program.heads["embedding"], self.tolerance, len(layers))
        # After the layers' lists comes that of the rows which the last layer replaced; the last list is that of what is published.
        self._list_levels = [*(layer.level for layer in layers), 0, *([0] * self._attention.lists if self._attention else [])]
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
        self.statistics = []
        if self._residency is None:
            self._take_in(voxels, delta, everything)
            slots = self._update(voxels, everything)
        else:
            slots = self._within_limits(self._residency, voxels, delta, everything)
        if self._refinement is not None and self.prediction.embedding is not None:
            known = None if everything else delta
            slots, statistics = self._refinement.follow(voxels.pyramid.levels[0], known, slots, self.prediction.embedding)
            self.statistics += statistics
        return slots

    def _update(self, voxels: VoxelMap, everything: bool) -> np.ndarray:
        """Recompute what the change reaches; returns the slots [n] int32 whose outputs changed, ascending."""
        lists = self._run(everything)
        counts = self._read_counts(lists)
        if (counts[: len(lists.lengths)] > lists.lengths).any():
            longer = self._make_lists(tuple(self._tables.sizes), self._change)
            self._wave(longer, everything, lists)
            lists, counts = longer, self._read_counts(longer)
        due, replaced = counts.reshape(2, -1)
        worked = {i: layer.name for i, layer in enumerate(self.program.layers)}
        if self._attention is not None:
            worked |= {len(worked) + 1 + i: f"refine.{i}" for i in range(self._attention.lists - 1)}
        rows = [len(voxels.pyramid.levels[level]) for level in self._list_levels]
        self.statistics += [LayerStatistics(name, rows[i], int(due[i]), int(replaced[i])) for i, name in worked.items()]
        if not everything:
            self._choose_lengths(due)
        return self._read_out(lists.rows[-1][: due[-1]], voxels.coords)

    # -- within limits: `IncrementalNetwork` has the same three

    def _within_limits(self, residency: Residency, voxels: VoxelMap, delta: MapDelta, everything: bool) -> np.ndarray:
        """As `_update`, holding no more outputs than allowed."""
        pyramid = voxels.pyramid
        added = [level.live_rows() for level in pyramid.levels] if everything else delta.pyramid.added
        removed = [added[0][:0] for _ in added] if everything else delta.pyramid.removed
        dirty = added[0] if everything else delta.dirty()
        near = residency.follow(pyramid, removed, added, np.concatenate([voxels.coords[dirty], delta.removed_coords]))
        if everything or not residency.fits(near):
            residency.evict(near)
            self._take_in(voxels, delta, everything)
            changed = [dirty[:0]]
            for tile in residency.tiles(near):
                self._rebuild(residency, voxels, tile)
                changed.append(self._read_out(torch.from_numpy(residency.rows(0, tile)).to(self.device), voxels.coords))
                residency.shrink()
            return np.sort(np.concatenate(changed))
        lost = residency.absent(near)
        unseen = [residency.rows(level, lost) for level in range(len(pyramid.levels))]
        self._take_in(voxels, delta, everything, unseen)
        if lost:
            self._rebuild(residency, voxels, lost, keep=near)
        residency.admit(near)
        self._fit_places(residency)
        slots = self._update(voxels, everything)
        residency.shrink(near)
        return slots

    def _rebuild(self, residency: Residency, voxels: VoxelMap, regions: set[int], keep: Iterable[int] = ()) -> None:
        """Compute all outputs of regions that are not held, letting go of none in `keep`, and of what is not held beside them for as long."""
        beside = residency.absent(residency.around(regions)) - regions
        residency.make_room(regions | beside, {*residency.around(regions), *keep})
        residency.admit(regions | beside)
        self._fit_places(residency)
        rows = [residency.rows(level, regions | beside) for level in range(len(voxels.pyramid.levels))]
        lengths = tuple(-(-len(part) // 16) * 16 for part in rows)
        change = Change.empty(lengths, self._tables.dilated_levels, self.device)
        apart = [rows[level] for level in self._tables.dilated_levels]
        change.put(*upload(self.device, change.listed(rows[0][:0], *rows, *rows, *rows, *apart)))
        lists = self._make_lists(lengths, change)
        lists.readers = {}  # these rows and no others
        self._wave(lists, measure=not self._measured)
        self._measured = True
        residency.evict(beside)

    def _fit_places(self, residency: Residency) -> None:
        """Let the caches have room for the rows that are held, and the device know where they are."""
        for i, layer in enumerate(self.program.layers):
            if len(self._cache[i]) <= residency.size[layer.level]:
                self._cache[i] = _grown_tensor(self._cache[i], residency.size[layer.level] * 9 // 8 + 1)
                self._recorded = None  # it holds addresses
        moved = []
        for level, place in enumerate(residency.place):
            before = np.full_like(place, -1)
            before[: len(self._sent_places[level])] = self._sent_places[level]
            moved.append(np.flatnonzero(place != before).astype(np.int32))
            self._sent_places[level] = place.copy()
        self._places.put(*upload(self.device, [self._places.place(moved), list(zip(residency.place, moved, strict=True))]))

    def nbytes(self) -> int:
        """Device memory held by the cached outputs, bytes."""
        attention = 0 if self._attention is None else self._attention.nbytes()
        return sum(t.numel() * t.element_size() for t in (self._features, *self._cache)) + attention

    def held_bytes(self) -> int:
        """Cached outputs held now, bytes: what the budget is about."""
        return sum(t.numel() * t.element_size() for t in self._cache) if self._residency is None else self._residency.held_bytes()

    # -- before the wave

    def _fit(self, voxels: VoxelMap) -> None:
        """Let everything grow with the map."""
        if self._tables.fit(voxels.pyramid):
            self._recorded = self._lists = None  # they hold addresses
            sizes = self._tables.sizes
            self._features = _grown_tensor(self._features, sizes[0])
            if self._residency is None:
                for i, layer in enumerate(self.program.layers):
                    self._cache[i] = _grown_tensor(self._cache[i], sizes[layer.level])
            else:
                self._places.fit(sizes)
            self._fresh.fit(sizes)
            if self._attention is not None:
                self._attention.fit(sizes[0])
        if len(self.prediction.semantic) < voxels.capacity:
            self.prediction = self.prediction.grown(voxels.capacity)
        if self._refinement is not None:
            self._refinement.fit(voxels.capacity)

    def _take_in(self, voxels: VoxelMap, delta: MapDelta, everything: bool, unseen: Sequence[np.ndarray] = ()) -> None:
        """Send what changed: rows of tables, features, and which rows are new or read others than before.

        Args:
            unseen: rows per level whose outputs are computed between the change and the wave: that they stay as they are stops no wave.
        """
        pyramid = voxels.pyramid
        if everything:
            tables = self._tables.load(pyramid)
            added = retabled = rechilded = [level.live_rows() for level in pyramid.levels]
            dirty = added[0]
        else:
            tables = self._tables.follow(pyramid, delta.pyramid)
            added, retabled, rechilded = delta.pyramid.added, delta.pyramid.retabled, delta.pyramid.rechilded
            dirty = delta.dirty()
            needed = [4 * max(len(rows) for rows in lists) for lists in zip(added, retabled, rechilded, strict=True)]
            needed[0] = max(needed[0], 4 * len(dirty))
            for level, apart in zip(self._tables.dilated_levels, self._tables.retabled_apart, strict=True):
                needed[level] = max(needed[level], 4 * len(apart))
            self._lengths = [max(n, _power_of_two(m)) for n, m in zip(self._lengths, needed, strict=True)]
        lengths = tuple(size if everything else min(n, size) for n, size in zip(self._lengths, self._tables.sizes, strict=True))
        if self._change.lengths != lengths:
            self._recorded = self._lists = None
            self._change = Change.empty(lengths, self._tables.dilated_levels, self.device)
        listed = self._change.listed(dirty, *retabled, *rechilded, *added, *self._tables.retabled_apart)
        new = [np.concatenate(pair) for pair in zip(added, unseen, strict=True)] if unseen else added
        features = map_features(voxels, dirty, self.config, self.floor_z_m, self.labels_of)
        places, rows, fresh, values, *changed = upload(self.device, [*listed, self._fresh.place(new), [features], *tables])
        self._change.put(places, rows)
        self._features.index_put_((rows[: len(dirty)].long(),), values.to(self.dtype))
        self._fresh.clear()
        self._fresh.put(fresh, self._true)
        self._tables.put(changed)

    # -- the wave: nothing in it waits for the device

    def _run(self, everything: bool) -> DueLists:
        """The wave, replayed where it was recorded."""
        if self._lists is None:
            self._lists = self._make_lists(self._change.lengths, self._change)
        lists = self._lists
        if self._replay and self._launched is lists and self._recorded is None:  # the second time, when all is compiled
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(self.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._wave(lists, everything)
            self._recorded = graph
        if self._recorded is not None:
            self._recorded.replay()
            return lists
        self._wave(lists, everything)
        self._launched = None if everything else lists
        return lists

    def _make_lists(self, lengths: Sequence[int], change: Change) -> DueLists:
        """Lists of so many due rows per level, seeded by a change."""
        layers, tables = self.program.layers, self._tables
        numbers = [tables.dilated_number(layer) if layer.dilation > 1 else 0 for layer in layers]
        seeds = [change.of_layer(layer, number) for layer, number in zip(layers, numbers, strict=True)]
        attends = self._list_levels[len(layers) + 1 : -1]  # lists whose rows are due when their nearest voxels are others
        seeds += [(0, 0), *(change.retabled for _ in attends), (0, 0)][: len(self._list_levels) - len(layers)]
        lists = DueLists(self._list_levels, lengths, tables.sizes, change, seeds)
        lists.readers = {source: [] for source in range(INPUT, len(layers))}
        for layer, own in zip(layers, lists.own, strict=False):
            lists.readers[layer.source].append(own._replace(table=tables.reached(layer)))
            if layer.residual is not None and layer.residual != layer.source:  # where it is, the table names the row itself
                lists.readers[layer.residual].append(own)
        lists.readers[len(layers) - 1].append(lists.own[len(layers)])
        if self._attention is not None:
            self._attention.connect(lists, tables.neighbors)
        return lists

    def _wave(self, lists: DueLists, measure: bool, before: DueLists | None = None) -> None:
        """Recompute what the change reaches, or, if the lists have no readers, their seeds, whatever they were before.

        Args:
            lists: of due rows, which are left in them.
            measure: the layers' mean magnitudes, to which the tolerance is relative, of the rows that are due: the first rows seen, so that a
                stopped wave does not depend on later ones.
            before: of an earlier wave after the same change: rows that it replaced count as changed.
        """
        layers = self.program.layers
        places = self._places.levels if self._residency is not None else [None] * len(self._tables.sizes)
        lists.begin()
        for reader in lists.readers.get(INPUT, []):
            lists.announce(lists.change.dirty, None, reader)
        for i, layer in enumerate(layers):
            if before is not None:
                for reader in lists.readers[i]:
                    lists.announce(before.rows[i], before.moved[i], reader)
            x = self._features if layer.source == INPUT else self._cache[layer.source]
            residual = None if layer.residual is None else self._cache[layer.residual]
            update_layer(
                x, self._tables.read(layer), self._weights[i], layer.bias, residual, layer.relu, self._cache[i],
                self._thresholds[i] if lists.readers else self._always, self._fresh.levels[layer.level], lists, i,
                None if layer.source == INPUT else places[layers[layer.source].level], places[layer.level])
            if measure and self.tolerance:
                rows = lists.counts[i, 0].clamp(min=1)
                self._threshold[i, 0] = self.tolerance * self._cache[i].abs().sum(dtype=torch.float32) / (rows * layer.weight.shape[2])
        if self._attention is not None:
            self._attention.wave(lists, self._cache[-1], self._tables.neighbors, self._fresh.levels[0], measure, before)
        lists.collect(len(self._list_levels) - 1)

    # -- after the wave

    def _read_counts(self, lists: DueLists) -> np.ndarray:
        """[2 * lists] rows due per list, then rows replaced; waits for the device."""
        counts: np.ndarray = lists.counts[:, 0].cpu().numpy()
        return counts

    def _choose_lengths(self, due: np.ndarray) -> None:
        """Lists for the next wave: twice what was needed; kept while they are not too short, nor far too long for some time."""
        for level, length in enumerate(self._lengths):
            most = max(int(n) for n, own in zip(due, self._list_levels, strict=True) if own == level)
            wanted = _power_of_two(2 * most)
            self._unneeded[level] = self._unneeded[level] + 1 if wanted * 4 < length else 0
            if most > length or self._unneeded[level] >= _PATIENCE:
                self._lengths[level], self._unneeded[level] = wanted, 0

    def _read_out(self, rows: Tensor, coords: np.ndarray) -> np.ndarray:
        """Publish the outputs of rows [n], whose voxels are `coords` [capacity, 3]; returns them [n] int32, ascending."""
        rows = rows.sort().values
        held = rows if self._residency is None else self._places.levels[0][rows.long()]
        outputs = self.program.read_out(self._cache[-1][held.long()].float())
        if self._attention is not None:
            outputs["embedding"] = self._attention.refined[rows.long()]
        names = list(outputs)
        packed = download(torch.cat([rows.view(torch.float32)[:, None], *(outputs[name] for name in names)], 1))
        slots = packed[:, 0].copy().view(np.int32)
        ends = 1 + np.cumsum([outputs[name].shape[1] for name in names])
        refined = {} if self._refinement is None else {"embedding": self._refinement.initial}
        for name, part in zip(names, np.split(packed[:, 1:], ends[:-1] - 1, axis=1), strict=True):
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
