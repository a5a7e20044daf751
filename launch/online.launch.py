"""Segments a growing map: the segmenter node, with `rgbd:=true` the fusion node before it, with `rviz:=true` RViz.

With `lifecycle:=true` the segmenter is a managed node; the launch file configures and activates it unless `autostart:=false`.

What is given on the command line counts before `params_file`, that before `preset`, that before config/segmenter.yaml and
config/fusion.yaml, and those before the nodes' own defaults.

    ros2 launch instseg_ros online.launch.py map_updates:=/mapper/updates rviz:=true
    ros2 launch instseg_ros online.launch.py rgbd:=true depth:=/camera/depth/image color:=/camera/color pose:=/slam/pose
"""

from pathlib import Path
from typing import Any, NamedTuple

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("instseg_ros"))
YES_NO = ["true", "false"]


class Given(NamedTuple):
    """A launch argument that sets a parameter when it is not empty."""

    argument: str
    parameter: str
    kind: type
    nodes: tuple[str, ...]
    description: str
    choices: list[str] | None = None


PARAMETERS = (
    Given(
        "voxel_size_m",
        "voxel_size_m",
        float,
        ("segmenter", "fusion"),
        "voxel size of the map, m; what the weights were trained for",
    ),
    Given("weights", "weights", str, ("segmenter",), "safetensors file with the network; the shipped weights if empty"),
    Given("floor_z_m", "floor_z_m", float, ("segmenter",), "height of the floor in the map's frame (z up), m"),
    Given(
        "floor_known", "floor_known", bool, ("segmenter",), "false: nobody knows where the floor is", ["true", "false"]
    ),
    Given("device", "device", str, ("segmenter",), "where the network runs", ["auto", "cpu", "cuda"]),
    Given("threads", "threads", int, ("segmenter",), "CPU threads of the network; 0 = all cores"),
    Given("passes", "passes", str, ("segmenter",), "recompute only what changed, or the whole map", ["incremental", "full"]),
    Given("points_mode", "input.points_mode", str, ("segmenter",), "what a cloud on map_points holds", ["full", "delta"]),
    Given(
        "colors", "output.colors", str, ("segmenter",), "what the colours of the clouds show", ["instances", "classes", "map"]
    ),
    Given("save_dir", "save_dir", str, ("segmenter",), "folder of saved maps and states"),
    Given("state_file", "state.file", str, ("segmenter",), "file (.instseg) in save_dir in which the map outlives the node"),
    Given("pose_source", "pose.source", str, ("fusion",), "where camera poses come from", ["topic", "tf", "folder"]),
    Given("folder", "folder.path", str, ("fusion",), "recorded RGB-D folder that is played, with pose_source:=folder"),
    Given("max_depth_m", "max_depth_m", float, ("fusion",), "depth beyond this is not used, m"),
    Given("publish_period_s", "publish_period_s", float, ("fusion",), "changed voxels are published this often, s"),
)

INPUTS = ("map_updates", "map_points", "nvblox_mesh", "nvblox_layer", "request_full")

ARGUMENTS = (
    DeclareLaunchArgument(
        "map_updates", default_value="map_updates", description="topic with the map's changes (instseg_ros/msg/MapUpdate)"
    ),
    DeclareLaunchArgument(
        "map_points", default_value="map_points", description="topic with the map as a cloud (sensor_msgs/msg/PointCloud2)"
    ),
    DeclareLaunchArgument(
        "nvblox_mesh", default_value="nvblox_mesh", description="topic with nvblox's mesh, where nvblox_msgs is installed (nvblox_msgs/msg/Mesh)"
    ),
    DeclareLaunchArgument(
        "nvblox_layer", default_value="nvblox_layer", description="or with its voxels (nvblox_msgs/msg/VoxelBlockLayer): docs/mappers.md"
    ),
    DeclareLaunchArgument(
        "request_full", default_value="request_full", description="service that makes the mapper send its whole map"
    ),
    DeclareLaunchArgument(
        "frame", default_value="", description="fixed frame of the map; empty: that of the first update ('map' with rgbd)"
    ),
    DeclareLaunchArgument(
        "preset", default_value="default", description="base settings: a file of config/online without .yaml"
    ),
    DeclareLaunchArgument(
        "params_file", default_value="", description="YAML with parameters of the nodes /segmenter and /fusion"
    ),
    DeclareLaunchArgument(
        "rgbd", default_value="false", choices=YES_NO, description="fuse depth images here: start the fusion node too"
    ),
    DeclareLaunchArgument("depth", default_value="depth", description="depth image topic (16UC1 or 32FC1), with rgbd"),
    DeclareLaunchArgument("color", default_value="color", description="colour image topic registered to the depth, with rgbd"),
    DeclareLaunchArgument(
        "camera_info", default_value="camera_info", description="camera info topic of the depth image, with rgbd"
    ),
    DeclareLaunchArgument(
        "pose", default_value="pose", description="pose of the optical frame (geometry_msgs/msg/PoseStamped), with rgbd"
    ),
    DeclareLaunchArgument(
        "rviz", default_value="false", choices=YES_NO, description="open RViz on the labelled cloud, boxes and texts"
    ),
    DeclareLaunchArgument("rviz_config", default_value=str(SHARE / "config" / "instseg.rviz"), description="RViz file"),
    DeclareLaunchArgument(
        "lifecycle", default_value="false", choices=YES_NO, description="start the segmenter as a managed node (docs/ros.md, Lifecycle)"
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=YES_NO, description="with lifecycle: configure and activate the segmenter here"
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of both nodes"),
    DeclareLaunchArgument(
        "enclave", default_value="", description="SROS 2 enclave below which the nodes' own are, like /instseg_ros: docs/security.md"
    ),
    DeclareLaunchArgument("use_sim_time", default_value="false", choices=YES_NO, description="take the time from /clock"),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="log level of the nodes",
    ),
    *(
        DeclareLaunchArgument(
            one.argument,
            default_value="",
            description=f"{one.description}; empty: as in the files",
            **({"choices": ["", *one.choices]} if one.choices else {}),
        )
        for one in PARAMETERS
    ),
)


