"""A node that hears what the nodes under test publish, records it, and waits for things to happen."""

__all__ = ["OUTPUTS", "Stage", "topic_types", "type_name"]

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2

from instseg_ros.errors import InstSegError
from instseg_ros.live.recorder import BagRecorder
from instseg_ros.live.recording import DELTA, DIAGNOSTICS, EVENTS, INSTANCES, UPDATES
from instseg_ros.msg import InstanceArray, InstanceEvent, MapUpdate
from instseg_ros.ros import qos
from instseg_ros.srv import RequestFull

OUTPUTS: dict[str, tuple[Any, QoSProfile]] = {
    UPDATES: (MapUpdate, qos.DELTAS),
    DELTA: (PointCloud2, qos.DELTAS),
    INSTANCES: (InstanceArray, qos.DELTAS),
    EVENTS: (InstanceEvent, qos.EVENTS),
    DIAGNOSTICS: (DiagnosticArray, QoSProfile(depth=50)),
}
"""Type and profile by topic of what a recording is made of."""


def type_name(kind: Any) -> str:
    """`sensor_msgs/msg/Image` for the class of that message."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def topic_types(heard: Mapping[str, tuple[Any, QoSProfile]]) -> dict[str, str]:
    """Message type by topic, as a `BagRecorder` wants it."""
    return {topic: type_name(kind) for topic, (kind, _) in heard.items()}


class Stage:
    """Ears for what other nodes publish; a context manager that owns rclpy meanwhile.

    Args:
        name: of its node.
        recorder: takes every message from the moment `recording` is set.
        check: called while waiting; raises if a node has died.
        heard: type and profile by topic.
    """

    def __init__(
        self, name: str, recorder: BagRecorder, check: Callable[[], None], heard: Mapping[str, tuple[Any, QoSProfile]] = OUTPUTS
    ) -> None:
        rclpy.init(args=[])
        self._recorder, self._check = recorder, check
        self._node = rclpy.create_node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        for topic, (kind, profile) in heard.items():
            self._node.create_subscription(kind, topic, cast(Any, self._ear(topic)), profile, raw=True)
        self.recording = False
        self.updates = 0
        """Map updates heard."""
        self.sequence = -1
        """Sequence of the newest map update heard."""
        self.answered = -1
        """Sequence up to which updates are segmented."""
        self.instances = 0
        self.latency_ms = 0.0
        self.stamp_ns = 0
        """Stamp of the newest answer."""
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
            if self.recording:
                self._recorder.write(topic, at_ns, content)
            self._heard(topic, at_ns, content)

        return hear

    def _heard(self, topic: str, at_ns: int, content: bytes) -> None:
        """Take note of a message."""
        if topic == UPDATES:
            self.updates += 1
            self.sequence = max(self.sequence, int(deserialize_message(content, MapUpdate).sequence))
            self.last_heard = time.monotonic()
        elif topic == INSTANCES:
            msg = deserialize_message(content, InstanceArray)
            self.answered, self.instances = max(self.answered, int(msg.sequence)), len(msg.instances)
            self.stamp_ns = msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec
            self.latency_ms = (at_ns - self.stamp_ns) / 1e6
            self.last_heard = time.monotonic()

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

    def wait_for_subscribers(self, topic: str, least: int, who: str, timeout_s: float) -> None:
        """Wait until so many nodes, this one included, listen to a topic; `who` is waited for.

        Raises:
            InstSegError: they are not there in time.
        """
        self.wait_for(lambda: self._node.count_subscribers(topic) >= least, f"waiting for {who} to listen to {topic}", timeout_s)

    def wait_for_publishers(self, topics: Iterable[str], timeout_s: float) -> None:
        """Wait until every topic has a publisher.

        Raises:
            InstSegError: one is not there in time.
        """
        for topic in topics:
            self.wait_for(partial(self._has_publisher, topic), f"waiting for a publisher of {topic}", timeout_s)

    def _has_publisher(self, topic: str) -> bool:
        return self._node.count_publishers(topic) > 0

    def wait_for_fusion(self, timeout_s: float) -> None:
        """Ask the fusion node for its map, still empty, until the segmenter answers it.

        Publisher and subscriber of other processes find each other at a time that nobody else sees; an update sent before would
        be lost.

        Raises:
            InstSegError: no answer in time.
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
