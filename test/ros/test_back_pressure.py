"""A listener that has stopped listening, and a worker that fails: neither holds up the node."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from instseg_ros.msg import InstanceArray
from ros_bench import block, update
from sensor_msgs.msg import PointCloud2

from instseg_ros.ros import qos
from instseg_ros.ros.pointcloud import LABELLED_DTYPE

LISTENER = """
import rclpy, sys
from instseg_ros.msg import InstanceArray, InstanceEvent
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray
rclpy.init()
node = rclpy.create_node("stopped_listener")
everything = dict(history=QoSHistoryPolicy.KEEP_ALL, reliability=QoSReliabilityPolicy.RELIABLE)
latched = QoSProfile(durability=QoSDurabilityPolicy.TRANSIENT_LOCAL, **everything)
for kind, name, profile in ((PointCloud2, "points", latched), (PointCloud2, "points_delta", QoSProfile(**everything)),
                            (InstanceArray, "instances", QoSProfile(**everything)), (InstanceEvent, "events", QoSProfile(**everything)),
                            (MarkerArray, "markers", latched)):
    node.create_subscription(kind, "/segmenter/" + name, lambda _: None, profile)
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener():
    process = subprocess.Popen([sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def test_a_listener_that_hangs_does_not_stall_the_worker(bench, listener):
    node = bench.segmenter(output__points_period_s=0.0)
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    assert listener.stdout.readline() == "listening\n"
    outputs = [p for p in node.publishers if p.topic_name.startswith("/segmenter/")]
    named = {"/segmenter/" + name for name in ("points", "points_delta", "instances", "events", "markers")}
    bench.until(lambda: all(p.get_subscription_count() for p in outputs if p.topic_name in named), "the listener on every output")
    os.kill(listener.pid, signal.SIGSTOP)
    send = bench.sender()
    for number in range(80):  # more than any publisher keeps of clouds and instances
        send(update(number, block(30 * (number % 8), size=12, value=number)))
        bench.until(lambda: node.monitor.counts["updates_received"] == number + 1, "reception")  # noqa: B023
        bench.until(lambda: len(node.queue) == 0, "the worker takes it")
    bench.until(lambda: node.monitor.counts["updates_applied"] == 80, "all are applied")
    bench.until(lambda: len(instances) and instances.last.sequence == 79, "others still hear of it")
    assert not any(name.startswith("dropped") for name in node.monitor.counts | node.queue.counts) and node.watch.complete
    assert node.worker.voxels == 8 * 12**3


def test_failures_in_a_row_leave_the_map_and_are_told_of(bench, monkeypatch):
    node = bench.segmenter(output__points_period_s=0.0)
    points = bench.record(PointCloud2, "/segmenter/points", qos.LATCHED)
    diagnostics = bench.record(DiagnosticArray, "/diagnostics", 10)
    said = []
    monkeypatch.setattr(type(node.get_logger()), "error", lambda self, text, **_: said.append(text))
    send = bench.sender()
    send(update(0, block(0)))
    bench.until(lambda: node.worker.instances == 1, "a map")
    original, left = node.segmenter.runner.refresh, [3]  # the update, its repair, and the repair at the next update

    def fail(*arguments):
        if left[0]:
            left[0] -= 1
            raise RuntimeError(f"{left[0]} more to come")
        return original(*arguments)

    monkeypatch.setattr(node.segmenter.runner, "refresh", fail)
    send(update(1, block(20)))
    bench.until(lambda: node.monitor.counts["failures"] == 2, "the update and its repair fail")
    assert node.worker.state() is None, "nothing is saved that contradicts itself"
    send(update(2, block(40)))
    bench.until(lambda: node.monitor.counts["failures"] == 3, "the next repair fails")
    bench.until(lambda: node.worker._sound, "and the one after it does not")
    send(update(3, block(60)))
    bench.until(lambda: node.monitor.counts["updates_applied"] >= 2 and len(node.segmenter.map) >= 192, "it goes on")
    assert all("RuntimeError" in text and "more to come" in text for text in said if "segmenting failed" in text) and len(said) >= 3
    bench.until(lambda: any("more to come" in s.message and s.level == s.ERROR for m in diagnostics.messages for s in m.status), "diagnostics")
    assert not node.watch.complete, "the update that was lost is asked for"
    whole = [block(20 * i) for i in range(4)]
    send(update(4, *whole, full=True))
    bench.until(lambda: node.worker.voxels == 256 and node.worker.instances == 4 and node.watch.complete, "healed")
    bench.until(lambda: points.last.width == 256, "the cloud")
    cloud = np.frombuffer(bytes(points.last.data), LABELLED_DTYPE)
    assert len(np.unique(cloud["instance"])) == 4 and cloud["instance"].min() > 0
