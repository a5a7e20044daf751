"""`lifecycle:=true` of launch/online.launch.py on real launch and a real node: started, configured, activated, ended."""

import tempfile
import time
from pathlib import Path

import launch_pytest
import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from instseg_ros.config import ModelConfig
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights
from launch import LaunchDescription

LAUNCH_FILE = Path(get_package_share_directory("instseg_ros")) / "launch" / "online.launch.py"
TIMEOUT_S = 240.0
EXIT_CODES: list[int] = []


@launch_pytest.fixture(scope="module")
def managed():
    """Two managed segmenters, one that the launch file brings up and one that it leaves alone."""
    weights = Path(tempfile.mkdtemp(prefix="instseg_launch_")) / "tiny.safetensors"
    save_weights(weights, InstanceNet(ModelConfig(channels=(8, 8))), {})
    common = {"lifecycle": "true", "weights": str(weights), "device": "cpu", "frame": "odom"}
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    return LaunchDescription(
        [
            RegisterEventHandler(OnProcessExit(on_exit=lambda event, _: EXIT_CODES.append(event.returncode))),
            IncludeLaunchDescription(source, launch_arguments={**common, "namespace": "robot", "autostart": "true"}.items()),
            IncludeLaunchDescription(source, launch_arguments={**common, "namespace": "other", "autostart": "false"}.items()),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.fixture(scope="module")
def listener(managed):
    rclpy.init()
    node = rclpy.create_node("lifecycle_launch_test")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def call(node, kind, service, request):
    client = node.create_client(kind, service)
    assert client.wait_for_service(timeout_sec=TIMEOUT_S), f"{service} is not there after {TIMEOUT_S:.0f} s"
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
    assert future.result() is not None, f"{service} did not answer"
    node.destroy_client(client)
    return future.result()


def state(node, namespace: str) -> str:
    return call(node, GetState, f"/{namespace}/segmenter/get_state", GetState.Request()).current_state.label


def change(node, namespace: str, label: str) -> bool:
    request = ChangeState.Request(transition=Transition(label=label))
    return call(node, ChangeState, f"/{namespace}/segmenter/change_state", request).success


@pytest.mark.launch(fixture=managed)
def test_it_is_configured_and_activated_once(managed, listener):
    end = time.monotonic() + TIMEOUT_S
    while (seen := state(listener, "robot")) != "active":
        assert time.monotonic() < end, f"still {seen} after {TIMEOUT_S:.0f} s"
        time.sleep(0.2)
    assert listener.count_subscribers("/robot/map_updates") == 1
    for label in ("deactivate", "cleanup", "configure"):
        assert change(listener, "robot", label), label
    for _ in range(20):
        rclpy.spin_once(listener, timeout_sec=0.05)
        assert state(listener, "robot") == "inactive", "after the start, others decide"
    assert change(listener, "robot", "activate") and state(listener, "robot") == "active"


@pytest.mark.launch(fixture=managed)
def test_without_autostart_it_waits(managed, listener):
    assert state(listener, "other") == "unconfigured"
    assert change(listener, "other", "configure") and state(listener, "other") == "inactive"


@pytest.mark.launch(fixture=managed, shutdown=True)
def test_both_end_cleanly(managed):
    assert EXIT_CODES == [0, 0]
