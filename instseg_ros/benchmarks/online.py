"""Time per update and stage, and latency at a given rate of updates, over the sequence of a single simulated room.

The room is rendered and fused first, outside of the time measured; then a fresh segmenter takes the map's updates at the times at
which they would come, and publishes the results as the node does, on real topics where rclpy is at hand. An update's latency
counts from when it was there to be taken, so it includes the wait for those before it.
"""

__all__ = ["STAGES", "add_arguments", "measure", "plot", "run"]

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.config import SegmenterConfig
from instseg_ros.evaluation.cases import Case
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.weights import settings_over_weights
from instseg_ros.online import OnlineRun, UpdateRecord, run_updates
from instseg_ros.segmenter import SegmentationResult, Segmenter
from instseg_ros.settings import add_setting_arguments, settings_from_arguments

STAGES = ("map", "network", "grouping", "tracking", "total")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the room, of the test split (default: %(default)s)")
    parser.add_argument(
        "--frames-per-update", type=int, default=1, help="frames fused between two updates (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="updates per second, 0 = each after the other (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=0, help="only the first so many updates, 0 = all (default: %(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/evaluate"), help="folder for rendered and fused rooms (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG of the time per stage over the updates (default: beside --json)")
    add_setting_arguments(parser.add_argument_group("segmenter settings"), SegmenterConfig)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure; returns the figures and rows of the report."""
    from instseg_ros.evaluation.sources import room_sources

    config = settings_over_weights(SegmenterConfig, lambda base: settings_from_arguments(SegmenterConfig, args, base))
    source = room_sources([args.seed], "test", None, config.voxel_size_m, args.frames_per_update, args.cache)[0]
    figures, rows = measure(Segmenter(config), source.case(), args.updates, args.rate)
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    return figures, rows


def measure(segmenter: Segmenter, case: Case, updates: int = 0, rate: float = 0.0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Send a case's updates through a segmenter that knows nothing yet.

    Args:
        segmenter: it is reset first; one update is processed beforehand, so that no lazy set-up is measured.
        case: whose updates are sent.
        updates: only the first so many, 0 = all.
        rate: updates per second, 0 = each as soon as the one before is done.

    Returns:
        Figures: percentiles per stage (ms) over all updates, and `full_map`: the median over the last tenth of them, where the
        map is largest; percentiles of the latency. One row per update.
    """
    chosen = case.updates[:updates] if updates else case.updates
    segmenter.reset()
    segmenter.process(chosen[0])
    segmenter.reset()
    latency_ms: list[float] = []
    with _publisher(segmenter) as publish:
        start = time.perf_counter()

        def arrivals() -> Iterator[MapUpdate]:
            for number, update in enumerate(chosen):
                if rate:
                    time.sleep(max(0.0, start + number / rate - time.perf_counter()))
                arrived.append(start + number / rate if rate else time.perf_counter())
                yield update

        def finish(result: SegmentationResult, _: MapUpdate) -> None:
            if publish is not None:
                publish(result)
            latency_ms.append((time.perf_counter() - arrived[-1]) * 1e3)

        arrived: list[float] = []
        measured = run_updates(segmenter, arrivals(), finish)
        seconds = time.perf_counter() - start
    rows = [{**_row(i, record), "latency_ms": latency} for i, (record, latency) in enumerate(zip(measured.records, latency_ms, strict=True))]
    figures = _figures(case.name, measured, rows, seconds)
    p50, p95 = np.percentile(latency_ms, [50, 95]).tolist()
    figures |= {
        "latency_ms_p50": p50, "latency_ms_p95": p95, "latency_ms_max": max(latency_ms), "online_rate": rate,
        "online_published": publish is not None,
    }
    return figures, rows


@contextmanager
def _publisher(segmenter: Segmenter) -> Iterator[Callable[[SegmentationResult], None] | None]:
    """Publishes results as the segmenter node does, to a listener in this process; None where rclpy or the messages are missing."""
    try:
        import rclpy
        from sensor_msgs.msg import PointCloud2

        from instseg_ros.config import OutputConfig
        from instseg_ros.ros.segmenter_outputs import SegmenterOutputs
    except ImportError:
        yield None
        return
    context = rclpy.context.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("instseg_bench", context=context)
    node.create_subscription(PointCloud2, "~/points_delta", lambda _: None, 10)
    outputs, config = SegmenterOutputs(node), OutputConfig()

    def publish(result: SegmentationResult) -> None:
        outputs.result(result, segmenter, config)
        outputs.due(segmenter, config)

    try:
        yield publish
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


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
