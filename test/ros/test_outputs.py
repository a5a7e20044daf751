"""Which instances the segmenter node publishes and with which boxes, and that both can be changed while it runs."""

import importlib
import sys
import types

import numpy as np
import pytest
from geometry_msgs.msg import Pose, PoseWithCovariance, Vector3
from instseg_ros.msg import InstanceArray
from instseg_ros.srv import ListInstances
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from ros_bench import block, update
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

import instseg_ros.ros
from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.oriented_box import oriented_box
from instseg_ros.ros import qos, segmenter_outputs
from instseg_ros.ros.pointcloud import LABELLED_DTYPE
from instseg_ros.ros.segmenter_node import SegmenterNode

CHAIR = "5"
# What touches is one instance; small ones are no less sure
WHOLE = {"grouping__min_cluster_voxels": 100_000, "grouping__score_surface_m2": 0.0, "output__points_period_s": 0.0}


def set_parameter(bench, name, value):
    request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return bench.call(SetParametersAtomically, "/segmenter/set_parameters_atomically", request).result


def shown(array: MarkerArray) -> set[int]:
    return {m.id for m in array.markers if m.action == Marker.ADD}


def turned() -> np.ndarray:
    """Voxels of a bar that lies at 30 degrees."""
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-20, 20), np.arange(-20, 20), indexing="ij"))
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    inside = (np.abs(c * i + s * j) <= 15) & (np.abs(c * j - s * i) <= 3)
    return np.column_stack([i[inside], j[inside], np.zeros(inside.sum())]).astype(np.int32)


def test_filters_take_effect_at_once(bench):
    bench.segmenter(**WHOLE)
    points = bench.record(PointCloud2, "/segmenter/points", qos.LATCHED)
    markers = bench.record(MarkerArray, "/segmenter/markers", qos.LATCHED)
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    bench.until(lambda: bench.probe.count_publishers("/segmenter/instances"), "the node")
    bench.sender()(update(0, block(0), block(20, size=6)))
    bench.until(lambda: len(markers) and len(shown(markers.last)) == 2, "two instances")
    small, large = sorted(bench.call(ListInstances, "/segmenter/list_instances").instances.instances, key=lambda one: one.voxels)

    def ids():
        return {one.id for one in instances.last.instances} if len(instances) else None

    assert set_parameter(bench, "output.min_voxels", 100).successful
    bench.until(lambda: ids() == {large.id}, "the small one gone from ~/instances")
    bench.until(lambda: shown(markers.last) == {large.id}, "and from ~/markers")
    deleted = {(m.ns, m.id) for m in markers.last.markers if m.action == Marker.DELETE}
    assert deleted == {("boxes", small.id), ("labels", small.id)}
    assert set_parameter(bench, "output.classes", ["sofa", "bed"]).successful
    bench.until(lambda: ids() == set() and not shown(markers.last), "no sofa")
    refused = set_parameter(bench, "output.classes", ["chiar"])
    assert not refused.successful and "'chair', 'sofa', 'table'" in refused.reason
    assert not set_parameter(bench, "output.classes", "chair").successful
    assert set_parameter(bench, "output.classes", ["chair"]).successful
    bench.until(lambda: ids() == {large.id} and shown(markers.last) == {large.id}, "the large chair")
    assert set_parameter(bench, "output.min_voxels", 0).successful and set_parameter(bench, "output.classes", []).successful
    bench.until(lambda: ids() == {small.id, large.id}, "both")
    assert set_parameter(bench, "output.min_confidence", 1.0).successful
    bench.until(lambda: ids() == set(), "none that is certain")
    cloud = np.frombuffer(bytes(points.last.data), LABELLED_DTYPE)
    assert set(cloud["instance"]) == {small.id, large.id}, "the clouds stay whole"
    assert len(bench.call(ListInstances, "/segmenter/list_instances").instances.instances) == 2


@pytest.mark.parametrize("given", ["-p", "file"])
def test_an_empty_list_at_start(bench, tmp_path, given):
    path = tmp_path / "settings.yaml"
    path.write_text("/**/segmenter:\n  ros__parameters:\n    output:\n      classes: []\n")
    arguments = ["-p", "output.classes:=[]"] if given == "-p" else ["--params-file", str(path)]
    node = SegmenterNode(chair_net(), cli_args=["--ros-args", *arguments])
    bench.nodes.append(node)
    bench.executor.add_node(node)
    assert node.parameters.config.output.classes == ()
    value = bench.call(GetParameters, "/segmenter/get_parameters", GetParameters.Request(names=["output.classes"])).values[0]
    assert value.type == ParameterType.PARAMETER_STRING_ARRAY and list(value.string_array_value) == []


def test_names_at_start(bench):
    assert bench.segmenter(output__classes=["chair", "bed"]).parameters.config.output.classes == ("chair", "bed")


def test_boxes_are_turned_to_fit_or_along_the_axes(bench):
    bench.segmenter(**WHOLE)
    markers = bench.record(MarkerArray, "/segmenter/markers", qos.LATCHED)
    coords = turned()
    bench.sender()(update(0, (coords, np.full((len(coords), 3), 90, np.uint8))))

    def corners():
        boxes = [m for m in markers.last.markers if m.ns == "boxes" and m.action == Marker.ADD] if len(markers) else []
        return {tuple(round(v, 4) for v in (p.x, p.y, p.z)) for p in boxes[0].points} if len(boxes) == 1 else None

    box = oriented_box(((coords + 0.5) * 0.05).astype(np.float32), 0.05)
    assert abs(box.yaw_rad - np.pi / 6) < 0.05
    bench.until(lambda: corners() == {tuple(np.round(c, 4)) for c in box.corners_m()}, "the turned box")
    assert set_parameter(bench, "output.boxes", "axis_aligned").successful
    low, high = (coords.min(axis=0)) * 0.05, (coords.max(axis=0) + 1) * 0.05
    straight = {(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])}
    bench.until(lambda: corners() == {tuple(round(float(v), 4) for v in c) for c in straight}, "the box along the axes")
    assert not set_parameter(bench, "output.boxes", "round").successful


