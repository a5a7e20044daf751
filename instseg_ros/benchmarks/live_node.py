"""A segmenter node in a process of its own, for benchmarks that talk to it over topics."""

__all__ = ["LiveNode"]

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instseg_ros.benchmarks.node_process import run_segmenter
from instseg_ros.errors import DataError


class LiveNode:
    """The node and what it says of itself; everything of it is below a namespace of its own. rclpy must be initialised.

    Args:
        folder: for its log and saved maps.
        settings: parameters.
        depth: messages that its inputs keep until they are read; 0 = as usual.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], depth: int = 0) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor

        folder.mkdir(parents=True, exist_ok=True)
        self.namespace, self.log = f"/bench_{os.getpid()}", folder / "node.log"
        self.values: dict[str, str] = {}
        """The newest diagnostics."""
        self.reports = 0
        """How often diagnostics have come."""
        self.probe = rclpy.create_node("bench_probe", namespace=self.namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.probe)
        self.probe.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 50)
        settings = {"save_dir": folder, **settings}
        if depth:
            settings |= {f"qos_overrides.{self.namespace}/{topic}.subscription.depth": depth for topic in ("map_updates", "map_points")}
        arguments = ["-r", f"__ns:={self.namespace}"]
        arguments += [part for key, value in settings.items() for part in ("-p", f"{key}:={value}")]
        self.process = multiprocessing.get_context("forkserver").Process(target=run_segmenter, args=(arguments, str(self.log)))
        self.process.start()

    def __enter__(self) -> "LiveNode":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join(20)
        self.process.kill()
        self.process.join()
        self._executor.shutdown()
        self.probe.destroy_node()

    def _diagnosed(self, msg: Any) -> None:
        for status in msg.status:
            if status.name.startswith(self.namespace[1:]):
                self.values = {value.key: value.value for value in status.values}
                self.reports += 1

    def count(self, name: str) -> int:
        """A count of the diagnostics; 0 as long as it has not happened."""
        return int(self.values.get(name, 0))

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> None:
        """Spin until a condition holds.

        Raises:
            DataError: it does not in time, or the node has ended.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if not self.process.is_alive():
                raise DataError(f"the node ended by itself (exit code {self.process.exitcode}): look into {self.log}")
            if time.monotonic() > end:
                raise DataError(f"waited {timeout_s:.0f} s in vain for {what}: look into {self.log}")
            self._executor.spin_once(timeout_sec=0.02)

    def publisher(self, kind: Any, topic: str, depth: int) -> Any:
        """A reliable publisher that the node listens to."""
        publisher = self.probe.create_publisher(kind, topic, depth)
        self.until(lambda: publisher.get_subscription_count() > 0, f"the node on {topic}")
        return publisher

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """The answer of a service of the node."""
        client = self.probe.create_client(kind, f"{self.namespace}/segmenter/{service}")
        self.until(client.service_is_ready, f"service {service}")
        future = client.call_async(request)
        self.until(future.done, f"an answer of {service}")
        self.probe.destroy_client(client)
        return future.result()
