"""What the segmenter node keeps across restarts, and what it answers about single instances."""

import threading

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from instseg_ros.msg import InstanceArray, InstanceEvent
from instseg_ros.srv import GetInstance, ListInstances, LoadMap, RequestFull, SaveMap
from rclpy.parameter import Parameter
from ros_bench import block, update
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from instseg_ros.benchmarks.resume import KillRun, figures_of
from instseg_ros.errors import InputError
from instseg_ros.persistence import load_state, previous_file
from instseg_ros.ros import qos
from instseg_ros.ros.pointcloud import LABELLED_DTYPE

FILE = {"state__file": "robot.instseg", "state__period_s": 0.05, "grouping__method": "connected_components"}


def stop(bench, node) -> None:
    """What happens at SIGINT."""
    node.close()
    bench.executor.remove_node(node)
    bench.nodes.remove(node)
    node.destroy_node()


def diagnosis(bench, node) -> dict:
    found: list = []
    node._diagnostics.publish, publish = found.append, node._diagnostics.publish
    node._publish_diagnostics()
    node._diagnostics.publish = publish
    message: DiagnosticArray = found[0]
    return {"message": message.status[0].message, **{v.key: v.value for v in message.status[0].values}}


def test_a_stopped_node_goes_on_where_it_was(bench, tmp_path):
    node = bench.segmenter(save_dir=str(tmp_path), state__period_s=3600.0, **{k: v for k, v in FILE.items() if k != "state__period_s"})
    send = bench.sender()
    for one in (update(0, block(0), block(20)), update(1, deleted=block(0)[0]), update(2, block(40))):
        send(one)
        bench.until(lambda: node.worker._last_stamp_ns == one.stamp_ns, "the update")  # noqa: B023
    bench.until(lambda: node.worker.voxels == 128 and node.worker._last_sequence == 2, "a map")
    before = node.segmenter.cloud()
    stop(bench, node)
    assert load_state(tmp_path / "robot.instseg").sequence == 2, "saved at the end, whatever the period"

    asked: list = []

    def whole(_request, response):
        asked.append(1)
        response.success = True
        return response

    bench.probe.create_service(RequestFull, "request_full", whole)
    points = bench.record(PointCloud2, "/segmenter/points", qos.LATCHED)
    markers = bench.record(MarkerArray, "/segmenter/markers", qos.LATCHED)
    node = bench.segmenter(save_dir=str(tmp_path), **FILE)
    assert len(node.worker.finished.last.instances) == 2, "questions are answered from the start"
    bench.until(lambda: len(points) and len(markers) and asked, "what is latched, and a request for the whole map")
    cloud = np.frombuffer(bytes(points.messages[0].data), LABELLED_DTYPE)
    np.testing.assert_array_equal(cloud["instance"], before.instance)
    assert points.messages[0].header.stamp.sec == 10 and len(markers.messages[0].markers) == 4
    assert not node.watch.complete
    said = diagnosis(bench, node)
    assert "128 voxels, 2 instances" in said["state_resumed"] and said["state_error"] == ""
    listed = bench.call(ListInstances, "/segmenter/list_instances").instances
    assert {one.id for one in listed.instances} == set(before.instance.tolist()) and listed.sequence == 2

    send = bench.sender()
    send(update(9, block(20), block(40), block(60), full=True))
    bench.until(lambda: node.worker.voxels == 192 and node.watch.complete, "the mapper's whole map")
    live = set(node.segmenter.tracker.instances)
    assert live > set(before.instance.tolist()) and max(live) == 4, "the same ids, and the next new one"
    bench.until(lambda: (tmp_path / "robot.instseg.1").exists() and load_state(tmp_path / "robot.instseg").sequence == 9, "autosaves")


def test_a_damaged_state_is_set_aside_and_the_one_before_used(bench, tmp_path):
    node = bench.segmenter(save_dir=str(tmp_path), **FILE)
    send = bench.sender()
    for i in range(3):
        send(update(i, block(20 * i)))
        bench.until(lambda: (tmp_path / "robot.instseg").exists() and load_state(tmp_path / "robot.instseg").sequence == i, "save")  # noqa: B023
    stop(bench, node)
    path = tmp_path / "robot.instseg"
    path.write_bytes(path.read_bytes()[:-100])
    node = bench.segmenter(save_dir=str(tmp_path), **FILE)
    assert "truncated" in node.monitor.last_error and node.monitor.counts["states_refused"] == 1
    bench.until(lambda: node.worker.voxels == 128, "the state before")
    assert (tmp_path / "robot.instseg.refused").exists() and load_state(previous_file(path)).sequence == 1
    stop(bench, node)

    for file in (path, previous_file(path)):
        if file.exists():
            file.write_bytes(b"a foreign file")
    previous_file(path).write_bytes(b"another")
    node = bench.segmenter(save_dir=str(tmp_path), **FILE)
    assert node.worker.voxels == 0 and "not a state file" in node.monitor.last_error and "refused" in diagnosis(bench, node)["state_resumed"]
    assert (tmp_path / "robot.instseg.1.refused").read_bytes() == b"another", "nothing is lost"


