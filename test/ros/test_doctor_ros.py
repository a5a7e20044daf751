"""`instseg doctor` on a real graph."""

import argparse

import numpy as np
import pytest
import rclpy
from instseg_ros.msg import MapUpdate
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from ros_bench import block, update
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from instseg_ros.commands import doctor
from instseg_ros.diagnosis import ros_graph
from instseg_ros.ros import qos

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
BEST_EFFORT = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def look(bench):
    """Looks at the graph of the test's domain, with the bench's nodes spinning meanwhile.

    On a busy machine it can take long until all is discovered: it looks again, for longer, until it has seen the segmenter that
    runs, publishers of the topics given, and its diagnostics if wanted.
    """
    import threading

    def once(wait_s: float, **kwargs) -> ros_graph.Graph:
        out: list = []
        thread = threading.Thread(target=lambda: out.append(ros_graph.look_around(wait_s, **kwargs)))
        thread.start()
        bench.until(lambda: not thread.is_alive(), "the doctor's look", 120.0)
        return out[0]

    def look(*published: str, diagnostics: bool = False, **kwargs) -> ros_graph.Graph:
        for wait_s in WAITS_S:
            graph = once(wait_s, **kwargs)
            node = not bench.nodes or (graph.segmenter and graph.use_sim_time is not None and graph.subscriptions)
            topics = all(graph.clocks if topic == "/clock" else graph.publishers.get(topic) for topic in published)
            if node and topics and (graph.diagnostics is not None or not diagnostics):
                break
        return graph

    return look


def problems(findings) -> list:
    return [one for one in findings if one.level == "problem"]


def test_a_publisher_that_a_running_segmenter_cannot_hear(bench, look):
    bench.segmenter(remap={"map_points": "/rtabmap/cloud_map"})
    bench.probe.create_publisher(PointCloud2, "/rtabmap/cloud_map", BEST_EFFORT)
    graph = look("/rtabmap/cloud_map")
    assert graph.segmenter == "/segmenter" and graph.use_sim_time is False
    assert {"/rtabmap/cloud_map", "/map_updates"} <= graph.subscriptions.keys()
    (one,) = problems(ros_graph.check_inputs(graph))
    assert "/rtabmap/cloud_map: nothing arrives from /probe: it offers best_effort, the segmenter demands reliable" in one.text
    assert "qos_overrides./rtabmap/cloud_map.subscription.reliability:=best_effort" in one.cure


def test_the_cure_works(bench, look):
    override = {"qos_overrides./map_points.subscription.reliability": "best_effort"}
    node = bench._start(lambda **kw: _node(kw, override), None, {})
    publisher = bench.probe.create_publisher(PointCloud2, "map_points", BEST_EFFORT)
    assert not problems(ros_graph.check_inputs(look("/map_points")))
    bench.until(lambda: publisher.get_subscription_count() > 0, "a match")
    assert node.get_parameter(next(iter(override))).value == "best_effort"
    assert qos.CLOUDS.reliability == QoSReliabilityPolicy.RELIABLE, "an override counts for its topic alone"


def _node(arguments, override):
    from rclpy.parameter import Parameter

    from instseg_ros.benchmarks.chair_net import chair_net
    from instseg_ros.ros.segmenter_node import SegmenterNode

    arguments["parameter_overrides"] = [Parameter(name, value=value) for name, value in override.items()]
    return SegmenterNode(chair_net(), **arguments)


def test_a_graph_that_works_and_its_diagnostics(bench, look):
    node = bench.segmenter(output__diagnostics_period_s=0.2)
    send = bench.sender()
    send(update(0, block(0)))
    bench.until(lambda: node.worker.voxels == 64, "the first update")
    graph = look("/map_updates", diagnostics=True)
    findings = [f for check in (ros_graph.check_inputs, ros_graph.check_clock, ros_graph.check_diagnostics) for f in check(graph)]
    assert {f.level for f in findings} == {"ok"}, findings
    assert any("64 voxels, 1 instances" in f.text for f in findings)
    (frame,) = ros_graph.check_frame(graph)
    assert "the map is in map" in frame.text


def test_types_that_differ_and_a_clock_that_is_missing(bench, look):
    bench.segmenter(use_sim_time=True)
    other = rclpy.Context()  # one participant cannot have two types on a topic, two processes can
    rclpy.init(context=other)
    stranger = rclpy.create_node("stranger", context=other)
    stranger.create_publisher(String, "map_updates", 10)
    graph = look("/map_updates")
    stranger.destroy_node()
    rclpy.shutdown(context=other)
    (one,) = problems(ros_graph.check_inputs(graph))
    assert "std_msgs/msg/String, the segmenter reads instseg_ros/msg/MapUpdate" in one.text
    (one,) = problems(ros_graph.check_clock(graph))
    assert "nobody publishes /clock" in one.text
    bench.probe.create_publisher(Clock, "/clock", 10)
    assert not problems(ros_graph.check_clock(look("/clock")))


def test_without_a_segmenter_topics_are_checked_by_name(bench, look, capsys):
    late = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    bench.probe.create_publisher(PointCloud2, "/slam/cloud", late)
    bench.probe.create_publisher(MapUpdate, "map_updates", BEST_EFFORT)
    graph = look("/slam/cloud", "/map_updates", remaps={"map_points": "/slam/cloud"})
    assert graph.segmenter == "" and graph.use_sim_time is None
    (one,) = problems(ros_graph.check_inputs(graph))
    assert one.text.startswith("/map_updates: nothing arrives from /probe")
    assert any("/slam/cloud: /probe, reliable and transient_local, matches" in f.text for f in ros_graph.check_inputs(graph))


def test_the_profiles_checked_are_those_of_the_node(bench, look):
    bench.segmenter()
    running = look().subscriptions
    names = {f"/{name}" for name in ros_graph.INPUTS}
    assert running.keys() <= names and {"/map_updates", "/map_points"} <= running.keys()
    for topic, (_, profile) in running.items():
        wanted = qos.CLOUDS if topic == "/map_points" else qos.DELTAS
        assert (profile.reliability, profile.durability) == (wanted.reliability, wanted.durability)
    assert np.all([kind == ros_graph.INPUTS[topic[1:]] for topic, (kind, _) in running.items()])


def test_the_command(bench, monkeypatch, capsys):
    for name in ("check_kernels", "check_weights", "check_gpu", "check_libraries"):
        monkeypatch.setattr(f"instseg_ros.diagnosis.environment.{name}", lambda *_: iter(()))
    bench.probe.create_publisher(PointCloud2, "map_points", BEST_EFFORT)
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    for wait_s in WAITS_S:
        code = doctor.run(parser.parse_args(["--wait", str(wait_s)]))
        out = capsys.readouterr().out
        if "/probe" in out:
            break
    assert code == 1
    assert "problem graph        /map_points: nothing arrives from /probe" in out and "1 problems" in out
