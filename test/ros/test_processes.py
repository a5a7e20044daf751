"""The nodes as processes: clean ends, refusals with an exit code, simulated time."""

import os
import signal
import subprocess
import sys

import pytest
from rclpy.parameter import Parameter
from ros_bench import block, update
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.models.weights import save_weights
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import ns_to_time


def start(module: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"instseg_ros.ros.{module}", "--ros-args", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ),
    )


def own_name(name: str) -> list[str]:
    """Arguments for a node and a topic of its own: what an earlier test left in discovery must not be taken for it."""
    return ["-r", f"__node:={name}", "-r", f"map_updates:=/{name}/map_updates"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_segmenter_cleanly(bench, tmp_path, number):
    name = f"segmenter_{int(number)}"
    save_weights(tmp_path / "net.safetensors", chair_net(), {})
    process = start("segmenter_node", *own_name(name), "-p", f"weights:={tmp_path / 'net.safetensors'}")
    try:
        # a latched topic: the process may answer before it has found this recorder, and would drop what is not latched
        points = bench.record(PointCloud2, f"/{name}/points", qos.LATCHED)
        send = bench.sender(f"/{name}/map_updates")
        bench.until(lambda: bench.probe.count_publishers(f"/{name}/points") == 1, "the node")
        send(update(0, block(0)))
        bench.until(lambda: len(points) and points.last.width == 64, "a result from the process")
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_signals_end_the_fusion_cleanly(bench):
    process = start("fusion_node", *own_name("fusion_alone"))
    try:
        bench.until(lambda: bench.probe.count_publishers("/fusion_alone/map_updates") == 1, "the node")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_wrong_settings_end_with_exit_code_2():
    for module, setting, text in (
        ("segmenter_node", "grouping.min_voxel:=3", "Did you mean grouping.min_voxels"),
        ("fusion_node", "publish_period_s:=-1.0", "publish_period_s = -1.0: allowed is"),
    ):
        process = start(module, "-p", setting)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 2 and text in output, output


def test_a_clock_that_jumps_back_resets_the_map(bench):
    node = bench.segmenter(use_sim_time=True)
    assert node.get_parameter("use_sim_time").type_ == Parameter.Type.BOOL
    clock = bench.publisher(Clock, "/clock", 10)
    send = bench.sender()

    def tick(seconds: float) -> None:
        clock.publish(Clock(clock=ns_to_time(int(seconds * 1e9))))
        bench.until(lambda: node.get_clock().now().nanoseconds == int(seconds * 1e9), f"time {seconds}")

    tick(100.0)
    send(update(0, block(0), stamp_s=100.0))
    bench.until(lambda: node.worker.voxels == 64, "a map")
    tick(99.5)
    assert node.monitor.counts["resets_by_time"] == 0
    tick(20.0)
    bench.until(lambda: node.worker.voxels == 0, "the reset")
    send(update(0, block(10), stamp_s=20.0))
    bench.until(lambda: node.worker.voxels == 64, "a new map")
    assert node.monitor.counts["resets_by_time"] == 1
    node.set_parameters([Parameter("input.max_backward_s", value=15.0)])
    tick(10.0)
    assert node.monitor.counts["resets_by_time"] == 1, "the parameter is in effect"
