"""launch/online.launch.py on real launch and real nodes: everything declared, and the command line counts before files."""

import tempfile
import time
from pathlib import Path

import launch_pytest
import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rcl_interfaces.srv import GetParameters

from instseg_ros.config import ModelConfig
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights
from launch import LaunchContext, LaunchDescription

LAUNCH_FILE = Path(get_package_share_directory("instseg_ros")) / "launch" / "online.launch.py"
TIMEOUT_S = 240.0

PARAMS_FILE = """
/**/segmenter:
  ros__parameters:
    output: {colors: classes, points_period_s: 3.5}
/**/fusion:
  ros__parameters:
    max_depth_m: 2.5
    publish_period_s: 0.25
"""


def declared(context: LaunchContext) -> list[DeclareLaunchArgument]:
    description = PythonLaunchDescriptionSource(str(LAUNCH_FILE)).get_launch_description(context)
    return [entity for entity in description.entities if isinstance(entity, DeclareLaunchArgument)]


def test_every_argument_is_declared_with_a_description():
    arguments = {argument.name: argument for argument in declared(LaunchContext())}
    wanted = {
        "map_updates",
        "map_points",
        "frame",
        "weights",
        "preset",
        "voxel_size_m",
        "device",
        "params_file",
        "rviz",
        "rgbd",
        "depth",
        "color",
        "camera_info",
        "pose",
        "use_sim_time",
        "namespace",
        "enclave",
        "log_level",
    }
    assert wanted <= set(arguments)
    assert not [name for name, argument in arguments.items() if len(argument.description or "") < 8]


def loaded(**arguments):
    """The launch file as a module, and a context with its arguments."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("online_launch", LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = LaunchContext()
    for argument in module.ARGUMENTS:
        argument.execute(context)
    context.launch_configurations.update(arguments)
    return module, context


def test_an_unknown_preset_is_refused_with_the_names_there_are():
    module, context = loaded(preset="nonsense")
    with pytest.raises(RuntimeError, match="default, full"):
        module.start(context)


@pytest.mark.parametrize(
    "given, taken", [("", []), ("/instseg_ros", ["/instseg_ros/segmenter", "/instseg_ros/fusion"]), ("/", ["/segmenter", "/fusion"])]
)
def test_every_node_gets_an_enclave_of_its_own(given, taken):
    module, context = loaded(enclave=given, rgbd="true")
    commands = [["".join(getattr(part, "text", "?") for part in word) for word in one.cmd] for one in module.start(context) if hasattr(one, "cmd")]
    assert len(commands) == 2
    assert [command[command.index("--enclave") + 1] for command in commands if "--enclave" in command] == taken


@launch_pytest.fixture(scope="module")
def online():
    folder = Path(tempfile.mkdtemp(prefix="instseg_launch_"))
    save_weights(folder / "tiny.safetensors", InstanceNet(ModelConfig(channels=(8, 8))), {})
    (folder / "own.yaml").write_text(PARAMS_FILE)
    arguments = {
        "namespace": "robot",
        "rgbd": "true",
        "frame": "odom",
        "colors": "map",
        "publish_period_s": "0.75",
        "weights": str(folder / "tiny.safetensors"),
        "params_file": str(folder / "own.yaml"),
        "preset": "full",
        "map_updates": "/robot/changes",
        "device": "cpu",
        "floor_known": "false",
        "floor_z_m": "0.25",
    }
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=arguments.items())
    return LaunchDescription([include, launch_pytest.actions.ReadyToTest()])


@pytest.fixture(scope="module")
def listener(online):
    rclpy.init()
    node = rclpy.create_node("launch_test")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def parameters(node, target, names):
    """Values of the parameters of a running node."""
    client = node.create_client(GetParameters, f"{target}/get_parameters")
    assert client.wait_for_service(timeout_sec=TIMEOUT_S), f"{target} did not start within {TIMEOUT_S:.0f} s"
    future = client.call_async(GetParameters.Request(names=names))
    rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
    assert future.result() is not None, f"{target} did not answer"
    return [rclpy.parameter.parameter_value_to_python(value) for value in future.result().values]


@pytest.mark.launch(fixture=online)
def test_command_line_before_file_before_preset_before_base(online, listener):
    names = ["output.colors", "output.points_period_s", "passes", "input.frame", "output.markers_period_s", "device"]
    assert parameters(listener, "/robot/segmenter", names) == ["map", 3.5, "full", "odom", 1.0, "cpu"]
    assert parameters(listener, "/robot/segmenter", ["floor_known", "floor_z_m"]) == [False, 0.25]
    names = ["publish_period_s", "max_depth_m", "min_depth_m", "pose.frame"]
    assert parameters(listener, "/robot/fusion", names) == [0.75, 2.5, 0.3, "odom"]


@pytest.mark.launch(fixture=online)
def test_the_nodes_meet_on_the_remapped_topic(online, listener):
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if listener.count_publishers("/robot/changes") == 1 and listener.count_subscribers("/robot/changes") == 1:
            return
        rclpy.spin_once(listener, timeout_sec=0.1)
    pytest.fail("/robot/changes has no publisher and subscriber")
