"""The worker of the segmenter node: the only thread that touches the map."""

__all__ = ["SegmenterWorker"]

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from instseg_ros.config import SegmenterNodeConfig
from instseg_ros.errors import DataError, InputError
from instseg_ros.mapping.cloud_changes import cloud_changes
from instseg_ros.mapping.merge import difference, merge_updates
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxelize import voxelize_points
from instseg_ros.persistence import State, take_state
from instseg_ros.ros.autosave import Autosave
from instseg_ros.ros.conversions import time_to_ns
from instseg_ros.ros.diagnostics import Monitor
from instseg_ros.ros.inputs import UpdateQueue, Waiting
from instseg_ros.ros.pointcloud import check_layout, read_points
from instseg_ros.ros.segmenter_outputs import SegmenterOutputs
from instseg_ros.ros.worker import Worker
from instseg_ros.segmenter import LabelledCloud, SegmentationResult, Segmenter

T = TypeVar("T")
GREY = 128
"""Colour of points that come without one."""


class SegmenterWorker:
    """Takes what waits in the queue, runs the segmenter on it and publishes.

    Args:
        node: for its clock and logger.
        segmenter: the pipeline; from here on only this worker's thread uses it.
        queue: where the node puts updates.
        monitor: counts and times.
        config: returns the settings as they are now.
        on_loss: told when an update could not be applied, so that the whole map is asked for.
        autosave: given the state of the segmenter between two updates.
    """

    def __init__(
        self,
        node: Node,
        segmenter: Segmenter,
        queue: UpdateQueue,
        monitor: Monitor,
        config: Callable[[], SegmenterNodeConfig],
        on_loss: Callable[[], None],
        autosave: Autosave,
    ) -> None:
        self._node, self._segmenter, self._queue, self._monitor = node, segmenter, queue, monitor
        self._config, self._on_loss, self._autosave = config, on_loss, autosave
        self._outputs = SegmenterOutputs(node)
        self.finished = self._outputs.finished
        self._calls: list[Callable[[], None]] = []
        self._resegment = False
        self._last_stamp_ns = 0
        self._last_sequence = 0
        self._sound = True  # false from the begin of an update until all of it is done: what is saved must not contradict itself
        self._clouds = 0
        self.paused = False
        self.voxels = 0
        self.instances = 0
        self.nbytes: dict[str, int] = {}
        """Memory by what holds it, of a second ago at most."""
        self._next_nbytes = 0.0
        self._thread: Worker | None = None

    @property
    def frame_id(self) -> str:
        """Frame of the map; empty as long as there is none."""
        return self._segmenter.map.frame_id

    @property
    def running(self) -> bool:
        """Whether the thread is there, if only to end what it does."""
        return self._thread is not None and self._thread.running

    def start(self) -> None:
        """Start the thread: for the first time, or again after a `stop` that ended it."""
        self._thread = Worker("segmenter", self._queue.ready, self._step, self._has_work, self._failed)
        self._thread.start()

    def stop(self) -> bool:
        """End the thread after what it is doing, and save; False if it did not end in time."""
        ended = self._thread is None or self._thread.stop()
        if ended:
            self._thread = None  # which would keep this worker, and so the network, in memory
        self._autosave.finish(self._state if ended and self._sound else None)
        return ended

    # Called from the node's thread.

    def wake(self) -> None:
        """Look for work."""
        with self._queue.ready:
            self._queue.ready.notify_all()

    def pause(self, paused: bool) -> None:
        """Stop or go on taking updates from the queue."""
        self.paused = paused
        self.wake()

    def resegment(self) -> None:
        """Segment the whole map again before the next update."""
        self._resegment = True
        self.wake()

    def repaint(self) -> None:
        """Publish the cloud again with other colours."""
        self._post(self._outputs.repaint)

    def apply_settings(self, names: list[str]) -> None:
        """Hand changed settings to the segmenter before its next update."""
        new = self._config()

        def assign() -> None:
            for name in names:
                group, _, field = name.rpartition(".")
                if group in ("grouping", "tracking"):
                    setattr(getattr(self._segmenter.config, group), field, getattr(getattr(new, group), field))

        self._post(assign)

    def reset(self, timeout_s: float = 30.0) -> bool:
        """Forget the map and what waits; False if the worker is busy for longer."""

        def forget() -> bool:
            self._queue.clear()
            self._reset()
            return True

        return self._call(forget, timeout_s) is not None

    def snapshot(self, timeout_s: float = 30.0) -> tuple[LabelledCloud, list[Any], np.ndarray, str, int] | None:
        """Labelled cloud, instances, voxel indices, frame and stamp of the map now; None if the worker is busy for longer."""

        def take() -> tuple[LabelledCloud, list[Any], np.ndarray, str, int]:
            s = self._segmenter
            instances = [replace(one) for one in s.tracker.instances.values()]
            return s.cloud(), instances, s.map.coords[s.map.live_slots()], s.map.frame_id, self._last_stamp_ns

        return self._call(take, timeout_s)

    def state(self, timeout_s: float = 30.0) -> State | None:
        """Everything to go on from; None if the worker is busy for longer, or the last update failed."""
        return self._call(lambda: self._state() if self._sound else None, timeout_s)

    def resumed(self, state: State) -> None:
        """The segmenter has taken over a state, before the worker is started: publish it."""
        self._announce(state)  # here, so that no question is answered before
        self._post(self._outputs.repaint)

    def load(self, state: State, timeout_s: float = 60.0) -> str | None:
        """Take over a state; returns why not, empty if it was taken over, None if the worker is busy for longer.

        Where the state is refused, the map is as before.
        """

        def take_over() -> str:
            before = self._segmenter.cloud() if len(self._segmenter.map) else None
            try:
                self._segmenter.restore(state)
            except DataError as error:
                return str(error)
            except Exception as error:
                self._failed(error)
                self._segmenter.reset()
                self._reset()
                if before is not None:
                    self._outputs.cleared(before)
                self._on_loss()
                return f"{type(error).__name__}: {error}; the map is empty now"
            self._resegment, self._sound = False, True
            if before is not None:
                self._outputs.cleared(before)
            self._announce(state)
            self._autosave.touch()
            return ""

        return self._call(take_over, timeout_s)

    def _post(self, call: Callable[[], None]) -> None:
        with self._queue.ready:
            self._calls.append(call)
            self._queue.ready.notify_all()

    def _call(self, call: Callable[[], T], timeout_s: float) -> T | None:
        """The result of a call made by the worker; None if it did not get to it in time, or failed."""
        if not self.running:  # then nobody else touches the map
            return call()
        done = threading.Event()
        cancelled = threading.Event()
        results: list[T] = []

        def run() -> None:
            if not cancelled.is_set():
                try:
                    results.append(call())
                finally:
                    done.set()

        self._post(run)
        if not done.wait(timeout_s):
            cancelled.set()
            return None
        return results[0] if results else None

    # Called from the worker's thread.

    def _has_work(self) -> bool:
        return bool(self._calls) or (not self.paused and (self._resegment or len(self._queue) > 0))

    def _step(self) -> float | None:
        while True:
            with self._queue.ready:
                call = self._calls.pop(0) if self._calls else None
            if call is None:
                break
            call()
        if not self.paused:
            self._recompute()
            self._take(self._queue.take())
        config = self._config()
        waits = [self._outputs.due(self._segmenter, config.output)]
        if self._sound:
            waits.append(self._autosave.due(config.state.period_s, self._state))
        return min((s for s in waits if s is not None), default=None)

    def _state(self) -> State:
        return take_state(self._segmenter, self._last_stamp_ns, self._last_sequence)

    def _announce(self, state: State) -> None:
        self._last_stamp_ns, self._last_sequence = state.stamp_ns, state.sequence
        self.voxels, self.instances = state.voxels, state.instances
        self._outputs.restored(self._segmenter, state.stamp_ns, state.sequence, self._config().output)

    def _take(self, waiting: list[Waiting]) -> None:
        batch: list[Waiting] = []
        for entry in waiting:
            if entry.content is UpdateQueue.RESET:
                batch = []
                self._reset()
            else:
                batch.append(entry)
        if batch:
            self._process(batch)

    def _recompute(self) -> None:
        if not self._resegment:
            return
        self._resegment = False
        if len(self._segmenter.map):
            self._sound = False
            result = self._segmenter.resegment_all(self._last_stamp_ns)
            self._publish(replace(result, sequence=self._last_sequence), {})

    def _process(self, batch: list[Waiting]) -> None:
        start = time.perf_counter()
        updates: list[MapUpdate] = []
        applied = 0
        for entry in batch:
            try:
                update = self._as_update(entry.content, alone=len(batch) == 1)
                self._check_frame(update, updates[0].frame_id if updates else self._segmenter.map.frame_id)
                updates.append(update)
                applied += entry.updates
            except InputError as error:
                self._refuse(error)
        if not updates:
            return
        update = merge_updates(updates)
        if update.full and any(not isinstance(entry.content, MapUpdate) for entry in batch):
            live = self._segmenter.map.live_slots()
            step = self._config().input.color_step
            update = difference(update, self._segmenter.map.coords[live], self._segmenter.map.colors[live], step)
        own_ms = {
            "queue": (time.monotonic_ns() - batch[0].received_ns) / 1e6 - (time.perf_counter() - start) * 1e3,
            "convert": (time.perf_counter() - start) * 1e3,
        }
        if not (len(update) or len(update.deleted) or update.full):
            self._monitor.count("updates_without_change")
            return
        was_sound, self._sound = self._sound, False
        whole = not was_sound
        try:
            if not was_sound and len(self._segmenter.map):  # neither the update before nor what was to repair it came to an end
                self._segmenter.resegment_all(update.stamp_ns)
            result = self._segmenter.process(update)
        except InputError as error:
            self._sound = was_sound
            self._refuse(error)
            return
        except Exception as error:
            whole = True
            self._failed(error)
            self._on_loss()
            # The map may have taken the update before the failure: what is derived from it is computed anew.
            result = self._segmenter.resegment_all(update.stamp_ns)
        self._last_stamp_ns, self._last_sequence = result.stamp_ns, result.sequence
        self._monitor.count("updates_applied", applied)
        self._publish(result, own_ms, whole)

    def _as_update(self, content: Any, alone: bool) -> MapUpdate:
        if isinstance(content, MapUpdate):
            return content
        return self._voxelize(content, alone)

    def _voxelize(self, msg: PointCloud2, alone: bool) -> MapUpdate:
        """A cloud as an update; of a full one that is applied by itself, only what it changes."""
        config = self._config().input
        points, colors, dropped = read_points(msg, check_layout(msg))
        if dropped:
            self._monitor.count("points_not_finite", dropped)
        if colors is None:
            colors = np.full((len(points), 3), GREY, np.uint8)
        self._clouds += 1
        head: dict[str, Any] = {
            "frame_id": msg.header.frame_id, "stamp_ns": time_to_ns(msg.header.stamp), "sequence": self._clouds - 1,
        }
        full, voxels = config.points_mode == "full", self._segmenter.map
        if full and alone and len(voxels):
            return cloud_changes(voxels, points, colors, config.color_step, **head)
        return voxelize_points(points, colors, voxels.voxel_size_m, full=full, **head)

    def _check_frame(self, update: MapUpdate, frame_id: str) -> None:
        if frame_id and update.frame_id != frame_id:
            raise InputError(
                f"the update is in frame {update.frame_id!r}, the map in {frame_id!r}: "
                "publish in one fixed frame, or call ~/reset"
            )

    def _refuse(self, error: InputError) -> None:
        self._monitor.count("refused")
        self._monitor.error(str(error))
        self._on_loss()
        self._node.get_logger().error(f"refused an update, the map stays as it was: {error}")

    def _publish(self, result: SegmentationResult, own_ms: dict[str, float], whole: bool = False) -> None:
        start = time.perf_counter()
        self._sound = True
        self._autosave.touch()
        self.voxels, self.instances = result.voxels, len(result.instances)
        self._outputs.result(result, self._segmenter, self._config().output, whole)
        times = {**own_ms, **result.stage_ms, "publish": (time.perf_counter() - start) * 1e3}
        latency_ms = (self._node.get_clock().now().nanoseconds - result.stamp_ns) / 1e6
        if own_ms and 0.0 <= latency_ms < 3.6e6:  # else the stamps are not of this clock: recorded data
            times["latency"] = latency_ms
        for stage, ms in times.items():
            self._monitor.duration(stage, ms)
        if time.monotonic() >= self._next_nbytes:  # not at every update: it looks at every segment
            self.nbytes, self._next_nbytes = self._segmenter.nbytes(), time.monotonic() + 1.0
        self._monitor.tick("segmented")

    def _reset(self) -> None:
        before = self._segmenter.cloud() if len(self._segmenter.map) else None
        self._segmenter.reset()
        self.voxels = self.instances = 0
        self.nbytes, self._next_nbytes = {}, 0.0
        self._resegment, self._sound = False, True
        self._last_stamp_ns = self._last_sequence = 0
        if before is not None:
            self._outputs.cleared(before)
            self._autosave.touch(at_once=True)  # what was to be forgotten does not come back after a crash
        self._monitor.count("resets")

    def _failed(self, error: Exception) -> None:
        self._monitor.count("failures")
        self._monitor.error(f"{type(error).__name__}: {error}")
        self._node.get_logger().error(
            "segmenting failed; the node goes on, and computes classes and instances of the whole map anew: "
            f"{type(error).__name__}: {error}"
        )
