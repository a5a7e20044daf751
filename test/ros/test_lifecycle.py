"""The segmenter as a managed node: its transitions through the lifecycle services, and what lasts over them."""

import signal
import threading
import time
import weakref

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from instseg_ros.msg import InstanceArray
from instseg_ros.srv import ListInstances, RequestFull, SaveMap
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from ros_bench import TIMEOUT_S, block, update
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger
from test_processes import own_name, start

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.errors import ConfigError
from instseg_ros.models.weights import save_weights
from instseg_ros.persistence import load_state
from instseg_ros.ros import qos
from instseg_ros.ros.lifecycle_segmenter_node import LifecycleSegmenterNode
from instseg_ros.ros.segmenter_node import SegmenterNode
from instseg_ros.ros.worker import Worker
from instseg_ros.segmenter import Segmenter

METHOD = {"grouping__method": "connected_components"}


def managed(bench, net=None, **parameters) -> LifecycleSegmenterNode:
    """A lifecycle segmenter, unconfigured; `net` "" = that of the parameter `weights`."""
    network = None if net == "" else chair_net()
    return bench._start(lambda **arguments: LifecycleSegmenterNode(network, **arguments), None, parameters)


def state(bench) -> str:
    return bench.call(GetState, "/segmenter/get_state").current_state.label


def change(bench, label: str) -> bool:
    return bench.call(ChangeState, "/segmenter/change_state", ChangeState.Request(transition=Transition(label=label))).success


def set_one(bench, name: str, value):
    request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return bench.call(SetParametersAtomically, "/segmenter/set_parameters_atomically", request).result


def entities(node) -> list[int]:
    return [len(list(kind)) for kind in (node.publishers, node.subscriptions, node.services, node.clients, node.timers)]


def says(monkeypatch, node) -> list[str]:
    """What the node logs from now on."""
    said: list[str] = []
    for level in ("info", "warning", "error"):
        monkeypatch.setattr(type(node.get_logger()), level, lambda self, text, **_: said.append(text))
    return said


def test_the_map_lasts_over_deactivation_and_goes_with_cleanup(bench):
    node = managed(bench, **METHOD)
    bare = entities(node)
    assert isinstance(node, LifecycleNode) and state(bench) == "unconfigured"
    assert not bench.probe.count_subscribers("/map_updates") and not hasattr(node, "segmenter")

    diagnostics = bench.record(DiagnosticArray, "/diagnostics", 10)
    instances = bench.record(InstanceArray, "/segmenter/instances", qos.DELTAS)
    assert change(bench, "configure") and state(bench) == "inactive"
    bench.until(lambda: len(diagnostics), "diagnostics")
    assert diagnostics.last.status[0].message == "inactive" and not [s for s in node.subscriptions if "map_" in s.topic_name]
    inactive = entities(node)
    assert change(bench, "activate") and state(bench) == "active"
    bench.until(lambda: diagnostics.last.status[0].message == "no map yet", "readiness")
    send = bench.sender()
    send(update(0, block(0), block(20)))
    bench.until(lambda: len(instances) and len(instances.last.instances) == 2, "two instances")
    ids = {one.id for one in instances.last.instances}

    assert change(bench, "deactivate") and state(bench) == "inactive" and entities(node) == inactive
    bench.until(lambda: bench.probe.count_subscribers("/map_updates") == 0, "the end of the subscription")
    before = len(instances)
    listed = bench.call(ListInstances, "/segmenter/list_instances").instances
    assert {one.id for one in listed.instances} == ids, "questions are answered"
    assert not node.worker.running and len(instances) == before

    asked: list = []

    def whole(_request, response):
        asked.append(1)
        response.success = True
        return response

    bench.probe.create_service(RequestFull, "request_full", whole)
    assert change(bench, "activate")
    bench.until(lambda: asked, "the whole map is asked for: the mapper may have gone on")
    send = bench.sender()
    send(update(5, block(0), block(20), block(40), full=True))
    bench.until(lambda: len(instances.last.instances) == 3 and node.watch.complete, "it goes on")
    assert ids < {one.id for one in instances.last.instances}

    there = weakref.ref(node.segmenter), weakref.ref(node.worker), weakref.ref(node.inputs)
    assert change(bench, "deactivate") and change(bench, "cleanup") and state(bench) == "unconfigured"
    assert entities(node) == bare
    bench.until(lambda: [one() for one in there] == [None] * 3, "everything is let go of")
    assert change(bench, "configure") and entities(node) == inactive and change(bench, "activate")
    bench.until(lambda: diagnostics.last.status[0].message == "no map yet", "a new map")
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.worker.instances == 1, "an instance in it")
    assert set(node.segmenter.tracker.instances) == {1}


