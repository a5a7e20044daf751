"""The package as a whole: one version, every message built, settings files that the nodes accept, a command that starts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from instseg_ros.cli import COMMANDS
from instseg_ros.config import FusionNodeConfig, SegmenterNodeConfig
from instseg_ros.settings import from_mapping

ROOT = Path(__file__).parent.parent
NODES = {"segmenter": SegmenterNodeConfig, "fusion": FusionNodeConfig}


def test_one_version_everywhere():
    in_setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    in_xml = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert in_setup is not None and in_setup[1] == in_xml
    assert f"## {in_xml}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_message_and_service_is_built():
    listed = set(re.findall(r'"((?:msg|srv)/\w+\.(?:msg|srv))"', (ROOT / "CMakeLists.txt").read_text()))
    there = {f"{path.parent.name}/{path.name}" for pattern in ("msg/*.msg", "srv/*.srv") for path in ROOT.glob(pattern)}
    assert listed == there


def test_every_executable_is_installed_and_starts_what_it_names():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    there = sorted((ROOT / "scripts/bin").iterdir())
    assert sorted(re.findall(r"scripts/bin/(\w+)", cmake)) == [path.name for path in there]
    for path in there:
        assert os.access(path, os.X_OK), f"{path.name} is not executable"
        module = re.search(r"^from (instseg_ros\S*) import main$", path.read_text(), re.M)
        assert module is not None and (ROOT / (module[1].replace(".", "/") + ".py")).is_file()
        assert module[1].endswith((path.name, "cli"))


def test_packages_that_messages_use_are_dependencies():
    used = {
        name
        for path in [*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv")]
        for name in re.findall(r"^(\w+)/\w+", path.read_text(), re.M)
    }
    used |= {"std_msgs"}  # Header
    depends = {node.text for node in ElementTree.parse(ROOT / "package.xml").iter("depend")}
    assert used == depends


def test_what_setup_installs_is_pinned():
    def name(requirement: str) -> str:
        match = re.match(r"[\w.-]+", requirement)
        assert match is not None
        return re.sub(r"[-_.]+", "-", match[0]).lower()

    setup = (ROOT / "setup.py").read_text()
    required = re.search(r"install_requires=\[(.*?)\]", setup, re.S)
    dev = re.search(r'"dev": \[(.*?)\]', setup)
    assert required is not None and dev is not None
    wanted = {name(text) for part in (required[1], dev[1]) for text in re.findall(r'"([^"]+)"', part)}
    lines = [line for line in (ROOT / "scripts/constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.match(r"[\w-]+==[\w.]+( ; .+)?$", line) for line in lines)
    assert wanted - {name(line) for line in lines} == {"torch"}  # chosen by setup.sh


@pytest.mark.parametrize("distribution, rclpy", [("jazzy", "7.1.6"), ("kilted", "9.1.2")])
def test_ros_wheels_are_pinned(distribution, rclpy):
    text = (ROOT / f"scripts/ros-{distribution}-wheels.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {f"ros-{distribution}-rclpy=={rclpy}", f"ros-rclpy=={rclpy}"} <= set(lines)
    assert [line for line in lines if not re.fullmatch(r"[\w-]+==[\w.]+", line) and not line.startswith("cmake>=")] == []


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_node_settings_files_hold_only_known_settings(path):
    content = yaml.safe_load(path.read_text())
    sections = {key: value for key, value in content.items() if isinstance(value, dict) and "ros__parameters" in value}
    if not sections:
        pytest.skip("no node settings in it")
    for name, section in sections.items():
        from_mapping(NODES[name.rsplit("/", 1)[-1]], section["ros__parameters"])


def test_rviz_file_shows_what_the_segmenter_publishes():
    displays = yaml.safe_load((ROOT / "config/instseg.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"]: display["Topic"] for display in displays if "Topic" in display}
    assert set(topics) == {"/segmenter/points", "/segmenter/markers"}
    assert {topic["Durability Policy"] for topic in topics.values()} == {"Transient Local"}


def test_foxglove_file_shows_what_the_segmenter_publishes():
    layout = json.loads((ROOT / "config/foxglove.json").read_text())
    panels = layout["configById"]

    def placed(part) -> list[str]:
        return [part] if isinstance(part, str) else [*placed(part["first"]), *placed(part["second"])]

    assert sorted(placed(layout["layout"])) == sorted(panels), "every panel has its place"
    by_kind = {name.split("!")[0]: config for name, config in panels.items()}
    scene = by_kind["3D"]["topics"]
    assert set(scene) == {"/segmenter/points", "/segmenter/markers"} and all(topic["visible"] for topic in scene.values())
    assert scene["/segmenter/points"]["colorField"] == "rgb"
    named = {by_kind["DiagnosticSummary"]["topicToRender"], by_kind["RawMessages"]["topicPath"]}
    assert named == {"/diagnostics", "/segmenter/events"}
    page = (ROOT / "docs/ros.md").read_text()
    for topic in [*scene, *named]:
        assert f"`{topic.replace('/segmenter/', '~/')}`" in page
    assert '"config/foxglove.json"' in (ROOT / "setup.py").read_text(), "installed"


def test_every_subcommand_has_a_module_and_the_command_names_it():
    shown = subprocess.run(
        [sys.executable, "-m", "instseg_ros.cli", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    for name in COMMANDS:
        assert name in shown.stdout
        assert (ROOT / "instseg_ros/commands" / f"{name}.py").is_file(), f"instseg {name} has no module"
