"""The segmenter node with the real pipeline: what goes in, what comes out, and what it does when all is not well."""

import json
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from instseg_ros.msg import InstanceArray, InstanceEvent
from instseg_ros.srv import SaveMap
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from ros_bench import block, update
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.errors import ConfigError
from instseg_ros.ros import qos, segmenter_outputs
from instseg_ros.ros.conversions import header
from instseg_ros.ros.pointcloud import LABELLED_DTYPE, colored_cloud_to_msg
from instseg_ros.ros.segmenter_node import SegmenterNode
from instseg_ros.visual.ply import read_labelled_ply

CHAIR = 5


def points_of(msg: PointCloud2) -> np.ndarray:
    return np.frombuffer(bytes(msg.data), LABELLED_DTYPE)


def live(msg: InstanceArray) -> dict:
    return {one.id: one for one in msg.instances}


def test_updates_become_instances_clouds_markers_and_events(bench):
    # A block is too small to be two, and no less sure for it
    node = bench.segmenter(output__points_period_s=0.0, grouping__min_cluster_voxels=40, grouping__score_surface_m2=0.0)
    points = bench.record(PointCloud2, "/segmenter/points", qos.LATCHED)
    delta = bench.record(PointCloud2, "/segmenter/points_delta", qos.DELTAS)
    markers = bench.record(MarkerArray, "/segmenter/markers", qos.LATCHED)
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    events = bench.record(InstanceEvent, "/segmenter/events", qos.EVENTS)
    send = bench.sender()
    recorded = [p for p in node.publishers if p.topic_name.endswith(("/points_delta", "/instances", "/events"))]
    bench.until(lambda: all(p.get_subscription_count() for p in recorded), "recorders")

    send(update(0, block(0), block(20)))
    bench.until(lambda: len(instances) and len(instances.last.instances) == 2, "two instances")
    first = live(instances.last)
    assert instances.last.header.frame_id == "map" and instances.last.header.stamp.sec == 10
    assert {(one.label, one.class_name, one.voxels) for one in first.values()} == {(CHAIR, "chair", 64)}
    box = min(first.values(), key=lambda one: one.box_min.x)
    assert (box.box_min.x, box.box_max.x) == pytest.approx((0.0, 0.2), abs=1e-5)

    send(update(1, block(40)))
    bench.until(lambda: len(instances) and len(instances.last.instances) == 3, "three instances")
    assert first.keys() < live(instances.last).keys(), "ids last"
    bench.until(lambda: len(points) and points.last.width == 192, "the whole cloud")
    bench.until(lambda: len(delta) == 2, "two delta clouds")
    assert [m.width for m in delta.messages] == [128, 64]
    cloud = points_of(points.last)
    assert set(cloud["label"]) == {CHAIR} and set(cloud["instance"]) == live(instances.last).keys()
    assert cloud["confidence"].min() > 0.9 and len(np.unique(cloud["rgb"])) == 3
    assert [(f.name, f.offset) for f in points.last.fields[:4]] == [("x", 0), ("y", 4), ("z", 8), ("rgb", 12)]

    gone_id = min(first)
    gone = block(0)[0] if first[gone_id].box_min.x < 0.5 else block(20)[0]
    send(update(2, deleted=gone))
    bench.until(lambda: any(e.type == InstanceEvent.RETIRED and e.id == gone_id for e in events.messages), "retired")
    assert {e.id for e in events.messages if e.type == InstanceEvent.BORN} == live(instances.messages[-1]).keys() | {gone_id}
    bench.until(lambda: ("boxes", gone_id, Marker.DELETE) in [(m.ns, m.id, m.action) for m in markers.last.markers], "DELETE")
    bench.until(lambda: len(delta) == 3 and (points_of(delta.last)["confidence"] == -1).sum() == 64, "removed points")
    shown = {(m.ns, m.id) for m in markers.last.markers if m.action == Marker.ADD}
    assert shown == {(ns, i) for ns in ("boxes", "labels") for i in live(instances.last)}
    assert all(len(m.points) == 24 for m in markers.last.markers if m.ns == "boxes" and m.action == Marker.ADD)


def test_a_late_subscriber_gets_the_state(bench, monkeypatch):
    monkeypatch.setattr(segmenter_outputs, "detections", None)  # as without vision_msgs
    node = bench.segmenter()
    send = bench.sender()
    send(update(0, block(0)))
    bench.until(lambda: node.worker.voxels == 64 and not node.worker._outputs._cloud_due, "the map is published")
    points = bench.record(PointCloud2, "/segmenter/points", qos.LATCHED)
    markers = bench.record(MarkerArray, "/segmenter/markers", qos.LATCHED)
    names = bench.record(String, "/segmenter/label_info", qos.LATCHED)
    bench.until(lambda: len(points) and len(markers) and len(names), "latched messages")
    assert points.messages[0].width == 64 and len(markers.messages[0].markers) == 2
    assert json.loads(names.last.data)["5"] == "chair"
    count = len(markers)
    bench.until(lambda: len(markers) > count, "markers are repeated though nothing changes")


