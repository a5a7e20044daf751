"""What arrives, before it reaches the map: order of the sequence numbers and the bounded queue. No ROS in here."""

__all__ = ["Arrival", "SequenceWatch", "UpdateQueue"]

import itertools
import threading
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

from instseg_ros.mapping.merge import merge_updates
from instseg_ros.mapping.update import MapUpdate


class Arrival(Enum):
    """What a sequence number says about an update."""

    IN_ORDER = "in order"
    GAP = "gap"
    """Updates before it were lost; it is valid for the voxels it names."""
    RESTART = "restart"
    """The publisher began anew; what the map holds may be out of date."""
    STALE = "stale"
    """A duplicate, or overtaken by a newer one; it must not be applied."""


class SequenceWatch:
    """Follows the sequence numbers of one publisher.

    A number that goes back is a duplicate if the stamp does not go forward, and a restarted publisher if it does.
    """

    FAR_BACK = 64
    """A number further back than this is a restart whatever the stamp says."""

    def __init__(self) -> None:
        self.complete = True
        """Whether every update since the last full one (or since number 0) has arrived."""
        self._last: int | None = None
        self._last_stamp_ns = 0

    def reset(self) -> None:
        """Forget the publisher; what comes next is the first update."""
        self.__init__()  # type: ignore[misc]

    def check(self, sequence: int, stamp_ns: int, full: bool) -> Arrival:
        """Classify an update and remember it."""
        last, last_stamp = self._last, self._last_stamp_ns
        arrival = Arrival.IN_ORDER
        if last is None:
            arrival = Arrival.IN_ORDER if full or sequence == 0 else Arrival.GAP
        elif sequence <= last:
            if stamp_ns <= last_stamp and last - sequence < self.FAR_BACK:
                return Arrival.STALE
            arrival = Arrival.RESTART
        elif sequence > last + 1:
            arrival = Arrival.GAP
        self._last, self._last_stamp_ns = sequence, stamp_ns
        if full:
            self.complete = True
        elif arrival is not Arrival.IN_ORDER:
            self.complete = False
        return arrival

    def lost_one(self) -> None:
        """An update that was counted could not be kept: the map needs a full one."""
        self.complete = False


@dataclass(frozen=True)
class Waiting:
    """One entry of the queue."""

    content: Any
    """A `MapUpdate`, a cloud message that is still to be read, or `UpdateQueue.RESET`."""
    voxels: int
    """Voxels (or points) it holds at most."""
    received_ns: int
    updates: int = 1
    """Updates that were merged into it."""


class UpdateQueue:
    """Updates waiting for the worker, bounded in voxels.

    Whatever waits is taken at once and applied as one, so waiting longer costs no order and loses nothing. Only what would
    exceed the bound, even after what waits was merged, is turned away; an update before which nothing waits is not, else a
    map larger than the bound could never be sent whole. All methods may be called from any thread.
    """

    RESET = object()
    MOST_ENTRIES = 1000
    """Updates of few voxels or none are merged from this number on: a paused node keeps them for hours."""

    def __init__(self, max_voxels: int) -> None:
        self.max_voxels = max_voxels
        self.ready = threading.Condition()
        self.counts: Counter[str] = Counter()
        self._waiting: list[Waiting] = []
        self._voxels_merged = 0

    def put(self, content: Any, voxels: int, received_ns: int, full: bool = False) -> bool:
        """Queue an update; a full one makes everything before it superfluous. False if there is no room."""
        with self.ready:
            keep = [w for w in self._waiting if w.content is self.RESET] if full else self._waiting
            if self._total(keep) + voxels > self.max_voxels or len(keep) >= self.MOST_ENTRIES:
                keep = self._merged(keep)
            if self._total(keep) and self._total(keep) + voxels > self.max_voxels:
                self.counts["dropped_queue_full"] += 1
                return False
            if self._waiting:
                self.counts["coalesced"] += 1
            self._waiting = [*keep, Waiting(content, voxels, received_ns)]
            self.ready.notify_all()
            return True

    @staticmethod
    def _total(waiting: list[Waiting]) -> int:
        return sum(w.voxels for w in waiting)

    def _merged(self, waiting: list[Waiting]) -> list[Waiting]:
        """The same with neighbouring map updates merged, unless that was just done."""
        if self._total(waiting) < 1.5 * self._voxels_merged and len(waiting) < self.MOST_ENTRIES:
            return waiting
        merged: list[Waiting] = []
        for is_update, run in itertools.groupby(waiting, lambda w: isinstance(w.content, MapUpdate)):
            entries = list(run)
            if is_update:
                one = merge_updates([w.content for w in entries])
                count = sum(w.updates for w in entries)
                entries = [Waiting(one, len(one) + len(one.deleted), entries[0].received_ns, count)]
            merged += entries
        self._voxels_merged = self._total(merged)
        self._waiting = merged
        return merged

    def put_reset(self) -> None:
        """Forget what waits and queue a reset of the map before whatever comes next."""
        with self.ready:
            self._waiting = [Waiting(self.RESET, 0, 0)]
            self.ready.notify_all()

    def take(self) -> list[Waiting]:
        """Everything that waits, oldest first."""
        with self.ready:
            waiting, self._waiting, self._voxels_merged = self._waiting, [], 0
            return waiting

    def clear(self) -> None:
        """Forget what waits."""
        self.take()

    def frame(self) -> str:
        """Frame of the updates that wait; empty if none does."""
        with self.ready:
            for waiting in self._waiting:
                content = waiting.content
                if isinstance(content, MapUpdate):
                    return content.frame_id
                if content is not self.RESET:
                    return str(content.header.frame_id)
        return ""

    def __len__(self) -> int:
        with self.ready:
            return len(self._waiting)

    @property
    def voxels(self) -> int:
        """Voxels that wait."""
        with self.ready:
            return self._total(self._waiting)
