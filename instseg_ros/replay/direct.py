"""A bag through fusion and segmenter in this process, as fast as they can: accuracy and throughput."""

__all__ = ["replay_direct"]

import time
from collections.abc import Callable, Iterable

import numpy as np

from instseg_ros.config import FusionConfig
from instseg_ros.datasets.bags import BagSequence, BagUpdates
from instseg_ros.errors import DataError
from instseg_ros.evaluation.map_judge import MapJudge
from instseg_ros.mapping.fusion import TsdfFusion
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.online import OnlineRun, run_online, run_updates
from instseg_ros.replay.history import IdHistory, Replay, Series, StateRow
from instseg_ros.segmenter import SegmentationResult, Segmenter

STAGES = ("map", "network", "grouping", "tracking")
Progress = Callable[[BagSequence | BagUpdates], Iterable]


def replay_direct(
    segmenter: Segmenter, fusion: FusionConfig, source: BagSequence | BagUpdates, update_every: int, judge: MapJudge | None = None,
    progress: Progress = iter,
) -> Replay:
    """Replay a bag.

    Args:
        segmenter: it is warmed up, and thereby reset, first; its map holds the result afterwards.
        fusion: settings of the fusion, for a bag with images.
        source: what `open_bag` found.
        update_every: frames per update of the map, for a bag with images.
        judge: where the truth is known.
        progress: what the source is read through, such as a progress bar.

    Raises:
        DataError: the bag cannot be read to its end, or leaves an empty map.
    """
    segmenter.warm_up()
    ids, start_ns = IdHistory(), 0
    states: list[StateRow] = []
    judging_s = 0.0

    def observe(result: SegmentationResult, _: MapUpdate) -> None:
        nonlocal start_ns, judging_s
        start = time.perf_counter()
        start_ns = start_ns if states else result.stamp_ns
        at_s = (result.stamp_ns - start_ns) / 1e9
        alive = {i.id: i.class_index for i in result.instances if i.voxels}
        ids.add(at_s, alive, [(event.kind, event.id, event.other) for event in result.events])
        states.append(StateRow(at_s, result.voxels, len(alive)))
        if judge is not None:
            judge.add(segmenter.map.coords[segmenter.map.live_slots()], segmenter.cloud().instance)
        judging_s += time.perf_counter() - start

    start = time.perf_counter()
    if isinstance(source, BagSequence):
        run = run_online(segmenter, TsdfFusion(fusion), progress(source), update_every, observe)
    else:
        run = run_updates(segmenter, progress(source), observe)
    seconds = time.perf_counter() - start - judging_s
    if not len(segmenter.map):
        raise DataError(f"{source.path} gave an empty map: check the depth images, their unit and fusion.max_depth_m")
    return _report(run, ids, states, seconds, _accuracy(segmenter, judge))


def _accuracy(segmenter: Segmenter, judge: MapJudge | None) -> dict:
    if judge is None:
        return {}
    instances = [i for i in segmenter.tracker.instances.values() if i.voxels]
    return judge.figures(segmenter.map.coords[segmenter.map.live_slots()], segmenter.cloud().instance, instances)


def _report(run: OnlineRun, ids: IdHistory, states: list[StateRow], seconds: float, accuracy: dict) -> Replay:
    records = run.records
    at_s = np.array([state.at_s for state in states])
    spent_ms = np.array([record.fuse_ms + record.segment_ms for record in records])
    figures = {
        **run.figures(), "instances": states[-1].instances, "ids": ids.counts(), "bag_seconds": float(at_s[-1] - at_s[0]), "seconds": seconds,
        "read_seconds": max(0.0, seconds - float(spent_ms.sum()) / 1e3),
        "updates_per_s": 1e3 * len(records) / float(spent_ms.sum()), "times_real_time": float(at_s[-1] - at_s[0]) / seconds, **accuracy,
    }
    frames = sum(record.frames for record in records)
    stages = {name: np.array([record.stage_ms.get(name, 0.0) for record in records]) for name in STAGES}
    if frames:
        figures["frames_per_s"] = 1e3 * frames / float(spent_ms.sum())
        stages = {"fusion": np.array([record.fuse_ms for record in records]), **stages}
    rows = [{"row": "update", "at_s": at, **record.row()} for at, record in zip(at_s.tolist(), records, strict=True)]
    rows += [life.row() for life in ids.lives.values()]
    return Replay("direct", Series(at_s, {"ms": spent_ms}), Series(at_s, stages), states, ids, figures, rows)
