"""The demo itself, short and with an untrained network: real nodes, real topics."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed (make build, or source a ROS 2)")
pytest.importorskip("instseg_ros.msg", reason="the messages are not built (make build, or colcon build)")

from instseg_ros.config import ModelConfig
from instseg_ros.live.recording import read_recording, states
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights
from instseg_ros.visual.ply import read_labelled_ply

ARGUMENTS = ["--seed", "3", "--library", "procedural", "--frames", "14", "--rate", "7", "--period", "0.5", "--timeout", "240"]


def run_demo(*arguments, timeout=600):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "instseg_ros.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )


def test_every_update_is_segmented_and_what_was_published_adds_up(tmp_path):
    save_weights(tmp_path / "tiny.safetensors", InstanceNet(ModelConfig(channels=(8, 8))), {})
    done = run_demo("--out", str(tmp_path / "demo"), "--weights", str(tmp_path / "tiny.safetensors"), *ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "demo"
    report = json.loads((out / "summary.json").read_text())
    figures = report["figures"]
    assert figures["updates"] == figures["updates_segmented"] > 1 and figures["drops"] == 0
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"] <= figures["latency_ms"]["max"] < 60_000
    assert figures["instances"] == len(report["rows"])
    for name in ("map_color.png", "map_instances.png", "growth_color.png", "growth_instances.png", "growth.gif"):
        assert (out / name).stat().st_size > 1000

    # What a listener of the deltas knows is what the segmenter itself saved.
    *_, last = states(read_recording(out / "bag"))
    saved = read_labelled_ply(out / "labelled.ply")
    assert len(saved["points_m"]) == len(last.coords) == figures["voxels"] > 500
    heard = dict(zip(map(tuple, last.cloud.points_m.round(3).tolist()), last.cloud.instance.tolist(), strict=True))
    assert heard == dict(zip(map(tuple, saved["points_m"].round(3).tolist()), saved["instance"].tolist(), strict=True))


def test_a_node_that_cannot_start_ends_the_demo_with_its_words(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    done = run_demo("--out", str(tmp_path / "demo"), "--weights", str(tmp_path / "bad.safetensors"), *ARGUMENTS)
    assert done.returncode == 2
    assert "segmenter_node ended with status 2" in done.stderr and "bad.safetensors" in done.stderr
