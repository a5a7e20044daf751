"""The flags with which commands name the topics of a bag."""

__all__ = ["add_topic_arguments", "topics_from_arguments"]

import argparse

from instseg_ros.datasets.bags import BagTopics

_TOPICS = {
    "depth": "depth images", "color": "colour images", "camera_info": "CameraInfo of the depth images",
    "pose": "PoseStamped of the camera's optical frame", "map": "MapUpdate or PointCloud2 of a map",
}


def add_topic_arguments(parser: argparse.ArgumentParser) -> None:
    """`--depth-topic` and the like."""
    for name, what in _TOPICS.items():
        flag = f"--{name.replace('_', '-')}-topic"
        parser.add_argument(flag, default="", metavar="TOPIC", help=f"bags: topic of the {what}; default: found by type")
    parser.add_argument(
        "--fixed-frame", default="", metavar="FRAME", help="bags with /tf: frame of the map; default: the root of the tree"
    )
    parser.add_argument("--delta-clouds", action="store_true", help="bags: a PointCloud2 adds to the map instead of being the whole map")


def topics_from_arguments(args: argparse.Namespace) -> BagTopics:
    """What the flags of `add_topic_arguments` say."""
    named = {name: getattr(args, f"{name}_topic") for name in _TOPICS}
    return BagTopics(**named, fixed_frame=args.fixed_frame, delta_clouds=args.delta_clouds)