BAD = {
    "short coords": (lambda m: m.coords.pop(), "three for each voxel"),
    "short colors": (lambda m: m.colors.pop(), "three for each voxel"),
    "odd deleted": (lambda m: m.deleted.append(1), "three for each voxel"),
    "NaN weight": (lambda m: m.weights.__setitem__(0, float("nan")), "finite and positive"),
    "twice": (lambda m: m.coords.__setitem__(slice(0, 3), m.coords[3:6]), "more than once"),
    "far away": (lambda m: m.coords.__setitem__(0, 2**30), "units and frame"),
    "frame": (lambda m: setattr(m.header, "frame_id", "odom"), "one fixed frame"),
    "no frame": (lambda m: setattr(m.header, "frame_id", ""), "frame_id is empty"),
    "voxel size": (lambda m: setattr(m, "voxel_size", 0.1), "voxel size"),
    "NaN voxel size": (lambda m: setattr(m, "voxel_size", float("nan")), "voxel_size is nan"),
    "full with deletions": (lambda m: (setattr(m, "full", True), m.deleted.extend([90, 0, 0])), "leave `deleted` empty"),
}


def test_malformed_updates_are_refused_and_the_map_stays(bench):
    from instseg_ros.msg import MapUpdate as MapUpdateMsg

    from instseg_ros.ros.conversions import update_to_msg

    node = bench.segmenter()
    publisher = bench.publisher(MapUpdateMsg, "map_updates", qos.DELTAS)
    publisher.publish(update_to_msg(update(0, block(0))))
    bench.until(lambda: node.worker.voxels == 64, "the first update")
    before = node.segmenter.cloud()
    for count, (name, (damage, text)) in enumerate(BAD.items(), 1):
        msg = update_to_msg(update(count, block(20)))
        damage(msg)
        publisher.publish(msg)
        bench.until(lambda: node.monitor.counts["refused"] == count, f"refusal of {name}")  # noqa: B023
        assert text in node.monitor.last_error, name
    np.testing.assert_array_equal(node.segmenter.cloud().points_m, before.points_m)
    np.testing.assert_array_equal(node.segmenter.cloud().instance, before.instance)
    publisher.publish(update_to_msg(update(1, block(20))))
    bench.until(lambda: node.worker.voxels == 128, "a good update after the bad ones")
    assert node.watch.complete, "a refused message leaves no gap if it is sent again"


def test_duplicates_are_ignored_and_gaps_noticed(bench):
    node = bench.segmenter()
    send = bench.sender()
    send(update(0, block(0)))
    send(update(1, block(10)))
    bench.until(lambda: node.worker.voxels == 128, "two updates")
    send(update(1, block(20)))
    bench.until(lambda: node.monitor.counts["dropped_duplicate_or_late"] == 1, "the duplicate")
    assert node.watch.complete
    send(update(4, block(30)))
    bench.until(lambda: node.worker.voxels == 192, "an update after a gap is applied")
    assert node.monitor.counts["sequence_gaps"] == 1 and not node.watch.complete
    bench.until(lambda: node.monitor.counts["full_requests_unanswered"] >= 1, "nobody to ask")
    send(update(5, block(0), block(50), full=True))
    bench.until(lambda: node.worker.voxels == 128 and node.watch.complete, "a full update heals the map")


