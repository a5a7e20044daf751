"""SIGKILL at random moments: does the segmenter node come back with what it saved last, and go on under the same ids?

A made-up mapper changes a field of blocks; the node saves as often as it can and is killed, sometimes while it still starts. The next one
must show just what the state file holds (instances, and class and instance of every voxel), ask for the whole map, and keep the ids of
what is still there. Needs rclpy and the built messages; a network that calls everything a chair takes the place of a trained one.
"""

__all__ = ["KillRun", "add_arguments", "run"]

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.benchmarks.chair_net import chair_weights
from instseg_ros.benchmarks.node_process import run_segmenter
from instseg_ros.errors import DataError, require
from instseg_ros.labels import class_to_nyu40
from instseg_ros.mapping.update import MapUpdate, voxel_coords
from instseg_ros.persistence import State, load_newest_state

VOXEL_M = 0.05
_SITES = 36
_PITCH = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--kills", type=int, default=100, help="how often the node is killed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and of the map's changes (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where state, weights and logs are written (default: a temporary folder)")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Kill and resume; returns the figures and rows of the report."""
    rclpy = require("rclpy", "talk to the node", "source a ROS 2 workspace, or use `make build` and scripts/env.sh")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="instseg_resume_"))
    started = not rclpy.ok()
    if started:
        rclpy.init()
    try:
        with KillRun(folder, args.seed) as runs:
            rows = [_told(runs.once()) for _ in range(args.kills)]
    finally:
        if started:
            rclpy.try_shutdown()
    return figures_of(rows), rows


def _told(row: dict[str, Any]) -> dict[str, Any]:
    print(f"life {row['life']}: {row}", file=sys.stderr, flush=True)
    return row