def test_a_state_in_another_frame_is_refused_and_resume_can_be_off(bench, tmp_path):
    node = bench.segmenter(save_dir=str(tmp_path), **FILE)
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.worker.voxels == 64, "a map")
    stop(bench, node)
    content = (tmp_path / "robot.instseg").read_bytes()
    node = bench.segmenter(save_dir=str(tmp_path), input__frame="odom", **FILE)
    assert "input.frame demands 'odom'" in node.monitor.last_error and len(node.segmenter.map) == 0
    assert (tmp_path / "robot.instseg.refused").read_bytes() == content
    stop(bench, node)
    (tmp_path / "robot.instseg").write_bytes(content)
    node = bench.segmenter(save_dir=str(tmp_path), state__resume=False, **FILE)
    assert len(node.segmenter.map) == 0 and not node.monitor.last_error and node.watch.complete
    with pytest.raises(InputError, match=r"must end in \.instseg"):
        bench.segmenter(state__file="map.ply", save_dir=str(tmp_path))
    with pytest.raises(InputError, match="not inside save_dir"):
        bench.segmenter(state__file="../map.instseg", save_dir=str(tmp_path))


def test_reset_is_saved_and_a_failed_save_is_said(bench, tmp_path):
    node = bench.segmenter(save_dir=str(tmp_path / "maps"), **{**FILE, "state__period_s": 3600.0})
    path = tmp_path / "maps" / "robot.instseg"
    bench.sender()(update(0, block(0)))
    bench.until(lambda: path.exists() and load_state(path).voxels == 64, "the first save comes with the first map")
    assert bench.call(Trigger, "/segmenter/reset").success
    bench.until(lambda: load_state(path).voxels == 0, "an empty state at once")
    stop(bench, node)

    (tmp_path / "no_folder").write_text("a file")
    node = bench.segmenter(save_dir=str(tmp_path / "no_folder"), **FILE)
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.monitor.counts["state_save_failures"] >= 2, "failures, and it goes on trying")
    said = diagnosis(bench, node)
    assert "saving the state" in said["state_error"] and said["state_saved_s_ago"] == "never" and node.worker.voxels == 64


def test_a_period_that_is_set_counts_from_the_last_save(bench, tmp_path):
    node = bench.segmenter(save_dir=str(tmp_path), **{**FILE, "state__period_s": 3600.0})
    send = bench.sender()
    for i in range(2):
        send(update(i, block(20 * i)))
        bench.until(lambda: node.worker._last_sequence == i and node.worker.instances == i + 1, "the update")  # noqa: B023
        bench.until(lambda: node.monitor.counts["state_saves"] == 1, "the first save, and no other")
    node.set_parameters([Parameter("state.period_s", value=0.05)])
    bench.until(lambda: node.monitor.counts["state_saves"] == 2, "the second save")
    assert load_state(tmp_path / "robot.instseg").sequence == 1


def test_what_a_failed_update_leaves_is_not_saved(bench, tmp_path, monkeypatch):
    node = bench.segmenter(save_dir=str(tmp_path), **FILE)
    send = bench.sender()
    send(update(0, block(0)))
    bench.until(lambda: (tmp_path / "robot.instseg").exists(), "a save")

    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(node.segmenter.runner, "refresh", broken)
    send(update(1, block(20)))
    bench.until(lambda: node.monitor.counts["failures"] >= 2, "the update fails, and making up for it too")
    assert not bench.call(SaveMap, "/segmenter/save_map", SaveMap.Request(path="x.instseg")).success
    stop(bench, node)
    state = load_state(tmp_path / "robot.instseg")
    assert (state.sequence, state.voxels) == (0, 64)


