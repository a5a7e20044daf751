"""The incremental runner: every layer keeps its output, and an update recomputes only the rows it can have changed.

An output row is due when a row it reads has changed, is new or is gone, or when its residual has changed. Due rows are
computed anew from the cached outputs of the layers before (never accumulated, so errors cannot build up). A row that
moves by no more than the tolerance keeps its old value, and the wave stops there; so what later layers have read is
never further off than the tolerance. With tolerance 0 the outputs are those of a full pass over the same map.
"""

__all__ = ["IncrementalNetwork", "LayerStatistics"]

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.heads import head_widths, positions
from instseg_ros.models.network import InstanceNet, input_width
from instseg_ros.prediction import Prediction
from instseg_ros.sparse import kernels
from instseg_ros.sparse.neighborhood import DilatedTable
from instseg_ros.sparse.program import INPUT, Layer, compile_network
from instseg_ros.sparse.pyramid import Pyramid
from instseg_ros.sparse.read_out import ReadOut
from instseg_ros.sparse.refinement import IncrementalRefinement
from instseg_ros.sparse.residency import Residency
from instseg_ros.sparse.runner import LabelsOf, map_features
from instseg_ros.sparse.statistics import LayerStatistics


class IncrementalNetwork:
    """Keeps a network's outputs current at a cost that follows the change.

    Args:
        net: a network in evaluation mode.
        tolerance: a row counts as changed when one of its channels moves by more than this times the layer's mean
            magnitude; 0 = exact.
        threads: CPU threads, 0 = all.
        floor_z_m: height of the floor in the map's frame, m; None = unknown.
        budget_bytes: cached outputs held between updates, 0 = all. Those that were not needed for longest are evicted, and computed
            anew when something changes near them; the outputs published stay. While an update runs, it holds what it needs.
        radius_voxels: likewise those are evicted that are further than this from where the map changed lately (the median of the
            middles of the last three changes), unless the last update needed them; 0 = no limit.
        dtype: of the cached outputs: float32, or float16 for half the memory, with which tolerance 0 is exact to its rounding only.
    """

    def __init__(
        self, net: InstanceNet, tolerance: float = 0.0, threads: int = 0, floor_z_m: float | None = 0.0, budget_bytes: int = 0,
        radius_voxels: float = 0.0, dtype: DTypeLike = np.float32,
    ) -> None:
        self.config, self.floor_z_m, self.budget_bytes, self.radius_voxels = net.config, floor_z_m, budget_bytes, radius_voxels
        self.dtype = np.dtype(dtype)
        self.labels_of: LabelsOf | None = None  # set where the true classes are known, for a network with label_input
        self.program = compile_network(net)
        self._weights = [kernels.pad_channels(layer.weight) for layer in self.program.layers]
        self._biases = [kernels.pad_channels(layer.bias) for layer in self.program.layers]
        self._heads = ReadOut(self.program.heads)
        self.tolerance = tolerance
        if threads:
            kernels.set_threads(threads)
        self.reset()

    def reset(self) -> None:
        """Forget all outputs; the next refresh computes the whole map."""
        self._features = np.zeros((0, input_width(self.config)), np.float32)
        self._cache = [np.zeros((0, layer.weight.shape[2]), self.dtype) for layer in self.program.layers]
        self._fresh = [np.zeros(0, np.uint8) for _ in self.config.channels]
        self._scale = [0.0] * len(self.program.layers)
        self._residency: Residency | None = None
        if self.budget_bytes or self.radius_voxels:
            self._residency = Residency(self.program, self.budget_bytes, self.radius_voxels, self.dtype.itemsize)
        self._dilated = {(x.level, x.dilation): DilatedTable(x.dilation) for x in self.program.layers if x.dilation > 1}
        self._retabled: dict[tuple[int, int], np.ndarray] = {}
        self._refinement = None if self.program.refinement is None else IncrementalRefinement(self.program.refinement, self.tolerance)
        self._empty = True
        self.prediction = Prediction.empty(head_widths(self.config))
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
        everything = self._empty
        added = [level.live_rows() for level in pyramid.levels] if everything else delta.pyramid.added
        dirty = added[0] if everything else delta.dirty()
        self._features[dirty] = map_features(voxels, dirty, self.config, self.floor_z_m, self.labels_of)
        self._empty = False
        self._follow_dilated(pyramid, None if everything else delta)
        self.statistics = []
        if self._residency is None:
            rows = self._wave(pyramid, None if everything else delta, added, dirty)
        else:
            removed = [np.zeros(0, np.int32) for _ in added] if everything else delta.pyramid.removed
            near = self._residency.follow(pyramid, removed, added, np.concatenate([voxels.coords[dirty], delta.removed_coords]))
            rows = self._within_limits(self._residency, pyramid, None if everything else delta, added, dirty, near)
        if self._refinement is not None and self.prediction.embedding is not None:
            rows, statistics = self._refinement.follow(pyramid.levels[0], None if everything else delta, rows, self.prediction.embedding)
            self.statistics += statistics
        return rows

    def _wave(
        self, pyramid: Pyramid, delta: MapDelta | None, added: list[np.ndarray], dirty: np.ndarray, unseen: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Recompute what the change reaches; returns the rows whose outputs changed, ascending.

        Args:
            delta: what changed; None = everything is new.
            added: new rows per level, and dirty: rows of the finest level with new content.
            unseen: rows per level whose outputs were computed after the change: that they stay as they are stops no wave.
        """
        fresh_rows = added if unseen is None else [np.concatenate(pair) for pair in zip(added, unseen, strict=True)]
        for fresh, rows in zip(self._fresh, fresh_rows, strict=True):
            fresh[rows] = 1
        reads: list[kernels.Reads] = [
            [(None, added[layer.level])] if delta is None else self._reads(layer, pyramid, delta, dirty) for layer in self.program.layers]
        last = self._compute(pyramid, [self.tolerance * scale for scale in self._scale], reads, added)
        for fresh, rows in zip(self._fresh, fresh_rows, strict=True):
            fresh[rows] = 0
        last.sort()
        self._read_out(last, pyramid.levels[0].coords)
        return last

    def _within_limits(
        self, residency: Residency, pyramid: Pyramid, delta: MapDelta | None, added: list[np.ndarray], dirty: np.ndarray, near: set[int]
    ) -> np.ndarray:
        """As `_wave`, holding no more outputs than allowed; `near` are the regions that the change can reach."""
        if delta is None or not residency.fits(near):
            residency.evict(near)
            changed = []
            for tile in residency.tiles(near):
                changed.append(self._rebuild(residency, pyramid, tile))
                self._read_out(changed[-1], pyramid.levels[0].coords)
                residency.shrink()
        else:
            lost = residency.absent(near)
            if lost:
                self._rebuild(residency, pyramid, lost, keep=near)
            residency.admit(near)
            self._fit_places(residency)
            unseen = [residency.rows(level, lost) for level in range(len(pyramid.levels))]
            changed = [self._wave(pyramid, delta, added, dirty, unseen)]
            residency.shrink(near)
        return np.sort(np.concatenate([np.zeros(0, np.int32), *changed]))

    def _rebuild(self, residency: Residency, pyramid: Pyramid, regions: set[int], keep: Iterable[int] = ()) -> np.ndarray:
        """Compute all outputs of regions that are not held, letting go of none in `keep`; returns their rows of the finest level.

        What is not held beside them is computed too and let go again: its own outputs are wrong at its far side, but not as far
        as the regions reach.
        """
        beside = residency.absent(residency.around(regions)) - regions
        residency.make_room(regions | beside, {*residency.around(regions), *keep})
        residency.admit(regions | beside)
        self._fit_places(residency)
        rows = [residency.rows(level, regions | beside) for level in range(len(pyramid.levels))]
        self._compute(pyramid, [-1.0] * len(self._cache), [[(None, rows[layer.level])] for layer in self.program.layers], rows)
        residency.evict(beside)
        return residency.rows(0, regions)

    def _read_out(self, rows: np.ndarray, coords: np.ndarray) -> None:
        """Publish the outputs of rows of the finest level, whose voxels are `coords` [capacity, 3]."""
        outputs = dict(self.prediction.items())
        if self._refinement is not None:
            outputs["embedding"] = self._refinement.initial
        self._heads(self._cache[-1], rows, None if self._residency is None else self._residency.place[0], outputs)
        if self.program.position_step:
            outputs["embedding"][rows, :3] += positions(coords[rows], self.program.position_step)

    def nbytes(self) -> int:
        """Memory of the arrays for features and cached outputs and of tables the map does not have, bytes."""
        refinement = 0 if self._refinement is None else self._refinement.nbytes()
        return sum(a.nbytes for a in (self._features, *self._cache)) + sum(t.table.nbytes for t in self._dilated.values()) + refinement

    def held_bytes(self) -> int:
        """Cached outputs held now, bytes: what the budget is about."""
        if self._residency is None:
            return sum(c.nbytes for c in self._cache)
        return self._residency.held_bytes()

    def _compute(self, pyramid: Pyramid, thresholds: list[float], reads: list[kernels.Reads], seen: list[np.ndarray]) -> np.ndarray:
        """Compute due rows of all layers; returns the rows of the last one that moved, in no order.

        Args:
            thresholds: by layer: rows that move by no more stay as they are; below 0 = none does.
            reads: by layer, what names due rows (`kernels.Step.reads`).
            seen: rows per level, of which a layer that has no scale yet takes it.
        """
        place = [None] * len(pyramid.levels) if self._residency is None else self._residency.place
        steps = []
        for i, layer in enumerate(self.program.layers):
            from_input = layer.source == INPUT
            steps.append(kernels.Step(
                self._features if from_input else self._cache[layer.source], self._table(layer, pyramid), self._weights[i], self._biases[i],
                None if layer.residual is None else self._cache[layer.residual], layer.relu, self._cache[i], thresholds[i],
                self._fresh[layer.level], None if from_input else place[self.program.layers[layer.source].level], place[layer.level],
                reads[i], *pyramid.levels[layer.level].marks()))
        last, counts = kernels.wave(steps)
        for i, (layer, (due, moved)) in enumerate(zip(self.program.layers, counts, strict=True)):
            self.statistics.append(LayerStatistics(layer.name, len(pyramid.levels[layer.level]), due, moved))
            rows = seen[layer.level]
            if self._scale[i] == 0.0 and len(rows):  # of the first rows seen, so that a stopped wave does not depend on later ones
                stored = rows if self._residency is None else self._residency.place[layer.level][rows]
                self._scale[i] = float(np.abs(self._cache[i][stored]).mean(dtype=np.float64))
        return last

    def _reads(self, layer: Layer, pyramid: Pyramid, delta: MapDelta, dirty: np.ndarray) -> kernels.Reads:
        """What names the rows of the layer's level that can have changed (`kernels.Step.reads`)."""
        level, source = layer.level, dirty if layer.source == INPUT else layer.source
        reads: kernels.Reads = []
        if layer.table == "self":
            reads += [(None, source), (None, delta.pyramid.added[level])]
        elif layer.table == "neighbors":
            retabled = delta.pyramid.retabled[level] if layer.dilation == 1 else self._retabled[level, layer.dilation]
            reads += [(self._table(layer, pyramid), source), (None, retabled)]
        elif layer.table == "children":
            reads += [(pyramid.up[level - 1], source), (None, delta.pyramid.rechilded[level])]
        else:  # "up": a voxel's parent lasts as long as the voxel
            reads += [(pyramid.children[level], source), (None, delta.pyramid.added[level])]
        if layer.residual is not None:
            reads.append((None, layer.residual))
        return reads

    def _follow_dilated(self, pyramid: Pyramid, delta: MapDelta | None) -> None:
        """Bring the tables of dilated layers up to date, and find whose neighbours at a distance changed."""
        for (level, dilation), table in self._dilated.items():
            if delta is None:
                table.load(pyramid.levels[level])
            else:
                changed = table.follow(pyramid.levels[level], delta.pyramid.removed[level], delta.pyramid.added[level])
                self._retabled[level, dilation] = changed

    def _table(self, layer: Layer, pyramid: Pyramid) -> np.ndarray | None:
        if layer.table == "self":
            return None
        if layer.table == "neighbors":
            return pyramid.levels[layer.level].neighbors if layer.dilation == 1 else self._dilated[layer.level, layer.dilation].table
        return pyramid.children[layer.level - 1] if layer.table == "children" else pyramid.up[layer.level]

    def _fit(self, voxels: VoxelMap) -> None:
        """Let the caches grow with the map."""
        sizes = [level.high_water for level in voxels.pyramid.levels]
        _grow(self._features, sizes[0])
        if self._residency is None:
            for cache, layer in zip(self._cache, self.program.layers, strict=True):
                _grow(cache, sizes[layer.level])
        for fresh, size in zip(self._fresh, sizes, strict=True):
            _grow(fresh, size)
        if len(self.prediction.semantic) < voxels.capacity:
            self.prediction = self.prediction.grown(voxels.capacity)
        if self._refinement is not None:
            self._refinement.fit(voxels.capacity)

    def _fit_places(self, residency: Residency) -> None:
        for cache, layer in zip(self._cache, self.program.layers, strict=True):
            if len(cache) < residency.size[layer.level]:
                cache.resize((residency.size[layer.level], cache.shape[1]), refcheck=False)


def _grow(array: np.ndarray, rows: int) -> None:
    """Give an array that nobody else looks at more rows, zero ones, in place.

    Large arrays are moved by the system's page tables and not copied, so that growth costs what is new.
    """
    if len(array) < rows:
        array.resize((max(rows, 1024, len(array) * 9 // 8), *array.shape[1:]), refcheck=False)