def test_reset_pause_and_resegment(bench):
    node = bench.segmenter()
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    markers = bench.record(MarkerArray, "/segmenter/markers", qos.LATCHED)
    send = bench.sender()
    send(update(0, block(0)))
    bench.until(lambda: len(instances) and len(instances.last.instances) == 1, "an instance")
    count = len(instances)  # the call spins, so what it leads to may be here before its answer
    assert bench.call(Trigger, "/segmenter/resegment_all").success
    bench.until(lambda: len(instances) > count, "segmented again")
    assert live(instances.last).keys() == live(instances.messages[0]).keys()

    assert bench.call(SetBool, "/segmenter/pause", SetBool.Request(data=True)).success
    for i in range(1, 6):
        send(update(i, block(10 * i)))
    bench.until(lambda: len(node.queue) == 5, "updates wait")
    assert node.worker.voxels == 64 and node.queue.counts["coalesced"] == 4
    applied = node.monitor.counts["updates_applied"]
    bench.call(SetBool, "/segmenter/pause", SetBool.Request(data=False))
    bench.until(lambda: node.worker.voxels == 6 * 64, "nothing was lost")
    assert node.monitor.counts["updates_applied"] == applied + 5 and node.watch.complete
    bench.until(lambda: instances.last.sequence == 5, "one result for all of them")
    assert {m.sequence for m in instances.messages} == {0, 5}

    assert bench.call(Trigger, "/segmenter/reset").success
    assert node.worker.voxels == 0 and len(node.segmenter.map) == 0
    bench.until(lambda: len(instances.last.instances) == 0, "no instances")
    bench.until(lambda: any(m.action == Marker.DELETEALL for a in markers.messages for m in a.markers), "markers removed")
    send(update(0, block(3), stamp_s=11.0), frame_id="odom")
    bench.until(lambda: node.worker.voxels == 64, "a new map, in a new frame")


def test_updates_under_load_are_merged_and_none_is_lost(bench):
    node = bench.segmenter()
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    send = bench.sender()
    original = node.segmenter.process

    def slowly(one):
        time.sleep(0.15)
        return original(one)

    node.segmenter.process = slowly
    for i in range(40):
        send(update(i, block(10 * i), deleted=block(10 * (i - 1))[0] if i % 2 else ()))
        bench.until(lambda: node.monitor.counts["updates_received"] == i + 1, "reception")  # noqa: B023
    bench.until(lambda: node.monitor.counts["updates_applied"] == 40, "all are applied")
    bench.until(lambda: len(instances) and instances.last.sequence == 39, "the last result")
    assert node.queue.counts["coalesced"] > 0 and len(instances) < 40 and node.watch.complete
    there = [10 * i for i in range(40) if i % 2]
    np.testing.assert_array_equal(np.sort(node.segmenter.map.coords[node.segmenter.map.live_slots()], axis=0),
                                  np.sort(np.concatenate([block(x)[0] for x in there]), axis=0))
    assert not any(name.startswith("dropped") for name in node.monitor.counts | node.queue.counts)


def test_incompatible_qos_is_named_with_the_cure(bench, monkeypatch):
    node = bench.segmenter()
    said = []
    monkeypatch.setattr(type(node.get_logger()), "error", lambda self, text, **_: said.append(text))
    best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    bench.probe.create_publisher(PointCloud2, "map_points", best_effort)
    cure = "qos_overrides./map_points.subscription.reliability:=best_effort"
    bench.until(lambda: any(cure in text for text in said), "the input's cure")
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    bench.record(InstanceArray, "/segmenter/instances", latched)
    cure = "qos_overrides./segmenter/instances.publisher.durability:=transient_local"
    bench.until(lambda: any(cure in text for text in said), "the output's cure")


def test_qos_can_be_overridden(bench):
    name = "qos_overrides./map_points.subscription.reliability"
    node = bench._start(lambda **a: SegmenterNode(chair_net(), **a), None, {name.replace(".", "__"): "best_effort"})
    publisher = bench.publisher(PointCloud2, "map_points", QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    publisher.publish(colored_cloud_to_msg(header(1, "map"), (block(0)[0] + 0.5) * 0.05, block(0)[1]))
    bench.until(lambda: node.worker.voxels == 64, "a cloud from a best-effort publisher")


def test_a_full_queue_drops_and_asks_for_everything(bench):
    node = bench.segmenter(input__max_waiting_voxels=1000)
    send = bench.sender()
    bench.call(SetBool, "/segmenter/pause", SetBool.Request(data=True))
    send(update(0, block(0, size=9)))
    send(update(1, block(20, size=9)))
    bench.until(lambda: node.queue.counts["dropped_queue_full"] == 1, "a drop")
    assert not node.watch.complete
    bench.call(SetBool, "/segmenter/pause", SetBool.Request(data=False))
    bench.until(lambda: node.worker.voxels == 729, "what fitted is there")
    bench.until(lambda: node.monitor.counts["full_requests_unanswered"] >= 1, "the whole map is asked for")
    send(update(2, block(0, size=9), full=True))
    bench.until(lambda: node.watch.complete, "complete again")


def test_save_map_stays_in_its_folder(bench, tmp_path):
    bench.segmenter(save_dir=str(tmp_path / "maps"))
    node = bench.nodes[0]
    bench.sender()(update(0, block(0), block(20)))
    bench.until(lambda: node.worker.voxels == 128, "a map")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "link").symlink_to(tmp_path)
    for path in ("../out.ply", str(tmp_path / "out.ply"), "link/out.ply", "", "map.pkl"):
        answer = bench.call(SaveMap, "/segmenter/save_map", SaveMap.Request(path=path))
        assert not answer.success and ("save_dir" in answer.message or "must end in" in answer.message), path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["maps"]
    answer = bench.call(SaveMap, "/segmenter/save_map", SaveMap.Request(path="a/map.npz"))
    assert answer.success and (answer.voxels, answer.instances) == (128, 2)
    with np.load(answer.message, allow_pickle=False) as saved:
        assert saved["coords"].shape == (128, 3) and len(json.loads(str(saved["instances"]))) == 2
    answer = bench.call(SaveMap, "/segmenter/save_map", SaveMap.Request(path="map.ply"))
    read = read_labelled_ply(answer.message)
    assert len(read["points_m"]) == 128 and len(np.unique(read["instance"])) == 2