def test_save_and_load_services(bench, tmp_path):
    node = bench.segmenter(save_dir=str(tmp_path), grouping__method="connected_components")
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    send = bench.sender()
    send(update(0, block(0), block(20)))
    bench.until(lambda: node.worker.voxels == 128, "a map")
    saved = bench.call(SaveMap, "/segmenter/save_map", SaveMap.Request(path="sub/two.instseg"))
    assert saved.success and (saved.voxels, saved.instances) == (128, 2), saved.message
    send(update(1, block(40, value=9), deleted=block(0)[0]))
    bench.until(lambda: node.worker._last_sequence == 1, "another map")
    ids = {one.id for one in bench.call(ListInstances, "/segmenter/list_instances").instances.instances}

    (tmp_path / "bad.instseg").write_bytes((tmp_path / "sub/two.instseg").read_bytes()[:500])
    (tmp_path / "foreign.instseg").write_bytes(b"ply\n" * 100)
    for path, why in (
        ("bad.instseg", "truncated"), ("foreign.instseg", "not a state file"), ("none.instseg", "cannot be read"), ("../x.instseg", "save_dir"),
        ("x.npz", "must end in"), ("", "save_dir"),
    ):
        answer = bench.call(LoadMap, "/segmenter/load_map", LoadMap.Request(path=path))
        assert not answer.success and why in answer.message, (path, answer.message)
    assert {one.id for one in bench.call(ListInstances, "/segmenter/list_instances").instances.instances} == ids and node.watch.complete

    answer = bench.call(LoadMap, "/segmenter/load_map", LoadMap.Request(path="sub/two.instseg"))
    assert answer.success and (answer.voxels, answer.instances) == (128, 2), answer.message
    bench.until(lambda: {one.id for one in instances.last.instances} == {1, 2}, "the saved instances are published")
    assert node.segmenter.map.lookup(block(0)[0]).min() >= 0 and not node.watch.complete
    send(update(2, block(0), block(20), block(60), full=True))
    bench.until(lambda: node.worker.voxels == 192, "it goes on")
    assert set(node.segmenter.tracker.instances) == {1, 2, 3}


def test_questions_are_answered_while_the_worker_is_busy(bench):
    node = bench.segmenter(grouping__method="connected_components", tracking__retire_after=5)
    send = bench.sender()
    assert not bench.call(ListInstances, "/segmenter/list_instances").instances.instances
    send(update(0, block(0), block(20)))
    bench.until(lambda: node.worker.instances == 2, "two instances")
    first, second = sorted(node.segmenter.tracker.instances)
    go, original = threading.Event(), node.segmenter.process

    def slowly(one):
        assert go.wait(60.0)
        return original(one)

    node.segmenter.process = slowly
    send(update(1, block(24), deleted=block(0)[0]))
    bench.until(lambda: node.monitor.counts["updates_received"] == 2 and not len(node.queue), "the worker is busy")
    answer = bench.call(GetInstance, "/segmenter/get_instance", GetInstance.Request(id=first), timeout_s=20.0)
    assert answer.found and answer.instance.id == first and answer.instance.voxels == 64 == answer.cloud.width
    cloud = np.frombuffer(bytes(answer.cloud.data), LABELLED_DTYPE)
    expected = (block(0)[0] + 0.5) * 0.05 if answer.instance.box_min.x < 0.5 else (block(20)[0] + 0.5) * 0.05
    np.testing.assert_allclose(np.sort(np.stack([cloud[k] for k in "xyz"], 1), axis=0), np.sort(expected, axis=0), atol=1e-5)
    assert set(cloud["instance"]) == {first} and set(cloud["label"]) == {5} and answer.cloud.header.frame_id == "map"
    assert [e.type for e in answer.events] == [InstanceEvent.BORN] and answer.events[0].header.stamp.sec == 10
    go.set()
    bench.until(lambda: node.worker._last_sequence == 1, "the update")

    gone, grown = (first, second) if first not in node.segmenter.tracker.instances else (second, first)
    answer = bench.call(GetInstance, "/segmenter/get_instance", GetInstance.Request(id=grown))
    assert answer.found and answer.cloud.width == 128 and [e.type for e in answer.events] == [InstanceEvent.BORN, InstanceEvent.UPDATED]
    answer = bench.call(GetInstance, "/segmenter/get_instance", GetInstance.Request(id=gone))
    assert not answer.found and "retired" in answer.message and answer.events[-1].type == InstanceEvent.RETIRED
    answer = bench.call(GetInstance, "/segmenter/get_instance", GetInstance.Request(id=77))
    assert not answer.found and "no instance 77" in answer.message
    assert bench.call(Trigger, "/segmenter/reset").success
    assert not bench.call(ListInstances, "/segmenter/list_instances").instances.instances
    assert not bench.call(GetInstance, "/segmenter/get_instance", GetInstance.Request(id=grown)).found


def test_a_killed_node_comes_back_with_the_last_save(ros_context, tmp_path):
    with KillRun(tmp_path, seed=3) as runs:
        rows = [runs.once() for _ in range(3)]
    assert all(row[name] for row in rows for name in ("readable", "resumed", "ids_equal", "labels_equal", "ids_continued")), rows
    assert figures_of(rows)["ids_continued"] == 3
