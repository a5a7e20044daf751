"""The running graph: what the segmenter reads, from whom, and why nothing would arrive."""

__all__ = ["Graph", "check_clock", "check_diagnostics", "check_frame", "check_inputs", "look_around"]

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from instseg_ros.diagnosis.findings import Finding, note, ok, problem

INPUTS = {
    "map_updates": "instseg_ros/msg/MapUpdate", "map_points": "sensor_msgs/msg/PointCloud2", "nvblox_mesh": "nvblox_msgs/msg/Mesh",
    "nvblox_layer": "nvblox_msgs/msg/VoxelBlockLayer",
}
"""Topics that the segmenter reads, and their types."""

DROPS = ("refused", "dropped_queue_full", "failures", "full_requests_unanswered")
"""Counts in the segmenter's diagnostics that should be 0."""


@dataclass(frozen=True)
class Graph:
    """What was seen of a graph."""

    segmenter: str = ""
    """Full name of the running segmenter node; empty = none."""
    subscriptions: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """{topic: (type, QoS profile)} of what the segmenter reads, or would read."""
    publishers: dict[str, list[Any]] = field(default_factory=dict)
    """{topic: rclpy.topic_endpoint_info.TopicEndpointInfo} of their publishers."""
    use_sim_time: bool | None = None
    """The segmenter's parameter; None = it did not answer."""
    clocks: int = 0
    """Publishers of /clock."""
    diagnostics: Any = None
    """The segmenter's last diagnostic_msgs/DiagnosticStatus."""
    tf_frames: frozenset[str] | None = None
    """Frames seen on /tf and /tf_static; None = tf2_msgs is not there."""


def look_around(wait_s: float = 3.0, segmenter: str = "", remaps: Mapping[str, str] | None = None) -> Graph:
    """Join the graph for a moment and look.

    Args:
        wait_s: how long nodes are given to be discovered, and messages to arrive.
        segmenter: full name of the segmenter node; empty = the first that publishes segmentation diagnostics or is called segmenter.
        remaps: {input: topic} of a segmenter that does not run yet.
    """
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("instseg_doctor", context=context)
        try:
            return _Look(node, context).graph(wait_s, segmenter, dict(remaps or {}))
        finally:
            node.destroy_node()
    finally:
        context.try_shutdown()


