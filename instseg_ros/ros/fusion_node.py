"""The fusion node: posed depth and colour images in, map updates out."""

__all__ = ["FusionNode", "main"]

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from instseg_ros.config import FusionNodeConfig
from instseg_ros.errors import InputError
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import time_to_ns
from instseg_ros.ros.diagnostics import Monitor, status
from instseg_ros.ros.folder_player import FolderPlayer
from instseg_ros.ros.fusion_worker import FusionWorker, ImageFrame
from instseg_ros.ros.parameters import declare_config
from instseg_ros.ros.poses import PoseBuffer, TfPoses, pose_matrix
from instseg_ros.ros.run import run_node
from instseg_ros.ros.sync import ImagePairs
from instseg_ros.srv import RequestFull


@dataclass(frozen=True)
class _Unposed:
    """A pair of images that waits for its pose."""

    stamp_ns: int
    depth: Image
    color: Image
    since: float


class FusionNode(Node):
    """Pairs images, finds their poses and hands them to the worker.

    Raises:
        ConfigError: a parameter is unknown or refused.
        DataError: the folder to play cannot be read.
        MissingDependencyError: poses are to come from TF, and tf2_ros is not there.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("fusion", **node_arguments)
        self.monitor = Monitor()
        self.parameters = declare_config(self, FusionNodeConfig, self._on_parameters)
        config = self.parameters.config
        self.worker = FusionWorker(self, self.monitor, lambda: self.parameters.config)
        self.pairs = ImagePairs()
        self.poses = PoseBuffer()
        self._tf: TfPoses | None = TfPoses(self, config.pose.frame) if config.pose.source == "tf" else None
        self._player: FolderPlayer | None = None
        if config.pose.source == "folder":
            self._player = FolderPlayer(self, config.folder, self.worker, self.monitor, self._warn)
        self._unposed: deque[_Unposed] = deque()
        self._info: CameraInfo | None = None
        self._last_stamp_ns = 0
        self._warned_distortion = False
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for name in ("~/request_full", "request_full"):  # the relative one is where a segmenter in this namespace looks for it
            self.create_service(RequestFull, name, self._request_full)
        self.create_service(Trigger, "~/publish_cloud", self._publish_cloud)
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_timer(config.diagnostics_period_s, self._publish_diagnostics)
        if self._player is None:
            self._subscribe(config.pose.source)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)
        self.worker.start()
        if self._player is not None:
            self._player.start()
        self.get_logger().info(
            f"voxels of {config.voxel_size_m:g} m in frame {config.pose.frame!r}, poses from {config.pose.source}"
        )

    def close(self) -> None:
        """Stop the threads; call before `destroy_node`."""
        if self._player is not None:
            self._player.stop()
        if not self.worker.stop():
            self.get_logger().warning("the worker did not end in time and is left behind")

    def _subscribe(self, source: str) -> None:
        def listen(kind: Any, topic: str, callback: Any) -> None:
            self.create_subscription(kind, topic, callback, qos.own(qos.IMAGES), **qos.subscription_options(self, topic))

        listen(Image, "depth", self._on_depth)
        listen(Image, "color", self._on_color)
        listen(CameraInfo, "camera_info", self._on_info)
        if source == "topic":
            listen(PoseStamped, "pose", self._on_pose)
        self.create_timer(0.05, self._match)

    def _warn(self, text: str) -> None:
        self.monitor.error(text)
        self.get_logger().warning(text, throttle_duration_sec=5.0)

    # Inputs.

    def _on_depth(self, msg: Image) -> None:
        self.monitor.tick("depth_in")
        stamp_ns = time_to_ns(msg.header.stamp)
        tolerance_ns = int(self.parameters.config.max_backward_s * 1e9)
        if stamp_ns < self._last_stamp_ns - tolerance_ns:
            back_s = (self._last_stamp_ns - stamp_ns) / 1e9
            self._warn(f"stamps of depth images jumped back by {back_s:.1f} s: the map is reset")
            self._forget(announce=False, around_ns=stamp_ns, reach_ns=tolerance_ns)
        self._last_stamp_ns = max(stamp_ns, self._last_stamp_ns)
        self.pairs.add_depth(stamp_ns, msg)
        self._match()

    def _on_color(self, msg: Image) -> None:
        self.monitor.tick("color_in")
        self.pairs.add_color(time_to_ns(msg.header.stamp), msg)
        self._match()

    def _on_info(self, msg: CameraInfo) -> None:
        self._info = msg
        if any(msg.d) and not self._warned_distortion:
            self._warned_distortion = True
            self._warn("camera_info has distortion coefficients, which are ignored: use the rectified image topics")

    def _on_pose(self, msg: PoseStamped) -> None:
        self.monitor.tick("poses_in")
        frame = self.parameters.config.pose.frame
        try:
            if msg.header.frame_id != frame:
                raise InputError(
                    f"it is in frame {msg.header.frame_id!r}, the map in {frame!r}: set pose.frame, or transform the poses"
                )
            self.poses.add(time_to_ns(msg.header.stamp), pose_matrix(msg.pose.position, msg.pose.orientation))
        except InputError as error:
            self.monitor.count("poses_refused")
            self._warn(f"refused a pose: {error}")
            return
        self._match()

    def _match(self) -> None:
        """Pair images and hand over those whose pose is known; drop, with the cause, those that waited too long."""
        config = self.parameters.config
        now = time.monotonic()
        for stamp_ns, depth, color in self.pairs.take(int(config.images.slop_s * 1e9)):
            self._unposed.append(_Unposed(stamp_ns, depth, color, now))
        still: deque[_Unposed] = deque()
        for pair in self._unposed:
            T_world_camera = self._pose_of(pair)
            if T_world_camera is not None and self._info is not None:
                self.worker.put(ImageFrame(pair.stamp_ns, pair.depth, pair.color, self._info, T_world_camera))
            elif now - pair.since > config.pose.max_wait_s:
                cause = "no_pose" if T_world_camera is None else "no_camera_info"
                self.monitor.count(f"dropped_{cause}")
                self._warn(
                    f"dropped a frame: {cause.replace('_', ' ')} within {config.pose.max_wait_s:g} s (pose.max_wait_s); "
                    f"{self._advice(cause)}"
                )
            else:
                still.append(pair)
        while len(still) > config.images.max_waiting_frames:
            still.popleft()
            self.monitor.count("dropped_waiting_for_pose")
        self._unposed = still

    def _advice(self, cause: str) -> str:
        if cause == "no_camera_info":
            return f"check that {self.resolve_topic_name('camera_info')} is published"
        if self._tf is not None:
            return f"TF says: {self._tf.why or 'nothing'}"
        return f"check that {self.resolve_topic_name('pose')} is published, its stamps, and pose.max_gap_s"

    def _pose_of(self, pair: _Unposed) -> np.ndarray | None:
        if self._tf is not None:
            try:
                return self._tf.at(pair.stamp_ns, pair.depth.header.frame_id)
            except InputError as error:
                self._tf.why = str(error)
                return None
        return self.poses.at(pair.stamp_ns, int(self.parameters.config.pose.max_gap_s * 1e9))

    # Time.

    def _on_clock_jump(self, jump: TimeJump) -> None:
        back_s = -jump.delta.nanoseconds / 1e9
        if back_s >= self.parameters.config.max_backward_s:
            self._warn(f"the clock jumped back by {back_s:.1f} s: the map is reset")
            self._forget(announce=False)

    def _forget(self, announce: bool, around_ns: int = 0, reach_ns: int = -1) -> None:
        """Begin a new map; of what waits, only what is as near as `reach_ns` to a moment belongs to it."""
        self._last_stamp_ns = 0
        self._unposed.clear()
        self.pairs.keep_only(around_ns - reach_ns, around_ns + reach_ns)
        self.poses.keep_only(around_ns - reach_ns, around_ns + reach_ns)
        self.worker.reset(announce)

    # Services.

    def _request_full(self, _request: RequestFull.Request, response: RequestFull.Response) -> RequestFull.Response:
        self.worker.request_full()
        response.success, response.message = True, "the next update is the whole map"
        return response

    def _publish_cloud(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.worker.request_cloud()
        response.success, response.message = True, f"the map is published on {self.resolve_topic_name('~/points')}"
        return response

    def _reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget(announce=True)
        response.success, response.message = True, "the map is forgotten"
        return response

    # Parameters and diagnostics.

    def _on_parameters(self, config: FusionNodeConfig, changed: list[str]) -> None:
        self.worker.apply_settings(config)
        self.get_logger().info(f"{', '.join(changed)} set, in effect from the next frame on")

    def _publish_diagnostics(self) -> None:
        fused = self.monitor.counts["frames_fused"]
        level, message = ("ok", "running") if fused else ("warn", "no frame has been fused yet")
        if self.monitor.recent_error():
            level, message = "error", self.monitor.last_error
        values = {
            "frames_waiting_for_fusion": self.worker.waiting,
            "frames_waiting_for_pose": len(self._unposed),
            **{name: str(count) for name, count in sorted(self.pairs.counts.items())},
            **self.monitor.totals(),
            **self.monitor.rates(),
            **self.monitor.times(),
            "last_error": self.monitor.last_error,
        }
        if self._player is not None:
            values["folder_frames_left"] = self._player.left
        array = DiagnosticArray(status=[status(f"{self.get_fully_qualified_name()[1:]}: fusion", level, message, values)])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: Sequence[str] | None = None) -> int:
    """Run the fusion node until it is told to stop."""
    return run_node(FusionNode, args)


if __name__ == "__main__":
    sys.exit(main())
