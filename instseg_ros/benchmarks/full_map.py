"""A whole map as one PointCloud2 a second: does the segmenter node keep up, and where does the time go?

A publisher in this process sends clouds of a made-up building (surfaces.py), in which a contiguous share changes from one to the next;
the node compares each with its map (points_mode full). It runs in a process of its own, with the shipped weights. Needs rclpy and the
built messages.
"""

__all__ = ["Clouds", "add_arguments", "run"]

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.benchmarks.live_node import LiveNode
from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M, surface_voxels
from instseg_ros.errors import require

STAGES = ("queue", "convert", "map", "network", "grouping", "tracking", "publish", "total", "latency")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--points", type=int, default=1_000_000, help="points of a cloud (default: %(default)s)")
    parser.add_argument("--points-per-voxel", type=float, default=1.4, help="(default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.01, help="share of the voxels that changes from cloud to cloud (default: %(default)s)")
    parser.add_argument("--clouds", type=int, default=60, help="clouds that are timed (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="clouds per second (default: %(default)s)")
    parser.add_argument("--shuffled", action="store_true", help="points in no order at all; otherwise room by room, as mappers send them")
    parser.add_argument("--threads", type=int, default=0, help="threads of the network, 0 = all cores (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of building and changes (default: %(default)s)")
    parser.add_argument("--weights", default="", help="file or preset (default: the shipped rooms)")
    parser.add_argument("--folder", type=Path, help="for the node's log (default: a temporary folder)")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Publish and measure; returns the figures, and a row per cloud."""
    rclpy = require("rclpy", "talk to the node", "source a ROS 2 workspace, or use `make build` and scripts/env.sh")
    started = not rclpy.ok()
    if started:
        rclpy.init()
    settings: dict[str, Any] = {"threads": args.threads, "device": "cpu", "output.diagnostics_period_s": 0.2, "state.resume": False}
    if args.weights:
        settings["weights"] = args.weights
    try:
        with LiveNode(args.folder or Path(tempfile.mkdtemp(prefix="instseg_full_map_")), settings) as node:
            return _measure(node, Clouds(args.points, args.points_per_voxel, args.share, args.shuffled, args.seed), args.clouds, args.rate)
    finally:
        if started:
            rclpy.try_shutdown()


class Clouds:
    """Clouds of one building, each a little different.

    Args:
        points: in every cloud.
        per_voxel: points in a voxel, on average.
        share: of the voxels that change: a contiguous patch is gone, and the one that was gone is back in other colours.
        shuffled: the points are in no order.
        seed: of everything random.
    """

    def __init__(self, points: int, per_voxel: float, share: float, shuffled: bool, seed: int) -> None:
        self.rng, self.points, self.shuffled = np.random.default_rng(seed), points, shuffled
        self.coords, self.colors = surface_voxels(max(1, round(points / per_voxel)), seed)  # neighbours in a room follow each other
        self.patch = max(1, round(len(self.coords) * share / 2))
        self.gone = -1

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Points [points, 3] (m) and colours [points, 3] of the next cloud."""
        if self.gone >= 0:
            self.colors[self.gone : self.gone + self.patch] ^= 64
        self.gone = int(self.rng.integers(len(self.coords) - self.patch)) if len(self.coords) > 2 * self.patch else 0
        there = np.ones(len(self.coords), bool)
        there[self.gone : self.gone + self.patch] = False
        rows = np.flatnonzero(there)
        rows = np.sort(np.concatenate([rows, self.rng.choice(rows, self.points - len(rows))]))
        if self.shuffled:
            self.rng.shuffle(rows)
        return (self.coords[rows] + self.rng.uniform(0.1, 0.9, (len(rows), 3))) * VOXEL_SIZE_M, self.colors[rows]


def _measure(node: LiveNode, clouds: Clouds, count: int, rate: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first cloud fills the map and two more warm up; then one each 1 / rate seconds, made while the node works."""
    from sensor_msgs.msg import PointCloud2

    from instseg_ros.ros.conversions import header
    from instseg_ros.ros.pointcloud import colored_cloud_to_msg

    publisher = node.publisher(PointCloud2, "map_points", 5)

    def make() -> Any:
        return colored_cloud_to_msg(header(0, "map"), *clouds.next())

    def send(msg: Any) -> None:
        msg.header = header(time.time_ns(), "map")
        publisher.publish(msg)

    for number in range(3):
        send(make())
        node.until(lambda: node.count("updates_applied") > number, "the first clouds", 900.0)  # noqa: B023
    applied, cpu_s, voxels = node.count("updates_applied"), _cpu_s(node.process.pid), node.count("voxels")
    rows: list[dict[str, Any]] = []
    message, start = make(), time.monotonic()
    for number in range(count):
        node.until(lambda: time.monotonic() >= start + number / rate, "the time of the next cloud")  # noqa: B023
        late_s = time.monotonic() - (start + number / rate)
        sent = time.monotonic()
        send(message)
        behind = number - (node.count("updates_applied") - applied)
        rows.append({"cloud": number, "sent_late_s": late_s, "publish_s": time.monotonic() - sent, "behind": behind})
        message = make()
        print(rows[-1], file=sys.stderr, flush=True)
    end = time.monotonic()
    # What waits when a newer full cloud comes is void: it is counted as coalesced, and never applied.
    node.until(lambda: node.count("updates_applied") - applied + node.count("coalesced") >= count, "the last cloud", 300.0)
    lag_s, done = time.monotonic() - end, node.count("updates_applied") - applied
    reports = node.reports
    node.until(lambda: node.reports > reports, "diagnostics")
    figures: dict[str, Any] = {
        "points": clouds.points, "voxels": voxels, "clouds": count, "rate": rate, "applied": done, "coalesced": node.count("coalesced"),
        "refused": node.count("refused"), "dropped_queue_full": node.count("dropped_queue_full"), "lag_s": lag_s,
        "cpu_s_per_cloud": (_cpu_s(node.process.pid) - cpu_s) / max(1, done), "load_1m": os.getloadavg()[0],
    }
    for stage in STAGES:
        for quantile in ("p50", "p95"):
            figures[f"{stage}_ms_{quantile}"] = float(node.values.get(f"{stage}_ms_{quantile}", "nan"))
    return figures, rows


def _cpu_s(pid: int | None) -> float:
    """Processor time of all threads of a process so far, s (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