class _Look:
    def __init__(self, node: Any, context: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile

        self.node = node
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(node)
        self.statuses: dict[str, Any] = {}
        self.frames: set[str] | None = None
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            return
        self.frames = set()
        node.create_subscription(TFMessage, "/tf", self._on_tf, 100)
        latched = QoSProfile(depth=100, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(TFMessage, "/tf_static", self._on_tf, latched)

    def _on_diagnostics(self, msg: Any) -> None:
        for status in msg.status:
            if status.name.endswith(": segmentation"):
                self.statuses["/" + status.name[: -len(": segmentation")]] = status

    def _on_tf(self, msg: Any) -> None:
        assert self.frames is not None
        for transform in msg.transforms:
            self.frames |= {transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")}

    def graph(self, wait_s: float, segmenter: str, remaps: dict[str, str]) -> Graph:
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.1)
        names = [f"{space.rstrip('/')}/{name}" for name, space in self.node.get_node_names_and_namespaces()]
        found = segmenter if segmenter in names else "" if segmenter else next(
            (n for n in [*self.statuses, *names] if n in names and (n in self.statuses or n.rsplit("/", 1)[1] == "segmenter")), "")
        subscriptions = self._subscriptions_of(found) if found else self._would_be(remaps)
        return Graph(
            found, subscriptions, {topic: self.node.get_publishers_info_by_topic(topic) for topic in subscriptions},
            self._sim_time(found) if found else None, len(self.node.get_publishers_info_by_topic("/clock")), self.statuses.get(found),
            None if self.frames is None else frozenset(self.frames),
        )

    def _subscriptions_of(self, segmenter: str) -> dict[str, tuple[str, Any]]:
        """What a running node reads, by the names and with the profiles that it really has."""
        space, name = segmenter.rsplit("/", 1)
        out: dict[str, tuple[str, Any]] = {}
        for topic, types in self.node.get_subscriber_names_and_types_by_node(name, space or "/"):
            wanted = next((kind for kind in types if kind in INPUTS.values()), None)
            for info in self.node.get_subscriptions_info_by_topic(topic) if wanted else ():
                if info.node_name == name and info.node_namespace == (space or "/") and wanted:
                    out[topic] = wanted, info.qos_profile
        return out

    def _would_be(self, remaps: dict[str, str]) -> dict[str, tuple[str, Any]]:
        from rclpy.qos import QoSLivelinessPolicy, QoSProfile

        from instseg_ros.ros import qos

        out: dict[str, tuple[str, Any]] = {}
        for name, kind in INPUTS.items():
            ours = qos.CLOUDS if name == "map_points" else qos.DELTAS
            # What the middleware makes of it; "system default" would leave the comparison undecided.
            real = QoSProfile(
                depth=ours.depth, reliability=ours.reliability, durability=ours.durability, liveliness=QoSLivelinessPolicy.AUTOMATIC
            )
            out[self.node.resolve_topic_name(remaps.get(name, name))] = kind, real
        return out

    def _sim_time(self, segmenter: str, timeout_s: float = 2.0) -> bool | None:
        from rcl_interfaces.srv import GetParameters

        client = self.node.create_client(GetParameters, f"{segmenter}/get_parameters")
        end = time.monotonic() + timeout_s
        while not client.service_is_ready():
            if time.monotonic() > end:
                return None
            self.executor.spin_once(timeout_sec=0.05)
        future = client.call_async(GetParameters.Request(names=["use_sim_time"]))
        while not future.done() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        result = future.result() if future.done() else None
        return bool(result.values[0].bool_value) if result is not None and result.values else None


def check_inputs(graph: Graph) -> Iterator[Finding]:
    """Whether what the segmenter reads is published, with a type and a QoS that match."""
    if graph.segmenter and not graph.subscriptions:
        cure = f"`ros2 lifecycle set {graph.segmenter} configure`, then `activate`; else look again with --wait 10"
        yield problem("graph", f"{graph.segmenter} runs and reads nothing, as a lifecycle node does that is not active", cure)
        return
    if graph.segmenter:
        yield ok("graph", f"{graph.segmenter} runs and reads {', '.join(graph.subscriptions)}")
    else:
        cure = "start it, or name it with --node; --remap map_points:=TOPIC"
        yield note("graph", "no segmenter node is seen: topics are checked by their names", cure)
    sources = []
    for topic, (kind, profile) in graph.subscriptions.items():
        infos = graph.publishers.get(topic, [])
        if infos:
            sources.append(topic)
        for info in infos:
            yield _check_publisher(topic, kind, profile, info)
    if not sources:
        text = f"nobody publishes on {', '.join(graph.subscriptions)}"
        cure = "start the mapper, or remap its topic (docs/mappers.md); `ros2 topic list -t` shows what there is"
        yield problem("graph", text, cure) if graph.segmenter else note("graph", text, cure)
    if len(sources) > 1:
        yield note("graph", f"maps come in on {' and '.join(sources)} at once and are mixed", "let one mapper publish, unless they send one map")


def _check_publisher(topic: str, kind: str, profile: Any, info: Any) -> Finding:
    who = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
    if info.topic_type != kind:
        return problem("graph", f"{topic}: {who} publishes {info.topic_type}, the segmenter reads {kind}", "remap one of the two to another topic")
    from rclpy.qos import QoSCompatibility, qos_check_compatible

    compatible, reason = qos_check_compatible(info.qos_profile, profile)
    why = _mismatch(info.qos_profile, profile) or reason
    if compatible == QoSCompatibility.ERROR or why != reason:
        return problem("graph", f"{topic}: nothing arrives from {who}: {why}", _cure(topic, info.qos_profile, profile))
    text = f"{topic}: {who}, {_words(info.qos_profile)}"
    if compatible == QoSCompatibility.WARNING:
        return note("graph", f"{text}; it may not match: {reason}", "see docs/ros.md for the profile that is wanted")
    return ok("graph", f"{text}, matches")


def _words(profile: Any) -> str:
    return f"{profile.reliability.name.lower()} and {profile.durability.name.lower()}"


def _mismatch(offered: Any, wanted: Any) -> str:
    pairs = [(getattr(offered, name).name.lower(), getattr(wanted, name).name.lower()) for name in ("reliability", "durability")]
    too_little = (("best_effort", "reliable"), ("volatile", "transient_local"))
    return "; ".join(f"it offers {a}, the segmenter demands {b}" for a, b in pairs if (a, b) in too_little)


def _cure(topic: str, offered: Any, wanted: Any) -> str:
    cures = []
    if offered.reliability.name == "BEST_EFFORT" and wanted.reliability.name == "RELIABLE":
        cures.append(f"-p qos_overrides.{topic}.subscription.reliability:=best_effort")
    if offered.durability.name == "VOLATILE" and wanted.durability.name == "TRANSIENT_LOCAL":
        cures.append(f"-p qos_overrides.{topic}.subscription.durability:=volatile")
    if not cures:
        return "give both the profile in docs/ros.md"
    return f"start the segmenter with --ros-args {' '.join(cures)}, or let the mapper publish with the profile in docs/ros.md"


def check_clock(graph: Graph) -> Iterator[Finding]:
    """Simulated time without a clock, and a clock that is not used."""
    if not graph.segmenter:
        return
    if graph.use_sim_time is None:
        yield note("time", f"{graph.segmenter} did not say whether it uses simulated time", "try again with --wait 10")
    elif graph.use_sim_time and not graph.clocks:
        cure = "ros2 bag play --clock, or use_sim_time:=false"
        yield problem("time", "use_sim_time is true, but nobody publishes /clock: its time stands still", cure)
    elif not graph.use_sim_time and graph.clocks:
        yield note("time", "/clock is published, but use_sim_time is false", "use_sim_time:=true for bags and simulators")
    else:
        yield ok("time", f"use_sim_time is {str(graph.use_sim_time).lower()}")


def check_diagnostics(graph: Graph) -> Iterator[Finding]:
    """What the running segmenter says of itself."""
    if not graph.segmenter:
        return
    if graph.diagnostics is None:
        yield note("node", f"no diagnostics of {graph.segmenter} arrived", "try again with --wait 10")
        return
    status = graph.diagnostics
    values = {pair.key: pair.value for pair in status.values}
    level = int.from_bytes(status.level, "little") if isinstance(status.level, bytes) else int(status.level)
    text = f"{status.message}; {values.get('voxels', '?')} voxels, {values.get('instances', '?')} instances"
    drops = ", ".join(f"{name} {values[name]}" for name in DROPS if values.get(name, "0") != "0")
    if level >= 2:
        yield problem("node", text, "the message says what to change")
    elif level == 1 or drops:
        yield note("node", f"{text}{'; ' + drops if drops else ''}", values.get("last_error", "") and f"last error: {values['last_error']}")
    else:
        yield ok("node", text)


def check_frame(graph: Graph) -> Iterator[Finding]:
    """The map's frame, and whether TF knows it."""
    if graph.diagnostics is None:
        return
    frame = next((pair.value for pair in graph.diagnostics.values if pair.key == "frame"), "")
    if not frame:
        yield note("frame", "the map has no frame yet: nothing has been mapped", "see the lines on graph above")
    elif graph.tf_frames is None:
        yield ok("frame", f"the map is in {frame} (tf2_msgs is not there, TF is not looked at): RViz's Fixed Frame must be {frame}")
    elif frame.lstrip("/") in graph.tf_frames:
        yield ok("frame", f"the map is in {frame}, which TF knows")
    else:
        yield note("frame", f"the map is in {frame}, which TF does not know", f"set RViz's Fixed Frame to {frame}, or publish the transform to it")
