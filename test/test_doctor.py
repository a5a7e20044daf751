"""`instseg doctor` without ROS: every check on machines that are made up."""

import argparse
import importlib.util
import json
import subprocess
import sys
import types
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from instseg_ros.commands import doctor
from instseg_ros.diagnosis import environment, ros_graph, ros_setup
from instseg_ros.diagnosis.findings import Finding, guarded, ok, problem
from instseg_ros.errors import ConfigError


def levels(findings) -> list[str]:
    return [one.level for one in findings]


def only(findings) -> Finding:
    (one,) = findings
    return one


def test_a_finding_is_one_line_and_names_its_cure():
    assert problem("weights", "none", "fetch them").line() == "problem weights      none -> fetch them"
    assert ok("gpu", "there").line().endswith("there")


def test_a_check_that_fails_is_a_finding_itself():
    def broken():
        yield ok("gpu", "first")
        raise RuntimeError("driver")

    first, second = guarded("gpu", broken)
    assert first.level == "ok" and second.level == "problem" and "RuntimeError: driver" in second.text


def test_python(monkeypatch):
    assert only(environment.check_python()).level == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 8, 0))
    assert "3.10" in only(environment.check_python()).cure


def test_libraries(monkeypatch):
    assert levels(environment.check_libraries()) == ["ok"]
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "hdbscan" else original(name))
    found = list(environment.check_libraries())
    assert found[0].level == "problem" and "hdbscan" in found[0].text and "pip install" in found[0].cure
    import torch

    monkeypatch.setattr(torch, "__version__", "1.13.1")
    assert any("too old" in one.text for one in environment.check_libraries())


def test_kernels_are_there_and_run():
    assert only(environment.check_kernels()).level == "ok"


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [(-4, "", "SIGILL"), (1, "missing", "are missing"), (1, "Traceback\nAssertionError: the convolution is wrong", "the convolution is wrong")],
)
def test_kernels_that_do_not_run(monkeypatch, code, error, text):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=code, stderr=error))
    one = only(environment.check_kernels())
    assert one.level == "problem" and text in one.text and "pip install -e ." in one.cure


def test_kernels_that_hang(monkeypatch):
    def hang(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "did not answer within 3 s" in only(environment.check_kernels(3.0)).text


def test_threads(monkeypatch):
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (0.5, 0, 0))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    one = only(environment.check_threads())
    assert one.level == "ok" and "4 of" in one.text and "torch on 7" in one.text
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (9.0, 0, 0))
    assert "the load is 9.0" in only(environment.check_threads()).text
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (0.5, 0, 0))
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert only(environment.check_threads()).level == "note"


def test_a_machine_without_a_gpu_and_one_whose_torch_cannot_use_it(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(environment.Path, "exists", lambda _: False)
    assert only(environment.check_gpu()).level == "ok"
    monkeypatch.setattr(environment.Path, "exists", lambda _: True)
    one = only(environment.check_gpu())
    assert one.level == "note" and "cannot use it" in one.text and "driver" in one.cure


@pytest.mark.parametrize("there", [True, False])
def test_a_machine_with_a_gpu(monkeypatch, there):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**33, 2**34))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if there else None)
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda _: "3.4")
    found = list(environment.check_gpu())
    assert "a GPU, 8.0 of 16.0 GiB free" in found[0].text
    assert levels(found) == ["ok", *(["ok", "ok"] if there else ["note", "note"])]
    assert there or ("triton" in found[1].cure and "cupy" in found[2].cure)


def test_weights(tmp_path):
    assert only(environment.check_weights()).level == "ok"
    one = only(environment.check_weights("", 0.02))
    assert one.level == "problem" and "0.05" in one.cure
    broken = tmp_path / "net.safetensors"
    broken.write_bytes(b"\0" * 100)
    for path in (broken, tmp_path / "none.safetensors"):
        assert only(environment.check_weights(str(path))).level == "problem"


def fake_rclpy(monkeypatch, rmw=lambda: "rmw_x"):
    rclpy, utilities = types.ModuleType("rclpy"), types.ModuleType("rclpy.utilities")
    utilities.get_rmw_implementation_identifier = rmw
    monkeypatch.setitem(sys.modules, "rclpy", rclpy)
    monkeypatch.setitem(sys.modules, "rclpy.utilities", utilities)


def test_rclpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    one = only(ros_setup.check_rclpy())
    assert one.level == "note" and "source ROS 2" in one.cure
    fake_rclpy(monkeypatch)
    assert "rmw_x" in only(ros_setup.check_rclpy()).text

    def broken():
        raise RuntimeError("librmw_y.so: cannot open")

    fake_rclpy(monkeypatch, broken)
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_y")
    one = only(ros_setup.check_rclpy())
    assert one.level == "problem" and "install rmw_y" in one.cure