def test_the_state_is_saved_at_deactivation_and_resumed_by_configure(bench, tmp_path):
    node = managed(bench, save_dir=str(tmp_path), state__file="robot.instseg", state__period_s=3600.0, **METHOD)
    assert change(bench, "configure") and change(bench, "activate")
    send = bench.sender()
    for i in range(2):
        send(update(i, block(20 * i)))
        bench.until(lambda: node.worker._last_sequence == i and node.worker.instances == i + 1, "the update")  # noqa: B023
    ids = set(node.segmenter.tracker.instances)
    assert change(bench, "deactivate")
    saved = load_state(tmp_path / "robot.instseg")
    assert (saved.sequence, saved.voxels) == (1, 128)
    assert change(bench, "cleanup") and change(bench, "configure")
    listed = bench.call(ListInstances, "/segmenter/list_instances").instances
    assert {one.id for one in listed.instances} == ids and listed.sequence == 1
    assert change(bench, "activate")
    points = bench.record(PointCloud2, "/segmenter/points", qos.LATCHED)
    bench.until(lambda: len(points) and points.last.width == 128, "the saved map is published")
    bench.sender()(update(7, block(0), block(20), block(40), full=True))
    bench.until(lambda: node.worker.instances == 3, "an update")
    assert set(node.segmenter.tracker.instances) == ids | {3}


def test_configure_that_fails_can_be_made_good(bench, tmp_path, monkeypatch):
    save_weights(tmp_path / "net.safetensors", chair_net(), {"grouping": {"method": "connected_components", "min_voxels": 33}})
    node = managed(bench, net="", weights=str(tmp_path / "missing.safetensors"), voxel_size_m=0.1, save_dir=str(tmp_path))
    bare, said = entities(node), says(monkeypatch, node)
    for name, value, why in (
        ("weights", str(tmp_path / "net.safetensors"), "cannot configure: no weights at"),
        ("voxel_size_m", 0.05, "cannot configure: the weights were trained for voxels of 0.05 m"),
    ):
        assert not change(bench, "configure") and state(bench) == "unconfigured"
        assert why in said[-1] and entities(node) == bare
        assert set_one(bench, name, value).successful
        assert f"{name} set, in effect when the node is configured" in said[-1]
    assert set_one(bench, "state.file", "map.ply").successful
    assert not change(bench, "configure") and "must end in .instseg" in said[-1]
    assert set_one(bench, "state.file", "").successful
    monkeypatch.setattr(Segmenter, "warm_up", lambda self: 1 / 0)
    assert not change(bench, "configure") and state(bench) == "unconfigured"
    assert "ZeroDivisionError" in said[-1] and entities(node) == bare
    monkeypatch.undo()
    assert change(bench, "configure") and change(bench, "activate")
    assert node.get_parameter("grouping.method").value == "connected_components" == node.segmenter.config.grouping.method
    assert node.get_parameter("grouping.min_voxels").value == 33, "what the weights bring is shown"
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.worker.instances == 1, "an instance")


def test_parameters_are_open_until_configured(bench, tmp_path, monkeypatch):
    save_weights(tmp_path / "net.safetensors", chair_net(), {"grouping": {"min_voxels": 100}})
    node = managed(bench, net="", weights=str(tmp_path / "net.safetensors"))

    def read_only() -> bool:
        request = DescribeParameters.Request(names=["voxel_size_m"])
        return bench.call(DescribeParameters, "/segmenter/describe_parameters", request).descriptors[0].read_only

    assert not read_only() and not set_one(bench, "voxel_size_m", -1.0).successful and not set_one(bench, "grouping.nonsense", 1).successful
    assert set_one(bench, "device", "cpu").successful and set_one(bench, "grouping.method", "connected_components").successful
    with pytest.raises(ConfigError, match="Did you mean grouping.min_voxels"):
        LifecycleSegmenterNode(parameter_overrides=[Parameter("grouping.min_voxel", value=3)])
    assert change(bench, "configure") and read_only()
    assert node.segmenter.config.grouping.method == "connected_components", "what was set counts before what the weights bring"
    refused = set_one(bench, "device", "auto")
    assert not refused.successful and "read-only" in refused.reason

    assert change(bench, "activate")
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.worker.voxels == 64, "a map")
    assert node.worker.instances == 0, "the weights ask for 100 voxels"
    said = says(monkeypatch, node)
    assert change(bench, "deactivate") and set_one(bench, "grouping.min_voxels", 10).successful
    assert "grouping.min_voxels set, in effect from the next update on" in said[-1]
    assert change(bench, "activate") and bench.call(Trigger, "/segmenter/resegment_all").success
    bench.until(lambda: node.worker.instances == 1, "the parameter takes effect")
    assert change(bench, "deactivate") and change(bench, "cleanup") and not read_only()
    assert set_one(bench, "voxel_size_m", 0.02).successful and not change(bench, "configure")
    assert set_one(bench, "voxel_size_m", 0.05).successful and change(bench, "configure")
    assert node.segmenter.config.grouping.min_voxels == 10


