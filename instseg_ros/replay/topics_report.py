"""From the recording of a replay through topics to what it came to."""

__all__ = ["report_topics"]

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from instseg_ros.datasets.bag_messages import stamp_ns
from instseg_ros.errors import InstSegError
from instseg_ros.evaluation.map_judge import MapJudge
from instseg_ros.event_log import EVENT_KINDS
from instseg_ros.live.recording import Recording, dropped, latencies_ms, percentiles, shown_at, states
from instseg_ros.replay.history import IdHistory, Replay, Series, StateRow
from instseg_ros.replay.playback import Playback

STAGES = ("queue", "convert", "map", "network", "grouping", "tracking", "publish")


def report_topics(recording: Recording, plan: Playback, voxel_size_m: float, judge: MapJudge | None = None) -> Replay:
    """What a recording came to.

    Args:
        recording: what the nodes published, with the clock.
        plan: what was played.
        voxel_size_m: of the map.
        judge: where the truth is known.

    Raises:
        InstSegError: the segmenter published nothing.
    """
    if not recording.answers:
        raise InstSegError(f"the segmenter published nothing; its last words: {_last_error(recording) or 'see logs/segmenter_node.log'}")
    start_ns = min([stamp_ns(recording.answers[0][1]), *(update.stamp_ns for _, update in recording.updates[:1])])
    ids, sizes, accuracy = _follow(recording, voxel_size_m, start_ns, judge)
    latency_rows = _latency_rows(recording, start_ns)
    answered = [row for row in latency_rows if row["latency_ms"] is not None]
    latency = Series(np.array([row["at_s"] for row in answered]), {"ms": np.array([row["latency_ms"] for row in answered])})
    stages, waiting = _reported(recording, start_ns)
    figures = {
        **_counts(recording, plan), "updates": len(latency_rows), "unanswered": len(latency_rows) - len(answered),
        "latency_ms": percentiles(latency.values["ms"].tolist()), "stage_ms": _stage_figures(recording), "voxels": sizes[-1].voxels,
        "instances": sizes[-1].instances, "ids": ids.counts(), "waiting_max": int(max(waiting.values["updates"], default=0)), **accuracy,
    }
    rows = [*latency_rows, *({"row": "state", **vars(size)} for size in sizes), *(life.row() for life in ids.lives.values())]
    return Replay("topics", latency, stages, sizes, ids, figures, rows, waiting)


def _follow(
    recording: Recording, voxel_size_m: float, start_ns: int, judge: MapJudge | None
) -> tuple[IdHistory, list[StateRow], dict[str, Any]]:
    """The map after every answer: ids, sizes, and accuracy where the truth is known."""
    events: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for _, msg in recording.events:
        events[stamp_ns(msg)].append((EVENT_KINDS[msg.type], int(msg.id), int(msg.other)))
    ids, sizes = IdHistory(), []
    for state in states(recording, voxel_size_m):
        at_s = (state.stamp_ns - start_ns) / 1e9
        ids.add(at_s, {one.id: one.class_index for one in state.instances if one.voxels}, events.pop(state.stamp_ns, ()))
        sizes.append(StateRow(at_s, len(state.coords), len(state.instances)))
        if judge is not None:
            judge.add(state.coords, state.cloud.instance)
    return ids, sizes, judge.figures(state.coords, state.cloud.instance, state.instances) if judge is not None else {}


def _latency_rows(recording: Recording, start_ns: int) -> list[dict[str, Any]]:
    """A row per map update; per answer, where the segmenter read clouds."""
    if recording.updates:
        latency = latencies_ms(recording)
        return [
            {"row": "update", "at_s": (update.stamp_ns - start_ns) / 1e9, "sequence": update.sequence,
             "changed": len(update) + len(update.deleted), "latency_ms": latency.get(update.sequence)}
            for _, update in recording.updates
        ]
    return [
        {"row": "update", "at_s": (stamp_ns(msg) - start_ns) / 1e9, "sequence": int(msg.sequence),
         "latency_ms": (at_ns - shown_at(recording, stamp_ns(msg))) / 1e6}
        for at_ns, msg in recording.answers
    ]


def _of_segmenter(recording: Recording) -> list[tuple[int, dict[str, str]]]:
    return [(at_ns, values) for at_ns, name, values in recording.reports if name.endswith("segmentation")]


def _reported(recording: Recording, start_ns: int) -> tuple[Series, Series]:
    """Medians of the stages, and updates waiting, whenever the segmenter reported; its times are of this machine's clock."""
    came, shown = (np.array(column, np.float64) for column in np.array(recording.clock, np.int64).T - recording.clock[0][0])

    def series(reports: Sequence[tuple[int, dict[str, str]]], names: dict[str, str]) -> Series:
        at = np.array([at_ns - recording.clock[0][0] for at_ns, _ in reports], np.float64)
        at_s = (np.interp(at, came, shown) + (recording.clock[0][0] - start_ns)) / 1e9
        return Series(at_s, {key: np.array([float(values.get(name, 0.0)) for _, values in reports]) for key, name in names.items()})

    reports = _of_segmenter(recording)
    timed = [report for report in reports if "network_ms_p50" in report[1]]
    return series(timed, {stage: f"{stage}_ms_p50" for stage in STAGES}), series(reports, {"updates": "queue_updates"})


def _stage_figures(recording: Recording) -> dict[str, dict[str, float]]:
    last = (_of_segmenter(recording) or [(0, {})])[-1][1]
    return {
        stage: {q: float(last[f"{stage}_ms_{q}"]) for q in ("p50", "p95")} for stage in (*STAGES, "total") if f"{stage}_ms_p50" in last
    }


def _counts(recording: Recording, plan: Playback) -> dict[str, Any]:
    """What was played, taken and lost."""
    diagnostics = recording.diagnostics
    every: dict[str, str] = {}
    for name, values in diagnostics.items():
        every |= {key: value for key, value in values.items() if name.endswith(("segmentation", "fusion")) and value.isdigit()}
    causes = dropped(diagnostics)
    if "map_updates" in plan.counts:
        missing = plan.counts["map_updates"] - int(every.get("updates_received", 0))
    else:
        missing = plan.counts.get("map_points", 0) - int(every.get("clouds_received", 0))
    if missing > 0 and not plan.images:
        causes["not_received"] = missing
    player = diagnostics.get("bag_player", {})
    late = {q: float(player[f"late_ms_{q}"]) for q in ("p50", "p95") if f"late_ms_{q}" in player}
    counted = ("frames_fused", "coalesced") if plan.images else ("updates_received", "clouds_received", "coalesced")
    taken = {key: int(every[key]) for key in counted if key in every}
    return {
        "played": plan.counts, "bag_seconds": (plan.end_ns - plan.start_ns) / 1e9, **taken, "drops": sum(causes.values()),
        "drops_by_cause": causes, "player_late_ms": late, "clock_offset_s": plan.offset_ns / 1e9,
    }


def _last_error(recording: Recording) -> str:
    return next((values["last_error"] for _, values in reversed(_of_segmenter(recording)) if values.get("last_error")), "")
