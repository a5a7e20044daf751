"""A bag through real topics, with /clock, into the nodes as processes, and everything they published recorded."""

__all__ = ["RECORDING", "TopicsOptions", "perform"]

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from instseg_ros.live.processes import NodeProcesses
from instseg_ros.live.recorder import BagRecorder
from instseg_ros.live.recording import CLOCK, DELTA, DIAGNOSTICS, EVENTS, INSTANCES, UPDATES
from instseg_ros.live.stage import OUTPUTS, Stage, topic_types
from instseg_ros.replay.playback import Playback
from instseg_ros.ros.conversions import time_to_ns

RECORDING = "recording"
HEARD: dict[str, tuple[Any, QoSProfile]] = {
    **OUTPUTS, CLOCK: (Clock, QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)),
}
MAP_TOPICS = {"map_updates": UPDATES, "map_points": "/map_points"}


@dataclass(frozen=True)
class TopicsOptions:
    """How a bag is played."""

    out: Path
    rate: float
    """Times as fast as it was recorded."""
    period_s: float
    """Time of the bag between two updates of the fusion node."""
    timeout_s: float
    """Longest wait for the nodes to start, and for the last result."""
    settings: dict[str, Any]
    """Of segmenter and fusion (`fusion.` before them), by name; the voxel size is among them."""


class ClockStage(Stage):
    """A stage that knows what /clock shows."""

    def __init__(self, recorder: BagRecorder, check: Callable[[], None], rate: float) -> None:
        super().__init__("replay", recorder, check, HEARD)
        self._rate = rate
        self.clock_ns = 0

    def __enter__(self) -> "ClockStage":
        return self

    def _heard(self, topic: str, at_ns: int, content: bytes) -> None:
        super()._heard(topic, at_ns, content)
        if topic == CLOCK:
            self.clock_ns = time_to_ns(deserialize_message(content, Clock).clock)
        elif topic == INSTANCES:  # the stamp is of the simulated clock
            self.latency_ms = (self.clock_ns - self.stamp_ns) / 1e6 / self._rate


def perform(plan: Playback, options: TopicsOptions) -> None:
    """Start the nodes, play the bag, wait for the last result. What they published is in `RECORDING` below `options.out`.

    Raises:
        InstSegError: a node did not start, or died; the message shows the end of its log.
    """
    logs = options.out / "logs"
    nodes_of = node_parameters(plan, options)
    with NodeProcesses() as nodes, BagRecorder(options.out / RECORDING, topic_types(HEARD)) as bag, \
            ClockStage(bag, nodes.check, options.rate) as stage:
        names = plan.remappings
        if plan.images:
            roles = {role: names[role] for role in ("depth", "color", "camera_info", "pose") if role in names}
            nodes.start("instseg_ros.ros.fusion_node", nodes_of["fusion"], roles, logs / "fusion_node.log")
        service = {"request_full": "/fusion/request_full"} if plan.images else {}
        nodes.start("instseg_ros.ros.segmenter_node", nodes_of["segmenter"], service, logs / "segmenter_node.log")
        stage.wait_for_publishers((DELTA, INSTANCES, EVENTS, DIAGNOSTICS), options.timeout_s)
        if plan.images:
            stage.wait_for_subscribers(UPDATES, 2, "the segmenter", options.timeout_s)
            stage.wait_for_fusion(options.timeout_s)
        stage.updates, stage.recording = 0, True
        moved = {name: MAP_TOPICS[role] for role, name in names.items() if role in MAP_TOPICS and name != MAP_TOPICS[role]}
        nodes.start("instseg_ros.ros.bag_player", nodes_of["bag_player"], moved, logs / "bag_player.log")
        _watch(stage, plan, options)
        _drain(stage, plan, options)
        stage.spin(time.monotonic() + 1.5)  # the last diagnostics


def node_parameters(plan: Playback, options: TopicsOptions) -> dict[str, dict[str, Any]]:
    """ROS parameters of every node, by its name."""
    own = {name: value for name, value in options.settings.items() if not name.startswith("fusion.")}
    fusion = {name.removeprefix("fusion."): value for name, value in options.settings.items() if name.startswith("fusion.")}
    fusion |= {"voxel_size_m": own["voxel_size_m"], "publish_period_s": min(60.0, max(0.01, options.period_s / options.rate))}
    report_s = min(60.0, max(0.1, 0.5 * options.rate))  # on the simulated clock
    topic = {topic.role: topic.recorded for topic in plan.topics}
    player: dict[str, Any] = {name: topic.get(name, "") for name in ("depth", "color", "camera_info", "pose")} if plan.images else {
        "map": topic.get("map_updates") or topic["map_points"]}
    player["subscribers"] = 2 if "map_updates" in topic else 1  # the stage hears the map updates, too
    told = plan.parameters
    return {
        "segmenter": {**own, **told["segmenter"], "use_sim_time": True, "output.diagnostics_period_s": report_s},
        "fusion": {**fusion, **told.get("fusion", {}), "use_sim_time": True, "diagnostics_period_s": report_s},
        "bag_player": {**player, "path": str(plan.path.resolve()), "rate": options.rate, "fixed_frame": plan.fixed_frame, "tail_s": 1e6},
    }


def _watch(stage: ClockStage, plan: Playback, options: TopicsOptions) -> None:
    """Wait until the clock has shown the last message."""
    stage.wait_for(lambda: stage.clock_ns > 0, "waiting for the bag player", options.timeout_s)
    total_s = (plan.end_ns - plan.start_ns) / 1e9
    deadline = time.monotonic() + total_s / options.rate + options.timeout_s
    with tqdm(total=round(total_s, 1), desc="play", unit="s", disable=None, bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s{postfix}") as bar:
        while stage.clock_ns < plan.end_ns:
            left_s = deadline - time.monotonic()
            seen_ns = stage.clock_ns
            stage.wait_for(lambda seen=seen_ns: stage.clock_ns > seen + 200_000_000 * options.rate or stage.clock_ns >= plan.end_ns,  # type: ignore[misc]
                           "waiting for the clock to reach the end of the bag", max(left_s, 0.0))
            bar.set_postfix_str(f"{stage.updates} updates, {stage.instances} instances, {stage.latency_ms:.0f} ms", refresh=False)
            bar.update(min(total_s, (stage.clock_ns - plan.start_ns) / 1e9) - bar.n)


def _drain(stage: ClockStage, plan: Playback, options: TopicsOptions) -> None:
    """Wait until nothing comes any more and the last update is segmented, or time is up: what is missing then is reported."""
    quiet_s = 2.0 * options.period_s / options.rate + 1.0 if plan.images else 3.0
    deadline = time.monotonic() + options.timeout_s
    stage.last_heard = time.monotonic()
    while time.monotonic() < deadline and (time.monotonic() - stage.last_heard < quiet_s or stage.answered < stage.sequence):
        stage.wait_for(lambda: True, "", 1.0)  # sees nodes that died
        stage.spin(time.monotonic() + 0.1)
