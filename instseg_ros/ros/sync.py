"""Depth images paired with the colour images of the same moment. No ROS in here."""

__all__ = ["ImagePairs"]

from collections import Counter, deque
from typing import Any


class ImagePairs:
    """Approximate time synchronisation of two ordered streams.

    A depth image gets the nearest colour image within the slop, once no nearer one can come. Depth images without one are
    counted under `dropped_no_color`.
    """

    def __init__(self, waiting: int = 30) -> None:
        self.counts: Counter[str] = Counter()
        self._depth: deque[tuple[int, Any]] = deque()
        self._color: deque[tuple[int, Any]] = deque(maxlen=waiting)
        self._waiting = waiting

    def keep_only(self, low_ns: int, high_ns: int) -> None:
        """Forget the images whose stamps are outside of [low, high]."""
        for stream in (self._depth, self._color):
            kept = [entry for entry in stream if low_ns <= entry[0] <= high_ns]
            stream.clear()
            stream.extend(kept)

    def add_depth(self, stamp_ns: int, image: Any) -> None:
        """Take in a depth image."""
        self._depth.append((stamp_ns, image))
        if len(self._depth) > self._waiting:
            self._depth.popleft()
            self.counts["dropped_no_color"] += 1

    def add_color(self, stamp_ns: int, image: Any) -> None:
        """Take in a colour image."""
        self._color.append((stamp_ns, image))

    def take(self, slop_ns: int) -> list[tuple[int, Any, Any]]:
        """The pairs that are complete: stamp of the depth image, depth image, colour image."""
        pairs = []
        while self._depth and self._color:
            stamp, depth = self._depth[0]
            nearest, color = min(self._color, key=lambda entry: abs(entry[0] - stamp))
            if nearest != stamp and self._color[-1][0] < stamp:
                break  # a nearer one may still come
            self._depth.popleft()
            if abs(nearest - stamp) <= slop_ns:
                pairs.append((stamp, depth, color))
            else:
                self.counts["dropped_no_color"] += 1
        return pairs
