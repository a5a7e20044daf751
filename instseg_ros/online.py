"""The online loop without ROS: frames are fused, and every update of the map is segmented."""

__all__ = ["FusedUpdate", "OnlineRun", "OnlineSettings", "UpdateRecord", "fused_updates", "load_online", "run_online", "run_updates"]

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from instseg_ros.config import FusionConfig, SegmenterConfig
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.mapping.fusion import TsdfFusion
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.weights import load_weights, settings_over_weights
from instseg_ros.segmenter import SegmentationResult, Segmenter
from instseg_ros.settings import group, settings_from_arguments

OnUpdate = Callable[[SegmentationResult, MapUpdate], None]


@dataclass
class OnlineSettings(SegmenterConfig):
    """What a run without ROS can be told."""

    fusion: FusionConfig = group(FusionConfig)


def load_online(args: argparse.Namespace) -> tuple[Segmenter, FusionConfig]:
    """A segmenter, and the settings of a fusion before it, by the flags of `OnlineSettings`; voxels are the weights' unless given.

    Raises:
        InstSegError: a setting or the weights cannot be used.
    """
    settings = settings_over_weights(OnlineSettings, lambda base: settings_from_arguments(OnlineSettings, args, base))
    net = load_weights(settings.weights)
    if "setting:voxel_size_m" not in vars(args):
        settings = replace(settings, voxel_size_m=net.config.voxel_size_m)
    return Segmenter(settings, net), replace(settings.fusion, voxel_size_m=settings.voxel_size_m)


@dataclass
class UpdateRecord:
    """What one update cost and brought."""

    stamp_ns: int
    sequence: int
    frames: int
    """Frames fused since the update before; 0 where updates came ready-made."""
    changed: int
    """Voxels in the update, deleted ones included."""
    voxels: int
    """Voxels in the map afterwards."""
    ids: list[int]
    """Instances that exist after the update."""
    events: dict[str, int]
    """Number of events of each kind."""
    fuse_ms: float
    segment_ms: float
    stage_ms: dict[str, float]

    def row(self) -> dict[str, Any]:
        """As a row of a report."""
        return {
            "stamp_ns": self.stamp_ns,
            "sequence": self.sequence,
            "frames": self.frames,
            "changed": self.changed,
            "voxels": self.voxels,
            "instances": len(self.ids),
            "events": self.events,
            "fuse_ms": self.fuse_ms,
            "segment_ms": self.segment_ms,
            "stage_ms": self.stage_ms,
        }


@dataclass
class OnlineRun:
    """All updates of one run."""

    records: list[UpdateRecord] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Counts, and percentiles of the time per update and stage (ms)."""
        events: Counter[str] = Counter()
        stages: dict[str, list[float]] = {}
        for record in self.records:
            events.update(record.events)
            for stage, milliseconds in record.stage_ms.items():
                stages.setdefault(stage, []).append(milliseconds)
        last = self.records[-1] if self.records else None
        return {
            "updates": len(self.records),
            "frames": sum(record.frames for record in self.records),
            "voxels": last.voxels if last else 0,
            "instances": len(last.ids) if last else 0,
            "events": dict(events),
            "fuse_ms": _percentiles([record.fuse_ms for record in self.records]),
            "segment_ms": _percentiles([record.segment_ms for record in self.records]),
            "stage_ms": {stage: _percentiles(values) for stage, values in stages.items()},
        }


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0}
    return {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95)), "max": float(np.max(values))}


@dataclass
class FusedUpdate:
    """An update, the number of frames behind it and the time they took to fuse."""

    update: MapUpdate
    frames: int
    fuse_ms: float


def fused_updates(
    fusion: TsdfFusion, frames: Iterable[RgbdFrame], update_every: int, frame_id: str = "map"
) -> Iterator[FusedUpdate]:
    """Fuse frames and take an update after every `update_every` of them, and one after the last."""
    count, spent, stamp_ns = 0, 0.0, 0
    for frame in frames:
        start = time.perf_counter()
        fusion.integrate(frame.depth_m, frame.color, frame.K, frame.T_world_camera)
        count, stamp_ns = count + 1, frame.stamp_ns
        spent += time.perf_counter() - start
        if count == update_every:
            yield _take(fusion, stamp_ns, frame_id, count, spent)
            count, spent = 0, 0.0
    if count:
        yield _take(fusion, stamp_ns, frame_id, count, spent)


def _take(fusion: TsdfFusion, stamp_ns: int, frame_id: str, count: int, spent: float) -> FusedUpdate:
    start = time.perf_counter()
    update = fusion.take_update(stamp_ns, frame_id)
    return FusedUpdate(update, count, (spent + time.perf_counter() - start) * 1e3)


def run_online(
    segmenter: Segmenter, fusion: TsdfFusion, frames: Iterable[RgbdFrame], update_every: int, on_update: OnUpdate | None = None
) -> OnlineRun:
    """Fuse a sequence and segment the map as it grows.

    Args:
        segmenter: what segments; its map holds the result afterwards.
        fusion: what fuses, with the segmenter's voxel size.
        frames: posed frames in the order of time.
        update_every: frames per update.
        on_update: called with every result and the update behind it.

    Returns:
        Times, sizes and ids of every update.
    """
    return _run(segmenter, fused_updates(fusion, frames, update_every), on_update)


def run_updates(segmenter: Segmenter, updates: Iterable[MapUpdate], on_update: OnUpdate | None = None) -> OnlineRun:
    """Segment ready-made updates of a map, one after the other; arguments and result as in `run_online`."""
    return _run(segmenter, (FusedUpdate(update, 0, 0.0) for update in updates), on_update)


def _run(segmenter: Segmenter, steps: Iterable[FusedUpdate], on_update: OnUpdate | None) -> OnlineRun:
    run = OnlineRun()
    for step in steps:
        start = time.perf_counter()
        result = segmenter.process(step.update)
        segment_ms = (time.perf_counter() - start) * 1e3
        run.records.append(
            UpdateRecord(
                stamp_ns=result.stamp_ns,
                sequence=result.sequence,
                frames=step.frames,
                changed=len(step.update) + len(step.update.deleted),
                voxels=result.voxels,
                ids=[instance.id for instance in result.instances],
                events=dict(Counter(event.kind for event in result.events)),
                fuse_ms=step.fuse_ms,
                segment_ms=segment_ms,
                stage_ms=dict(result.stage_ms),
            )
        )
        if on_update is not None:
            on_update(result, step.update)
    return run
