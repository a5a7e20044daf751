"""Starting and ending a node as a process."""

__all__ = ["run_node"]

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from instseg_ros.errors import InstSegError


def run_node(
    make_node: Callable[[], Any], args: Sequence[str] | None = None, finished: Callable[[Any], bool] = lambda node: False
) -> int:
    """Run a node until SIGINT or SIGTERM, both a clean end, or until it says itself that it is finished.

    Returns:
        Exit code: 0, or 2 if the node refused to start because of its settings or files.
    """
    # rclpy's own handlers would end the context while the worker still publishes.
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def on_signal(number: int, _frame: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])  # a second Ctrl-C ends the process at once

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)
    try:
        try:
            node = make_node()
        except InstSegError as error:
            print(f"cannot start: {error}", file=sys.stderr)
            return 2
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not stop.is_set() and rclpy.ok() and not finished(node):
                executor.spin_once(timeout_sec=0.2)
        finally:
            node.close()  # first the worker, then what it publishes with
            executor.shutdown()
            node.destroy_node()
        return 0
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