def test_the_services_answer_while_inactive(bench, tmp_path):
    node = managed(bench, save_dir=str(tmp_path), state__file="robot.instseg", **METHOD)
    assert change(bench, "configure") and change(bench, "activate")
    bench.sender()(update(0, block(0)))
    bench.until(lambda: node.worker.instances == 1, "a map")
    assert change(bench, "deactivate")
    saved = bench.call(SaveMap, "/segmenter/save_map", SaveMap.Request(path="map.ply"))
    assert saved.success and saved.voxels == 64, saved.message
    assert bench.call(Trigger, "/segmenter/reset").success and node.worker.voxels == 0
    assert change(bench, "cleanup")
    assert load_state(tmp_path / "robot.instseg").voxels == 0, "what was forgotten while inactive does not come back"


def test_what_waits_is_kept_and_a_busy_worker_is_waited_for(bench, monkeypatch):
    node = managed(bench, **METHOD)
    assert change(bench, "configure") and change(bench, "activate")
    send = bench.sender()
    bench.call(SetBool, "/segmenter/pause", SetBool.Request(data=True))
    send(update(0, block(0)))
    bench.until(lambda: len(node.queue) == 1, "an update waits")
    assert change(bench, "deactivate") and len(node.queue) == 1 and node.worker.voxels == 0
    assert change(bench, "activate")
    go, original = threading.Event(), node.segmenter.process

    def slowly(one):
        assert go.wait(60.0)
        return original(one)

    node.segmenter.process = slowly
    bench.call(SetBool, "/segmenter/pause", SetBool.Request(data=False))
    bench.until(lambda: not len(node.queue), "the worker is busy")
    monkeypatch.setattr(Worker.stop, "__defaults__", (0.1,))
    assert change(bench, "deactivate") and node.worker.running
    assert not change(bench, "activate") and not change(bench, "cleanup") and state(bench) == "inactive"
    go.set()
    bench.until(lambda: not node.worker.running, "its end")
    assert node.worker.voxels == 64 and change(bench, "activate")
    bench.sender()(update(1, block(20)))
    bench.until(lambda: node.worker.voxels == 128, "it goes on")


@pytest.mark.parametrize("transitions", [(), ("configure",), ("configure", "activate"), ("configure", "activate", "deactivate")], ids=len)
def test_shutdown_from_each_state(bench, tmp_path, transitions):
    node = managed(bench, save_dir=str(tmp_path), state__file="robot.instseg", state__period_s=3600.0, **METHOD)
    bare = entities(node)
    for label in transitions:
        assert change(bench, label)
        if label == "activate":
            send = bench.sender()
            for i in range(2):
                send(update(i, block(20 * i)))
                bench.until(lambda: node.worker.voxels == 64 * (i + 1), "a map")  # noqa: B023
    assert change(bench, "shutdown") and state(bench) == "finalized" and entities(node) == bare
    assert (tmp_path / "robot.instseg").exists() == ("activate" in transitions)
    if "activate" in transitions:
        assert load_state(tmp_path / "robot.instseg").voxels == 128
    assert not change(bench, "configure"), "this is the end"


def test_a_transition_that_does_not_fit_is_refused(bench, monkeypatch):
    node = managed(bench)
    said = says(monkeypatch, node)
    assert not change(bench, "activate") and "cannot be made from unconfigured: allowed are configure (1), shutdown (5)" in said[-1]
    wrong = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    assert not bench.call(ChangeState, "/segmenter/change_state", wrong).success and "transition 4 cannot" in said[-1]
    assert not change(bench, "nonsense") and state(bench) == "unconfigured"
    assert change(bench, "configure") and not change(bench, "configure") and state(bench) == "inactive"


