"""The online pipeline: a map update in, lasting instances out."""

__all__ = ["LabelledCloud", "SegmentationResult", "Segmenter"]

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from instseg_ros.config import SegmenterConfig
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.event_log import EventLog
from instseg_ros.grouping.grouper import Grouper
from instseg_ros.instance import Instance, TrackEvent
from instseg_ros.labels import IGNORE
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.network import InstanceNet, resolve_device
from instseg_ros.models.weights import load_weights
from instseg_ros.persistence import State, weights_fingerprint
from instseg_ros.sparse.device import DeviceIncrementalNetwork
from instseg_ros.sparse.incremental import IncrementalNetwork
from instseg_ros.sparse.runner import FullPassRunner
from instseg_ros.tracking import InstanceTracker


@dataclass(frozen=True)
class LabelledCloud:
    """Voxels with what is known of them."""

    points_m: np.ndarray
    """[N, 3] float32 voxel centres, map frame."""
    colors: np.ndarray
    """[N, 3] uint8 RGB as measured."""
    class_index: np.ndarray
    """[N] uint8: the class of the instance, or the voxel's own where it belongs to none; 255 = none."""
    instance: np.ndarray
    """[N] uint32 lasting id, 0 = none."""
    confidence: np.ndarray
    """[N] float32, 0 to 1: the instance's score, or the voxel's class probability."""


@dataclass(frozen=True)
class SegmentationResult:
    """What one update changed, and the state after it."""

    stamp_ns: int
    sequence: int
    frame_id: str
    delta: MapDelta
    relabelled: np.ndarray
    """[n] int32 slots that are new or whose colour, class, instance or confidence changed."""
    removed_centers_m: np.ndarray
    """[R, 3] float32 centres of voxels that are gone (and not back)."""
    instances: list[Instance]
    """Every live instance."""
    events: list[TrackEvent]
    stage_ms: dict[str, float]
    """Milliseconds per stage: map, network, grouping, tracking, total."""
    voxels: int


