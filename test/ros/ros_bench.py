"""What the tests of the nodes share: an executor that spins until something is true, recorders, a predictable network."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import rclpy
from instseg_ros.msg import MapUpdate as MapUpdateMsg
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import update_to_msg
from instseg_ros.ros.fusion_node import FusionNode
from instseg_ros.ros.segmenter_node import SegmenterNode

TIMEOUT_S = 90.0


def block(x: int, size: int = 4, value: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and colours of a solid cube whose corner is at (x, 0, 0)."""
    coords = np.stack(np.meshgrid(*(np.arange(size),) * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    coords[:, 0] += x
    return coords, np.full((len(coords), 3), value, np.uint8)


def update(sequence: int, *parts, full: bool = False, stamp_s: float | None = None, deleted=()) -> MapUpdate:
    """An update of blocks; the stamp follows the sequence unless given."""
    coords = np.concatenate([p[0] for p in parts]) if parts else np.zeros((0, 3), np.int32)
    colors = np.concatenate([p[1] for p in parts]) if parts else np.zeros((0, 3), np.uint8)
    stamp_ns = int((10.0 + 0.1 * sequence if stamp_s is None else stamp_s) * 1e9)
    return MapUpdate(
        coords, colors, np.ones(len(coords), np.float32), 0.05, stamp_ns=stamp_ns, sequence=sequence, full=full,
        deleted=np.array(deleted, np.int32).reshape(-1, 3),
    )


class Recorder:
    """Keeps every message of a topic."""

    def __init__(self, node: Node, kind, topic: str, profile) -> None:
        self.messages: list = []
        self.subscription = node.create_subscription(kind, topic, self.messages.append, profile)

    @property
    def last(self):
        return self.messages[-1]

    def __len__(self) -> int:
        return len(self.messages)


class Bench:
    """Nodes under test and a node that talks to them, all spun by the test itself."""

    def __enter__(self) -> "Bench":
        self.executor = SingleThreadedExecutor()
        self.probe = rclpy.create_node("probe")
        self.executor.add_node(self.probe)
        self.nodes: list = []
        return self

    def __exit__(self, *_) -> None:
        for node in self.nodes:
            node.close()
        self.executor.shutdown()
        for node in [*self.nodes, self.probe]:
            node.destroy_node()

    def segmenter(self, net=None, remap: dict[str, str] | None = None, **parameters) -> SegmenterNode:
        """A running segmenter node; dots of parameter names are written as double underscores."""
        return self._start(lambda **arguments: SegmenterNode(net or chair_net(), **arguments), remap, parameters)

    def fusion(self, remap: dict[str, str] | None = None, **parameters) -> FusionNode:
        """A running fusion node; unless told otherwise, it waits for a pose for as long as a busy machine may take."""
        return self._start(FusionNode, remap, {"pose__max_wait_s": 60.0, **parameters})

    def _start(self, make, remap, parameters):
        arguments = ["--ros-args"]
        for source, target in (remap or {}).items():
            arguments += ["-r", f"{source}:={target}"]
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        node = make(cli_args=arguments, parameter_overrides=overrides)
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def end(self, node) -> None:
        """A node's end before the bench's own."""
        self.nodes.remove(node)
        node.close()
        self.executor.remove_node(node)
        node.destroy_node()

    def until(self, condition, what: str | Callable[[], str], timeout_s: float = TIMEOUT_S) -> None:
        """Spin until the condition holds; a failure that says what was waited for otherwise (a function is asked for it then)."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"waited {timeout_s} s in vain: {what if isinstance(what, str) else what()}"
            self.executor.spin_once(timeout_sec=0.02)

    def record(self, kind, topic: str, profile) -> Recorder:
        return Recorder(self.probe, kind, topic, profile)

    def publisher(self, kind, topic: str, profile):
        """A publisher that has found its subscriber."""
        publisher = self.probe.create_publisher(kind, topic, profile)
        self.until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        return publisher

    def sender(self, topic: str = "map_updates"):
        """Sends `MapUpdate`s, field by field replaced if wanted."""
        publisher = self.publisher(MapUpdateMsg, topic, qos.DELTAS)

        def send(one: MapUpdate, **changes) -> None:
            publisher.publish(update_to_msg(replace(one, **changes)))

        return send

    def call(self, kind, service: str, request=None, timeout_s: float = TIMEOUT_S):
        client = self.probe.create_client(kind, service)
        self.until(client.service_is_ready, f"service {service}")
        future = client.call_async(request or kind.Request())
        self.until(future.done, f"an answer of {service}", timeout_s)
        self.probe.destroy_client(client)
        return future.result()
