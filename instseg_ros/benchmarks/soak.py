"""The segmenter node for an hour, or as long as you like: does it grow, does it slow down, does it lose anything?

A made-up mapper explores a furnished room and then goes on changing it: piece by piece, things get other colours, vanish, and are put back. The
node is a process of its own and gets the updates on its topic, 10 per second of simulated time and each as soon as the result of the one before has
arrived. Listeners take its clouds, markers, instances and events. Needs rclpy and the built messages.
"""

__all__ = ["ChangingRoom", "SoakRun", "add_arguments", "figures_of", "plot", "run"]

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instseg_ros.benchmarks.node_process import run_segmenter
from instseg_ros.benchmarks.resident import cpu_seconds, resident_bytes
from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M, RoomOfSurfaces
from instseg_ros.config import SegmenterNodeConfig
from instseg_ros.errors import DataError, require
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.settings import add_setting_arguments

Rows = list[dict[str, Any]]
_RATE_HZ = 10
_EXPLORED_AT_ONCE = 2000
_FIRST_STAMP_NS = 1_000_000_000_000
_FURNITURE = 5  # surfaces from here on
_DROPS = ("refused", "failures", "sequence_gaps", "publisher_restarts", "resets_by_time", "coalesced")  # and all that begin with "dropped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--updates", type=int, default=36_000, help="updates sent, 10 per simulated second (default: %(default)s)")
    parser.add_argument("--update-voxels", type=int, default=300, help="at most so many voxels change with an update (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the room and its changes (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the node's log is written (default: a temporary folder)")
    parser.add_argument("--plot", type=Path, help="PNG of latency, memory and instances (default: beside --json)")
    add_setting_arguments(parser.add_argument_group("parameters of the node"), SegmenterNodeConfig)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], Rows]:
    """Measure; returns the figures and rows of the report."""
    rclpy = require("rclpy", "talk to the node", "source a ROS 2 workspace, or use `make build` and scripts/env.sh")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="instseg_soak_"))
    parameters = {name.removeprefix("setting:"): value for name, value in vars(args).items() if name.startswith("setting:")}
    started = not rclpy.ok()
    if started:
        rclpy.init()
    try:
        with SoakRun(folder, parameters) as soak:
            rows = soak.all(ChangingRoom(args.seed, args.update_voxels), args.updates)
    finally:
        if started:
            rclpy.try_shutdown()
    figures = figures_of(rows, soak.exit_code)
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    return figures, _summary(rows)


class ChangingRoom:
    """A mapper's room: it is explored first, then its furniture changes without end.

    Args:
        seed: of the room and the changes.
        update_voxels: at most so many voxels change at a time.
    """

    def __init__(self, seed: int, update_voxels: int) -> None:
        self.room = RoomOfSurfaces.made_up(0, seed)
        self.colors = self.room.colors.copy()
        self.present = np.zeros(len(self.colors), bool)
        self._rng = np.random.default_rng([seed, 2])
        self._most = update_voxels
        self._unseen = list(np.split(np.arange(len(self.colors)), range(_EXPLORED_AT_ONCE, len(self.colors), _EXPLORED_AT_ONCE)))
        self._doing: list[tuple[str, np.ndarray]] = []
        self._sequence = -1

    @property
    def explored(self) -> bool:
        """Whether every voxel was seen."""
        return not self._unseen

    def change(self) -> MapUpdate:
        """What the robot sees next."""
        if self._unseen:
            return self._see(self._unseen.pop(0))
        if not self._doing:
            self._doing = self._plan()
        kind, rows = self._doing.pop(0)
        if kind == "vanish":
            self.present[rows] = False
            return self._update(rows[:0], self.room.coords[rows])
        if kind == "dye":
            shift = self._rng.integers(-60, 61, 3)
            self.colors[rows] = np.clip(self.room.colors[rows] + shift, 0, 255)
        return self._see(rows)

    def _plan(self) -> list[tuple[str, np.ndarray]]:
        """The next thing that happens to a piece of furniture, in steps."""
        thing = self._rng.integers(_FURNITURE, self.room.surface.max() + 1)
        rows = np.flatnonzero(self.room.surface == thing)
        if not len(rows):
            return self._plan()
        kind = str(self._rng.choice(["vanish", "dye"])) if self.present[rows].all() else "return"
        return [(kind, part) for part in np.split(rows, range(self._most, len(rows), self._most))]

    def _see(self, rows: np.ndarray) -> MapUpdate:
        self.present[rows] = True
        return self._update(rows, np.zeros((0, 3), np.int32))

    def _update(self, rows: np.ndarray, deleted: np.ndarray) -> MapUpdate:
        self._sequence += 1
        stamp_ns = _FIRST_STAMP_NS + self._sequence * 1_000_000_000 // _RATE_HZ
        return MapUpdate(self.room.coords[rows], self.colors[rows], np.ones(len(rows), np.float32), VOXEL_SIZE_M,
                         stamp_ns=stamp_ns, sequence=self._sequence, deleted=deleted)


