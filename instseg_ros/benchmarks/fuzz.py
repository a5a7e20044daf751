"""Malformed, truncated and hostile messages over real topics: does the segmenter node live, keep its map and say what was wrong?

A node in a process of its own holds a map of blocks and gets batches of wrong messages (hostile_messages.py), one class of fault a batch;
its diagnostics must count every one of them as what it is, and the error they show must name the cause. Map, labels and ids are saved
before and after, and compared. Needs rclpy and the built messages.
"""

__all__ = ["add_arguments", "run"]

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instseg_ros.benchmarks.chair_net import chair_weights
from instseg_ros.benchmarks.live_node import LiveNode
from instseg_ros.errors import DataError, require
from instseg_ros.mapping.update import MapUpdate

if TYPE_CHECKING:
    from instseg_ros.benchmarks.hostile_messages import Fault

VOXEL_M = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--messages", type=int, default=100_000, help="how many are sent (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=200, help="messages of one class sent at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the messages (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where saved maps, weights and the node's log are written (default: a temporary folder)")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Send and judge; returns the figures, and a row per class of fault."""
    rclpy = require("rclpy", "talk to the node", "source a ROS 2 workspace, or use `make build` and scripts/env.sh")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="instseg_fuzz_"))
    folder.mkdir(parents=True, exist_ok=True)
    started = not rclpy.ok()
    if started:
        rclpy.init()
    try:
        chair_weights(folder / "chairs.safetensors")
        settings = {
            "weights": folder / "chairs.safetensors", "grouping.method": "connected_components", "threads": 1, "device": "cpu",
            "output.diagnostics_period_s": 0.1,
        }
        with _Fuzz(folder, settings, args.seed, args.batch) as fuzz:
            return fuzz.run(args.messages)
    finally:
        if started:
            rclpy.try_shutdown()


def _blocks() -> MapUpdate:
    """The map: 25 blocks that are apart."""
    cube = np.argwhere(np.ones((5, 5, 5), bool))
    coords = np.concatenate([cube + (12 * i, 12 * j, 0) for i in range(5) for j in range(5)]).astype(np.int32)
    colors = np.random.default_rng(1).integers(0, 256, coords.shape).astype(np.uint8)
    return MapUpdate(coords, colors, np.ones(len(coords), np.float32), VOXEL_M, stamp_ns=time.time_ns(), sequence=1000, full=True)


class _Fuzz:
    """A node, its publishers and what came of every class."""

    def __init__(self, folder: Path, settings: dict[str, Any], seed: int, batch: int) -> None:
        from sensor_msgs.msg import PointCloud2

        from instseg_ros.benchmarks.hostile_messages import HostileMessages
        from instseg_ros.msg import MapUpdate as MapUpdateMsg
        from instseg_ros.ros.conversions import update_to_msg

        self.batch = batch
        # Every message of a batch must fit into the queue of the middleware, so that none is lost before it is judged.
        self.node = LiveNode(folder, settings, 2 * batch)
        self.publishers = {kind: self.node.publisher(kind, topic, 2 * batch) for kind, topic in (
            (MapUpdateMsg, "map_updates"), (PointCloud2, "map_points"))}
        first = _blocks()
        self.voxels = len(first)
        self.publishers[MapUpdateMsg].publish(update_to_msg(first))
        self.node.until(lambda: self.node.count("updates_applied") == 1, "the map")
        self.before = self._map("before.npz")
        self.hostile = HostileMessages(seed, first.stamp_ns, first.sequence)
        self.rows: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "_Fuzz":
        return self

    def __exit__(self, *arguments: object) -> None:
        self.node.__exit__(*arguments)

    def run(self, messages: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Send so many, all classes in turn, in another order each time."""
        from instseg_ros.benchmarks.hostile_messages import FAULTS

        start, sent, crashes = time.monotonic(), 0, 0
        try:
            while sent < messages:
                for number in self.hostile.rng.permutation(len(FAULTS)):
                    count = min(self.batch, messages - sent)
                    if count:
                        self._send(FAULTS[number], count)
                        sent += count
                print(f"{sent} sent", file=sys.stderr, flush=True)
            after = self._map("after.npz")
        except DataError as error:
            if self.node.process.is_alive():
                raise
            crashes, after = 1, {}
            print(error, file=sys.stderr, flush=True)
        rows = sorted(self.rows.values(), key=lambda row: row["fault"])
        changes = [name for name, array in self.before.items() if name not in after or not np.array_equal(after[name], array)]
        figures = {
            "messages": sent, "classes": len(rows), "crashes": crashes, "map_changes": len(changes), "changed": ", ".join(changes),
            "voxels": self.voxels, "silent": sum(row["silent"] for row in rows),
            "nameless": sum(row["nameless"] for row in rows), "resets": self.node.count("resets"), "failures": self.node.count("failures"),
            "seconds": time.monotonic() - start,
        }
        return figures, rows

    def _send(self, fault: "Fault", count: int) -> None:
        """A batch of one class, and what the diagnostics say of it."""
        node, row = self.node, self.rows.setdefault(
            fault.name, {"fault": fault.name, "messages": 0, "silent": 0, "nameless": 0, "counted_as": fault.counter, "error": ""})
        made = [fault.make(self.hostile) for _ in range(count)]
        before = dict(node.values)
        for message in made:
            self.publishers[fault.kind].publish(message)

        def risen(name: str) -> int:
            return node.count(name) - int(before.get(name, 0))

        try:
            node.until(lambda: risen(fault.counter) >= count, f"{count} x {fault.name}", 60.0)
        except DataError:
            if not node.process.is_alive():
                raise
        reports = node.reports
        node.until(lambda: node.reports > reports, "diagnostics")  # in case something else is counted later
        others = sum(abs(risen(name)) for name in ("refused", "dropped_duplicate_or_late", "updates_applied", "resets") if name != fault.counter)
        row["messages"] += count
        row["silent"] += abs(count - risen(fault.counter)) + others
        if fault.says:
            error = node.values.get("last_error", "")
            row["nameless"] += not re.search(fault.says, error)
            row["error"] = error[:300]

    def _map(self, name: str) -> dict[str, np.ndarray]:
        """What the node saves: voxels, colours, labels and ids, all of it."""
        from instseg_ros.srv import SaveMap

        answer = self.node.call(SaveMap, "save_map", SaveMap.Request(path=name))
        if not answer.success:
            raise DataError(f"the map could not be saved: {answer.message}")
        with np.load(answer.message, allow_pickle=False) as saved:
            return {key: saved[key] for key in saved.files if key != "stamp_ns"}  # which the updates that change nothing may move
