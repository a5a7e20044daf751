"""Plays a bag through topics with /clock, as fast as it was recorded or `rate` times that, for nodes with use_sim_time."""

__all__ = ["BagPlayer", "main"]

import importlib
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from instseg_ros.config import BagPlayerConfig
from instseg_ros.datasets.bags import BagTopics
from instseg_ros.errors import ConfigError, InstSegError, MissingDependencyError
from instseg_ros.replay.playback import PlayedTopic, plan_playback, played_messages
from instseg_ros.ros.conversions import ns_to_time
from instseg_ros.ros.diagnostics import Monitor, status
from instseg_ros.ros.parameters import declare_config
from instseg_ros.ros.run import run_node

PREFETCH = 64
"""Messages read ahead."""
REPORT_S = 0.5
SETTLE_S = 1.0
"""For publisher and subscriber of other processes to find each other, which nobody else sees."""

Message = tuple[int, PlayedTopic, bytes]


class BagPlayer(Node):
    """Two threads: one reads the bag ahead, one publishes what is due, and the clock.

    A message is published when the clock shows the time at which it was recorded. Should reading not keep up, messages are late
    and the clock is not: `late_ms` in the diagnostics says by how much.

    Raises:
        ConfigError: a parameter is unknown or refused, or no bag is named.
        DataError: the bag cannot be read or has no usable topics.
        MissingDependencyError: the type of a topic is not installed.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("bag_player", **node_arguments)
        self.config = declare_config(self, BagPlayerConfig, lambda config, names: None).config
        if not self.config.path:
            raise ConfigError("path is empty: name the bag to play, -p path:=FOLDER")
        c = self.config
        self.plan = plan_playback(c.path, BagTopics(c.depth, c.color, c.camera_info, c.pose, c.map, c.fixed_frame))
        self.monitor = Monitor()
        self.finished = False
        """Everything is played, or cannot be."""
        self.failure = ""
        """Why it ended early."""
        self._outputs = {topic.recorded: self._publisher(topic) for topic in self.plan.topics}
        self._clock_output = self.create_publisher(Clock, "/clock", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._stop = threading.Event()
        self._ahead: queue.Queue[Message | InstSegError | None] = queue.Queue(PREFETCH)
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in (("reader", self._read), ("player", self._play))]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop playing and join the threads; call before `destroy_node`."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10.0)

    def _publisher(self, topic: PlayedTopic) -> Any:
        package, _, name = topic.msgtype.split("/")
        try:
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError) as error:
            raise MissingDependencyError(f"{topic.recorded} is {topic.msgtype}, which is not installed: source a workspace with {package}") from error
        profile = QoSProfile(depth=100)
        if topic.recorded.endswith("tf_static"):
            profile.durability = QoSDurabilityPolicy.TRANSIENT_LOCAL
        return self.create_publisher(kind, topic.name, profile)

    # Called from the reader's thread.

    def _read(self) -> None:
        try:
            for message in played_messages(self.plan):
                if not self._put(message):
                    return
            self._put(None)
        except InstSegError as error:
            self._put(error)

    def _put(self, entry: Message | InstSegError | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ahead.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    # Called from the player's thread.

    def _play(self) -> None:
        try:
            self._wait_for_subscribers()
            self._begin_s = self._next_clock_s = self._next_report_s = time.monotonic()
            for at_ns, topic, content in self._messages():
                if not self._pass_until(self._due_s(at_ns)):
                    return
                self.monitor.duration("late", (time.monotonic() - self._due_s(at_ns)) * 1e3)
                self.monitor.count("messages_played")
                self._outputs[topic.recorded].publish(content)
            self.get_logger().info(f"played all of {self.plan.path}")
            self._pass_until(time.monotonic() + self.config.tail_s)
        except Exception as error:
            self.failure = str(error) if isinstance(error, InstSegError) else f"{type(error).__name__}: {error}"
            self.get_logger().error(self.failure)
        finally:
            self.finished = True

    def _messages(self) -> Iterator[Message]:
        while not self._stop.is_set():
            try:
                entry = self._ahead.get(timeout=0.01)
            except queue.Empty:
                self._pass_until(time.monotonic())  # the clock does not wait for the reader
                continue
            if entry is None:
                return
            if isinstance(entry, InstSegError):
                raise entry
            yield entry

    def _wait_for_subscribers(self) -> None:
        end_s = time.monotonic() + self.config.wait_s
        while missing := self._without_subscriber():
            if self._stop.wait(0.05):
                return
            if time.monotonic() > end_s:
                self.get_logger().warning(f"too few listen to {', '.join(missing)} after {self.config.wait_s:g} s: playing all the same")
                return
        if self.config.wait_for:
            self._stop.wait(SETTLE_S)

    def _without_subscriber(self) -> list[str]:
        played = [t.name for t in self.plan.topics if self._outputs[t.recorded].get_subscription_count() < self.config.subscribers]
        further = self.config.wait_for
        return [*played, further] if further and not self.count_subscribers(further) else played

    def _due_s(self, at_ns: int) -> float:
        return self._begin_s + (at_ns - self.plan.start_ns) / 1e9 / self.config.rate

    def _pass_until(self, due_s: float) -> bool:
        """Publish clock and diagnostics until a moment of `time.monotonic()`; False if playing was stopped."""
        while True:
            now_s = time.monotonic()
            if now_s >= self._next_clock_s:
                passed_ns = int((now_s - self._begin_s) * self.config.rate * 1e9)
                self._clock_output.publish(Clock(clock=ns_to_time(self.plan.start_ns + passed_ns)))
                self._next_clock_s = now_s + 1.0 / self.config.clock_hz
            if now_s >= self._next_report_s:
                self._report()
                self._next_report_s = now_s + REPORT_S
            if now_s >= due_s:
                return not self._stop.is_set()
            if self._stop.wait(max(0.0, min(due_s, self._next_clock_s) - now_s)):
                return False

    def _report(self) -> None:
        msg = DiagnosticArray()
        msg.header.stamp = self.get_clock().now().to_msg()
        msg.status = [status("bag_player", "ok", "playing", {**self.monitor.totals(), **self.monitor.times()})]
        self._diagnostics.publish(msg)


def main(args: Sequence[str] | None = None) -> int:
    """Play a bag until its end; 0, or 2 if it cannot be played, or not to its end."""
    players: list[BagPlayer] = []

    def make() -> BagPlayer:
        players.append(BagPlayer())
        return players[0]

    code = run_node(make, args, finished=lambda player: player.finished)
    return code or (2 if players[0].failure else 0)


if __name__ == "__main__":
    sys.exit(main())
