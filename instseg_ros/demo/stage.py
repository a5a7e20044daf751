"""The demo's own node: plays frames through topics at a steady rate and records what the other nodes publish."""

__all__ = ["TOPICS", "Stage"]

import array
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.demo.recorder import BagRecorder
from instseg_ros.errors import InstSegError
from instseg_ros.msg import InstanceArray, InstanceEvent, MapUpdate
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import header
from instseg_ros.srv import RequestFull, SaveMap

CAMERA_FRAME = "camera_optical_frame"
PLAYED = {"/camera/depth": Image, "/camera/color": Image, "/camera/camera_info": CameraInfo, "/camera/pose": PoseStamped}
HEARD: dict[str, tuple[Any, QoSProfile]] = {
    "/map_updates": (MapUpdate, qos.DELTAS),
    "/segmenter/points": (PointCloud2, qos.LATCHED),
    "/segmenter/points_delta": (PointCloud2, qos.DELTAS),
    "/segmenter/markers": (MarkerArray, qos.LATCHED),
    "/segmenter/instances": (InstanceArray, qos.DELTAS),
    "/segmenter/events": (InstanceEvent, qos.EVENTS),
    "/diagnostics": (DiagnosticArray, QoSProfile(depth=50)),
}
_NAMES = {
    Image: "sensor_msgs/msg/Image",
    CameraInfo: "sensor_msgs/msg/CameraInfo",
    PoseStamped: "geometry_msgs/msg/PoseStamped",
    PointCloud2: "sensor_msgs/msg/PointCloud2",
    MarkerArray: "visualization_msgs/msg/MarkerArray",
    DiagnosticArray: "diagnostic_msgs/msg/DiagnosticArray",
    MapUpdate: "instseg_ros/msg/MapUpdate",
    InstanceArray: "instseg_ros/msg/InstanceArray",
    InstanceEvent: "instseg_ros/msg/InstanceEvent",
}
TOPICS = {topic: _NAMES[kind] for topic, kind in [*PLAYED.items(), *((t, k) for t, (k, _) in HEARD.items())]}
"""Message type by topic of everything that is recorded."""


class Stage:
    """Publishers of a camera, ears for the nodes' outputs; a context manager that owns rclpy meanwhile.

    Args:
        recorder: takes every message.
        check: called while waiting; raises if a node has died.
    """

    def __init__(self, recorder: BagRecorder, check: Callable[[], None]) -> None:
        rclpy.init(args=[])
        self._recorder, self._check = recorder, check
        self._node = rclpy.create_node("demo")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publishers = {topic: self._node.create_publisher(kind, topic, 50) for topic, kind in PLAYED.items()}
        for topic, (kind, profile) in HEARD.items():
            self._node.create_subscription(kind, topic, cast(Any, self._ear(topic)), profile, raw=True)
        self._recording = False
        self.updates = 0
        """Map updates heard."""
        self.sequence = -1
        """Sequence of the newest map update heard."""
        self.answered = -1
        """Sequence up to which updates are segmented."""
        self.instances = 0
        self.latency_ms = 0.0
        self.last_heard = time.monotonic()
        """When the last map update or its answer came."""

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _ear(self, topic: str) -> Callable[[bytes, Any], None]:
        def hear(content: bytes, info: Any) -> None:
            at_ns = int(info["source_timestamp"])  # when it was published, by this machine's clock
            if self._recording:
                self._recorder.write(topic, at_ns, content)
            if topic == "/map_updates":
                self.updates += 1
                self.sequence = max(self.sequence, int(deserialize_message(content, MapUpdate).sequence))
                self.last_heard = time.monotonic()
            elif topic == "/segmenter/instances":
                msg = deserialize_message(content, InstanceArray)
                self.answered, self.instances = max(self.answered, int(msg.sequence)), len(msg.instances)
                self.latency_ms = (at_ns - msg.header.stamp.sec * 1_000_000_000 - msg.header.stamp.nanosec) / 1e6
                self.last_heard = time.monotonic()

        return hear

    def spin(self, until: float) -> None:
        """Hear messages until a moment of `time.monotonic()`."""
        while (left := until - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.1))

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Hear messages until a condition holds.

        Raises:
            InstSegError: it does not hold in time, or a node has died.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._check()
            if time.monotonic() > deadline:
                raise InstSegError(f"{what}: it did not happen within {timeout_s:.0f} s; the logs of the nodes say more")
            self.spin(time.monotonic() + 0.1)

    def wait_until_connected(self, timeout_s: float) -> None:
        """Wait until both nodes are there and listen.

        Raises:
            InstSegError: they are not there in time.
        """
        for topic in PLAYED:
            self._wait_for_count(self._node.count_subscribers, topic, 1, "the fusion node to listen to", timeout_s)
        # This node listens to map_updates as well.
        self._wait_for_count(self._node.count_subscribers, "/map_updates", 2, "the segmenter to listen to", timeout_s)
        for topic in HEARD:
            self._wait_for_count(self._node.count_publishers, topic, 1, "a publisher of", timeout_s)
        self._probe(timeout_s)

    def _wait_for_count(self, count: Callable[[str], int], topic: str, least: int, what: str, timeout_s: float) -> None:
        self.wait_for(lambda: count(topic) >= least, f"waiting for {what} {topic}", timeout_s)

    def _probe(self, timeout_s: float) -> None:
        """Ask for the map, still empty, until the segmenter answers it.

        Publisher and subscriber of other processes find each other at a time that nobody else sees; an update sent before would
        be lost.
        """
        client = self._node.create_client(RequestFull, "/fusion/request_full")
        self.wait_for(client.service_is_ready, "waiting for /fusion/request_full", timeout_s)
        deadline = time.monotonic() + timeout_s
        while self.answered < 0:
            future = client.call_async(RequestFull.Request())
            self.wait_for(future.done, "waiting for an answer of /fusion/request_full", timeout_s)
            self.spin(time.monotonic() + 1.0)
            self._check()
            if time.monotonic() > deadline:
                raise InstSegError(f"the segmenter did not answer an update of an empty map within {timeout_s:.0f} s")
        self.spin(time.monotonic() + 1.0)  # let answers to further probes pass
        self.updates, self._recording = 0, True

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
