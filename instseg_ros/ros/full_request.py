"""Asking the mapper for its whole map when updates were lost."""

__all__ = ["FullMapRequester"]

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.task import Future

from instseg_ros.ros.diagnostics import Monitor
from instseg_ros.srv import RequestFull


class FullMapRequester:
    """Calls `request_full` without blocking, and again with growing pauses, until a full update has arrived.

    Args:
        node: owner of the client.
        monitor: where requests and failures are counted.
        period_s: the first pause between two requests; doubles up to `MAX_PAUSE_S`.
        still_needed: whether the map is still incomplete.
    """

    MAX_PAUSE_S = 30.0

    def __init__(self, node: Node, monitor: Monitor, period_s: Callable[[], float], still_needed: Callable[[], bool]) -> None:
        self._node, self._monitor, self._period_s, self._still_needed = node, monitor, period_s, still_needed
        self._client = node.create_client(RequestFull, "request_full")
        self._pending: Future | None = None
        self._next = 0.0
        self._pause_s = 0.0
        self._warned = False

    def poll(self) -> None:
        """Ask if it is time to; called from a timer of the node."""
        now = time.monotonic()
        if not self._still_needed():
            self._pause_s, self._next, self._warned = 0.0, 0.0, False
            return
        if now < self._next:
            return
        self._pause_s = min(max(2.0 * self._pause_s, self._period_s()), self.MAX_PAUSE_S)
        self._next = now + self._pause_s
        if self._pending is not None and not self._pending.done():
            self._client.remove_pending_request(self._pending)
        if not self._client.service_is_ready():
            self._monitor.count("full_requests_unanswered")
            if not self._warned:
                self._warned = True
                self._node.get_logger().warning(
                    f"map updates are missing and nobody offers {self._client.srv_name}: the map stays incomplete until the "
                    "mapper sends a full update; remap request_full to the service of the mapper"
                )
            return
        self._monitor.count("full_requests")
        self._pending = self._client.call_async(RequestFull.Request())
        self._pending.add_done_callback(self._answered)

    def _answered(self, future: Future) -> None:
        if future.cancelled() or future.result() is None:
            return
        answer = future.result()
        if not answer.success:
            self._monitor.count("full_requests_refused")
            self._node.get_logger().warning(f"{self._client.srv_name} refused to send the whole map: {answer.message}")
