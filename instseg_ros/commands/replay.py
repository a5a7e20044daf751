"""Replay a recorded bag through the whole pipeline and report what it came to.

--mode direct runs it in this process as fast as it goes: accuracy and throughput, no ROS needed. --mode topics plays it through
real topics, with /clock, into the nodes as processes: latency from stamp to publication, drops, queue.

The bag (mcap, sqlite3 or ROS 1, compressed or not) holds depth, colour, CameraInfo and pose (PoseStamped or /tf), or a map
(MapUpdate or PointCloud2). What is left in --out: replay.json (figures, a row per update and per id), latency.png, stages.png,
growth.png and ids.png; in topics mode also recording/ (mcap, what the nodes published) and logs/.
"""

__all__ = ["add_arguments", "run"]

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instseg_ros.datasets.bag_arguments import add_topic_arguments, topics_from_arguments
from instseg_ros.datasets.bags import BagUpdates, is_bag, open_bag
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.evaluation.map_judge import MapJudge
from instseg_ros.online import OnlineSettings, load_online
from instseg_ros.replay.history import Replay
from instseg_ros.settings import add_setting_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `instseg replay`."""
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    parser.add_argument("bag", metavar="BAG", type=Path, help="folder of a recording, or a .mcap, .db3 or .bag file")
    parser.add_argument("--mode", choices=("direct", "topics"), default="direct", help="in this process, or through topics (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="topics: times as fast as it was recorded (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/replay"), metavar="DIR", help="folder for the results (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures and rows (default: replay.json in --out)")
    parser.add_argument("--truth", type=Path, metavar="SCENE", help="voxel scene (.npz) of the same map: adds AP and id switches")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="direct: use every N-th frame")
    parser.add_argument("--max-frames", type=int, default=0, metavar="N", help="direct: stop after N frames; 0 = all")
    parser.add_argument("--update-every", type=int, default=4, metavar="N", help="direct: frames per update of the map (default: %(default)s)")
    parser.add_argument("--period", type=float, default=0.5, metavar="S", help="topics: time in the bag between updates (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="topics: longest wait for the nodes and for the last result, s")
    add_topic_arguments(parser)
    add_setting_arguments(parser.add_argument_group("settings of segmenter and fusion"), OnlineSettings)


def run(args: argparse.Namespace) -> int:
    """Replay, write the report and the pictures; 1 if an update was not segmented."""
    _check(args)
    replay = _direct(args) if args.mode == "direct" else _topics(args)
    _write(args, replay)
    return 0 if replay.figures.get("unanswered", 0) == 0 else 1


def _check(args: argparse.Namespace) -> None:
    for name, low in (("update_every", 1), ("stride", 1), ("max_frames", 0)):
        if getattr(args, name) < low:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {low} or more")
    for name in ("rate", "period", "timeout"):
        if not 0 < getattr(args, name) < float("inf"):
            raise ConfigError(f"--{name} {getattr(args, name)}: must be greater than 0")
    if args.bag.exists() and not is_bag(args.bag):
        raise DataError(f"{args.bag} is no bag: give a recording's folder or a .mcap, .db3 or .bag file; other data is read by `instseg segment`")


def _judge(args: argparse.Namespace, voxel_size_m: float) -> MapJudge | None:
    """Of the truth the flags name."""
    if args.truth is None:
        return None
    from instseg_ros.datasets.scenes import load_scene

    scene = load_scene(args.truth)
    if abs(scene.voxel_size_m - voxel_size_m) > 1e-4 * voxel_size_m:
        raise DataError(f"{args.truth} has voxels of {scene.voxel_size_m:g} m, the map {voxel_size_m:g} m: label the map's own voxels")
    return MapJudge(GroundTruth.of(scene.coords, scene.class_index, scene.instance, scene.voxel_size_m))


def _direct(args: argparse.Namespace) -> Replay:
    from instseg_ros.replay.direct import replay_direct

    segmenter, fusion = load_online(args)
    source = open_bag(args.bag, topics_from_arguments(args), segmenter.config.voxel_size_m)
    unit = "update" if isinstance(source, BagUpdates) else "frame"
    if not isinstance(source, BagUpdates):
        source = source.select(args.stride, args.max_frames)

    def progress(source: Any) -> Iterator[Any]:
        yield from tqdm(source, total=len(source), unit=unit, desc="replay", disable=None)

    return replay_direct(segmenter, fusion, source, args.update_every, _judge(args, segmenter.config.voxel_size_m), progress)


def _topics(args: argparse.Namespace) -> Replay:
    from instseg_ros.live.environment import ensure_ros, isolate
    from instseg_ros.live.recording import read_recording
    from instseg_ros.replay.playback import plan_playback
    from instseg_ros.replay.topics_report import report_topics

    plan = plan_playback(args.bag, topics_from_arguments(args))
    settings = _node_settings(args)
    judge = _judge(args, settings["voxel_size_m"])
    ensure_ros("--mode topics")
    from instseg_ros.replay.topics import RECORDING, TopicsOptions, perform

    out = args.out.resolve()
    isolate(out / "logs")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the nodes are stopped on that way out, too
    perform(plan, TopicsOptions(out, args.rate, args.period, args.timeout, settings))
    replay = report_topics(read_recording(out / RECORDING), plan, settings["voxel_size_m"], judge)
    replay.figures = {"rate": args.rate, "period_s": args.period, **replay.figures}
    return replay


def _node_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, checked here rather than by a node that ends; the voxel size is that of the weights unless given."""
    segmenter, _ = load_online(args)
    given = {key.removeprefix("setting:"): value for key, value in vars(args).items() if key.startswith("setting:")}
    weights = Path(given.get("weights", ""))
    return {**given, "voxel_size_m": segmenter.config.voxel_size_m, **({"weights": str(weights.resolve())} if weights.is_file() else {})}


def _write(args: argparse.Namespace, replay: Replay) -> None:
    from instseg_ros.replay.plots import write_plots
    from instseg_ros.report import write_report

    path = args.json or args.out / "replay.json"
    write_report(path, {"bag": args.bag.name, "mode": replay.mode, **replay.figures}, replay.rows)
    for name, value in replay.figures.items():
        print(f"{name:<24} {format(value, '.4g') if isinstance(value, float) else value}")
    for file in (path, *write_plots(args.out, replay)):
        print(f"  {file}")
