"""What users do with the launched segmenter: feed it, come late, ask wrongly, reset, save, load, stop. Real launch, a real process."""

import tempfile
import time
from pathlib import Path

import launch_pytest
import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from instseg_ros.msg import MapUpdate
from instseg_ros.srv import LoadMap, SaveMap
from launch.actions import IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from instseg_ros.benchmarks.chair_net import chair_weights
from instseg_ros.mapping import update
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import update_to_msg
from launch import LaunchDescription

LAUNCH_FILE = Path(get_package_share_directory("instseg_ros")) / "launch" / "online.launch.py"
TIMEOUT_S = 240.0
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
EXIT_CODES: list[int] = []
OUTPUT: list[str] = []


@launch_pytest.fixture(scope="module")
def segmenter():
    folder = Path(tempfile.mkdtemp(prefix="instseg_launch_"))
    chair_weights(folder / "chairs.safetensors")
    arguments = {"namespace": "robot", "weights": str(folder / "chairs.safetensors"), "device": "cpu", "save_dir": str(folder)}
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=arguments.items())
    return LaunchDescription([
        RegisterEventHandler(OnProcessExit(on_exit=lambda event, _: EXIT_CODES.append(event.returncode))),
        RegisterEventHandler(OnProcessIO(on_stdout=_heard, on_stderr=_heard)),
        include,
        launch_pytest.actions.ReadyToTest(),
    ])


def _heard(event) -> None:
    OUTPUT.append(event.text.decode(errors="replace"))


@pytest.fixture(scope="module")
def listener(segmenter):
    rclpy.init()
    node = rclpy.create_node("segmenter_launch_test", namespace="/robot")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def until(node, condition, what: str):
    end = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {TIMEOUT_S:.0f} s in vain: {what}"
        rclpy.spin_once(node, timeout_sec=0.05)
    return value


def call(node, kind, service, request=None):
    client = node.create_client(kind, f"/robot/segmenter/{service}")
    until(node, client.service_is_ready, service)
    future = client.call_async(request or kind.Request())
    until(node, future.done, f"an answer of {service}")
    node.destroy_client(client)
    return future.result()


def latched_points(node) -> int:
    """Points of the cloud that a subscriber gets who comes now."""
    clouds: list[PointCloud2] = []
    subscription = node.create_subscription(PointCloud2, "/robot/segmenter/points", clouds.append, LATCHED)
    until(node, lambda: clouds, "the latched cloud")
    node.destroy_subscription(subscription)
    return clouds[-1].width


@pytest.mark.launch(fixture=segmenter)
def test_a_late_subscriber_gets_the_cloud(segmenter, listener):
    publisher = listener.create_publisher(MapUpdate, "map_updates", qos.DELTAS)
    until(listener, publisher.get_subscription_count, "the segmenter")
    coords = np.argwhere(np.ones((5, 5, 5))).astype(np.int32)
    one = update.MapUpdate(
        coords, np.full((125, 3), 90, np.uint8), np.ones(125, np.float32), 0.05, frame_id="map", stamp_ns=10**10, sequence=0, full=True
    )
    publisher.publish(update_to_msg(one))
    until(listener, lambda: latched_points(listener) == 125, "the map")


@pytest.mark.launch(fixture=segmenter)
def test_a_profile_that_does_not_match_is_told_with_the_cure(segmenter, listener):
    best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    publisher = listener.create_publisher(PointCloud2, "map_points", best_effort)
    advice = "qos_overrides./robot/map_points.subscription.reliability:=best_effort"
    until(listener, lambda: advice in "".join(OUTPUT), f"{advice} in the log")
    listener.destroy_publisher(publisher)


@pytest.mark.launch(fixture=segmenter)
def test_save_reset_and_load(segmenter, listener):
    assert call(listener, SaveMap, "save_map", SaveMap.Request(path="room.instseg")).success
    assert call(listener, Trigger, "reset").success
    until(listener, lambda: latched_points(listener) == 0, "an empty cloud")
    answer = call(listener, LoadMap, "load_map", LoadMap.Request(path="room.instseg"))
    assert answer.success, answer.message
    until(listener, lambda: latched_points(listener) == 125, "the map that was saved")


@pytest.mark.launch(fixture=segmenter, shutdown=True)
def test_it_ends_cleanly(segmenter):
    assert EXIT_CODES == [0]
