"""Time per update and stage over the sequence of a single simulated room.

The room is rendered and fused first, outside of the time measured; then a fresh segmenter takes the map's updates one after the
other, as it would online.
"""

__all__ = ["STAGES", "add_arguments", "measure", "plot", "run"]

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.config import SegmenterConfig, add_setting_arguments, settings_from_arguments
from instseg_ros.evaluation.cases import Case
from instseg_ros.online import OnlineRun, UpdateRecord, run_updates
from instseg_ros.segmenter import Segmenter

STAGES = ("map", "network", "grouping", "tracking", "total")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the room, of the test split (default: %(default)s)")
    parser.add_argument(
        "--frames-per-update", type=int, default=5, help="frames fused between two updates (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=0, help="only the first so many updates, 0 = all (default: %(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/evaluate"), help="folder for rendered and fused rooms (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG of the time per stage over the updates (default: beside --json)")
    add_setting_arguments(parser.add_argument_group("segmenter settings"), SegmenterConfig)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure; returns the figures and rows of the report."""
    from instseg_ros.evaluation.sources import room_sources

    config = settings_from_arguments(SegmenterConfig, args)
    source = room_sources([args.seed], "test", None, config.voxel_size_m, args.frames_per_update, args.cache)[0]
    figures, rows = measure(Segmenter(config), source.case(), args.updates)
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    return figures, rows


def measure(segmenter: Segmenter, case: Case, updates: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Send a case's updates through a segmenter that knows nothing yet.

    Args:
        segmenter: it is reset first; one update is processed beforehand, so that no lazy set-up is measured.
        case: whose updates are sent.
        updates: only the first so many, 0 = all.

    Returns:
        Figures: percentiles per stage (ms) over all updates, and `full_map`: the median over the last tenth of them, where the
        map is largest. One row per update.
    """
    chosen = case.updates[:updates] if updates else case.updates
    segmenter.reset()
    segmenter.process(chosen[0])
    segmenter.reset()
    start = time.perf_counter()
    measured = run_updates(segmenter, chosen)
    seconds = time.perf_counter() - start
    rows = [_row(i, record) for i, record in enumerate(measured.records)]
    return _figures(case.name, measured, rows, seconds), rows


def _row(number: int, record: UpdateRecord) -> dict[str, Any]:
    return {
        "update": number, "changed": record.changed, "voxels": record.voxels, "instances": len(record.ids),
        **{f"{stage}_ms": record.stage_ms.get(stage, 0.0) for stage in STAGES},
    }


def _figures(name: str, measured: OnlineRun, rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "online_scene": name, "online_updates": len(rows), "online_voxels": rows[-1]["voxels"],
        "online_instances": rows[-1]["instances"],
        "online_changed_voxels_p50": float(np.median([row["changed"] for row in rows])), "online_seconds": seconds,
    }
    last = rows[-max(1, len(rows) // 10):]
    for stage in STAGES:
        times = [row[f"{stage}_ms"] for row in rows]
        figures[f"online_{stage}_ms_p50"], figures[f"online_{stage}_ms_p95"] = np.percentile(times, [50, 95]).tolist()
        figures[f"online_{stage}_ms_full_map"] = float(np.median([row[f"{stage}_ms"] for row in last]))
    return figures


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Time per stage and size of the map over the updates, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    numbers = [row["update"] for row in rows]
    stages = [stage for stage in STAGES if stage != "total"]
    axis.stackplot(numbers, [[row[f"{stage}_ms"] for row in rows] for stage in stages], labels=stages, alpha=0.85)
    axis.set(xlabel="update", ylabel="time per update, ms", xlim=(0, max(1, len(rows) - 1)))
    right = axis.twinx()
    right.plot(numbers, [row["voxels"] for row in rows], color="black", linewidth=1.2, label="voxels in the map")
    right.set(ylabel="voxels", ylim=(0, None))
    handles, labels = (a + b for a, b in zip(axis.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True))
    axis.legend(handles, labels, loc="upper left", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
