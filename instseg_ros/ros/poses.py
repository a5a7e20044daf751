"""Camera poses at the moment of an image: from PoseStamped messages or from TF. A pose that is not there is never made up."""

__all__ = ["PoseBuffer", "TfPoses", "pose_matrix"]

import bisect
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp

from instseg_ros.errors import InputError, require


def pose_matrix(position: Any, orientation: Any) -> np.ndarray:
    """T [4, 4] of a geometry_msgs position and quaternion.

    Raises:
        InputError: not finite, or the quaternion is not of length 1.
    """
    t = np.array([position.x, position.y, position.z])
    q = np.array([orientation.x, orientation.y, orientation.z, orientation.w])
    if not (np.isfinite(t).all() and np.isfinite(q).all()) or abs(np.linalg.norm(q) - 1.0) > 0.01:
        raise InputError(f"pose with position {t} and quaternion {q}: it must be finite, and the quaternion of length 1")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_quat(q).as_matrix(), t
    return T


class PoseBuffer:
    """The last poses of one moving frame, interpolated in time."""

    LENGTH = 2000

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[np.ndarray] = []

    def keep_only(self, low_ns: int, high_ns: int) -> None:
        """Forget the poses whose stamps are outside of [low, high]."""
        kept = [(stamp, pose) for stamp, pose in zip(self._stamps, self._poses, strict=True) if low_ns <= stamp <= high_ns]
        self._stamps, self._poses = [stamp for stamp, _ in kept], [pose for _, pose in kept]

    def add(self, stamp_ns: int, T_world_camera: np.ndarray) -> None:
        """Take in a pose."""
        at = bisect.bisect_right(self._stamps, stamp_ns)
        self._stamps.insert(at, stamp_ns)
        self._poses.insert(at, T_world_camera)
        if len(self._stamps) > self.LENGTH:
            del self._stamps[0], self._poses[0]

    def at(self, stamp_ns: int, max_gap_ns: int) -> np.ndarray | None:
        """T_world_camera [4, 4] at a moment: as received, or between two poses at most `max_gap_ns` apart.

        None = not (yet) known.
        """
        after = bisect.bisect_left(self._stamps, stamp_ns)
        if after < len(self._stamps) and self._stamps[after] == stamp_ns:
            return self._poses[after]
        if after == 0 or after == len(self._stamps):
            return None
        start, end = self._stamps[after - 1], self._stamps[after]
        if end - start > max_gap_ns:
            return None
        share = (stamp_ns - start) / (end - start)
        before, behind = self._poses[after - 1], self._poses[after]
        T = np.eye(4)
        T[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([before[:3, :3], behind[:3, :3]])))(share).as_matrix()
        T[:3, 3] = (1.0 - share) * before[:3, 3] + share * behind[:3, 3]
        return T


class TfPoses:
    """Poses from the TF tree.

    Raises:
        MissingDependencyError: tf2_ros is not installed.
    """

    def __init__(self, node: Node, frame: str) -> None:
        self._tf2 = require("tf2_ros", "read camera poses from TF (pose.source: tf)", "sudo apt install ros-jazzy-tf2-ros-py")
        self._frame = frame
        self._buffer = self._tf2.Buffer(node=node)
        self._listener = self._tf2.TransformListener(self._buffer, node)
        self.why = ""
        """Why the last pose that was asked for is not known."""

    def at(self, stamp_ns: int, camera_frame: str) -> np.ndarray | None:
        """T_world_camera [4, 4] of the camera frame at a moment; None = not (yet) known.

        Raises:
            InputError: the camera frame is none, or the map's own, whose pose TF would call the identity; or TF's pose is malformed.
        """
        if not camera_frame or camera_frame.lstrip("/") == self._frame.lstrip("/"):
            raise InputError(
                f"depth images are in frame {camera_frame!r}, the map in {self._frame!r}: set header.frame_id to the camera's optical frame"
            )
        try:
            found = self._buffer.lookup_transform(self._frame, camera_frame, Time(nanoseconds=stamp_ns))
        except self._tf2.TransformException as error:
            self.why = f"{type(error).__name__}: {error}"
            return None
        return pose_matrix(found.transform.translation, found.transform.rotation)