class SoakRun:
    """A segmenter node in a process of its own, and who talks to it. rclpy must be initialised.

    Args:
        folder: for the node's log.
        parameters: of the node, by name.
    """

    def __init__(self, folder: Path, parameters: dict[str, Any]) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import PointCloud2
        from visualization_msgs.msg import MarkerArray

        from instseg_ros.msg import InstanceArray, InstanceEvent
        from instseg_ros.msg import MapUpdate as MapUpdateMsg
        from instseg_ros.ros import qos

        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "node.log"
        self.exit_code: int | None = None
        self._probe, self._executor = Node("soak"), SingleThreadedExecutor()
        self._executor.add_node(self._probe)
        self._name = name = f"soak_{os.getpid()}"
        self._last: Any = None
        self.counts: dict[str, str] = {}
        """What the newest diagnostics say."""
        self.events = 0
        probe = self._probe
        self._updates = probe.create_publisher(MapUpdateMsg, f"/{name}/map_updates", qos.DELTAS)
        self._clock, self._clock_type = probe.create_publisher(Clock, "/clock", 10), Clock
        probe.create_subscription(InstanceArray, f"/{name}/instances", self._on_instances, qos.DELTAS)
        probe.create_subscription(InstanceEvent, f"/{name}/events", self._on_event, qos.EVENTS)
        probe.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        unread = ((PointCloud2, "points", qos.LATCHED), (PointCloud2, "points_delta", qos.DELTAS), (MarkerArray, "markers", qos.LATCHED))
        for kind, topic, profile in unread:
            probe.create_subscription(kind, f"/{name}/{topic}", lambda _: None, profile, raw=True)
        arguments = ["-r", f"__node:={name}", "-r", f"map_updates:=/{name}/map_updates", "-r", f"request_full:=/{name}/request_full"]
        for key, value in {"use_sim_time": True, **parameters}.items():
            arguments += ["-p", f"{key}:={_yaml(value)}"]
        self._process = multiprocessing.get_context("spawn").Process(target=run_segmenter, args=(arguments, str(self.log)))
        self._process.start()

    def __enter__(self) -> "SoakRun":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._executor.shutdown()
        self._probe.destroy_node()

    def all(self, room: ChangingRoom, updates: int) -> Rows:
        """Send updates, each when the result of the one before is there, then end the node as Ctrl-C does.

        Returns:
            A row per update; `counts` in the last one are the node's diagnostics after it.

        Raises:
            DataError: the node ended by itself, or a result did not come.
        """
        self._until(lambda: self._updates.get_subscription_count() > 0 and self._clock.get_subscription_count() > 0, "the node to listen")
        rows = [self._one(room) for _ in tqdm(range(updates), desc="soak", unit="update")]
        self._diagnose(room, rows[-1])
        self._stop()
        return rows

    def _one(self, room: ChangingRoom) -> dict[str, Any]:
        from instseg_ros.ros.conversions import ns_to_time, update_to_msg

        update = room.change()
        msg, clock = update_to_msg(update), self._clock_type(clock=ns_to_time(update.stamp_ns))
        start = time.perf_counter()
        self._clock.publish(clock)
        self._updates.publish(msg)
        self._until(lambda: self._last is not None and self._last.sequence >= update.sequence, f"the result of update {update.sequence}")
        latency_ms = (time.perf_counter() - start) * 1e3
        pid = self._process.pid
        assert pid is not None
        return {
            "update": update.sequence, "explored": room.explored, "voxels": int(room.present.sum()), "changed": len(update) + len(update.deleted),
            "instances": len(self._last.instances), "events": self.events, "latency_ms": latency_ms, "resident_bytes": resident_bytes(pid),
            "cpu_s": cpu_seconds(pid),
        }

    def _diagnose(self, room: ChangingRoom, row: dict[str, Any]) -> None:
        """Let simulated time go on until the diagnostics tell of the last update."""
        from instseg_ros.ros.conversions import ns_to_time

        now_ns = _FIRST_STAMP_NS + row["update"] * 1_000_000_000 // _RATE_HZ
        self.counts = {}

        def told() -> bool:
            nonlocal now_ns
            now_ns += 20_000_000
            self._clock.publish(self._clock_type(clock=ns_to_time(now_ns)))
            return self.counts.get("updates_received") == str(row["update"] + 1)

        self._until(told, "diagnostics")
        row["counts"] = dict(self.counts)
        row["map_equal"] = self.counts["voxels"] == str(int(room.present.sum()))

    def _stop(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)
        self._process.join(60.0)
        self.exit_code = self._process.exitcode

    def _until(self, condition: Callable[[], Any], what: str, timeout_s: float = 300.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            if not self._process.is_alive():
                raise DataError(f"the node ended by itself: look into {self.log}")
            if time.monotonic() > end:
                raise DataError(f"waited {timeout_s:.0f} s in vain for {what}: look into {self.log}")
            self._executor.spin_once(timeout_sec=0.05)

    def _on_instances(self, msg: Any) -> None:
        self._last = msg

    def _on_event(self, _: Any) -> None:
        self.events += 1

    def _on_diagnostics(self, msg: Any) -> None:
        for status in msg.status:
            if status.name.startswith(self._name):
                self.counts = {pair.key: pair.value for pair in status.values}


def _yaml(value: Any) -> str:
    """A parameter's value as rcl reads it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def figures_of(rows: Rows, exit_code: int | None) -> dict[str, Any]:
    """What was asked for: of the updates after the room was explored, the first tenth against the last."""
    changing = [row for row in rows if row["explored"]]
    tenth = max(1, len(changing) // 10)
    first, last = changing[:tenth], changing[-tenth:]
    counts = {name: int(value) for name, value in rows[-1]["counts"].items() if name in _DROPS or name.startswith("dropped")}
    p95 = [float(np.percentile([row["latency_ms"] for row in part], 95)) for part in (first, last)]
    memory = [max(row["resident_bytes"] for row in part) for part in (first, last)]
    cpu_ms = [1e3 * (part[-1]["cpu_s"] - part[0]["cpu_s"]) / max(1, len(part) - 1) for part in (first, last)]
    return {
        "soak_updates": len(rows), "soak_exit_code": exit_code, "soak_map_equal": rows[-1]["map_equal"], "soak_voxels": rows[-1]["voxels"],
        "soak_updates_applied": int(rows[-1]["counts"].get("updates_applied", 0)), "soak_events": rows[-1]["events"], "soak_lost_or_dropped": counts,
        "soak_latency_ms_p50": float(np.median([row["latency_ms"] for row in changing])),
        "soak_latency_ms_p95_first": p95[0], "soak_latency_ms_p95_last": p95[1], "soak_latency_p95_ratio": p95[1] / p95[0],
        "soak_cpu_ms_first": cpu_ms[0], "soak_cpu_ms_last": cpu_ms[1],
        "soak_resident_bytes_first": memory[0], "soak_resident_bytes_last": memory[1], "soak_resident_growth": memory[1] / memory[0] - 1.0,
        "soak_minutes": sum(row["latency_ms"] for row in rows) / 60e3,
    }


def _summary(rows: Rows, most: int = 1000) -> Rows:
    """At most so many rows: runs of updates with the median and the largest of their latencies, and the rest as after the last of each."""
    size = -(-len(rows) // most)
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        times = [row["latency_ms"] for row in part]
        p50, p95 = np.percentile(times, [50, 95]).tolist()
        found.append({**part[-1], "latency_ms": p50, "latency_ms_p95": p95, "latency_ms_max": max(times)})
    return found


def plot(path: Path, rows: Rows) -> None:
    """Latency, memory and instances over the updates, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(8, 7), layout="constrained", sharex=True)
    runs = _summary(rows, 300)
    numbers = [row["update"] for row in runs]
    for name, label in (("latency_ms", "median"), ("latency_ms_p95", "95 %"), ("latency_ms_max", "largest")):
        axes[0].plot(numbers, [row[name] for row in runs], linewidth=0.8, label=label)
    axes[0].set(ylabel="latency, ms", yscale="log")
    axes[0].legend(frameon=False, ncols=3)
    axes[1].plot(numbers, [row["resident_bytes"] / 1e6 for row in runs])
    axes[1].set(ylabel="resident memory, MB", ylim=(0, None))
    axes[2].plot(numbers, [row["instances"] for row in runs], label="instances")
    axes[2].plot(numbers, [row["voxels"] / 1000 for row in runs], color="black", linewidth=0.8, label="thousand voxels")
    axes[2].set(xlabel="update", ylim=(0, None))
    axes[2].legend(frameon=False, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
