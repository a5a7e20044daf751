"""Plays a bag with /clock into the segmenter, through the fusion node if it holds images, and with `rviz:=true` into RViz.

Which topics of the bag are played, the frame of the map and where poses come from is found out from the bag; arguments of
online.launch.py count here too. The bag is played by the package's own player, which reads what `instseg replay` reads (mcap,
sqlite3, ROS 1; compressed files, messages and images), and waits until the nodes listen. To play with `ros2 bag play BAG --clock`
instead, start online.launch.py with use_sim_time:=true and name the topics there.

    ros2 launch instseg_ros replay.launch.py bag:=recording rviz:=true
    ros2 launch instseg_ros replay.launch.py bag:=recording.mcap rate:=0.5 color:=/camera/rgb/image exit_at_end:=true
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from instseg_ros.datasets.bags import BagTopics
from instseg_ros.errors import DataError
from instseg_ros.replay.playback import Playback, plan_playback
from launch import LaunchContext, LaunchDescription

ONLINE = Path(get_package_share_directory("instseg_ros")) / "launch" / "online.launch.py"
YES_NO = ["true", "false"]
ROLES = ("depth", "color", "camera_info", "pose")

ARGUMENTS = (
    DeclareLaunchArgument("bag", description="folder of a recording, or a .mcap, .db3 or .bag file"),
    DeclareLaunchArgument("rate", default_value="1.0", description="times as fast as it was recorded"),
    DeclareLaunchArgument("depth", default_value="", description="topic in the bag of the depth images; empty: found by type and name"),
    DeclareLaunchArgument("color", default_value="", description="topic in the bag of the colour images; empty: found by type and name"),
    DeclareLaunchArgument("camera_info", default_value="", description="topic in the bag of the depth images' CameraInfo; empty: the nearest name"),
    DeclareLaunchArgument("pose", default_value="", description="topic in the bag of the optical frame's poses; empty: a PoseStamped, or /tf"),
    DeclareLaunchArgument("map", default_value="", description="topic in the bag of a map (MapUpdate or PointCloud2), instead of images"),
    DeclareLaunchArgument("fixed_frame", default_value="", description="frame of the map where poses come from /tf; empty: the root of the tree"),
    DeclareLaunchArgument("exit_at_end", default_value="false", choices=YES_NO, description="end everything when the bag has been played"),
    DeclareLaunchArgument("use_sim_time", default_value="true", choices=YES_NO, description="take the time from /clock, as the bag is played"),
)


def value_of(context: LaunchContext, argument: str) -> str:
    """The text a launch argument has."""
    return LaunchConfiguration(argument).perform(context)


def plan_of(context: LaunchContext) -> Playback:
    """What of the bag is played."""
    named = {name: value_of(context, name) for name in (*ROLES, "map", "fixed_frame")}
    delta = context.launch_configurations.get("points_mode") == "delta"
    try:
        return plan_playback(Path(value_of(context, "bag")), BagTopics(**named, delta_clouds=delta))
    except DataError as error:
        raise RuntimeError(f"{error}  (in this launch file: depth:=, color:=, camera_info:=, pose:=, map:=)") from error


def resolved(topic: str, context: LaunchContext) -> str:
    """The full name of a topic of the nodes."""
    namespace = context.launch_configurations.get("namespace", "").strip("/")
    return topic if topic.startswith("/") else "/".join(["", *filter(None, [namespace]), topic])


def prepare(context: LaunchContext) -> list:
    """The player, and the arguments of online.launch.py that follow from the bag; those on the command line stay as they are."""
    plan = plan_of(context)
    told = {**plan.remappings, "frame": plan.frame, "rgbd": "true" if plan.images else "false"}
    if plan.images:
        told["pose_source"] = plan.parameters["fusion"]["pose.source"]
        told.setdefault("pose", "pose")
    keep = {"frame", "pose_source"} & context.launch_configurations.keys()
    text = {name: value_of(context, name) for name in (*ROLES, "map", "fixed_frame")} | {"path": str(plan.path.resolve())}
    if plan.images:
        text["wait_for"] = resolved(context.launch_configurations.get("map_updates", "map_updates"), context)
    try:
        rate = float(value_of(context, "rate"))
    except ValueError as error:
        raise RuntimeError(f"rate:={value_of(context, 'rate')} is no number: 2.0 plays twice as fast") from error
    player = Node(
        package="instseg_ros", executable="bag_player", name="bag_player", output="screen",
        parameters=[{**{name: ParameterValue(value, value_type=str) for name, value in text.items()}, "rate": rate}],
    )
    names = ", ".join(topic.recorded for topic in plan.topics)
    actions: list = [SetLaunchConfiguration(name, value) for name, value in told.items() if name not in keep]
    actions += [LogInfo(msg=f"instseg_ros: playing {names} of {plan.path.name}, map in frame {plan.frame!r}"), player]
    if value_of(context, "exit_at_end") == "true":
        end = OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown(reason="the bag has been played"))])
        actions.append(RegisterEventHandler(end))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    online = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(ONLINE)))
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=prepare), online])