def value_of(context: LaunchContext, argument: str) -> str:
    """The text a launch argument has."""
    return LaunchConfiguration(argument).perform(context)


def typed(text: str, kind: type) -> Any:
    """A parameter of the kind asked for from the text of a launch argument."""
    if kind is bool:
        return text == "true"
    return ParameterValue(text, value_type=str) if kind is str else kind(text)


def parameters_for(context: LaunchContext, node: str) -> list:
    """Parameter files and values of a node, the later ones counting more."""
    files = [SHARE / "config" / f"{node}.yaml"]
    preset = SHARE / "config" / "online" / f"{value_of(context, 'preset')}.yaml"
    if not preset.is_file():
        names = ", ".join(sorted(path.stem for path in preset.parent.glob("*.yaml")))
        raise RuntimeError(f"there is no preset {preset.stem!r}: choose one of {names}, or give a file with params_file:=")
    files.append(preset)
    own = value_of(context, "params_file")
    if own:
        if not Path(own).is_file():
            raise RuntimeError(f"params_file {own} does not exist")
        files.append(Path(own))
    values: dict = {"use_sim_time": value_of(context, "use_sim_time") == "true"}
    frame = value_of(context, "frame")
    if frame:
        values["pose.frame" if node == "fusion" else "input.frame"] = ParameterValue(frame, value_type=str)
    for one in PARAMETERS:
        text = value_of(context, one.argument)
        if node in one.nodes and text:
            try:
                values[one.parameter] = typed(text, one.kind)
            except ValueError as error:
                raise RuntimeError(f"{one.argument}:={text} is no {one.kind.__name__}: {one.description}") from error
    return [*map(str, files), values]


def node_action(context: LaunchContext, name: str, topics: tuple[str, ...], managed: bool = False) -> Node:
    """One of our nodes with its parameters and remapped topics."""
    remappings = [(topic, value_of(context, topic)) for topic in topics if value_of(context, topic) != topic]
    enclave = value_of(context, "enclave")
    return (LifecycleNode if managed else Node)(
        package="instseg_ros",
        executable=f"lifecycle_{name}_node" if managed else f"{name}_node",
        name=name,
        namespace=value_of(context, "namespace"),
        output="screen",
        parameters=parameters_for(context, name),
        remappings=remappings,
        arguments=["--ros-args", "--log-level", value_of(context, "log_level"), *(["--enclave", f"{enclave.rstrip('/')}/{name}"] if enclave else [])],
        sigterm_timeout="30",  # at Ctrl-C the node ends its update and saves the state; after 5 s it would be killed at that
    )


def autostart(node: LifecycleNode) -> list:
    """Configures a managed node and, once that has succeeded, activates it."""

    def transition(number: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=number))

    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[transition(Transition.TRANSITION_ACTIVATE)],
        handle_once=True,
    )
    return [RegisterEventHandler(configured), transition(Transition.TRANSITION_CONFIGURE)]


def rviz_action(context: LaunchContext) -> Node:
    """RViz with our displays, moved to the nodes' namespace."""
    namespace = value_of(context, "namespace").strip("/")
    moved = (
        [(f"/segmenter/{name}", f"/{namespace}/segmenter/{name}") for name in ("points", "points_delta", "markers")]
        if namespace
        else []
    )
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        output="log",
        remappings=moved,
        parameters=[{"use_sim_time": value_of(context, "use_sim_time") == "true"}],
        arguments=["-d", value_of(context, "rviz_config"), "-f", value_of(context, "frame") or "map"],
    )


def start(context: LaunchContext) -> list:
    """What the arguments ask for."""
    managed = value_of(context, "lifecycle") == "true"
    segmenter = node_action(context, "segmenter", INPUTS, managed)
    actions: list = [segmenter]
    if managed and value_of(context, "autostart") == "true":
        actions += autostart(segmenter)
    if value_of(context, "rgbd") == "true":
        actions.append(node_action(context, "fusion", ("map_updates", "depth", "color", "camera_info", "pose")))
    if value_of(context, "rviz") == "true":
        actions.append(rviz_action(context))
    actions.append(LogInfo(msg=f"instseg_ros: preset {value_of(context, 'preset')}"))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
