"""Clocks that jump, bags that loop, poses that are late or missing, and TF: what is not known is waited for or refused, never made up."""

import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from instseg_ros.msg import MapUpdate
from ros_bench import block, update
from rosgraph_msgs.msg import Clock
from test_fusion_node import Camera, looking_along_x, ms

from instseg_ros.ros import qos
from instseg_ros.ros.conversions import ns_to_time, update_from_msg


class Time:
    """A simulated clock."""

    def __init__(self, bench, node) -> None:
        self.bench, self.node, self.publisher = bench, node, bench.publisher(Clock, "/clock", 10)

    def set(self, ns: int) -> None:
        self.publisher.publish(Clock(clock=ns_to_time(ns)))
        self.bench.until(lambda: self.node.get_clock().now().nanoseconds == ns, f"time {ns}")


@pytest.mark.parametrize("first", ["clock", "messages"])
def test_a_bag_that_loops_is_one_reset_a_loop(bench, first):
    node = bench.segmenter(use_sim_time=True)
    clock, send = Time(bench, node), bench.sender()
    for loop in range(3):
        if first == "clock":
            clock.set(10_000_000_000)
        for number in range(4):
            send(update(number, block(10 * number), stamp_s=10.0 + number))
        bench.until(lambda: node.monitor.counts["updates_received"] == 4 * (loop + 1), f"loop {loop}")  # noqa: B023
        if first == "messages":
            clock.set(10_000_000_000)
        clock.set(13_000_000_000)
        bench.until(lambda: node.worker.voxels == 256 and not len(node.queue), "the map")
        assert node.monitor.counts["resets_by_time"] == loop
    assert node.watch.complete and node.segmenter.map.lookup(block(0)[0]).min() >= 0
    assert len(node.segmenter.map) == 256 and node.worker.instances == 4


def test_messages_of_the_loop_before_do_not_come_into_the_next(bench):
    node = bench.segmenter(use_sim_time=True)
    clock, send = Time(bench, node), bench.sender()
    clock.set(500_000_000_000)
    send(update(0, block(0), stamp_s=500.0))
    bench.until(lambda: node.worker.voxels == 64, "the first loop")
    clock.set(100_000_000_000)
    bench.until(lambda: node.worker.voxels == 0, "the reset")
    send(update(1, block(20), stamp_s=500.1))
    bench.until(lambda: node.monitor.counts["refused"] == 1, "a straggler")
    assert "ahead of this node's clock" in node.monitor.last_error
    send(update(0, block(40), stamp_s=100.0))
    bench.until(lambda: node.worker.voxels == 64, "the second loop")
    assert node.segmenter.map.lookup(block(40)[0]).min() >= 0 and node.monitor.counts["resets_by_time"] == 1


def test_fusion_begins_a_new_map_when_the_clock_jumps_back(bench):
    node = bench.fusion(use_sim_time=True, min_weight=1.0, publish_period_s=0.02)
    updates = bench.record(MapUpdate, "map_updates", qos.DELTAS)
    bench.until(lambda: node.worker.subscribers == 1, "a listener")
    clock, camera = Time(bench, node), Camera(bench)
    clock.set(ms(5000))
    camera.calibrate()
    camera.pose(ms(5000), looking_along_x())
    camera.shoot(ms(5000))
    bench.until(lambda: len(updates) == 1, "a map")
    clock.set(ms(0))
    bench.until(lambda: node.monitor.counts["resets"] == 1, "the reset")
    assert "clock jumped back" in node.monitor.last_error
    camera.shoot(ms(0), wall_m=2.5)
    camera.pose(ms(0), looking_along_x())
    bench.until(lambda: len(updates) == 2, "the second map")
    last = update_from_msg(updates.last)
    assert last.full and ((last.coords[:, 0] + 0.5) * 0.05).min() > 2.3


def test_images_wait_for_a_pose_that_is_late(bench):
    node = bench.fusion(min_weight=1.0, publish_period_s=0.02, pose__max_wait_s=60.0)
    camera = Camera(bench)
    camera.calibrate()
    camera.shoot(ms(0))
    bench.until(lambda: len(node._unposed) == 1, "an image that waits")
    end = time.monotonic() + 0.3
    bench.until(lambda: time.monotonic() > end, "a while")
    assert len(node._unposed) == 1 and not node.monitor.counts["frames_fused"]
    camera.pose(ms(0), looking_along_x())
    bench.until(lambda: node.monitor.counts["frames_fused"] == 1, "fused after all")
    assert not any(name.startswith("dropped") for name in node.monitor.counts)


@pytest.fixture
def tf(monkeypatch):
    """tf2_ros as the node uses it: transforms that the test hands out."""

    class TransformError(Exception):
        pass

    class Buffer:
        known: dict = {}

        def __init__(self, node=None) -> None:
            pass

        def lookup_transform(self, target, source, stamp):
            if (target, source) not in self.known:
                raise TransformError(f'"{source}" passed to lookupTransform argument source_frame does not exist.')
            x, y, z = self.known[target, source]
            q = SimpleNamespace(x=-0.5, y=0.5, z=-0.5, w=0.5)  # looks along x
            return SimpleNamespace(transform=SimpleNamespace(translation=SimpleNamespace(x=x, y=y, z=z), rotation=q))

    Buffer.known = {}
    module = ModuleType("tf2_ros")
    module.Buffer, module.TransformListener, module.TransformException = Buffer, lambda buffer, node: None, TransformError
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return Buffer.known


def shoot(bench, frame: str) -> None:
    camera = Camera.__new__(Camera)
    from sensor_msgs.msg import CameraInfo, Image

    camera.encoding = "16UC1"
    camera.depth, camera.color = (bench.publisher(Image, topic, qos.IMAGES) for topic in ("depth", "color"))
    camera.info = bench.publisher(CameraInfo, "camera_info", qos.IMAGES)
    original = camera._image

    def framed(*arguments):
        msg = original(*arguments)
        msg.header.frame_id = frame
        return msg

    camera._image = framed
    camera.calibrate()
    camera.shoot(ms(0))


def test_tf_that_is_late_is_waited_for(bench, tf):
    node = bench.fusion(pose__source="tf", pose__max_wait_s=60.0, min_weight=1.0, publish_period_s=0.02)
    updates = bench.record(MapUpdate, "map_updates", qos.DELTAS)
    bench.until(lambda: node.worker.subscribers == 1, "a listener")
    shoot(bench, "optical")
    bench.until(lambda: len(node._unposed) == 1 and node._tf.why, "an image that waits")
    assert not node.monitor.counts["frames_fused"]
    tf["map", "optical"] = (10.0, 0.0, 0.0)
    bench.until(lambda: len(updates), "fused after all")
    assert np.abs((update_from_msg(updates.last).coords[:, 0] + 0.5) * 0.05 - 11.5).max() < 0.06, "where TF says"


@pytest.mark.parametrize(("frame", "says"), [("optical", "does not exist"), ("map", "optical frame"), ("", "optical frame")])
def test_tf_that_is_missing_is_told_of_and_not_made_up(bench, tf, frame, says):
    node = bench.fusion(pose__source="tf", pose__max_wait_s=0.1)
    tf["map", "map"] = tf["map", ""] = (0.0, 0.0, 0.0)  # what TF answers for a frame to itself
    shoot(bench, frame)
    bench.until(lambda: node.monitor.counts["dropped_no_pose"] == 1, "the frame is dropped")
    assert says in node.monitor.last_error and "pose.max_wait_s" in node.monitor.last_error
    assert not node.monitor.counts["frames_fused"]
