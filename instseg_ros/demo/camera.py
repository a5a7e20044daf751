"""The demo's own node: a camera that plays frames through topics, and ears for what the other nodes publish."""

__all__ = ["TOPICS", "CameraStage"]

import array
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import InstSegError
from instseg_ros.live.recorder import BagRecorder
from instseg_ros.live.recording import UPDATES
from instseg_ros.live.stage import OUTPUTS, Stage, topic_types, type_name
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import header
from instseg_ros.srv import SaveMap

CAMERA_FRAME = "camera_optical_frame"
PLAYED = {"/camera/depth": Image, "/camera/color": Image, "/camera/camera_info": CameraInfo, "/camera/pose": PoseStamped}
HEARD = {**OUTPUTS, "/segmenter/points": (PointCloud2, qos.LATCHED), "/segmenter/markers": (MarkerArray, qos.LATCHED)}
TOPICS = {**{topic: type_name(kind) for topic, kind in PLAYED.items()}, **topic_types(HEARD)}
"""Message type by topic of everything that is recorded."""


class CameraStage(Stage):
    """A stage with the publishers of a camera.

    Args:
        recorder: takes every message.
        check: called while waiting; raises if a node has died.
    """

    def __init__(self, recorder: BagRecorder, check: Callable[[], None]) -> None:
        super().__init__("demo", recorder, check, HEARD)
        self._publishers = {topic: self._node.create_publisher(kind, topic, 50) for topic, kind in PLAYED.items()}

    def __enter__(self) -> "CameraStage":
        return self

    def wait_until_connected(self, timeout_s: float) -> None:
        """Wait until both nodes are there and listen.

        Raises:
            InstSegError: they are not there in time.
        """
        for topic in PLAYED:
            self.wait_for_subscribers(topic, 1, "the fusion node", timeout_s)
        self.wait_for_subscribers(UPDATES, 2, "the segmenter", timeout_s)
        self.wait_for_publishers(HEARD, timeout_s)
        self.wait_for_fusion(timeout_s)
        self.updates, self.recording = 0, True

    def play(self, frame: RgbdFrame) -> None:
        """Publish a frame, its pose and camera info; the stamp is now."""
        stamp_ns = time.time_ns()
        for topic, message in _messages(frame, stamp_ns).items():
            content = serialize_message(message)
            self._publishers[topic].publish(content)
            self._recorder.write(topic, stamp_ns, content)

    def save_map(self, path: str, timeout_s: float) -> Any:
        """Let the segmenter write its labelled map; returns the service's answer.

        Raises:
            InstSegError: no answer in time, or it refused.
        """
        client = self._node.create_client(SaveMap, "/segmenter/save_map")
        self.wait_for(client.service_is_ready, "waiting for /segmenter/save_map", timeout_s)
        future = client.call_async(SaveMap.Request(path=path))
        self.wait_for(future.done, "waiting for the segmenter to save its map", timeout_s)
        answer = future.result()
        if answer is None or not answer.success:
            raise InstSegError(f"the segmenter did not save its map: {answer.message if answer is not None else 'no answer'}")
        return answer


def _messages(frame: RgbdFrame, stamp_ns: int) -> dict[str, Any]:
    """The four messages of a frame, pose first."""
    height, width = frame.depth_m.shape
    in_camera = header(stamp_ns, CAMERA_FRAME)
    pose = PoseStamped(header=header(stamp_ns, "map"))
    pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = frame.T_world_camera[:3, 3].tolist()
    x, y, z, w = Rotation.from_matrix(frame.T_world_camera[:3, :3]).as_quat().tolist()
    pose.pose.orientation.x, pose.pose.orientation.y, pose.pose.orientation.z, pose.pose.orientation.w = x, y, z, w
    K = frame.K.astype(float)
    info = CameraInfo(header=in_camera, height=height, width=width, distortion_model="plumb_bob", k=K.ravel().tolist())
    info.r = np.eye(3).ravel().tolist()
    info.p = np.hstack([K, np.zeros((3, 1))]).ravel().tolist()
    depth = np.clip(np.rint(frame.depth_m * 1000.0), 0, 65535).astype("<u2")
    return {
        "/camera/pose": pose,
        "/camera/camera_info": info,
        "/camera/depth": Image(
            header=in_camera,
            height=height,
            width=width,
            encoding="16UC1",
            step=2 * width,
            data=array.array("B", depth.tobytes()),
        ),
        "/camera/color": Image(
            header=in_camera,
            height=height,
            width=width,
            encoding="rgb8",
            step=3 * width,
            data=array.array("B", np.ascontiguousarray(frame.color).tobytes()),
        ),
    }
