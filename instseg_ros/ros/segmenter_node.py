"""The segmenter node: map updates in, labelled clouds, markers, instances and events out."""

__all__ = ["SegmenterNode", "main"]

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger

from instseg_ros.config import SegmenterNodeConfig
from instseg_ros.errors import InputError, MissingDependencyError
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import settings_over_weights
from instseg_ros.msg import MapUpdate
from instseg_ros.persistence import STATE_SUFFIX
from instseg_ros.ros import qos
from instseg_ros.ros.autosave import Autosave
from instseg_ros.ros.conversions import time_to_ns, update_from_msg
from instseg_ros.ros.diagnostics import Monitor, status
from instseg_ros.ros.full_request import FullMapRequester
from instseg_ros.ros.inputs import Arrival, SequenceWatch, UpdateQueue
from instseg_ros.ros.instance_services import InstanceServices
from instseg_ros.ros.map_files import MapFiles
from instseg_ros.ros.parameters import declare_config
from instseg_ros.ros.pointcloud import check_layout
from instseg_ros.ros.run import run_node
from instseg_ros.ros.saving import confined_path, default_save_dir
from instseg_ros.ros.segmenter_worker import SegmenterWorker
from instseg_ros.segmenter import Segmenter

if TYPE_CHECKING:
    from instseg_ros.ros.adapters.nvblox_input import NvbloxInput