def figures_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How often what was asked for held, over all kills."""
    counted = {name: sum(row[name] for row in rows) for name in ("readable", "resumed", "ids_equal", "labels_equal", "ids_continued")}
    behind = [row["updates_behind"] for row in rows]
    return {
        "kills": len(rows), **counted, "killed_while_starting": sum(row["while_starting"] for row in rows),
        "killed_while_writing": sum(row["while_writing"] for row in rows), "fell_back": sum(row["fell_back"] for row in rows),
        "updates_behind_p50": float(np.median(behind)), "updates_behind_max": max(behind),
    }


class Field:
    """Blocks on a grid that come, grow, change colour and go."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.size = np.zeros(_SITES, np.int64)
        self.color = np.full(_SITES, 100, np.uint8)
        self.sequence = -1

    def block(self, site: int, size: int) -> np.ndarray:
        """Voxels [n, 3] of a block."""
        return (np.argwhere(np.ones((size,) * 3, bool)) + (_PITCH * (site % 6), _PITCH * (site // 6), 0)).astype(np.int32)

    def change(self) -> MapUpdate:
        """A random change and the update that tells it."""
        new, gone = [], [np.zeros((0, 3), np.int32)]
        sites = self.rng.choice(_SITES, int(self.rng.integers(1, 5)), replace=False).tolist()
        for site in sites:
            before = int(self.size[site])
            after = 0 if self.rng.random() < 0.25 else int(self.rng.integers(4, 8))
            self.size[site], self.color[site] = after, self.rng.integers(0, 256)
            new.append(self.block(site, after))
            left = self.block(site, before)
            gone.append(left[(left - self.block(site, 1)[0]).max(axis=1, initial=0) >= after] if after else left)
        colors = np.concatenate([np.full((len(b), 3), self.color[s], np.uint8) for s, b in zip(sites, new, strict=True)])
        return self._update(np.concatenate(new), colors, deleted=np.concatenate(gone))

    def whole(self) -> MapUpdate:
        """The full update."""
        blocks = [self.block(site, int(size)) for site, size in enumerate(self.size)]
        colors = [np.full((len(b), 3), c, np.uint8) for b, c in zip(blocks, self.color, strict=True)]
        return self._update(np.concatenate(blocks), np.concatenate(colors), full=True)

    def sites_of(self, coords: np.ndarray) -> np.ndarray:
        """The site [n] of voxels [n, 3]."""
        return coords[:, 0] // _PITCH + 6 * (coords[:, 1] // _PITCH)

    def _update(self, coords: np.ndarray, colors: np.ndarray, **fields: Any) -> MapUpdate:
        self.sequence += 1
        return MapUpdate(coords, colors, np.ones(len(coords), np.float32), VOXEL_M, stamp_ns=time.time_ns(), sequence=self.sequence, **fields)


class KillRun:
    """One map and state file through many lives of the node. rclpy must be initialised.

    Args:
        folder: for the state, the weights and the nodes' logs.
        seed: of the moments and the changes.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.state_file = folder / "kill.instseg"
        self.field = Field(self.rng)
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["instseg_ros.ros.segmenter_node"])
        self._executor = SingleThreadedExecutor()
        self._probe = Node("kill_run")
        self._executor.add_node(self._probe)
        self._lives = 0
        self._start_s = 1.0
        folder.mkdir(parents=True, exist_ok=True)
        chair_weights(folder / "chairs.safetensors")

    def __enter__(self) -> "KillRun":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._probe.destroy_node()

    def once(self) -> dict[str, Any]:
        """Start the node, see what it resumed, let it work, kill it. Each row judges the resumption after the kill before it (or a first save)."""
        if not self._lives:
            with _Life(self) as life:
                life.work(3.0)
                self.until(self.state_file.exists, "a first save")
                life.kill()
        while_starting = bool(self.rng.random() < 0.1)
        if while_starting:
            with _Life(self) as life:
                time.sleep(float(self.rng.uniform(0.0, self._start_s)))
                life.kill()
        while_writing = self.state_file.with_name(f".{self.state_file.name}.part").exists()
        state, refused = load_newest_state(self.state_file)
        behind = self.field.sequence - (state.sequence if state else 0)
        with _Life(self) as life:
            row = life.judge(state)
            after_s = float(self.rng.uniform(0.0, 1.5))
            life.work(after_s)
            life.kill()
        return {
            "life": self._lives, "after_s": after_s, "while_starting": while_starting, "while_writing": while_writing, "readable": state is not None,
            "fell_back": bool(refused), "updates_behind": behind, "voxels": state.voxels if state else 0, **row,
        }

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> None:
        """Spin until a condition holds.

        Raises:
            DataError: it does not in time.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise DataError(f"waited {timeout_s:.0f} s in vain for {what}: look into the logs in {self.folder}")
            self._executor.spin_once(timeout_sec=0.01)


class _Life:
    """One process of the node, under a name of its own: discovery remembers the dead for a while."""

    def __init__(self, runs: KillRun) -> None:
        from sensor_msgs.msg import PointCloud2

        from instseg_ros.msg import MapUpdate as MapUpdateMsg
        from instseg_ros.ros import qos
        from instseg_ros.srv import ListInstances, RequestFull

        runs._lives += 1
        self.runs = runs
        self.name = name = f"life_{os.getpid()}_{runs._lives}"
        node = runs._probe
        self._full_wanted = False
        self._clouds: list[Any] = []
        self._updates = node.create_publisher(MapUpdateMsg, f"/{name}/map_updates", qos.DELTAS)
        self._points = node.create_subscription(PointCloud2, f"/{name}/points", self._clouds.append, qos.LATCHED)
        self._list = node.create_client(ListInstances, f"/{name}/list_instances")
        self._request = node.create_service(RequestFull, f"/{name}/request_full", self._wants_all)
        settings = {
            "weights": runs.folder / "chairs.safetensors", "save_dir": runs.folder, "state.file": runs.state_file.name, "state.period_s": 0.05,
            "grouping.method": "connected_components", "threads": 1, "device": "cpu", "output.points_period_s": 0.0,
        }
        arguments = ["-r", f"__node:={name}", "-r", f"map_updates:=/{name}/map_updates", "-r", f"request_full:=/{name}/request_full"]
        arguments += [part for key, value in settings.items() for part in ("-p", f"{key}:={value}")]
        self.process = runs._processes.Process(target=run_segmenter, args=(arguments, str(runs.folder / "nodes.log")))
        self._born = time.monotonic()
        self.process.start()

    def __enter__(self) -> "_Life":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        node = self.runs._probe
        node.destroy_publisher(self._updates)
        node.destroy_subscription(self._points)
        node.destroy_client(self._list)
        node.destroy_service(self._request)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join()

    def work(self, seconds: float) -> None:
        """Send changes for so long."""
        self._ready()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._send(self.runs.field.whole() if self._full_wanted else self.runs.field.change())
            pause = time.monotonic() + float(self.runs.rng.uniform(0.0, 0.05))
            while time.monotonic() < min(pause, end):
                self.runs._executor.spin_once(timeout_sec=0.005)

    def judge(self, state: State | None) -> dict[str, bool | float]:
        """Compare what a fresh node shows with the state that was read before it started, then send the whole map and compare ids."""
        self._ready()
        start_s = self.runs._start_s = time.monotonic() - self._born
        if state is None:
            return {"resumed": False, "ids_equal": False, "labels_equal": False, "ids_continued": False, "start_s": start_s}
        shown = {(i.id, i.label, i.voxels, i.first_seen.sec * 10**9 + i.first_seen.nanosec) for i in self._instances()}
        a = state.arrays
        saved = set(zip(a["live.id"].tolist(), class_to_nyu40(a["live.class_index"]).tolist(), a["live.voxels"].tolist(),
                        a["live.first_seen_ns"].tolist(), strict=True))
        self.runs.until(lambda: not state.voxels or self._clouds, "the latched cloud")
        labels = not state.voxels or _voxels_of(self._clouds[0]) == set(zip(
            map(tuple, a["voxel.coords"].tolist()), class_to_nyu40(a["voxel.class_index"]).tolist(), a["voxel.instance_of"].tolist(), strict=True))
        self.runs.until(lambda: not state.voxels or self._full_wanted, "a request for the whole map")
        whole = self.runs.field.whole()
        self._send(whole)
        sites = {}
        self.runs.until(lambda: self._sequence() >= whole.sequence, "the whole map's result")
        for one in self._instances():
            corner = voxel_coords(np.array([[one.center.x, one.center.y, one.center.z]]), VOXEL_M)
            sites[int(self.runs.field.sites_of(corner)[0])] = one.id
        owned = a["voxel.instance_of"] > 0
        before = dict(zip(self.runs.field.sites_of(a["voxel.coords"][owned]).tolist(), a["voxel.instance_of"][owned].tolist(), strict=True))
        kept = all(sites[site] == i for site, i in before.items() if site in sites)  # blocks of a site share a corner
        return {"resumed": bool(shown) or not saved, "ids_equal": shown == saved, "labels_equal": labels, "ids_continued": kept, "start_s": start_s}

    def _ready(self) -> None:
        self.runs.until(
            lambda: self._list.service_is_ready() and self._updates.get_subscription_count() or not self.process.is_alive(), "the node")
        if not self.process.is_alive():
            raise DataError(f"the node ended by itself: look into {self.runs.folder / 'nodes.log'}")

    def _wants_all(self, _request: Any, response: Any) -> Any:
        self._full_wanted = response.success = True
        return response

    def _send(self, update: MapUpdate) -> None:
        from instseg_ros.ros.conversions import update_to_msg

        if update.full:
            self._full_wanted = False
        self._updates.publish(update_to_msg(update))

    def _answer(self) -> Any:
        """What the node answers; it is asked again where no answer comes: one is lost while the node has not discovered this client."""
        from instseg_ros.srv import ListInstances

        for patience_s in (5.0, 10.0, 120.0):
            future = self._list.call_async(ListInstances.Request())
            end = time.monotonic() + patience_s
            self.runs.until(lambda: future.done() or time.monotonic() > end, "an answer of list_instances", 130.0)  # noqa: B023
            if future.done():
                return future.result().instances
            self._list.remove_pending_request(future)
        raise DataError(f"the node did not answer list_instances: look into the logs in {self.runs.folder}")

    def _instances(self) -> list[Any]:
        return list(self._answer().instances)

    def _sequence(self) -> int:
        return int(self._answer().sequence)


def _voxels_of(msg: Any) -> set[tuple[tuple[int, int, int], int, int]]:
    """Voxel, label and instance of every point."""
    from instseg_ros.ros.pointcloud import LABELLED_DTYPE

    points = np.frombuffer(bytes(msg.data), LABELLED_DTYPE)
    coords = voxel_coords(np.stack([points["x"], points["y"], points["z"]], axis=1), VOXEL_M)
    return set(zip(map(tuple, coords.tolist()), points["label"].tolist(), points["instance"].tolist(), strict=True))
