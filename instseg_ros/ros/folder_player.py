"""Plays a recorded RGB-D folder into the fusion as if a camera were there."""

__all__ = ["FolderPlayer"]

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rclpy.node import Node

from instseg_ros.config import FolderConfig
from instseg_ros.datasets.rgbd import open_sequence
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.ros.diagnostics import Monitor
from instseg_ros.ros.fusion_worker import FusionWorker


class FolderPlayer:
    """A thread that reads frames at a rate and waits when the fusion does not keep up: nothing is dropped.

    Raises:
        ConfigError: no folder is named.
        DataError: the folder cannot be read.
    """

    def __init__(
        self, node: Node, config: FolderConfig, worker: FusionWorker, monitor: Monitor, warn: Callable[[str], None]
    ) -> None:
        if not config.path:
            raise ConfigError("pose.source is folder, but folder.path is empty: name the RGB-D folder to play")
        self._node, self._config, self._worker, self._monitor, self._warn = node, config, worker, monitor, warn
        self._sequence = open_sequence(config.path)
        self.left = len(self._sequence)
        """Frames that are still to be played."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, name="player", daemon=True)

    def start(self) -> None:
        """Start playing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop playing and join the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def _play(self) -> None:
        while self._worker.subscribers < self._config.wait_for_subscribers:
            if self._stop.wait(0.05):
                return
        due = time.monotonic()
        for index in range(len(self._sequence)):
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            due = max(due, time.monotonic() - 1.0) + 1.0 / self._config.rate_hz  # after a stall, no long burst
            try:
                frame = self._sequence[index]
            except DataError as error:
                self._monitor.count("dropped_unreadable")
                self._warn(f"a frame cannot be read and is left out: {error}")
                self.left -= 1
                continue
            if self._config.stamps == "now":
                frame = replace(frame, stamp_ns=self._node.get_clock().now().nanoseconds)
            while not self._worker.put_waiting(frame, 0.1):
                if self._stop.is_set():
                    return
            self.left -= 1
        self._node.get_logger().info(f"played all {len(self._sequence)} frames of {self._config.path}")
