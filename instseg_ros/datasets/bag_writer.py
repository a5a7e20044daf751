"""Posed RGB-D frames as a ROS 2 bag (mcap), without ROS."""

__all__ = ["CAMERA_FRAME", "write_bag"]

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import DataError

CAMERA_FRAME = "camera_optical_frame"


def write_bag(path: Path | str, frames: Iterable[RgbdFrame], frame_id: str = "map") -> None:
    """Write a bag with /camera/depth/image (16UC1, mm), /camera/color/image (rgb8), /camera/depth/camera_info and /camera/pose
    (PoseStamped of the optical frame in `frame_id`), all stamped with the frame's stamp.

    Args:
        path: folder of the bag; it must not be there yet.
        frames: in order of time.
        frame_id: the fixed frame.

    Raises:
        DataError: the folder is there already.
    """
    path = Path(path)
    if path.exists():
        raise DataError(f"{path} is there already: remove it, or write the bag elsewhere")
    path.parent.mkdir(parents=True, exist_ok=True)
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {
        "/camera/depth/image": "sensor_msgs/msg/Image", "/camera/color/image": "sensor_msgs/msg/Image",
        "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo", "/camera/pose": "geometry_msgs/msg/PoseStamped",
    }
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in types.items()}
        for frame in frames:
            for topic, message in _messages(frame, store.types, frame_id).items():
                writer.write(topics[topic], frame.stamp_ns, store.serialize_cdr(message, types[topic]))


def _messages(frame: RgbdFrame, types: dict[str, Any], frame_id: str) -> dict[str, Any]:
    """The four messages of a frame, by topic."""
    stamp = types["builtin_interfaces/msg/Time"](*divmod(frame.stamp_ns, 1_000_000_000))
    header = types["std_msgs/msg/Header"](stamp, CAMERA_FRAME)
    image, point = types["sensor_msgs/msg/Image"], types["geometry_msgs/msg/Point"]
    quaternion = types["geometry_msgs/msg/Quaternion"]
    height, width = frame.depth_m.shape
    depth = np.clip(np.rint(frame.depth_m * 1000.0), 0, 65535).astype("<u2")
    rotation = Rotation.from_matrix(frame.T_world_camera[:3, :3]).as_quat()
    pose = types["geometry_msgs/msg/Pose"](point(*frame.T_world_camera[:3, 3].tolist()), quaternion(*rotation.tolist()))
    P = np.zeros((3, 4))
    P[:, :3] = frame.K
    info = types["sensor_msgs/msg/CameraInfo"](
        header=header, height=height, width=width, distortion_model="plumb_bob", d=np.zeros(5),
        k=frame.K.astype(np.float64).ravel(), r=np.eye(3).ravel(), p=P.ravel(), binning_x=0, binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )
    return {
        "/camera/pose": types["geometry_msgs/msg/PoseStamped"](types["std_msgs/msg/Header"](stamp, frame_id), pose),
        "/camera/depth/camera_info": info,
        "/camera/depth/image": image(header, height, width, "16UC1", 0, 2 * width, depth.view(np.uint8).ravel()),
        "/camera/color/image": image(header, height, width, "rgb8", 0, 3 * width, frame.color.ravel()),
    }