# vision_msgs 4 as it is published, for machines without it: field names and types.


def message(name, **kinds):
    """A message class that takes and holds its fields only, in their types."""

    def init(self, **values):
        for field, kind in kinds.items():
            setattr(self, field, values.pop(field) if field in values else kind[0]() if isinstance(kind, tuple) else kind())
        assert not values, f"{name} has no {', '.join(values)}"

    def check(self, field, value):
        kind = kinds[field]
        if isinstance(kind, tuple):
            assert isinstance(value, list) and all(isinstance(v, kind[1]) for v in value), (name, field, value)
        else:
            assert isinstance(value, kind), (name, field, value)
        object.__setattr__(self, field, value)

    return type(name, (), {"__init__": init, "__setattr__": check})


def stand_in() -> types.ModuleType:
    msgs = types.ModuleType("vision_msgs.msg")
    msgs.VisionClass = message("VisionClass", class_id=int, class_name=str)
    msgs.LabelInfo = message("LabelInfo", header=Header, class_map=(list, msgs.VisionClass), threshold=float)
    msgs.BoundingBox3D = message("BoundingBox3D", center=Pose, size=Vector3)
    msgs.ObjectHypothesis = message("ObjectHypothesis", class_id=str, score=float)
    msgs.ObjectHypothesisWithPose = message("ObjectHypothesisWithPose", hypothesis=msgs.ObjectHypothesis, pose=PoseWithCovariance)
    msgs.Detection3D = message(
        "Detection3D", header=Header, results=(list, msgs.ObjectHypothesisWithPose), bbox=msgs.BoundingBox3D, id=str
    )
    msgs.Detection3DArray = message("Detection3DArray", header=Header, detections=(list, msgs.Detection3D))
    return msgs


@pytest.fixture
def published(monkeypatch):
    """What the node publishes in vision_msgs by topic, where these are the stand-in."""
    msgs, sent = stand_in(), {}
    monkeypatch.setitem(sys.modules, "vision_msgs", types.ModuleType("vision_msgs"))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", msgs)
    monkeypatch.delitem(sys.modules, "instseg_ros.ros.detections", raising=False)
    monkeypatch.setattr(instseg_ros.ros, "detections", None, raising=False)  # where it was imported with real vision_msgs
    monkeypatch.setattr(segmenter_outputs, "detections", importlib.import_module("instseg_ros.ros.detections"))
    original = SegmenterNode.create_publisher

    def create(self, kind, topic, *args, **kwargs):
        if kind not in (msgs.LabelInfo, msgs.Detection3DArray):
            return original(self, kind, topic, *args, **kwargs)
        sent[topic] = []
        return types.SimpleNamespace(publish=sent[topic].append)

    monkeypatch.setattr(SegmenterNode, "create_publisher", create)
    yield sent
    sys.modules.pop("instseg_ros.ros.detections", None)


def check_detections(array, coords, stamp_s: int) -> None:
    """One chair with an oriented box around the voxels."""
    assert (array.header.frame_id, array.header.stamp.sec) == ("map", stamp_s) and len(array.detections) == 1
    one, box = array.detections[0], oriented_box(((coords + 0.5) * 0.05).astype(np.float32), 0.05)
    assert one.header == array.header and one.id == "1"
    assert one.results[0].hypothesis.class_id == CHAIR and 0.9 < one.results[0].hypothesis.score <= 1.0
    at, to, size = one.bbox.center.position, one.bbox.center.orientation, one.bbox.size
    assert (at.x, at.y, at.z) == pytest.approx(tuple(box.center_m)) and (size.x, size.y, size.z) == pytest.approx(tuple(box.size_m))
    assert (to.x, to.y) == (0.0, 0.0) and 2 * np.arctan2(to.z, to.w) == pytest.approx(box.yaw_rad)
    assert one.results[0].pose.pose == one.bbox.center


def test_detections(bench, published):
    node = bench.segmenter(**WHOLE)
    names = {one.class_id: one.class_name for one in published["~/label_info"][-1].class_map}
    assert names[int(CHAIR)] == "chair" and names[65535] == "unlabelled" and len(names) == 21
    coords, sent = turned(), published["~/detections"]
    send = bench.sender()
    send(update(0, (coords, np.full((len(coords), 3), 90, np.uint8))))
    bench.until(lambda: sent, "detections")
    check_detections(sent[-1], coords, 10)
    assert set_parameter(bench, "output.classes", ["bed"]).successful
    bench.until(lambda: sent[-1].detections == [], "filtered")
    assert set_parameter(bench, "output.classes", []).successful
    bench.until(lambda: len(sent[-1].detections) == 1, "not filtered")
    assert node.worker.reset()
    assert sent[-1].detections == [] and sent[-1].header.frame_id == "map"


def test_real_detections_over_a_topic(bench):
    msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    bench.segmenter(**WHOLE)
    found = bench.record(msgs.Detection3DArray, "/segmenter/detections", qos.LATCHED)
    names = bench.record(msgs.LabelInfo, "/segmenter/label_info", qos.LATCHED)
    coords = turned()
    bench.sender()(update(0, (coords, np.full((len(coords), 3), 90, np.uint8))))
    bench.until(lambda: len(found) and len(names), "detections and names")
    check_detections(found.last, coords, 10)
    assert {one.class_id: one.class_name for one in names.last.class_map}[5] == "chair"