class SegmenterNode(Node):
    """Checks and queues what arrives; everything else is the worker's.

    Args:
        net: a network to use instead of the weights the parameters name.
        **node_arguments: handed on to `rclpy.node.Node`.

    Raises:
        ConfigError: a parameter is unknown or refused.
        WeightsError: the weights cannot be used.
    """

    def __init__(self, net: InstanceNet | None = None, **node_arguments: Any) -> None:
        super().__init__("segmenter", **node_arguments)
        self.monitor = Monitor()
        self.parameters = declare_config(self, SegmenterNodeConfig, self._on_parameters, settings_over_weights)
        config = self.parameters.config
        self.queue = UpdateQueue(config.input.max_waiting_voxels)
        self.watch = SequenceWatch()
        self.segmenter = Segmenter(config, net)
        self.segmenter.warm_up()
        self._voxel_size_m = config.voxel_size_m
        self._save_dir = Path(config.save_dir).expanduser() if config.save_dir else default_save_dir()
        state_file = confined_path(self._save_dir, config.state.file, (STATE_SUFFIX,)) if config.state.file else None
        self.autosave = Autosave(state_file, self.monitor, self._save_failed)
        self.worker = SegmenterWorker(
            self, self.segmenter, self.queue, self.monitor, lambda: self.parameters.config, self._lost_one, self.autosave
        )
        self._nvblox: NvbloxInput | None = None
        self._last_stamp_ns = 0
        self._stamp_reset_ns: int | None = None
        self._warned_grey = False
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._offer_services()
        self._requester = FullMapRequester(
            self,
            self.monitor,
            lambda: self.parameters.config.input.request_period_s,
            lambda: not self.watch.complete and not self.worker.paused,
        )
        self.create_timer(0.1, self._requester.poll)
        self.create_timer(config.output.diagnostics_period_s, self._publish_diagnostics)
        backward = JumpThreshold(
            min_forward=None,
            min_backward=Duration(nanoseconds=-max(1, int(config.input.max_backward_s * 1e9))),
            on_clock_change=False,
        )
        self._files = MapFiles(self, self.segmenter, self.worker, self.autosave, self._save_dir, config.input.frame, self._lost_one)
        if config.state.resume:
            for why in self._files.resume():
                self.monitor.count("states_refused")
                self.monitor.error(f"a saved state was not used: {why}")
        self._jump_handle = self.get_clock().create_jump_callback(backward, post_callback=self._on_clock_jump)
        self._subscribe()
        self._nvblox = self._subscribe_nvblox(config.input.nvblox)
        self.worker.start()
        self.get_logger().info(
            f"waiting for map updates on {self.resolve_topic_name('map_updates')} and clouds ({config.input.points_mode}) on "
            f"{self.resolve_topic_name('map_points')}, voxels of {config.voxel_size_m:g} m"
        )

    def close(self) -> None:
        """Stop the worker and save the state; call before `destroy_node`."""
        if not self.worker.stop():
            self.get_logger().warning("the worker did not end in time and is left behind")

    def _subscribe(self) -> None:
        self.create_subscription(
            MapUpdate, "map_updates", self._on_update, qos.own(qos.DELTAS), **qos.subscription_options(self, "map_updates")
        )
        self.create_subscription(
            PointCloud2, "map_points", self._on_points, qos.own(qos.CLOUDS), **qos.subscription_options(self, "map_points")
        )

    def _subscribe_nvblox(self, wanted: str) -> "NvbloxInput | None":
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
            self.get_logger().debug(f"nvblox is not read: nvblox_msgs cannot be imported ({error})")
            return None
        resumed = len(self.segmenter.map) > 0
        return NvbloxInput(self, self._voxel_size_m, lambda: self.parameters.config.input, self._on_blocks, resumed)

    def _offer_services(self) -> None:
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(Trigger, "~/resegment_all", self._resegment_all)
        self.create_service(SetBool, "~/pause", self._pause)
        self._instance_services = InstanceServices(
            self, self.worker.finished, lambda i: self.segmenter.log.of(i), lambda: self.parameters.config.output.colors
        )

    # Inputs.

    def _on_update(self, msg: MapUpdate) -> None:
        self.monitor.tick("updates_in")
        self.monitor.count("updates_received")
        try:
            update = update_from_msg(msg)
            self._check_map(update.frame_id, update.voxel_size_m)
        except InputError as error:
            self._refuse("map_updates", error)
            return
        self._check_time(update.stamp_ns)
        arrival = self.watch.check(update.sequence, update.stamp_ns, update.full)
        if arrival is Arrival.STALE:
            self.monitor.count("dropped_duplicate_or_late")
            return
        if arrival is not Arrival.IN_ORDER:
            self.monitor.count("sequence_gaps" if arrival is Arrival.GAP else "publisher_restarts")
            what = "map updates were lost before" if arrival is Arrival.GAP else "the publisher of map updates began anew at"
            ask = "it brings the whole map" if update.full else "asking for the whole map"
            self.get_logger().warning(f"{what} sequence {update.sequence}: {ask}")
        self._enqueue(update, len(update) + len(update.deleted), update.full)

    def _on_points(self, msg: PointCloud2) -> None:
        self.monitor.tick("clouds_in")
        self.monitor.count("clouds_received")
        try:
            layout = check_layout(msg)
            self._check_map(msg.header.frame_id, self._voxel_size_m)
        except InputError as error:
            self._refuse("map_points", error)
            return
        self._check_time(time_to_ns(msg.header.stamp))
        if layout.color == "none" and not self._warned_grey:
            self._warned_grey = True
            self.get_logger().warning(
                "the clouds on map_points have no colour (rgb, or r, g and b): grey is used, and the network loses accuracy"
            )
        full = self.parameters.config.input.points_mode == "full"
        if full:
            self.watch.complete = True  # whatever was missing is in this one
        self._enqueue(msg, layout.points, full)

    def _on_blocks(self, topic: str, msg: Any) -> None:
        assert self._nvblox is not None
        self.monitor.tick("blocks_in")
        self.monitor.count("blocks_received")
        try:
            blocks = self._nvblox.read(topic, msg)
            self._check_map(blocks.frame_id, self._voxel_size_m)
            self._check_time(blocks.stamp_ns)
            update = self._nvblox.apply(topic, blocks)
        except InputError as error:
            self._refuse(topic, error)
            return
        if update.full:
            self.watch.complete = True
        if update.full or len(update) or len(update.deleted):
            self._enqueue(update, len(update) + len(update.deleted), update.full)
        else:
            self.monitor.count("updates_without_change")

    def _lost_one(self) -> None:
        """Something that a mapper sent is missing in the map: it has to come again."""
        self.watch.lost_one()
        if self._nvblox is not None:
            self._nvblox.resend()

    def _enqueue(self, content: Any, voxels: int, full: bool) -> None:
        self.queue.max_voxels = self.parameters.config.input.max_waiting_voxels
        if not self.queue.put(content, voxels, time.monotonic_ns(), full):
            self._lost_one()
            self.monitor.error("queue full")
            self.get_logger().warning(
                f"dropped an update of {voxels} voxels: {self.queue.voxels} already wait for the segmenter and "
                f"input.max_waiting_voxels is {self.queue.max_voxels}; the whole map will be asked for. "
                "Raise it, or publish less often",
                throttle_duration_sec=5.0,
            )

    def _check_map(self, frame_id: str, voxel_size_m: float) -> None:
        wanted = self.parameters.config.input.frame
        if wanted and frame_id != wanted:
            raise InputError(
                f"it is in frame {frame_id!r}, parameter input.frame demands {wanted!r}: "
                "change the mapper's frame or the parameter"
            )
        frame = self.worker.frame_id or self.queue.frame()
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
        self.monitor.count("refused")
        self.monitor.error(str(error))
        self.get_logger().error(
            f"refused a message on {self.resolve_topic_name(topic)}, the map stays as it was: {error}",
            throttle_duration_sec=1.0,
        )

    # Time.

    def _check_time(self, stamp_ns: int) -> None:
        if stamp_ns < self._last_stamp_ns - int(self.parameters.config.input.max_backward_s * 1e9):
            back_s = (self._last_stamp_ns - stamp_ns) / 1e9
            self._stamp_reset_ns = time.monotonic_ns()
            self._restart(f"stamps jumped back by {back_s:.1f} s")
        self._last_stamp_ns = max(stamp_ns, self._last_stamp_ns)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        recent = self._stamp_reset_ns is not None and time.monotonic_ns() - self._stamp_reset_ns < 5_000_000_000
        if not recent:  # else the messages were faster than the clock, and the new map has begun already
            self._restart(f"the clock jumped back by {-jump.delta.nanoseconds / 1e9:.1f} s")

    def _restart(self, why: str) -> None:
        self.get_logger().warning(f"{why}: the map is reset")
        self.monitor.count("resets_by_time")
        self._last_stamp_ns = 0
        self.watch.reset()
        if self._nvblox is not None:
            self._nvblox.forget()
        self.queue.put_reset()

    # Services.

    def _reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.worker.reset()
        if response.success:
            self.watch.reset()
            if self._nvblox is not None:
                self._nvblox.reset()
            self._last_stamp_ns = 0
        response.message = "the map is empty" if response.success else "the segmenter is busy; try again"
        return response

    def _resegment_all(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.worker.resegment()
        response.success = True
        response.message = f"{self.worker.voxels} voxels are segmented again before the next update"
        return response

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.worker.pause(request.data)
        response.success = True
        response.message = "paused: updates are kept, not segmented" if request.data else "running"
        return response

    def _save_failed(self, why: str) -> None:
        self.monitor.error(why)
        self.get_logger().error(f"{why}; it is tried again", throttle_duration_sec=30.0)

    # Parameters and diagnostics.

    def _on_parameters(self, config: SegmenterNodeConfig, changed: list[str]) -> None:
        self.worker.apply_settings(changed)
        if "output.colors" in changed:
            self.worker.repaint()
        pipeline = any(name.startswith(("grouping.", "tracking.")) for name in changed)
        hint = "; call ~/resegment_all to apply it to the whole map" if pipeline else ""
        self.get_logger().info(f"{', '.join(changed)} set, in effect from the next update on{hint}")

    def _publish_diagnostics(self) -> None:
        problems = []
        if not self.watch.complete:
            problems.append("updates are missing, the whole map has been asked for")
        if self.worker.paused:
            problems.append("paused")
        level, message = (
            ("warn", "; ".join(problems)) if problems else ("ok", "running" if self.worker.voxels else "no map yet")
        )
        if self.autosave.error:
            level, message = "warn", "; ".join([*problems, self.autosave.error])
        if self.monitor.recent_error():
            level, message = "error", self.monitor.last_error
        values = {
            "voxels": self.worker.voxels,
            "instances": self.worker.instances,
            "frame": self.worker.frame_id,
            "map_complete": self.watch.complete,
            "paused": self.worker.paused,
            "queue_updates": len(self.queue),
            "queue_voxels": self.queue.voxels,
            **{k: str(v) for k, v in sorted(self.queue.counts.items())},
            **self.monitor.totals(),
            **self.monitor.rates(),
            **self.monitor.times(),
            **self.autosave.values(),
            "last_error": self.monitor.last_error,
        }
        array = DiagnosticArray(status=[status(f"{self.get_fully_qualified_name()[1:]}: segmentation", level, message, values)])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: Sequence[str] | None = None) -> int:
    """Run the segmenter node until it is told to stop."""
    return run_node(SegmenterNode, args)


if __name__ == "__main__":
    sys.exit(main())
