"""The inputs of the segmenter node: what arrives is checked and queued for the worker."""

__all__ = ["MapInputs"]

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.clock import JumpHandle, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from instseg_ros.config import SegmenterNodeConfig
from instseg_ros.errors import InputError, MissingDependencyError
from instseg_ros.msg import MapUpdate
from instseg_ros.ros import qos
from instseg_ros.ros.adapters.voxblox import near_surface
from instseg_ros.ros.conversions import stamp_of, update_from_msg
from instseg_ros.ros.diagnostics import Monitor, shortened
from instseg_ros.ros.inputs import Arrival, SequenceWatch, UpdateQueue
from instseg_ros.ros.pointcloud import check_layout, check_points
from instseg_ros.ros.raw import decoded

if TYPE_CHECKING:
    from instseg_ros.ros.adapters.nvblox_input import NvbloxInput


class MapInputs:
    """Subscribes to map updates, clouds and, where its messages are installed, nvblox.

    Args:
        node: owner of the subscriptions.
        config: returns the settings as they are now.
        monitor: counts what arrives and what is refused.
        queue: where updates wait for the worker.
        watch: told of every sequence number.
        frame_id: returns the frame of the map, empty as long as there is none.

    Raises:
        MissingDependencyError: nvblox is to be read, and its messages are not installed.
    """

    def __init__(
        self, node: Node, config: Callable[[], SegmenterNodeConfig], monitor: Monitor, queue: UpdateQueue, watch: SequenceWatch,
        frame_id: Callable[[], str],
    ) -> None:
        self._node, self._config, self._monitor, self._queue, self._watch = node, config, monitor, queue, watch
        self._frame_id = frame_id
        self._voxel_size_m = config().voxel_size_m
        self._nvblox_input = _nvblox_input(node, config().input.nvblox)
        self._nvblox: NvbloxInput | None = None
        self._jumps: JumpHandle | None = None
        self.last_stamp_ns = 0
        """Newest stamp of the map so far."""
        self._stamp_reset_ns: int | None = None
        self._warned_grey = False

    def open(self, goes_on: bool) -> None:
        """Subscribe.

        Args:
            goes_on: there is a map already, which the mapper may have changed since.
        """
        node = self._node

        def listen(kind: Any, topic: str, callback: Any, profile: QoSProfile) -> None:
            receive = decoded(kind, callback, lambda error: self._refuse(topic, error))
            node.create_subscription(kind, topic, receive, qos.own(profile), raw=True, **qos.subscription_options(node, topic))

        listen(MapUpdate, "map_updates", self._on_update, qos.DELTAS)
        listen(PointCloud2, "map_points", self._on_points, qos.CLOUDS)
        if self._nvblox_input is not None:
            self._nvblox = self._nvblox_input(node, self._voxel_size_m, lambda: self._config().input, self._on_blocks, goes_on)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = node.get_clock().create_jump_callback(backward, post_callback=self._on_clock_jump)

    def close(self) -> None:
        """No longer follow the clock. The subscriptions are the node's, which destroys them."""
        if self._jumps is not None:
            self._jumps.unregister()
            self._jumps = None
        self._nvblox = None

    def lost_one(self) -> None:
        """Something that a mapper sent is missing in the map: it has to come again."""
        self._watch.lost_one()
        if self._nvblox is not None:
            self._nvblox.resend()

    def reset(self) -> None:
        """The map is empty now."""
        self._watch.reset()
        if self._nvblox is not None:
            self._nvblox.reset()
        self.last_stamp_ns = 0

    # Messages.

    def _on_update(self, msg: MapUpdate) -> None:
        self._monitor.tick("updates_in")
        self._monitor.count("updates_received")
        try:
            update = update_from_msg(msg)
            self._check_map(update.frame_id, update.voxel_size_m)
            self._check_time(update.stamp_ns)
        except InputError as error:
            self._refuse("map_updates", error)
            return
        arrival = self._watch.check(update.sequence, update.stamp_ns, update.full)
        if arrival is Arrival.STALE:
            self._monitor.count("dropped_duplicate_or_late")
            return
        if arrival is not Arrival.IN_ORDER:
            self._monitor.count("sequence_gaps" if arrival is Arrival.GAP else "publisher_restarts")
            what = "map updates were lost before" if arrival is Arrival.GAP else "the publisher of map updates began anew at"
            ask = "it brings the whole map" if update.full else "asking for the whole map"
            self._node.get_logger().warning(f"{what} sequence {update.sequence}: {ask}")
        self._enqueue(update, len(update) + len(update.deleted), update.full)

    def _on_points(self, msg: PointCloud2) -> None:
        self._monitor.tick("clouds_in")
        self._monitor.count("clouds_received")
        try:
            # All of it, before it can move the clock or displace what waits.
            stamp_ns, layout = stamp_of(msg.header), check_layout(msg)
            self._check_map(msg.header.frame_id, self._voxel_size_m)
            config = self._config().input
            if config.distance_field:
                msg = near_surface(msg, config.distance_field, config.distance_band * self._voxel_size_m)
                layout = check_layout(msg)
            check_points(msg, layout, self._voxel_size_m)
            self._check_time(stamp_ns)
        except InputError as error:
            self._refuse("map_points", error)
            return
        if layout.color == "none" and not self._warned_grey:
            self._warned_grey = True
            self._node.get_logger().warning(
                "the clouds on map_points have no colour (rgb, or r, g and b): grey is used, and the network loses accuracy"
            )
        full = self._config().input.points_mode == "full"
        if full:
            self._watch.complete = True  # whatever was missing is in this one
        self._enqueue(msg, layout.points, full)

    def _on_blocks(self, topic: str, msg: Any) -> None:
        assert self._nvblox is not None
        self._monitor.tick("blocks_in")
        self._monitor.count("blocks_received")
        try:
            blocks = self._nvblox.read(topic, msg)
            self._check_map(blocks.frame_id, self._voxel_size_m)
            self._check_time(blocks.stamp_ns)
            update = self._nvblox.apply(topic, blocks)
        except InputError as error:
            self._refuse(topic, error)
            return
        if update.full:
            self._watch.complete = True
        if update.full or len(update) or len(update.deleted):
            self._enqueue(update, len(update) + len(update.deleted), update.full)
        else:
            self._monitor.count("updates_without_change")

    def _enqueue(self, content: Any, voxels: int, full: bool) -> None:
        self._queue.max_voxels = self._config().input.max_waiting_voxels
        if not self._queue.put(content, voxels, time.monotonic_ns(), full):
            self.lost_one()
            self._monitor.error("queue full")
            self._node.get_logger().warning(
                f"dropped an update of {voxels} voxels: {self._queue.voxels} already wait for the segmenter and "
                f"input.max_waiting_voxels is {self._queue.max_voxels}; the whole map will be asked for. "
                "Raise it, or publish less often",
                throttle_duration_sec=5.0,
            )

    def _check_map(self, frame_id: str, voxel_size_m: float) -> None:
        wanted = self._config().input.frame
        if wanted and frame_id != wanted:
            raise InputError(
                f"it is in frame {frame_id!r}, parameter input.frame demands {wanted!r}: "
                "change the mapper's frame or the parameter"
            )
        frame = self._frame_id() or self._queue.frame()
        if frame and frame_id != frame:
            raise InputError(
                f"it is in frame {frame_id!r}, the map in {frame!r}: publish in one fixed frame, "
                "or call ~/reset to begin a new map"
            )
        if abs(voxel_size_m - self._voxel_size_m) > 1e-4 * self._voxel_size_m:
            raise InputError(
                f"its voxels are {voxel_size_m:g} m, this node's {self._voxel_size_m:g} m: set the mapper's voxel size to "
                "voxel_size_m (which must be what the weights were trained for)"
            )

    def _refuse(self, topic: str, error: InputError) -> None:
        self._monitor.count("refused")
        self._monitor.error(str(error))
        self._node.get_logger().error(
            f"refused a message on {self._node.resolve_topic_name(topic)}, the map stays as it was: {shortened(str(error))}",
            throttle_duration_sec=1.0,
        )

    # Time.

    def _max_backward_ns(self) -> int:
        return int(self._config().input.max_backward_s * 1e9)

    def _check_time(self, stamp_ns: int) -> None:
        """Refuse a stamp from the future, reset the map at one from the past."""
        now_ns, most_s = self._node.get_clock().now().nanoseconds, self._config().input.max_ahead_s
        if most_s and 0 < now_ns < stamp_ns - int(most_s * 1e9):  # a simulated clock is 0 until it is first heard
            raise InputError(
                f"its stamp is {(stamp_ns - now_ns) / 1e9:.1f} s ahead of this node's clock, more than input.max_ahead_s ({most_s:g}): "
                "let the machines' clocks agree, or set use_sim_time"
            )
        if stamp_ns < self.last_stamp_ns - self._max_backward_ns():
            back_s = (self.last_stamp_ns - stamp_ns) / 1e9
            self._stamp_reset_ns = time.monotonic_ns()
            self._restart(f"stamps jumped back by {back_s:.1f} s")
        self.last_stamp_ns = max(stamp_ns, self.last_stamp_ns)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        back_ns = -jump.delta.nanoseconds
        recent = self._stamp_reset_ns is not None and time.monotonic_ns() - self._stamp_reset_ns < 5_000_000_000
        if back_ns >= self._max_backward_ns() and not recent:  # else the messages were faster than the clock, and the new map has begun
            self._restart(f"the clock jumped back by {back_ns / 1e9:.1f} s")

    def _restart(self, why: str) -> None:
        self._node.get_logger().warning(f"{why}: the map is reset")
        self._monitor.count("resets_by_time")
        self.last_stamp_ns = 0
        self._watch.reset()
        if self._nvblox is not None:
            self._nvblox.forget()
        self._queue.put_reset()


def _nvblox_input(node: Node, wanted: str) -> "type[NvbloxInput] | None":
    """What reads nvblox; None where it is not to be read, or cannot be."""
    if wanted == "off":
        return None
    try:
        from instseg_ros.ros.adapters.nvblox_input import NvbloxInput
    except ImportError as error:
        if wanted == "on":
            raise MissingDependencyError(
                "input.nvblox is on, but nvblox_msgs cannot be imported: source the workspace it is built in, or set "
                f"input.nvblox to auto ({error})"
            ) from error
        node.get_logger().debug(f"nvblox is not read: nvblox_msgs cannot be imported ({error})")
        return None
    return NvbloxInput
