"""What happened to every instance, as a short list per id."""

__all__ = ["EVENT_KINDS", "EventLog", "LoggedEvent"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from instseg_ros.instance import TrackEvent

EVENT_KINDS: tuple[Literal["born", "updated", "merged", "split", "retired"], ...] = ("born", "updated", "merged", "split", "retired")
"""In files an event's kind is the index here."""

_PER_ID = 32
_ENDED_IDS = 1000


@dataclass(frozen=True)
class LoggedEvent:
    """An event and when it was."""

    stamp_ns: int
    event: TrackEvent


class EventLog:
    """The newest events of every id that exists, and of the thousand that ended last.

    Of updates in a row only the last is kept, so that the list tells a life and not a stream. One thread writes; others may read.
    """

    def __init__(self) -> None:
        self._of: dict[int, tuple[LoggedEvent, ...]] = {}
        self._ended: dict[int, None] = {}  # in the order of their end

    def record(self, events: list[TrackEvent], stamp_ns: int) -> None:
        """Add the events of one update."""
        for event in events:
            self._add(LoggedEvent(stamp_ns, event))

    def of(self, i: int) -> tuple[LoggedEvent, ...]:
        """The newest events of an id, oldest first; empty for one that is not known (any more)."""
        return self._of.get(i, ())

    def _add(self, logged: LoggedEvent) -> None:
        i, kind = logged.event.id, logged.event.kind
        before = self._of.get(i, ())
        if before and kind == before[-1].event.kind == "updated":
            before = before[:-1]
        self._of[i] = (*before, logged)[-_PER_ID:]
        self._ended.pop(i, None)
        if kind in ("merged", "retired"):
            self._ended[i] = None
            if len(self._ended) > _ENDED_IDS:
                oldest = next(iter(self._ended))
                del self._ended[oldest], self._of[oldest]

    def state(self) -> dict[str, np.ndarray]:
        """All events as arrays [E], ids that ended in the order of their end and after all others."""
        ids = [*sorted(self._of.keys() - self._ended.keys()), *self._ended]
        rows = [logged for i in ids for logged in self._of[i]]
        return {
            "event.stamp_ns": np.array([r.stamp_ns for r in rows], np.int64),
            "event.kind": np.array([EVENT_KINDS.index(r.event.kind) for r in rows], np.uint8),
            "event.id": np.array([r.event.id for r in rows], np.uint32),
            "event.other": np.array([r.event.other for r in rows], np.uint32),
            "event.class_index": np.array([r.event.class_index for r in rows], np.uint8),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "EventLog":
        """The log that `state` was taken of; the kinds must be indices of `EVENT_KINDS`."""
        log = cls()
        columns = (state[f"event.{name}"].tolist() for name in ("stamp_ns", "kind", "id", "other", "class_index"))
        for stamp_ns, kind, i, other, class_index in zip(*columns, strict=True):
            log._add(LoggedEvent(stamp_ns, TrackEvent(EVENT_KINDS[kind], i, other, class_index)))
        return log
