"""What both segmenter nodes are: configured, activated, deactivated, cleaned up. When that happens is the node's to say."""

__all__ = ["SegmenterCore"]

import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from instseg_ros.config import SegmenterNodeConfig
from instseg_ros.errors import BusyError
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import settings_over_weights
from instseg_ros.persistence import STATE_SUFFIX
from instseg_ros.ros.autosave import Autosave
from instseg_ros.ros.diagnostics import Monitor, status
from instseg_ros.ros.entities import Entities
from instseg_ros.ros.full_request import FullMapRequester
from instseg_ros.ros.inputs import SequenceWatch, UpdateQueue
from instseg_ros.ros.instance_services import InstanceServices
from instseg_ros.ros.map_files import MapFiles
from instseg_ros.ros.parameters import ConfigParameters
from instseg_ros.ros.saving import confined_path, default_save_dir
from instseg_ros.ros.segmenter_inputs import MapInputs
from instseg_ros.ros.segmenter_worker import SegmenterWorker
from instseg_ros.segmenter import Segmenter


class SegmenterCore(Node):
    """A node that is not configured yet. Inputs only check and queue what arrives; everything else is the worker's.

    Args:
        net: a network to use instead of the weights the parameters name.
        **node_arguments: handed on to the node class.

    Raises:
        ConfigError: a parameter given at start is unknown or refused.
    """

    # Made by `configure`, let go of by `cleanup`.
    segmenter: Segmenter
    queue: UpdateQueue
    autosave: Autosave
    worker: SegmenterWorker
    inputs: MapInputs
    _MADE = ("segmenter", "queue", "autosave", "worker", "inputs", "_diagnostics", "_instance_services", "_files", "_requester")

    def __init__(self, net: InstanceNet | None = None, **node_arguments: Any) -> None:
        super().__init__("segmenter", **node_arguments)
        self.monitor = Monitor()
        self.watch = SequenceWatch()
        self.configured = self.active = False
        self._net = net
        self._activated_before = False
        self._while_configured, self._while_active = Entities(self), Entities(self)
        self.parameters = ConfigParameters(self, SegmenterNodeConfig, self._on_parameters)

    # Lifecycle.

    def configure(self) -> None:
        """Read the parameters, load and warm up the network, offer outputs and services, go on from the state file.

        Raises:
            InstSegError: it cannot be done with these parameters; the node is as before, and they can be set right.
        """
        start = time.perf_counter()
        config = self.parameters.settle(settings_over_weights)
        try:
            with self._while_configured:
                self._make(config)
        except Exception:
            self.cleanup()
            raise
        self.configured = True
        self.get_logger().info(f"configured in {time.perf_counter() - start:.1f} s: the network is loaded and has run once")

    def activate(self) -> None:
        """Listen, and segment what arrives.

        Raises:
            BusyError: the worker has not ended what it did before it was deactivated.
        """
        self._end_worker()
        if self._activated_before:
            self.inputs.lost_one()  # the mapper may have gone on
        config = self.parameters.config
        try:
            with self._while_active:
                self._requester = FullMapRequester(
                    self,
                    self.monitor,
                    lambda: self.parameters.config.input.request_period_s,
                    lambda: not self.watch.complete and not self.worker.paused,
                )
                self.create_timer(0.1, self._requester.poll)
                self.inputs.open(goes_on=self.worker.voxels > 0)
        except Exception:
            self._stop_inputs()
            raise
        self.worker.start()
        self.active = self._activated_before = True
        self.get_logger().info(
            f"waiting for map updates on {self.resolve_topic_name('map_updates')} and clouds ({config.input.points_mode}) on "
            f"{self.resolve_topic_name('map_points')}, voxels of {config.voxel_size_m:g} m"
        )

    def deactivate(self) -> None:
        """Stop listening, let the worker end what it does, and save the state. The map, its ids and what waits stay."""
        self._stop_inputs()
        self.active = False
        if not self.worker.stop():
            self.get_logger().warning("the worker did not end in time and is left behind; the state was not saved")

    def cleanup(self) -> None:
        """Let go of everything that `configure` made.

        Raises:
            BusyError: the worker has not ended what it did before it was deactivated.
        """
        if hasattr(self, "worker"):
            self._end_worker()
        self._while_configured.destroy()
        for name in self._MADE:
            self.__dict__.pop(name, None)
        self.watch.reset()
        self.parameters.release()
        self.configured = self._activated_before = False

    def close(self) -> None:
        """Stop the worker and save the state; call before `destroy_node`."""
        if self.configured:
            self.deactivate()

    def _make(self, config: SegmenterNodeConfig) -> None:
        self.queue = UpdateQueue(config.input.max_waiting_voxels)
        self.inputs = MapInputs(
            self, lambda: self.parameters.config, self.monitor, self.queue, self.watch, lambda: self.worker.frame_id
        )
        save_dir = Path(config.save_dir).expanduser() if config.save_dir else default_save_dir()
        state_file = confined_path(save_dir, config.state.file, (STATE_SUFFIX,)) if config.state.file else None
        self.autosave = Autosave(state_file, self.monitor, self._save_failed)
        self.segmenter = Segmenter(config, self._net)
        self.segmenter.warm_up()
        self.worker = SegmenterWorker(
            self, self.segmenter, self.queue, self.monitor, lambda: self.parameters.config, self.inputs.lost_one, self.autosave
        )
        self._offer_services()
        self._files = MapFiles(
            self, self.segmenter, self.worker, self.autosave, save_dir, config.input.frame, self.inputs.lost_one
        )
        if config.state.resume:
            for why in self._files.resume():
                self.monitor.count("states_refused")
                self.monitor.error(f"a saved state was not used: {why}")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(config.output.diagnostics_period_s, self._publish_diagnostics)

    def _stop_inputs(self) -> None:
        self.inputs.close()
        self._while_active.destroy()

    def _end_worker(self) -> None:
        if not self.worker.stop():
            raise BusyError("the worker has not ended the update it was at yet: try again")

    # Services.

    def _offer_services(self) -> None:
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(Trigger, "~/resegment_all", self._resegment_all)
        self.create_service(SetBool, "~/pause", self._pause)
        self._instance_services = InstanceServices(
            self, self.worker.finished, lambda i: self.segmenter.log.of(i), lambda: self.parameters.config.output.colors
        )

    def _reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.worker.reset()
        if response.success:
            self.inputs.reset()
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
        if not self.configured:
            self.get_logger().info(f"{', '.join(changed)} set, in effect when the node is configured")
            return
        self.worker.apply_settings(changed)
        if "output.colors" in changed:
            self.worker.repaint()
        effect = "in effect from the next update on"
        if "grouping.bridge_voxels" in changed:  # by which the components of the whole map are kept
            self.worker.resegment()
            effect = "the whole map is segmented again"
        elif any(name.startswith(("grouping.", "tracking.")) for name in changed):
            effect += "; call ~/resegment_all to apply it to the whole map"
        self.get_logger().info(f"{', '.join(changed)} set, {effect}")

    def _publish_diagnostics(self) -> None:
        problems = []
        if not self.active:
            problems.append("inactive")
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
            **{f"bytes_{part}": size for part, size in self.worker.nbytes.items()},
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