class Segmenter:
    """Keeps a growing map segmented into lasting instances.

    Args:
        config: settings, taken as they are; the grouping that weights bring comes in by `models.weights.settings_over_weights`.
        net: a network in evaluation mode; None = the one `config.weights` names.

    Raises:
        ConfigError: the network was trained for another voxel size.
    """

    def __init__(self, config: SegmenterConfig | None = None, net: InstanceNet | None = None) -> None:
        self.config = config or SegmenterConfig()
        net = net or load_weights(self.config.weights)
        if abs(net.config.voxel_size_m - self.config.voxel_size_m) > 1e-4:
            raise ConfigError(
                f"the weights were trained for voxels of {net.config.voxel_size_m} m, voxel_size_m is {self.config.voxel_size_m}: "
                "set it (and the mapper's) to the weights' size, or train for yours"
            )
        self.depth = len(net.config.channels)
        self.weights = weights_fingerprint(net)
        self.runner = self._make_runner(net)
        self.grouper = Grouper(self.config.grouping)
        self.reset()

    def _make_runner(self, net: InstanceNet) -> FullPassRunner | IncrementalNetwork | DeviceIncrementalNetwork:
        device = resolve_device(self.config.device)
        floor_z_m = self.config.floor_z_m if self.config.floor_known else None
        if self.config.passes == "full":
            return FullPassRunner(net, device, self.config.threads, floor_z_m)
        config, budget_bytes = self.config, self.config.cache_mb * 1_000_000
        radius_voxels = config.cache_radius_m / config.voxel_size_m
        if device.type == "cuda":
            return DeviceIncrementalNetwork(
                net, device, config.tolerance, floor_z_m, getattr(torch, config.cache_dtype), budget_bytes=budget_bytes, radius_voxels=radius_voxels)
        return IncrementalNetwork(net, config.tolerance, config.threads, floor_z_m, budget_bytes, radius_voxels, config.cache_dtype)

    def reset(self) -> None:
        """Forget the map, and with it all instances; ids start at 1 again."""
        self.map = VoxelMap(self.config.voxel_size_m, depth=self.depth)
        self.runner.reset()
        self.grouper.reset()
        self.tracker = InstanceTracker(self.config.tracking)
        self.log = EventLog()
        self._class_index = np.zeros(0, np.uint8)
        self._instance = np.zeros(0, np.uint32)
        self._confidence = np.zeros(0, np.float32)
        self._shown: dict[int, tuple[int, float]] = {}  # class and score of every instance as published

    def warm_up(self) -> None:
        """Segment a made-up corner of a room and forget it, so that the first real update does not pay for what is set up lazily."""
        i, j = (a.ravel() for a in np.meshgrid(np.arange(40), np.arange(40), indexing="ij"))
        zero = np.zeros_like(i)
        coords = np.unique(np.concatenate([np.stack(c, 1) for c in ((i, j, zero), (i, zero, j), (i % 8 + 12, j % 8 + 12, i // 8 + 1))]), axis=0)
        colors = (coords * 5 % 256).astype(np.uint8)
        for part in (coords, coords[:50]):  # all of it, then a change
            self.process(MapUpdate(part.astype(np.int32), colors[: len(part)] ^ np.uint8(len(part) % 2), np.ones(len(part), np.float32),
                                   self.config.voxel_size_m))
        self.reset()

    def process(self, update: MapUpdate) -> SegmentationResult:
        """Take an update into the map and bring classes, instances and ids up to date.

        Raises:
            InputError: the update is malformed or does not fit the map; nothing has changed.
        """
        stage_ms: dict[str, float] = {}
        with _timed(stage_ms, "total"):
            with _timed(stage_ms, "map"):
                delta = self.map.apply(update)
            with _timed(stage_ms, "network"):
                changed = self.runner.refresh(self.map, delta)
            with _timed(stage_ms, "grouping"):
                segmentation = self.grouper.regroup(self.map, self.runner.prediction, changed, delta)
            with _timed(stage_ms, "tracking"):
                events = self.tracker.associate(segmentation, self.map, update.stamp_ns, delta)
                self.log.record(events, update.stamp_ns)
                relabelled = self._relabel(changed, delta)
        gone = delta.removed_coords[self.map.lookup(delta.removed_coords) < 0]
        return SegmentationResult(
            update.stamp_ns, update.sequence, self.map.frame_id, delta, relabelled,
            ((gone + 0.5) * self.map.voxel_size_m).astype(np.float32),
            list(self.tracker.instances.values()), events, stage_ms, len(self.map),
        )

    def resegment_all(self, stamp_ns: int = 0) -> SegmentationResult:
        """Run everything again on the map as it is; ids last."""
        self.runner.reset()
        self.grouper.reset()
        return self.process(self.map.to_update(stamp_ns))

    def restore(self, state: State) -> None:
        """Go on from a saved state: map, published labels, ids and their history are as they were, the network's caches are rebuilt.

        With the weights and settings of the one that was saved, and tolerance 0, all that follows is as if it had not been interrupted.

        Args:
            state: what `persistence.load_state` read.

        Raises:
            DataError: the state is for another voxel size, or contradicts itself; nothing has changed.
        """
        if abs(state.voxel_size_m - self.config.voxel_size_m) > 1e-4 * self.config.voxel_size_m:
            raise DataError(
                f"the saved map has voxels of {state.voxel_size_m:g} m, voxel_size_m is {self.config.voxel_size_m:g}: "
                "start with the weights and the voxel size it was made with, or begin a new map"
            )
        voxels, saved = VoxelMap(self.config.voxel_size_m, state.frame_id, self.depth), state.arrays
        slots = saved["voxel.slot"]
        voxels.restore(saved["voxel.coords"], saved["voxel.color"], saved["voxel.weight"], slots, saved["free.slot"])
        tracker = InstanceTracker.from_state(self.config.tracking, state.tracker_state(voxels.capacity))
        self.reset()
        self.map, self.tracker, self.log = voxels, tracker, EventLog.from_state(saved)
        self._class_index, self._confidence = np.zeros(voxels.capacity, np.uint8), np.zeros(voxels.capacity, np.float32)
        self._class_index[slots], self._confidence[slots] = saved["voxel.class_index"], saved["voxel.confidence"]
        self._instance = tracker.instance_of.copy()
        self._shown = {i: (one.class_index, one.score) for i, one in tracker.instances.items()}
        if len(voxels):
            delta = voxels.unchanged()
            changed = self.runner.refresh(voxels, delta)
            tracker.bind(self.grouper.regroup(voxels, self.runner.prediction, changed, delta))
            self._relabel(changed, delta)  # changes something only if weights or settings are others, or passes not exact

    def nbytes(self) -> dict[str, int]:
        """Memory by what holds it, bytes. Only `outputs` (of the network's layers, on the CPU) is what the cache settings limit."""
        prediction = sum(values.nbytes for _, values in self.runner.prediction.items())
        parts = {
            "map": self.map.pyramid.nbytes() + self.map.colors.nbytes + self.map.weights.nbytes, "prediction": prediction,
            "grouping": self.grouper.nbytes(), "tracking": self.tracker.nbytes(),
            "published": self._class_index.nbytes + self._instance.nbytes + self._confidence.nbytes,
        }
        if isinstance(self.runner, IncrementalNetwork):
            outputs = self.runner.held_bytes()
            parts |= {"outputs": outputs, "network": self.runner.nbytes() - outputs}
        return parts

    def cloud(self, slots: np.ndarray | None = None) -> LabelledCloud:
        """The labelled voxels of the map, or of the given slots."""
        slots = self.map.live_slots() if slots is None else slots
        return LabelledCloud(
            self.map.centers_m(slots), self.map.colors[slots],
            self._class_index[slots], self._instance[slots], self._confidence[slots],
        )

    def _relabel(self, changed: np.ndarray, delta: MapDelta) -> np.ndarray:
        """Update the published values where they can have changed.

        Args:
            changed: slots whose prediction changed.
            delta: what the update did to the map.

        Returns:
            Slots [n] int32, ascending, that are new or where a published value changed.
        """
        for name in ("_class_index", "_instance", "_confidence"):
            old = getattr(self, name)
            if len(old) < self.map.capacity:
                setattr(self, name, np.concatenate([old, np.zeros(self.map.capacity - len(old), old.dtype)]))
        owner, known = self.tracker.instance_of, self.tracker.instances
        moved = np.flatnonzero(owner != self._instance[: len(owner)])
        shown = {i: (one.class_index, one.score) for i, one in known.items()}
        altered = [self.tracker.slots_of(i) for i, look in shown.items() if self._shown.get(i) != look]
        self._shown = shown
        slots = np.unique(np.concatenate([changed, delta.dirty(), moved, *altered]).astype(np.int32))
        slots = slots[self.map.alive[slots]]
        semantic, instance = self.runner.prediction.semantic[slots], owner[slots]
        class_index = semantic.argmax(1).astype(np.uint8)
        confidence = semantic[np.arange(len(slots)), class_index]
        ids, inverse = np.unique(instance, return_inverse=True)
        looks = [shown.get(int(i), (IGNORE, 0.0)) for i in ids]
        owned = instance > 0
        class_index[owned] = np.array([look[0] for look in looks], np.uint8)[inverse][owned]
        confidence[owned] = np.array([look[1] for look in looks], np.float32)[inverse][owned]
        new = np.zeros(self.map.capacity, bool)
        new[delta.dirty()] = True
        differs = (
            new[slots] | (class_index != self._class_index[slots]) | (instance != self._instance[slots])
            | (np.abs(confidence - self._confidence[slots]) > 1e-3)
        )
        self._instance[moved] = owner[moved]
        relabelled = slots[differs]
        self._class_index[relabelled], self._confidence[relabelled] = class_index[differs], confidence[differs]
        return relabelled


@contextmanager
def _timed(stage_ms: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    stage_ms[name] = (time.perf_counter() - start) * 1e3