@pytest.mark.parametrize(
    ("variables", "expected", "text"),
    [
        ({}, ["ok"], "is 0"),
        ({"ROS_DOMAIN_ID": "42"}, ["ok"], "is 42"),
        ({"ROS_DOMAIN_ID": "150"}, ["note"], "ports"),
        ({"ROS_DOMAIN_ID": "lab"}, ["problem"], "'lab'"),
        ({"ROS_DOMAIN_ID": "233"}, ["problem"], "'233'"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, ["ok", "note"], "other machines"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, ["ok", "problem"], "no node sees another"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "ROS_STATIC_PEERS": "10.0.0.2"}, ["ok"], "is 0"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "here"}, ["ok", "problem"], "'here'"),
        ({"ROS_LOCALHOST_ONLY": "1"}, ["ok", "note"], "ROS_LOCALHOST_ONLY is 1"),
        ({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": "/nowhere"}, ["ok", "problem"], "no folder"),
    ],
)
def test_the_variables_of_ros(monkeypatch, variables, expected, text):
    for name in ("DOMAIN_ID", "AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST_ONLY", "STATIC_PEERS", "SECURITY_ENABLE", "SECURITY_KEYSTORE"):
        monkeypatch.delenv(f"ROS_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = list(ros_setup.check_ros_environment())
    assert levels(found) == expected and text in found[-1].text


def test_messages(monkeypatch):
    for name in ("instseg_ros.msg", "instseg_ros.srv", "nvblox_msgs.msg", "vision_msgs.msg", "tf2_ros"):
        monkeypatch.setitem(sys.modules, name, None)
    found = list(ros_setup.check_messages())
    assert levels(found) == ["problem", "note", "note", "note"] and "colcon build" in found[0].cure
    for name in ("instseg_ros.msg", "instseg_ros.srv", "nvblox_msgs.msg", "vision_msgs.msg", "tf2_ros"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "nvblox_msgs", types.ModuleType("nvblox_msgs"))
    monkeypatch.setitem(sys.modules, "vision_msgs", types.ModuleType("vision_msgs"))
    found = list(ros_setup.check_messages())
    assert levels(found) == ["problem", "ok", "ok", "ok"] and "built before msg/Instance" in found[0].text
    for part, names in ros_setup.OURS.items():
        for name in names:
            setattr(sys.modules[f"instseg_ros.{part}"], name, object)
    assert set(levels(ros_setup.check_messages())) == {"ok"}


def test_all_message_types_are_looked_for():
    root = Path(__file__).parents[1]
    for part, names in ros_setup.OURS.items():
        assert sorted(file.stem for file in (root / part).glob(f"*.{part}")) == sorted(names)


# A graph as rclpy describes it.


class Reliability(Enum):
    RELIABLE = 1
    BEST_EFFORT = 2


class Durability(Enum):
    TRANSIENT_LOCAL = 1
    VOLATILE = 2


@dataclass
class Profile:
    reliability: Reliability = Reliability.RELIABLE
    durability: Durability = Durability.VOLATILE


@dataclass
class Endpoint:
    topic_type: str
    qos_profile: Profile = field(default_factory=Profile)
    node_name: str = "mapper"
    node_namespace: str = "/"


@pytest.fixture
def rclpy_qos(monkeypatch):
    class QoSCompatibility(Enum):
        OK = 0
        WARNING = 1
        ERROR = 2

    def check(offered, wanted):
        bad = (offered.reliability.value > wanted.reliability.value) or (offered.durability.value > wanted.durability.value)
        return (QoSCompatibility.ERROR, "reason") if bad else (QoSCompatibility.OK, "")

    module = types.ModuleType("rclpy.qos")
    module.QoSCompatibility, module.qos_check_compatible = QoSCompatibility, check
    fake_rclpy(monkeypatch)
    monkeypatch.setitem(sys.modules, "rclpy.qos", module)
    return module


CLOUD = "sensor_msgs/msg/PointCloud2"


def graph(publishers, wanted=None, node="/segmenter", **others) -> ros_graph.Graph:
    return ros_graph.Graph(node, {"/map_points": (CLOUD, wanted or Profile())}, {"/map_points": publishers}, **others)


def test_a_graph_that_matches(rclpy_qos):
    found = list(ros_graph.check_inputs(graph([Endpoint(CLOUD)])))
    assert levels(found) == ["ok", "ok"] and "/mapper, reliable and volatile, matches" in found[1].text


@pytest.mark.parametrize(
    ("offered", "wanted", "text", "cure"),
    [
        (Profile(Reliability.BEST_EFFORT), Profile(), "best_effort, the segmenter demands reliable", "reliability:=best_effort"),
        (Profile(), Profile(durability=Durability.TRANSIENT_LOCAL), "volatile, the segmenter demands transient_local", "durability:=volatile"),
    ],
)
def test_a_qos_that_does_not_match(rclpy_qos, offered, wanted, text, cure):
    found = list(ros_graph.check_inputs(graph([Endpoint(CLOUD, offered)], wanted)))
    assert found[1].level == "problem" and text in found[1].text and cure in found[1].cure


def test_types_that_differ_and_graphs_without_sources(rclpy_qos):
    found = list(ros_graph.check_inputs(graph([Endpoint("sensor_msgs/msg/LaserScan")])))
    assert found[1].level == "problem" and "LaserScan" in found[1].text
    assert levels(ros_graph.check_inputs(graph([]))) == ["ok", "problem"]
    found = list(ros_graph.check_inputs(graph([], node="")))
    assert levels(found) == ["note", "note"] and "--remap" in found[0].cure and "docs/mappers.md" in found[1].cure
    both = ros_graph.Graph("/segmenter", {t: (CLOUD, Profile()) for t in ("/a", "/b")}, {t: [Endpoint(CLOUD)] for t in ("/a", "/b")})
    assert "at once" in list(ros_graph.check_inputs(both))[-1].text
    (inactive,) = ros_graph.check_inputs(ros_graph.Graph("/robot/segmenter"))
    assert inactive.level == "problem" and "ros2 lifecycle set /robot/segmenter configure" in inactive.cure


@pytest.mark.parametrize(
    ("sim", "clocks", "level"), [(True, 0, "problem"), (True, 1, "ok"), (False, 1, "note"), (False, 0, "ok"), (None, 0, "note")]
)
def test_clocks(sim, clocks, level):
    assert levels(ros_graph.check_clock(graph([], use_sim_time=sim, clocks=clocks))) == [level]
    assert list(ros_graph.check_clock(graph([], node=""))) == []


def status(level=0, message="running", **values):
    pairs = [types.SimpleNamespace(key=key, value=value) for key, value in {"voxels": "5", "instances": "1", **values}.items()]
    return types.SimpleNamespace(level=bytes([level]), message=message, values=pairs)


def test_what_the_node_says_of_itself():
    def check(said):
        return only(ros_graph.check_diagnostics(graph([], diagnostics=said)))

    assert check(None).level == "note"
    assert check(status()).level == "ok"
    assert check(status(1, "paused")).level == "note"
    assert check(status(2, "refused: frame")).level == "problem"
    one = check(status(refused="3", last_error="it is in frame 'odom'"))
    assert one.level == "note" and "refused 3" in one.text and "odom" in one.cure


@pytest.mark.parametrize(
    ("frame", "tf", "level", "text"),
    [("", None, "note", "no frame yet"), ("map", None, "ok", "not looked at"), ("map", frozenset({"map"}), "ok", "knows"),
     ("map", frozenset({"odom"}), "note", "does not know")],
)
def test_the_frame(frame, tf, level, text):
    one = only(ros_graph.check_frame(graph([], diagnostics=status(frame=frame), tf_frames=tf)))
    assert one.level == level and text in one.text


# The command.


def run(monkeypatch, *arguments) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(list(arguments)))


