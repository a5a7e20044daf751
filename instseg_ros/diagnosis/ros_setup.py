"""The installation of ROS: rclpy, the middleware, the environment variables, the messages. Nothing is started."""

__all__ = ["check_messages", "check_rclpy", "check_ros_environment"]

import importlib
import os
from collections.abc import Iterator

from instseg_ros.diagnosis.findings import Finding, note, ok, problem

OURS = {
    "msg": ("Instance", "InstanceArray", "InstanceEvent", "MapUpdate"),
    "srv": ("GetInstance", "ListInstances", "LoadMap", "RequestFull", "SaveMap"),
}
"""Our message and service types."""
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")


def check_rclpy() -> Iterator[Finding]:
    """Whether rclpy and a middleware are there."""
    try:
        importlib.import_module("rclpy")
        utilities = importlib.import_module("rclpy.utilities")
    except ImportError as error:
        cure = "source ROS 2 (or . scripts/env.sh after make setup)"
        yield note("ros", f"rclpy cannot be imported ({error}): commands work, the nodes do not", cure)
        return
    try:
        rmw = utilities.get_rmw_implementation_identifier()
    except Exception as error:  # the library of the middleware is loaded by this call
        wanted = os.environ.get("RMW_IMPLEMENTATION", "")
        yield problem(
            "ros", f"the middleware {wanted or 'of ROS'} cannot be loaded ({error})",
            f"install {wanted or 'rmw_fastrtps_cpp'}, or unset RMW_IMPLEMENTATION",
        )
        return
    yield ok("ros", f"rclpy is there ({os.environ.get('ROS_DISTRO', 'ROS_DISTRO is not set')}), middleware {rmw}")


def check_ros_environment() -> Iterator[Finding]:
    """The variables that decide who sees whom."""
    domain = os.environ.get("ROS_DOMAIN_ID", "0") or "0"
    if not domain.isdigit() or int(domain) > 232:
        yield problem("ros", f"ROS_DOMAIN_ID is {domain!r}", "set it to a number from 0 to 101, the same on all machines")
    elif int(domain) > 101:
        yield note("ros", f"ROS_DOMAIN_ID is {domain}: its ports meet those that Linux gives to other programs", "use 0 to 101")
    else:
        yield ok("ros", f"ROS_DOMAIN_ID is {domain}; only nodes with the same see each other")
    discovery = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if discovery and discovery not in RANGES:
        yield problem("ros", f"ROS_AUTOMATIC_DISCOVERY_RANGE is {discovery!r}", f"set it to one of {', '.join(RANGES)}")
    elif discovery == "OFF" and not os.environ.get("ROS_STATIC_PEERS"):
        yield problem("ros", "ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: no node sees another", "unset it, or name peers in ROS_STATIC_PEERS")
    elif discovery == "LOCALHOST":
        yield note("ros", "ROS_AUTOMATIC_DISCOVERY_RANGE is LOCALHOST: nodes on other machines are not seen", "SUBNET, if the mapper runs elsewhere")
    if os.environ.get("ROS_LOCALHOST_ONLY", "0") == "1":
        yield note(
            "ros", "ROS_LOCALHOST_ONLY is 1: nodes on other machines are not seen, and ROS_AUTOMATIC_DISCOVERY_RANGE does not count",
            "unset it, and use ROS_AUTOMATIC_DISCOVERY_RANGE",
        )
    if os.environ.get("ROS_SECURITY_ENABLE", "").lower() == "true" and not os.path.isdir(os.environ.get("ROS_SECURITY_KEYSTORE", "")):
        yield problem("ros", "ROS_SECURITY_ENABLE is true, but ROS_SECURITY_KEYSTORE is no folder", "name the keystore, or unset ROS_SECURITY_ENABLE")


def check_messages() -> Iterator[Finding]:
    """Our messages, and those of others that are used where they are there."""
    cure = "make build (or colcon build), then source install/setup.bash"
    try:
        missing = [f"{part}/{n}" for part, names in OURS.items() for n in names if not hasattr(importlib.import_module(f"instseg_ros.{part}"), n)]
        if missing:
            yield problem("messages", f"those of instseg_ros were built before {', '.join(missing)} came: the nodes do not start", cure)
        else:
            yield ok("messages", "those of instseg_ros are there")
    except ImportError as error:
        yield problem("messages", f"those of instseg_ros cannot be imported ({error})", cure)
    for package, without, cure in (
        ("nvblox_msgs", "nvblox cannot be read", "source the workspace of Isaac ROS nvblox, if you map with it (docs/mappers.md)"),
        ("vision_msgs", "~/label_info is a std_msgs/String, and there is no ~/detections", "apt install ros-$ROS_DISTRO-vision-msgs, if you need it"),
        ("tf2_ros", "pose.source tf cannot be used", "apt install ros-$ROS_DISTRO-tf2-ros-py, if you need it"),
    ):
        try:
            importlib.import_module(f"{package}.msg" if package.endswith("_msgs") else package)
            yield ok("messages", f"{package} is there")
        except ImportError:
            yield note("messages", f"{package} is not there: {without}", cure)
