"""What a replay came to, update by update and id by id, whichever way the bag was played."""

__all__ = ["IdHistory", "IdLife", "Mark", "Replay", "Series", "StateRow"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instseg_ros.labels import CLASS_NAMES, IGNORE


@dataclass(frozen=True)
class Mark:
    """Something that happened to an id."""

    at_s: float
    kind: str
    """born, merged, split or retired."""
    other: int
    """Id that it merged into or split from, else 0."""


@dataclass
class IdLife:
    """One id from its birth to its end."""

    id: int
    class_index: int
    """The last one it had; 255 = none."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """From when to when it had voxels, s; an id that comes back has several."""
    marks: list[Mark] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it had voxels."""
        return sum(end - start for start, end in self.spans)

    @property
    def name(self) -> str:
        """Of its class."""
        return CLASS_NAMES[self.class_index] if self.class_index != IGNORE else "object"

    def row(self) -> dict[str, Any]:
        """As a row of a report."""
        events = [{"at_s": round(m.at_s, 3), "kind": m.kind, "other": m.other} for m in self.marks]
        return {"row": "id", "id": self.id, "class": self.name, "spans_s": np.round(self.spans, 3), "events": events}


class IdHistory:
    """The lives of all ids, from the states after every update."""

    def __init__(self) -> None:
        self.lives: dict[int, IdLife] = {}
        """In the order of their birth."""
        self._awake: set[int] = set()

    def add(self, at_s: float, classes: Mapping[int, int], events: Iterable[tuple[str, int, int]]) -> None:
        """Take the state after an update.

        Args:
            at_s: its time.
            classes: class index of every id that has voxels.
            events: kind, id and other of what happened.
        """
        for i, class_index in classes.items():
            life = self.lives.setdefault(i, IdLife(i, class_index))
            life.class_index = class_index
            start = life.spans.pop()[0] if i in self._awake else at_s
            life.spans.append((start, at_s))
        for i in self._awake - classes.keys():
            self.lives[i].spans[-1] = (self.lives[i].spans[-1][0], at_s)
        self._awake = set(classes)
        for kind, i, other in events:
            if kind != "updated":
                self.lives.setdefault(i, IdLife(i, IGNORE)).marks.append(Mark(at_s, kind, other))

    def counts(self) -> dict[str, int]:
        """Ids ever given, and events by kind."""
        kinds = [mark.kind for life in self.lives.values() for mark in life.marks]
        return {"ids": len(self.lives), **{kind: kinds.count(kind) for kind in ("born", "merged", "split", "retired")}}


@dataclass(frozen=True)
class Series:
    """Values over the time of the bag."""

    at_s: np.ndarray
    """[n] ascending."""
    values: dict[str, np.ndarray]
    """[n] each."""


@dataclass(frozen=True)
class StateRow:
    """Size of the map after an update."""

    at_s: float
    voxels: int
    instances: int


@dataclass
class Replay:
    """Everything that is reported of a replay. Times are seconds of the bag since its first update."""

    mode: str
    latency: Series
    """`ms` per update: direct, in fusion and segmenter; topics, from its stamp to the publication of its result."""
    stages: Series
    """ms by stage: direct, of each update; topics, the median of the last 300 updates whenever the segmenter reported."""
    states: list[StateRow]
    ids: IdHistory
    figures: dict[str, Any]
    rows: list[dict[str, Any]]
    waiting: Series | None = None
    """Topics: `updates` that waited in the segmenter's queue."""
