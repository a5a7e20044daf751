"""The worker of the fusion node: the only thread that touches the TSDF."""

__all__ = ["FusionWorker", "ImageFrame"]

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Condition

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from instseg_ros.config import FusionConfig, FusionNodeConfig
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import InputError
from instseg_ros.mapping.fusion import TsdfFusion
from instseg_ros.mapping.update import MapUpdate, voxel_centers
from instseg_ros.msg import MapUpdate as MapUpdateMsg
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import header, update_to_msg
from instseg_ros.ros.diagnostics import Monitor
from instseg_ros.ros.images import color_from_msg, depth_from_msg, intrinsics_from_msg
from instseg_ros.ros.pointcloud import colored_cloud_to_msg
from instseg_ros.ros.worker import Worker
from instseg_ros.settings import settings_of


@dataclass(frozen=True)
class ImageFrame:
    """Messages of one moment with their pose; they are converted by the worker."""

    stamp_ns: int
    depth: Image
    color: Image
    info: CameraInfo
    T_world_camera: np.ndarray


class FusionWorker:
    """Integrates frames and publishes what changed.

    Args:
        node: for its publishers and logger.
        monitor: counts and times.
        config: returns the settings as they are now.
    """

    def __init__(self, node: Node, monitor: Monitor, config: Callable[[], FusionNodeConfig]) -> None:
        self._node, self._monitor, self._config = node, monitor, config
        self._fusion = TsdfFusion(config())
        self._updates = node.create_publisher(
            MapUpdateMsg, "map_updates", qos.own(qos.DELTAS), **qos.publisher_options(node, "map_updates")
        )
        self._points = node.create_publisher(PointCloud2, "~/points", qos.own(qos.LATCHED), **qos.publisher_options(node, "~/points"))
        self._ready = Condition()
        self._frames: deque[ImageFrame | RgbdFrame] = deque()
        self._reset_wanted = False
        self._cloud_wanted = False
        self._full_wanted = False
        self._began = False
        self._dirty = False
        self._sequence = 0
        self._stamp_ns = 0
        self._next_publish = 0.0
        self._thread = Worker("fusion", self._ready, self._step, self._has_work, self._failed)

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    @property
    def subscribers(self) -> int:
        """Subscribers of map_updates."""
        return int(self._updates.get_subscription_count())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> bool:
        """End the thread after what it is doing; False if it did not end in time."""
        return self._thread.stop()

    def put(self, frame: ImageFrame | RgbdFrame) -> None:
        """Queue a frame; the oldest one is dropped and counted if too many wait."""
        with self._ready:
            self._frames.append(frame)
            if len(self._frames) > self._config().images.max_waiting_frames:
                self._frames.popleft()
                self._monitor.count("dropped_fusion_busy")
            self._ready.notify_all()

    def put_waiting(self, frame: RgbdFrame, timeout_s: float) -> bool:
        """Queue a frame when there is room; False if there was none in time."""
        with self._ready:
            if not self._ready.wait_for(lambda: len(self._frames) < self._config().images.max_waiting_frames, timeout_s):
                return False
            self._frames.append(frame)
            self._ready.notify_all()
            return True

    def request_full(self) -> None:
        """Let the next update be the whole map, and send it soon."""
        self._want("_full_wanted")

    def request_cloud(self) -> None:
        """Publish the whole map as a cloud (and as a full update)."""
        self._want("_cloud_wanted")

    def reset(self, announce: bool) -> None:
        """Forget the map and the frames that wait; if announced, an empty full update says so at once."""
        with self._ready:
            self._frames.clear()
            self._full_wanted = announce
        self._want("_reset_wanted")

    def _want(self, flag: str) -> None:
        with self._ready:
            setattr(self, flag, True)
            self._next_publish = 0.0
            self._ready.notify_all()

    # Called from the worker's thread.

    def _has_work(self) -> bool:
        return bool(self._frames) or self._reset_wanted or self._cloud_wanted or self._full_wanted

    def _step(self) -> float | None:
        if self._reset_wanted:
            self._reset_wanted, self._dirty, self._began = False, False, False
            self._stamp_ns = self._stamp_ns if self._full_wanted else 0  # else time itself began anew
            self._fusion.reset()
            self._monitor.count("resets")
        with self._ready:
            frame = self._frames.popleft() if self._frames else None
            self._ready.notify_all()
        if frame is not None:
            self._integrate(frame)
        wanted = self._dirty or self._full_wanted or self._cloud_wanted
        if wanted and time.monotonic() >= self._next_publish:
            self._publish()
        return max(0.0, self._next_publish - time.monotonic()) if self._dirty else None

    def _integrate(self, frame: ImageFrame | RgbdFrame) -> None:
        start = time.perf_counter()
        try:
            if isinstance(frame, RgbdFrame):
                depth, color, K = frame.depth_m, frame.color, frame.K
            else:
                depth = depth_from_msg(frame.depth, self._config().images.depth_unit_m)
                color, K = color_from_msg(frame.color), intrinsics_from_msg(frame.info)
            self._fusion.integrate(depth, color, K, frame.T_world_camera)
        except InputError as error:
            self._monitor.count("dropped_refused")
            self._monitor.error(str(error))
            self._node.get_logger().error(f"refused a frame, the map stays as it was: {error}", throttle_duration_sec=1.0)
            return
        self._dirty = True
        self._stamp_ns = max(self._stamp_ns, frame.stamp_ns)
        self._monitor.duration("integrate", (time.perf_counter() - start) * 1e3)
        self._monitor.count("frames_fused")
        self._monitor.tick("fused")

    def _publish(self) -> None:
        start = time.perf_counter()
        asked = self._full_wanted or self._cloud_wanted
        cloud, self._cloud_wanted, self._full_wanted, self._dirty = self._cloud_wanted, False, False, False
        # A new map is announced as a full one, so that listeners of an earlier run forget theirs.
        update = self._fusion.take_update(self._stamp_ns, self._config().pose.frame, full=asked or not self._began)
        self._next_publish = time.monotonic() + self._config().publish_period_s
        if cloud:
            self._points.publish(_cloud_msg(update))
        if len(update) or len(update.deleted) or asked:
            self._began = True
            self._updates.publish(update_to_msg(replace(update, sequence=self._sequence)))
            self._sequence += 1
            self._monitor.count("updates_published")
            self._monitor.count("updates_full", int(update.full))
            self._monitor.tick("updates_out")
            self._monitor.duration("publish", (time.perf_counter() - start) * 1e3)

    def apply_settings(self, config: FusionNodeConfig) -> None:
        """Hand changed settings to the fusion; each is a single assignment."""
        for s in settings_of(FusionConfig):
            if not s.fixed:
                setattr(self._fusion.config, s.name, getattr(config, s.name))

    def _failed(self, error: Exception) -> None:
        self._monitor.count("failures")
        self._monitor.error(f"{type(error).__name__}: {error}")
        self._node.get_logger().error(f"fusing a frame failed, the node goes on: {type(error).__name__}: {error}")


def _cloud_msg(update: MapUpdate) -> PointCloud2:
    points = voxel_centers(update.coords, update.voxel_size_m)
    return colored_cloud_to_msg(header(update.stamp_ns, update.frame_id), points, update.colors)