def test_the_worker_survives_an_exception(bench, monkeypatch):
    node = bench.segmenter()
    send = bench.sender()
    send(update(0, block(0)))
    bench.until(lambda: node.worker.voxels == 64, "a map")
    original = node.segmenter.runner.refresh

    def fail_once(*arguments):
        monkeypatch.setattr(node.segmenter.runner, "refresh", original)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(node.segmenter.runner, "refresh", fail_once)
    send(update(1, block(20)))
    bench.until(lambda: node.worker.voxels == 128 and node.worker.instances == 2, "the map is segmented all the same")
    assert node.monitor.counts["failures"] == 1 and "out of luck" in node.monitor.last_error
    diagnostics = bench.record(DiagnosticArray, "/diagnostics", 10)
    bench.until(lambda: len(diagnostics), "diagnostics")
    status = diagnostics.last.status[0]
    values = {v.key: v.value for v in status.values}
    assert status.level == status.ERROR and "out of luck" in values["last_error"] and values["failures"] == "1"
    assert float(values["network_ms_p50"]) > 0 and values["voxels"] == "128"
    assert int(values["bytes_map"]) > 0 and int(values["bytes_outputs"]) > 0
    send(update(2, block(40)))
    bench.until(lambda: node.worker.voxels == 192, "and goes on")


def test_stamps_that_jump_back_reset_the_map(bench):
    node = bench.segmenter()
    send = bench.sender()
    send(update(0, block(0), stamp_s=100.0))
    send(update(1, block(10), stamp_s=99.5))
    bench.until(lambda: node.worker.voxels == 128, "half a second is no jump")
    send(update(0, block(20), stamp_s=50.0))
    bench.until(lambda: node.worker.voxels == 64, "a new map")
    assert node.monitor.counts["resets_by_time"] == 1
    assert node.segmenter.map.lookup(block(20)[0]).min() >= 0 and node.watch.complete


def test_unknown_and_wrong_parameters_are_refused(bench):
    with pytest.raises(ConfigError, match="grouping.min_voxel.*Did you mean grouping.min_voxels"):
        bench.segmenter(grouping__min_voxel=3)
    with pytest.raises(ConfigError, match="points_mode.*'full', 'delta'"):
        bench.segmenter(input__points_mode="both")


def test_parameters_take_effect_while_running(bench):
    node = bench.segmenter(output__points_period_s=1)
    assert node.get_parameter("output.points_period_s").value == 1.0
    described: ParameterDescriptor = node.describe_parameter("grouping.min_voxels")
    assert described.description and described.integer_range[0].from_value == 1
    send = bench.sender()
    send(update(0, block(0), block(20)))
    bench.until(lambda: node.worker.instances == 2, "two instances")

    def set_one(name, value):
        request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return bench.call(SetParametersAtomically, "/segmenter/set_parameters_atomically", request).result

    assert set_one("grouping.min_voxels", 100).successful
    bench.call(Trigger, "/segmenter/resegment_all")
    bench.until(lambda: node.worker.instances == 0, "64 voxels are too few now")
    assert set_one("grouping.min_voxels", 10).successful and set_one("grouping.bridge_voxels", 4).successful
    bench.until(lambda: node.worker.instances == 2, "the whole map is segmented again")
    refused = set_one("voxel_size_m", 0.1)
    assert not refused.successful and "read-only" in refused.reason
    assert not set_one("grouping.min_voxels", -1).successful
    refused = set_one("output.colors", "rainbow")
    assert not refused.successful and "'instances', 'classes', 'map'" in refused.reason


def test_network_of_another_voxel_size_is_refused(bench):
    net = chair_net()
    net.config.voxel_size_m = 0.02
    with pytest.raises(ConfigError, match="trained for"):
        bench.segmenter(net)
