"""The main job end to end, with nothing to prepare: a furnished room is rendered as a posed RGB-D sequence and played through
topics into the fusion node and the segmenter node, which run as processes of their own on real ROS 2.

What is left in the output folder: map_color.png, map_instances.png, growth_color.png, growth_instances.png, growth.gif,
labelled.ply (written by the segmenter's ~/save_map), bag/ (mcap, inputs and outputs), logs/ and summary.json.
"""

__all__ = ["add_arguments", "run"]

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instseg_ros.errors import ConfigError, InstSegError

START_S = 120.0
"""For both nodes to be up: the first start on a machine compiles and reads a lot."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `instseg demo`; none is needed."""
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="folder for the results (default out/demo)"
    )
    parser.add_argument("--seed", type=int, default=19, help="which room, walk and noise (default 19)")
    parser.add_argument("--library", default="auto", help="furniture: auto, procedural, or the path of a catalogue file")
    parser.add_argument("--frames", type=int, default=150, help="frames of the walk (default 150); 0 = by the size of the room")
    parser.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="frames per second (default 5)")
    parser.add_argument("--period", type=float, default=1.0, metavar="S", help="the map is sent this often, s (default 1)")
    parser.add_argument(
        "--weights", type=Path, default=None, metavar="FILE", help="safetensors file instead of the shipped weights"
    )
    parser.add_argument(
        "--passes", choices=("incremental", "full"), default="incremental", help="recompute what changed, or the whole map"
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="longest wait for the last updates, s (default 120)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if every update was segmented."""
    from instseg_ros.live.environment import ensure_ros, isolate

    if not args.rate > 0 or not args.period > 0:
        raise ConfigError(f"--rate {args.rate} and --period {args.period} must be greater than 0")
    if args.weights is not None and not args.weights.is_file():
        raise ConfigError(f"--weights {args.weights}: there is no such file")
    ensure_ros("the demo")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    domain = isolate(out / "logs")
    room, frames = _render(args)
    print(f"playing {len(frames)} frames at {args.rate:g} Hz through ROS domain {domain} (logs: {out / 'logs'})")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the nodes are stopped on that way out, too
    saved = _perform(args, out, frames)
    figures = _report(args, out, room, saved)
    complete = figures["updates_segmented"] == figures["updates"] > 0
    if not complete:
        print(f"only {figures['updates_segmented']} of {figures['updates']} updates were segmented; see {out / 'logs'}")
    return 0 if complete else 1


def _render(args: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The room and what the camera sees of it, all of it rendered before the nodes need the processor."""
    from instseg_ros.datasets.free_floor import free_floor
    from instseg_ros.datasets.rooms import compose_room
    from instseg_ros.datasets.simulate import frames_for, simulate_sequence

    room = compose_room(args.seed, "test", args.library)
    floor = free_floor(room.mesh)
    count = args.frames or frames_for(floor)
    sequence = simulate_sequence(room, args.seed, count, rate_hz=args.rate, floor=floor)
    return room, list(tqdm(sequence, total=count, desc="render", unit="frame"))


def _perform(args: argparse.Namespace, out: Path, frames: list[Any]) -> Any:
    """Start the nodes, play the frames, wait for the last answer, and let the segmenter save its map."""
    from instseg_ros.demo.camera import TOPICS, CameraStage
    from instseg_ros.live.processes import NodeProcesses
    from instseg_ros.live.recorder import BagRecorder

    segmenter = {"passes": args.passes, "save_dir": str(out), "output.points_period_s": 2.0, "output.diagnostics_period_s": 0.5}
    if args.weights is not None:
        segmenter["weights"] = str(args.weights.resolve())
    fusion = {"pose.frame": "map", "publish_period_s": args.period, "block_count": 4000, "diagnostics_period_s": 0.5}
    camera = {name: f"/camera/{name}" for name in ("depth", "color", "camera_info", "pose")}
    with NodeProcesses() as nodes, BagRecorder(out / "bag", TOPICS) as bag, CameraStage(bag, nodes.check) as stage:
        nodes.start("instseg_ros.ros.fusion_node", fusion, camera, out / "logs" / "fusion_node.log")
        nodes.start(
            "instseg_ros.ros.segmenter_node",
            segmenter,
            {"request_full": "/fusion/request_full"},
            out / "logs" / "segmenter_node.log",
        )
        stage.wait_until_connected(START_S)
        due = time.monotonic()
        bar = tqdm(frames, desc="play", unit="frame")
        for frame in bar:
            stage.spin(due)
            nodes.check()
            stage.play(frame)
            due += 1.0 / args.rate
            bar.set_postfix_str(
                f"{stage.updates} updates, {stage.instances} instances, {stage.latency_ms:.0f} ms", refresh=False
            )
        _drain(stage, args)
        saved = stage.save_map("labelled.ply", args.timeout)
        stage.spin(time.monotonic() + 1.5)  # the last diagnostics
    return saved


def _drain(stage: Any, args: argparse.Namespace) -> None:
    """Wait until no map update comes any more and the last one is segmented."""
    quiet_s = 2.0 * args.period + 1.0
    stage.wait_for(lambda: stage.updates > 0, "waiting for the first map update", args.timeout)
    stage.wait_for(
        lambda: time.monotonic() - stage.last_heard > quiet_s and stage.answered >= stage.sequence,
        "waiting for the last map update to be segmented",
        args.timeout,
    )


def _report(args: argparse.Namespace, out: Path, room: Any, saved: Any) -> dict[str, Any]:
    """Pictures and summary.json from the bag."""
    from instseg_ros.demo.pictures import write_demo_pictures
    from instseg_ros.demo.summary import summarise
    from instseg_ros.live.recording import read_recording, states
    from instseg_ros.report import write_report

    recording = read_recording(out / "bag")
    if not recording.answers or not recording.updates:
        raise InstSegError(f"the segmenter published nothing; see {out / 'logs'}")
    history = list(states(recording))
    settings = {
        "room": room.kind,
        "seed": args.seed,
        "rate_hz": args.rate,
        "passes": args.passes,
        "weights": args.weights.name if args.weights else "shipped",
        "saved_voxels": int(saved.voxels),
        "saved_instances": int(saved.instances),
    }
    figures, rows = summarise(recording, history, room.mesh, settings)
    write_report(out / "summary.json", figures, rows)
    files = write_demo_pictures(out, history, recording.updates[0][1].voxel_size_m)
    print(f"{'id':>5}  {'class':<16}{'score':>6}{'voxels':>8}   size (m)")
    for row in rows:
        print(
            f"{row['id']:>5}  {row['class']:<16}{row['score']:>6.2f}{row['voxels']:>8}   "
            + " ".join(f"{v:5.2f}" for v in row["size_m"])
        )
    latency = figures["latency_ms"]
    print(
        f"{figures['updates_segmented']} of {figures['updates']} updates segmented, one per {figures['update_period_ms']} ms; "
        f"latency p50 {latency['p50']} p95 {latency['p95']} max {latency['max']} ms; {figures['voxels']} voxels, "
        f"{figures['instances']} instances, {figures['drops']} drops, {figures['id_switches']} id switches"
    )
    for path in [*files, out / "labelled.ply", out / "bag", out / "summary.json"]:
        print(f"  {path}")
    return figures