@pytest.fixture
def healthy(monkeypatch):
    """Checks that find nothing, apart from what a test replaces."""
    for module, names in ((environment, environment.__all__), (ros_setup, ros_setup.__all__)):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, name=name: iter([ok(name, "fine")]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_the_command_without_ros(monkeypatch, healthy, capsys, tmp_path):
    report = tmp_path / "doctor.json"
    assert run(monkeypatch, "--json", str(report)) == 0
    assert "7 ok, 0 notes, 0 problems" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert written["figures"] == {"ok": 7, "note": 0, "problem": 0} and written.keys() == {"machine", "figures", "rows"}
    assert written["rows"][0] == {"check": "check_python", "level": "ok", "text": "fine", "cure": ""}


def test_a_problem_is_the_exit_status(monkeypatch, healthy, capsys):
    monkeypatch.setattr(environment, "check_weights", lambda *_: iter([problem("weights", "damaged", "fetch them")]))
    assert run(monkeypatch) == 1
    assert "problem weights      damaged -> fetch them" in capsys.readouterr().out


def test_the_graph_is_looked_at_where_ros_is(monkeypatch, healthy, capsys, rclpy_qos):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    asked = []

    def look(*arguments):
        asked.append(arguments)
        return graph([Endpoint(CLOUD, Profile(Reliability.BEST_EFFORT))], use_sim_time=False)

    monkeypatch.setattr(ros_graph, "look_around", look)
    assert run(monkeypatch, "--wait", "1", "--remap", "map_points:=/cloud", "--node", "/s") == 1
    assert asked == [(1.0, "/s", {"map_points": "/cloud"})] and "nothing arrives" in capsys.readouterr().out
    assert run(monkeypatch, "--no-graph") == 0 and len(asked) == 1

    def broken(*_):
        raise RuntimeError("no network")

    monkeypatch.setattr(ros_graph, "look_around", broken)
    assert run(monkeypatch) == 1 and "no network" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["map_points", "camera:=/x", "map_points:="])
def test_remaps_that_are_none(monkeypatch, text):
    with pytest.raises(ConfigError, match="INPUT:=TOPIC"):
        run(monkeypatch, "--remap", text)
