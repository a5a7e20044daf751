"""Wrong messages of every class, through real topics into the real node: none changes the map, and each is named."""

import re
import time

import numpy as np
import pytest
from instseg_ros.msg import MapUpdate as MapUpdateMsg
from rclpy.parameter import Parameter
from ros_bench import block, update
from sensor_msgs.msg import PointCloud2

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.benchmarks.hostile_messages import FAULTS, HostileMessages
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import header, update_to_msg
from instseg_ros.ros.pointcloud import colored_cloud_to_msg
from instseg_ros.ros.segmenter_node import SegmenterNode

EACH = 12


def test_no_class_of_fault_changes_the_map_or_goes_unnamed(bench):
    node = bench.segmenter()
    topics = {MapUpdateMsg: "map_updates", PointCloud2: "map_points"}
    publishers = {kind: bench.publisher(kind, topic, qos.DELTAS) for kind, topic in topics.items()}
    now_ns = time.time_ns()
    publishers[MapUpdateMsg].publish(update_to_msg(update(1000, block(0), block(20), full=True, stamp_s=now_ns / 1e9)))
    bench.until(lambda: node.worker.voxels == 128, "a map")
    before, ids = node.segmenter.cloud(), dict(node.segmenter.tracker.instances)
    hostile = HostileMessages(0, node.inputs.last_stamp_ns, 1000)
    for fault in FAULTS:
        for _ in range(EACH):
            counts = node.monitor.counts.copy()
            publishers[fault.kind].publish(fault.make(hostile))
            bench.until(lambda: node.monitor.counts[fault.counter] > counts[fault.counter], fault.name, 20.0)  # noqa: B023
            if fault.says:
                assert re.search(fault.says, node.monitor.last_error), (fault.name, node.monitor.last_error)
                assert len(node.monitor.last_error) < 1000
    after = node.segmenter.cloud()
    for name in ("points_m", "colors", "class_index", "instance", "confidence"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    assert node.segmenter.tracker.instances == ids
    assert not {"resets", "resets_by_time", "failures", "sequence_gaps"} & node.monitor.counts.keys() and node.watch.complete
    publishers[MapUpdateMsg].publish(update_to_msg(update(hostile.sequence + 1, block(40), stamp_s=hostile.stamp_ns / 1e9)))
    bench.until(lambda: node.worker.voxels == 192, "a good update after all of them")


@pytest.mark.parametrize("age_s", [0.0, 100.0])
def test_a_bad_cloud_displaces_nothing_that_waits(bench, age_s):
    node = bench.segmenter()
    now_s = time.time()
    bench.sender()(update(0, block(0), stamp_s=now_s))
    bench.until(lambda: node.worker.voxels == 64, "a map")
    node.worker.pause(True)
    bench.sender()(update(2, block(20), stamp_s=now_s))
    bench.until(lambda: len(node.queue) == 1, "an update that waits, after a gap")
    points = (block(40)[0] + 0.5) * 0.05
    points[3, 1] = np.nan
    bench.publisher(PointCloud2, "map_points", qos.CLOUDS).publish(
        colored_cloud_to_msg(header(int((now_s - age_s) * 1e9), "map"), points, block(40)[1]))
    bench.until(lambda: node.monitor.counts["refused"] == 1, "a cloud with a NaN")
    assert "not finite" in node.monitor.last_error and not node.watch.complete
    node.worker.pause(False)
    bench.until(lambda: node.worker.voxels == 128, "the update is there all the same")
    assert not node.monitor.counts["resets_by_time"]


def test_a_stamp_of_the_future_does_not_move_the_clock(bench):
    node = bench.segmenter()
    send = bench.sender()
    now_s = time.time()
    send(update(0, block(0), stamp_s=now_s))
    send(update(1, block(20), stamp_s=now_s + 100.0))
    bench.until(lambda: node.monitor.counts["refused"] == 1, "refused")
    assert "input.max_ahead_s" in node.monitor.last_error
    send(update(1, block(20), stamp_s=now_s + 0.1))
    bench.until(lambda: node.worker.voxels == 128, "the map is kept, and goes on")
    assert node.watch.complete


def test_any_stamp_is_taken_if_wished(bench):
    node = bench.segmenter(input__max_ahead_s=0.0)
    bench.sender()(update(0, block(0), stamp_s=time.time() + 1e6))
    bench.until(lambda: node.worker.voxels == 64, "an update from the future")


def test_a_simulated_clock_that_is_not_heard_yet_refuses_nothing(bench):
    node = bench._start(lambda **a: SegmenterNode(chair_net(), **a), None, {"use_sim_time": True})
    assert node.get_parameter("use_sim_time").type_ == Parameter.Type.BOOL and node.get_clock().now().nanoseconds == 0
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.worker.voxels == 64, "an update")
