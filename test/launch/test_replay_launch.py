"""launch/replay.launch.py on real launch and real nodes: a bag is played through fusion and segmenter, and then everything ends."""

import importlib.util
import tempfile
from pathlib import Path

import launch_pytest
import numpy as np
import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from instseg_ros.msg import InstanceArray
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from instseg_ros.config import ModelConfig
from instseg_ros.datasets.bag_writer import write_bag
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights
from instseg_ros.ros import qos
from launch import LaunchContext, LaunchDescription

LAUNCH_FILE = Path(get_package_share_directory("instseg_ros")) / "launch" / "replay.launch.py"
TIMEOUT_S = 240.0
COUNT = 20


def module():
    spec = importlib.util.spec_from_file_location("replay_launch", LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def context_with(loaded, **values) -> LaunchContext:
    context = LaunchContext()
    context.launch_configurations.update(values)
    for argument in loaded.ARGUMENTS:
        argument.execute(context)
    return context


def test_every_argument_is_declared_with_a_description():
    description = PythonLaunchDescriptionSource(str(LAUNCH_FILE)).get_launch_description(LaunchContext())
    arguments = {one.name: one for one in description.entities if isinstance(one, DeclareLaunchArgument)}
    assert {"bag", "rate", "depth", "color", "camera_info", "pose", "map", "exit_at_end"} <= set(arguments)
    assert not [name for name, one in arguments.items() if len(one.description or "") < 8]


def test_a_bag_that_cannot_be_played_is_refused_with_the_arguments_to_use(tmp_path):
    loaded = module()
    with pytest.raises(RuntimeError, match="nothing is missing.*depth:="):
        loaded.prepare(context_with(loaded, bag=str(tmp_path / "nothing")))
    write_bag(tmp_path / "bag", frames(1))
    with pytest.raises(RuntimeError, match="no topic /depth.*It holds.*/camera/depth/image"):
        loaded.prepare(context_with(loaded, bag=str(tmp_path / "bag"), depth="/depth"))
    with pytest.raises(RuntimeError, match="rate:=fast is no number"):
        loaded.prepare(context_with(loaded, bag=str(tmp_path / "bag"), rate="fast"))


def frames(count: int) -> list[RgbdFrame]:
    """A camera 1.5 m over a floor."""
    K = np.array([[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]])
    depth_m, color = np.full((32, 48), 1.5, np.float32), np.full((32, 48, 3), 120, np.uint8)
    poses = [np.array([[1.0, 0, 0, 0.1 * i], [0, -1, 0, 0], [0, 0, -1, 1.5], [0, 0, 0, 1]]) for i in range(COUNT)]
    return [RgbdFrame(10**12 + i * 10**8, depth_m, color, K, pose) for i, pose in enumerate(poses[:count])]


@launch_pytest.fixture(scope="module")
def replayed():
    folder = Path(tempfile.mkdtemp(prefix="instseg_replay_"))
    save_weights(folder / "tiny.safetensors", InstanceNet(ModelConfig(channels=(8, 8))), {})
    write_bag(folder / "bag", frames(COUNT), frame_id="odom")
    arguments = {
        "bag": str(folder / "bag"), "namespace": "robot", "weights": str(folder / "tiny.safetensors"), "device": "cpu",
        "publish_period_s": "0.3", "save_dir": str(folder),
    }
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=arguments.items())
    return LaunchDescription([include, launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=replayed)
def test_the_bag_arrives_segmented_in_its_own_frame_and_time(replayed):
    rclpy.init()
    node = rclpy.create_node("replay_launch_test")
    heard = []
    node.create_subscription(InstanceArray, "/robot/segmenter/instances", heard.append, qos.DELTAS)
    try:
        end = node.get_clock().now().nanoseconds + int(TIMEOUT_S * 1e9)
        while not (heard and heard[-1].header.stamp.sec >= 1001) and node.get_clock().now().nanoseconds < end:
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    assert heard and heard[-1].header.frame_id == "odom" and 1001 <= heard[-1].header.stamp.sec <= 1002