@pytest.mark.parametrize("kind", [SegmenterNode, LifecycleSegmenterNode])
def test_readiness_is_announced_after_the_warm_up(bench, monkeypatch, kind):
    order, warm_up = [], Segmenter.warm_up
    diagnostics = bench.record(DiagnosticArray, "/diagnostics", 10)
    said = says(monkeypatch, bench.probe)

    def watched(segmenter):
        names = [name for name, _ in bench.probe.get_topic_names_and_types() if name.startswith("/segmenter/points")]
        order.append((len(diagnostics), any("waiting for map updates" in text or "configured in" in text for text in said), names))
        processed = []
        process = segmenter.process
        segmenter.process = lambda one: processed.append(process(one)) or processed[-1]
        warm_up(segmenter)
        del segmenter.process
        order.append([bool(r.voxels) for r in processed])

    monkeypatch.setattr(Segmenter, "warm_up", watched)
    node = bench._start(lambda **arguments: kind(chair_net(), **arguments), None, {"output__diagnostics_period_s": 0.1})
    if kind is LifecycleSegmenterNode:
        assert order == [] and not any("waiting" in text for text in said)
        assert change(bench, "configure") and not any("waiting for map updates" in text for text in said)
        bench.until(lambda: len(diagnostics), "diagnostics")
        assert {m.status[0].message for m in diagnostics.messages} == {"inactive"}
        assert change(bench, "activate")
    assert order == [(0, False, []), [True, True]], "the real pipeline ran before anything was announced"
    assert "waiting for map updates" in said[-1] and len(node.segmenter.map) == 0
    bench.until(lambda: len(diagnostics) and diagnostics.last.status[0].message == "no map yet", "ready")
    bench.sender()(update(0, block(0)))
    bench.until(lambda: diagnostics.last.status[0].message == "running", "running")


class Remote:
    """A managed node in another process. What is asked or answered before both have found each other is lost: it is asked again."""

    def __init__(self, bench, name: str) -> None:
        self._bench, self._name = bench, name
        self._state = bench.probe.create_client(GetState, f"/{name}/get_state")
        self._change = bench.probe.create_client(ChangeState, f"/{name}/change_state")

    def _ask(self, client, request, patience_s: float):
        self._bench.until(client.service_is_ready, f"the services of {self._name}")
        future, end = client.call_async(request), time.monotonic() + patience_s
        self._bench.until(lambda: future.done() or time.monotonic() > end, "an answer, or patience to end")
        return future.result() if future.done() else None

    def state(self) -> str:
        end = time.monotonic() + TIMEOUT_S
        while (answer := self._ask(self._state, GetState.Request(), 5.0)) is None:
            assert time.monotonic() < end, f"{self._name} does not say its state"
        return answer.current_state.label

    def change(self, label: str, wanted: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while self.state() != wanted:
            assert time.monotonic() < end, f"{self._name} is not {wanted} after {label}"
            self._ask(self._change, ChangeState.Request(transition=Transition(label=label)), 20.0)


@pytest.mark.parametrize("last", ["unconfigured", "active", "finalized"])
def test_the_process_ends_cleanly_in_every_state(bench, tmp_path, last):
    name = f"managed_{last}"
    save_weights(tmp_path / "net.safetensors", chair_net(), {})
    process = start(
        "lifecycle_segmenter_node", *own_name(name), "-p", f"weights:={tmp_path / 'net.safetensors'}", "-p", f"save_dir:={tmp_path}",
        "-p", "state.file:=robot.instseg",
    )
    try:
        remote = Remote(bench, name)
        assert remote.state() == "unconfigured"
        if last != "unconfigured":
            remote.change("configure", "inactive")
            remote.change("activate", "active")
            points = bench.record(PointCloud2, f"/{name}/points", qos.LATCHED)
            bench.sender(f"/{name}/map_updates")(update(0, block(0)))
            bench.until(lambda: len(points) and points.last.width == 64, "a result from the process")
        if last == "finalized":
            remote.change("shutdown", "finalized")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in output, output
    if last != "unconfigured":
        assert load_state(tmp_path / "robot.instseg").voxels == 64
