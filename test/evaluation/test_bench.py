"""The online benchmark: what it measures and how it reports it."""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from instseg_ros.benchmarks import BENCHMARKS
from instseg_ros.benchmarks.online import STAGES, measure, plot
from instseg_ros.commands import bench
from instseg_ros.config import ModelConfig, SegmenterConfig
from instseg_ros.evaluation.cases import Case
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.network import InstanceNet
from instseg_ros.segmenter import Segmenter


def growing_case(updates=6):
    steps = []
    for i in range(updates):
        coords = (np.indices((5, 20, 3)).reshape(3, -1).T + [5 * i, 0, 0]).astype(np.int32)
        steps.append(MapUpdate(coords, np.full_like(coords, 90, np.uint8), np.ones(len(coords), np.float32), 0.05, "map", i, i))
    everything = np.concatenate([s.coords for s in steps])
    truth = GroundTruth.of(everything, np.zeros(len(everything), np.uint8), np.full(len(everything), -1, np.int32), 0.05)
    return Case("growing", steps, steps[-1], truth)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(channels=(8, 8), embedding_dim=4)).eval()
    return Segmenter(SegmenterConfig(device="cpu", threads=1), net)


def test_every_update_is_a_row_and_stages_are_percentiles(segmenter, tmp_path):
    figures, rows = measure(segmenter, growing_case())
    assert [row["voxels"] for row in rows] == [300 * (i + 1) for i in range(6)]
    assert figures["online_updates"] == 6 and figures["online_voxels"] == 1800 and figures["online_changed_voxels_p50"] == 300
    for stage in STAGES:
        times = [row[f"{stage}_ms"] for row in rows]
        assert figures[f"online_{stage}_ms_p50"] == pytest.approx(np.median(times)) and min(times) > 0
        assert figures[f"online_{stage}_ms_full_map"] == pytest.approx(times[-1])
    parts = sum(rows[0][f"{stage}_ms"] for stage in STAGES if stage != "total")
    assert parts <= rows[0]["total_ms"] <= parts + 50
    plot(tmp_path / "plots" / "online.png", rows)
    assert (tmp_path / "plots" / "online.png").stat().st_size > 5000


def test_at_a_rate_updates_come_no_earlier_and_wait_counts(segmenter):
    start = time.perf_counter()
    figures, rows = measure(segmenter, growing_case(), rate=20.0)
    assert time.perf_counter() - start >= 5 / 20.0  # six updates
    assert figures["online_rate"] == 20.0 and len(rows) == 6
    for row in rows:
        assert row["latency_ms"] >= row["total_ms"]
    assert figures["latency_ms_max"] == max(row["latency_ms"] for row in rows) >= figures["latency_ms_p95"] >= figures["latency_ms_p50"]


def test_the_first_updates_alone(segmenter):
    figures, rows = measure(segmenter, growing_case(), updates=2)
    assert len(rows) == 2 and figures["online_voxels"] == 600


def test_the_command_knows_every_benchmark_and_writes_the_report(tmp_path, monkeypatch, capsys):
    needed = {"ablations": ["--data", str(tmp_path)]}
    for name in BENCHMARKS:
        parser, given = argparse.ArgumentParser(), [name, "--json", str(tmp_path / "bench.json"), *needed.get(name, [])]
        bench.add_arguments(parser, given)
        args = parser.parse_args(given)
        assert args.run_benchmark.__module__ == "instseg_ros.benchmarks." + name.replace("-", "_")
    monkeypatch.setattr(args, "run_benchmark", lambda _: ({"speed": 1.5, "count": 3}, [{"update": 0}]))
    assert bench.run(args) == 0
    assert json.loads((tmp_path / "bench.json").read_text())["figures"] == {"speed": 1.5, "count": 3}
    assert "speed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parser.parse_args(["nothing"])


@pytest.mark.parametrize("benchmark", ["conv", "incremental"])
def test_what_runs_on_a_borrowed_gpu_needs_few_libraries(benchmark):
    """Machines with a GPU that are lent for a while have torch and its like, not what reads data sets and depth images."""
    program = """
import sys
sys.modules.update(dict.fromkeys(["open3d", "hdbscan", "rosbags", "rclpy"]))  # None: an import of it fails
from instseg_ros.cli import main
main(["bench", sys.argv[1], "--help"])
"""
    result = subprocess.run([sys.executable, "-c", program, benchmark], capture_output=True, text=True)
    assert result.returncode == 0 and "--json" in result.stdout, result.stderr
