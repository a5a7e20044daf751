"""`instseg replay --mode topics`: real nodes as processes, the bag through topics with /clock, and the player alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ros_bench import block, update

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.datasets.bag_writer import write_bag
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.live.recorder import BagRecorder, message_store
from instseg_ros.models.weights import save_weights

STORE = message_store()
T = STORE.types
COUNT = 6


def instseg(module: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=500, env=environment)


def write_updates(path: Path) -> Path:
    """A block more with every update."""
    with BagRecorder(path, {"/mapper/changes": "instseg_ros/msg/MapUpdate"}) as bag:
        for number in range(COUNT):
            one = update(number, block(10 * number), full=number == 0)
            header = T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](*divmod(one.stamp_ns, 10**9)), "odom")
            msg = T["instseg_ros/msg/MapUpdate"](
                header, one.sequence, one.full, one.voxel_size_m, one.coords.ravel(), one.colors.ravel(), one.weights, one.deleted.ravel())
            bag.write("/mapper/changes", one.stamp_ns, bytes(STORE.serialize_cdr(msg, msg.__msgtype__)))
    return path


@pytest.fixture
def flags(tmp_path) -> list[str]:
    save_weights(tmp_path / "chairs.safetensors", chair_net(), {})
    return ["--mode", "topics", "--weights", str(tmp_path / "chairs.safetensors"), "--grouping.method", "connected_components", "--timeout", "200",
            "--out", str(tmp_path / "out"), "--device", "cpu"]


def figures_of(done: subprocess.CompletedProcess, out: Path) -> tuple[dict, list[dict]]:
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "replay.json").read_text())
    for name in ("latency", "stages", "growth", "ids"):
        assert (out / f"{name}.png").stat().st_size > 3000
    return report["figures"], report["rows"]


def test_map_updates_through_topics(tmp_path, flags):
    done = instseg("instseg_ros.cli", "replay", str(write_updates(tmp_path / "bag")), *flags, "--rate", "0.5")
    figures, rows = figures_of(done, tmp_path / "out")
    assert figures["played"] == {"map_updates": COUNT} and figures["updates"] == figures["updates_received"] == COUNT
    assert figures["unanswered"] == figures["drops"] == 0 and figures["voxels"] == 64 * COUNT and figures["ids"]["ids"] == COUNT
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["max"] < 100_000 and figures["stage_ms"]["network"]["p50"] > 0
    updates = [row for row in rows if row["row"] == "update"]
    assert [row["sequence"] for row in updates] == list(range(COUNT)) and updates[-1]["at_s"] == pytest.approx(0.1 * (COUNT - 1))


def test_images_through_fusion_and_segmenter(tmp_path, flags):
    K = np.array([[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]])
    depth_m, color = np.full((32, 48), 1.5, np.float32), np.full((32, 48, 3), 120, np.uint8)
    poses = [np.array([[1.0, 0, 0, 0.1 * i], [0, -1, 0, 0], [0, 0, -1, 1.5], [0, 0, 0, 1]]) for i in range(COUNT)]
    frames = [RgbdFrame(10**12 + i * 10**8, depth_m, color, K, pose) for i, pose in enumerate(poses)]
    write_bag(tmp_path / "bag", frames, frame_id="odom")
    figures, _ = figures_of(instseg("instseg_ros.cli", "replay", str(tmp_path / "bag"), *flags, "--period", "0.3"), tmp_path / "out")
    assert figures["frames_fused"] == COUNT and figures["unanswered"] == 0 < figures["updates"] and figures["voxels"] > 100


def test_a_player_without_a_usable_bag_ends_with_words(tmp_path):
    arguments = ["--ros-args", "-p", f"path:={tmp_path / 'nothing'}"]
    done = instseg("instseg_ros.ros.bag_player", *arguments)
    assert done.returncode == 2 and "nothing is missing" in done.stderr
    bag = write_updates(tmp_path / "bag")
    file = next(bag.glob("*.mcap"))
    content = bytearray(file.read_bytes())
    content[20:-200] = bytes(len(content) - 220)
    file.write_bytes(bytes(content))
    done = instseg("instseg_ros.ros.bag_player", "--ros-args", "-p", f"path:={bag}", "-p", "wait_s:=0.0")
    assert done.returncode == 2 and "bag" in done.stderr and "Traceback" not in done.stderr
