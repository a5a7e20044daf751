"""Lasting ids: segments are matched to the instances known so far by the voxels they share."""

__all__ = ["InstanceTracker"]

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from instseg_ros.config import TrackingConfig
from instseg_ros.errors import DataError
from instseg_ros.grouping.segmentation import Segment, Segmentation
from instseg_ros.instance import Instance, TrackEvent, pack_instances, unpack_instances
from instseg_ros.mapping.update import coord_keys, voxel_centers
from instseg_ros.matching import assign, highest, main_owner, replacements, tally
from instseg_ros.voxel_history import VoxelHistory


@dataclass(frozen=True)
class _Dormant:
    """An instance without voxels that can still come back."""

    instance: Instance
    slots: np.ndarray
    """Of the voxels it had, those that still exist or whose place was taken by one beside them."""
    deadline: int
    merged_into: int


_SETTLED = 4
"""A voxel that was part of an instance for so many updates gives it all votes of a home,"""
_HOME_VOTES = 4.0
"""which are so many."""
_SENIORITY = 0.5
"""Votes grow with the updates that an instance has been there, to this power: what has just come gives way."""
_TRACE = 0.1
"""A segment that nobody claims takes the id of an instance without a segment that had this share of its voxels there,"""
_TRACE_VOXELS = 5
"""and at least so many."""


class Map(Protocol):
    """What tracking reads of a `mapping.voxel_map.VoxelMap`."""

    voxel_size_m: float

    @property
    def coords(self) -> np.ndarray: ...


class Delta(Protocol):
    """What tracking reads of a `mapping.voxel_map.MapDelta`."""

    @property
    def added(self) -> np.ndarray: ...
    @property
    def removed(self) -> np.ndarray: ...
    @property
    def removed_coords(self) -> np.ndarray: ...


class InstanceTracker:
    """Gives segments ids that stay with their objects.

    Every voxel of a segment votes for the instance that it is part of, for those asleep that it was part of, and for the one
    that it was part of for the longest time, its home. So an id stays with the object it began on when segments join and come
    apart; of two that join, the one that has been there for longer has more weight. What would get a new id takes that of an
    instance that would end, if this one has left a trace in it. Where fusion moves a surface by a voxel, the new voxel takes over
    the votes of the one that it replaces.

    Only instances whose segments changed are looked at. An instance that loses its segment, or is absorbed by another, is
    remembered for `retire_after` updates with the voxels it had; a segment that appears on them takes the old id. Ids are never
    given to another object.

    Args:
        config: thresholds.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self._history = VoxelHistory()
        self.instances: dict[int, Instance] = {}
        self._dormant: dict[int, _Dormant] = {}
        self._deadlines: deque[tuple[int, int]] = deque()
        self._slots: dict[int, np.ndarray] = {}
        self._id_of_segment: dict[int, int] = {}
        self._next_id = 1
        self._updates = 0
        self._bound = True  # false after loading: which segment an instance is made of is not known then
        self._loose: set[int] = set()  # segments that `bind` found no instance for, and instances without a segment
        self._orphans: set[int] = set()

    @property
    def instance_of(self) -> np.ndarray:
        """[capacity] uint32 instance id per slot, 0 = none."""
        return self._history.instance_of

    def slots_of(self, i: int) -> np.ndarray:
        """Slots [n] of the voxels of an instance that has some."""
        return self._alive(i)

    def associate(self, segmentation: Segmentation, voxel_map: Map, stamp_ns: int, delta: Delta) -> list[TrackEvent]:
        """Match the segments that changed to the instances they were made of.

        Args:
            segmentation: the segments after the update.
            voxel_map: the map after the update.
            stamp_ns: time of the update.
            delta: what the update did to the map; slots removed or added hold other voxels now.

        Returns:
            Events, first of the changed segments in the order of their first voxel, then of instances that lost theirs.
        """
        self._updates += 1
        self._history.fit(len(voxel_map.coords))
        segment_ids, old_ids = self._involved(segmentation, voxel_map)
        segments = [segmentation.segments[s] for s in segment_ids]
        self._replace_voxels(voxel_map, delta)
        fresh = np.zeros(len(self.instance_of), bool)
        fresh[delta.added] = True
        owners = self._match(segments, old_ids)
        return self._apply(segment_ids, segments, fresh, owners, old_ids, voxel_map, stamp_ns) + self._expire()

    def _replace_voxels(self, voxel_map: Map, delta: Delta) -> None:
        """Hand what is known of removed voxels to the added ones that replace them."""
        known = (self.instance_of[delta.removed] > 0) | (self._history.home[delta.removed] > 0)
        heirs = np.full(len(delta.removed), -1, np.int64)
        heirs[known] = replacements(delta.removed_coords[known], delta.added, voxel_map.coords[delta.added])
        taken = self._history.replace(delta.removed, delta.added, heirs)
        for i in np.unique(self.instance_of[taken]).tolist():
            if i:
                self._slots[i] = np.union1d(self._slots[i], taken[self.instance_of[taken] == i])
        if len(delta.removed):
            order = np.argsort(delta.removed)
            removed, heirs = delta.removed[order], heirs[order]
            self._dormant = {i: replace(d, slots=_moved(d.slots, removed, heirs)) for i, d in self._dormant.items()}

    def _involved(self, segmentation: Segmentation, voxel_map: Map) -> tuple[list[int], list[int]]:
        """Changed segments in the order of their first voxel, and the instances (ascending) that may lose or change theirs."""
        if self._bound:
            touched = segmentation.touched | (self._loose & segmentation.segments.keys())
            old = {self._id_of_segment.pop(s) for s in touched | segmentation.gone if s in self._id_of_segment} | self._orphans
        else:
            touched, old = set(segmentation.segments), set(self.instances)
        self._bound, self._loose, self._orphans = True, set(), set()
        ids = sorted(touched)
        if ids:
            first = np.array([segmentation.segments[s].slots[0] for s in ids])
            ids = [ids[k] for k in np.argsort(coord_keys(voxel_map.coords[first]))]
        return ids, sorted(old)

    def _match(self, segments: list[Segment], old_ids: list[int]) -> list[int]:
        """The id of an instance for every segment, 0 for those that nobody claims: the assignment of most votes."""
        if not segments:
            return []
        slots = np.concatenate([s.slots for s in segments])
        column = np.repeat(np.arange(len(segments)), [len(s.slots) for s in segments])
        shared = tally(self.instance_of[slots], column)
        sizes = {i: len(self._alive(i)) for i in old_ids}
        order = np.argsort(slots)
        ordered = slots[order]
        for i, dormant in self._dormant.items():
            at = np.minimum(np.searchsorted(ordered, dormant.slots), len(ordered) - 1)
            found = column[order[at[ordered[at] == dormant.slots]]]
            for k, n in zip(*np.unique(found, return_counts=True), strict=True):
                shared[i, int(k)] = int(n)
                sizes[i] = len(dormant.slots)
        home, tenure = self._history.longest(slots, self._updates, self._exists)
        loyal = tally(home, column, _HOME_VOTES * np.minimum(tenure / _SETTLED, 1.0))
        longest = highest(home, column, tenure)
        ids = sorted(sizes)
        row_of = {i: r for r, i in enumerate(ids)}
        claims, traces = [], []
        for (i, k), count in shared.items():
            size, other = sizes[i], len(segments[k].slots)
            iou, contained = count / (size + other - count), count / min(size, other)
            votes = (count + loyal.get((i, k), 0.0)) * (1.0 + longest.get((i, k), 0.0)) ** _SENIORITY
            if i not in self.instances:
                votes *= 1.0 - 1e-9  # a living instance wins a tie
            if iou >= self.config.min_overlap or contained >= self.config.min_contained:
                claims.append((row_of[i], k, votes))
            elif count >= max(_TRACE * size, _TRACE_VOXELS):
                traces.append((row_of[i], k, votes))
        chosen = assign(claims, len(ids), len(segments))
        rows, columns = {r for r, _ in chosen}, {k for _, k in chosen}
        free = [(r, k, votes) for r, k, votes in traces if r not in rows and k not in columns]
        owners = [0] * len(segments)
        for r, k in chosen + assign(free, len(ids), len(segments)):
            owners[k] = ids[r]
        return owners

    def _exists(self, i: int) -> bool:
        """Is there an instance of this id, awake or asleep?"""
        return i in self.instances or i in self._dormant

    def _alive(self, i: int) -> np.ndarray:
        """Slots of an instance whose voxels still exist or were replaced."""
        slots = self._slots[i]
        return slots[self.instance_of[slots] == i]

    def _label(self, slots: np.ndarray, i: int) -> None:
        self._history.label(slots, i, self._updates, self._exists)

    def _apply(
        self, segment_ids: list[int], segments: list[Segment], fresh: np.ndarray, owners: list[int], old_ids: list[int],
        voxel_map: Map, stamp_ns: int,
    ) -> list[TrackEvent]:
        """Write the new ids and say what changed; `fresh` [capacity] marks the slots of new voxels."""
        events: list[TrackEvent] = []
        before = [self.instance_of[s.slots] for s in segments]
        lost = {i: self._alive(i) for i in old_ids}
        kept = np.zeros(len(self.instance_of), bool)
        for segment in segments:
            kept[segment.slots] = True
        for slots in lost.values():
            self._label(slots[~kept[slots]], 0)
        for s, segment, previous, owner in zip(segment_ids, segments, before, owners, strict=True):
            event = self._event(segment, previous, owner, bool(fresh[segment.slots].any()))
            i = event.id if event else owner
            if event:
                events.append(event)
                self._enter(i, segment, voxel_map, stamp_ns)
            self._id_of_segment[s] = i
            self._slots[i] = segment.slots
            self._label(segment.slots, i)
        for i in sorted(set(old_ids) - set(owners)):
            events += self._lose(i, lost[i])
        return events

    def _event(self, segment: Segment, previous: np.ndarray, owner: int, fresh: bool) -> TrackEvent | None:
        """What a segment means for the instance `owner` (0 = a new one); None if nothing changed. Deals out new ids.

        `previous` are the instances of its voxels before, `fresh` is whether some of these are new.
        """
        if owner in self.instances:
            known = self.instances[owner]
            same_voxels = not fresh and len(previous) == known.voxels and bool((previous == owner).all())
            if same_voxels and (segment.class_index, segment.score) == (known.class_index, known.score):
                return None
            return TrackEvent("updated", owner, 0, segment.class_index)
        source = main_owner(previous, len(previous))
        if owner:
            merged_into = self._dormant[owner].merged_into
            if not merged_into:
                return TrackEvent("updated", owner, 0, segment.class_index)
            return TrackEvent("split", owner, source or merged_into, segment.class_index)
        self._next_id += 1
        return TrackEvent("split" if source else "born", self._next_id - 1, source, segment.class_index)

    def _enter(self, i: int, segment: Segment, voxel_map: Map, stamp_ns: int) -> None:
        """Describe the instance by its segment."""
        coords = voxel_map.coords[segment.slots]
        known = self.instances.get(i)
        if known is None and i in self._dormant:
            known = self._dormant.pop(i).instance
        size = voxel_map.voxel_size_m
        self.instances[i] = Instance(
            i, segment.class_index, segment.score, len(coords),
            center_m=voxel_centers(coords.mean(axis=0, dtype=np.float64)[None], size)[0],
            box_min_m=(coords.min(axis=0) * size).astype(np.float32),
            box_max_m=((coords.max(axis=0) + 1) * size).astype(np.float32),
            first_seen_ns=known.first_seen_ns if known else stamp_ns,
            last_changed_ns=stamp_ns,
        )

    def _lose(self, i: int, slots: np.ndarray) -> list[TrackEvent]:
        """Put an instance to sleep that lost its segment; `slots` are those of its voxels that still exist."""
        instance = self.instances.pop(i)
        del self._slots[i]
        if not len(slots):
            return [TrackEvent("retired", i, 0, instance.class_index)]
        own = slots[self._history.home[slots] == i]  # without what it had absorbed, if that has come apart
        heart = own if len(own) else slots
        into = main_owner(self.instance_of[heart], len(heart))
        deadline = self._updates + self.config.retire_after
        self._dormant[i] = _Dormant(instance, slots, deadline, into)
        self._deadlines.append((deadline, i))
        return [TrackEvent("merged", i, into, instance.class_index)] if into else []

    def _expire(self) -> list[TrackEvent]:
        """Retire the instances that were asleep for too long; a merged one has been announced already."""
        events = []
        while self._deadlines and self._deadlines[0][0] <= self._updates:
            deadline, i = self._deadlines.popleft()
            dormant = self._dormant.get(i)
            if dormant is not None and dormant.deadline == deadline:
                del self._dormant[i]
                if not dormant.merged_into:
                    events.append(TrackEvent("retired", i, 0, dormant.instance.class_index))
        return events

    def bind(self, segmentation: Segmentation) -> None:
        """After loading: say which segments there are, of the same map. An instance goes on with the one that has just its voxels.

        What finds no counterpart, because network or settings are others, is matched by votes with the next `associate`.
        """
        self._id_of_segment = {}
        for s, segment in segmentation.segments.items():
            i = int(self.instance_of[segment.slots[0]])
            if i and len(segment.slots) == len(self._slots[i]) and (self.instance_of[segment.slots] == i).all():
                self._id_of_segment[s] = i
                self.instances[i] = replace(self.instances[i], class_index=segment.class_index, score=segment.score)
        self._bound = True
        self._loose = segmentation.segments.keys() - self._id_of_segment.keys()
        self._orphans = self.instances.keys() - set(self._id_of_segment.values())

    def nbytes(self) -> int:
        """Memory of the arrays, bytes; slots of instances are those of their segments, and counted there."""
        return self._history.nbytes() + sum(one.slots.nbytes for one in self._dormant.values())

    def state(self) -> dict[str, np.ndarray]:
        """Everything that ids depend on, as plain arrays (per slot of the map it was used with)."""
        asleep = [self._dormant[i] for i in sorted(self._dormant)]
        return {
            **self._history.state(),
            "counters": np.array([self._next_id, self._updates], np.int64),
            **pack_instances("live", [self.instances[i] for i in sorted(self.instances)]),
            **pack_instances("dormant", [d.instance for d in asleep]),
            "dormant.deadline": np.array([d.deadline for d in asleep], np.int64),
            "dormant.merged_into": np.array([d.merged_into for d in asleep], np.int64),
            "dormant.remembered": np.array([len(d.slots) for d in asleep], np.int64),
            "dormant.slots": np.concatenate([np.zeros(0, np.int32), *(d.slots for d in asleep)]).astype(np.int32),
        }

    @classmethod
    def from_state(cls, config: TrackingConfig, state: dict[str, np.ndarray]) -> "InstanceTracker":
        """A tracker that goes on where `state` was taken; the map's slots must be the same.

        The first `associate` looks at all segments, as a fresh grouper gives them other segment ids; unless `bind` is told them before.

        Raises:
            DataError: arrays are missing or do not fit together.
        """
        tracker = cls(config)
        try:
            tracker._history = VoxelHistory.from_state(state)
            tracker._next_id, tracker._updates = (int(v) for v in state["counters"])
            tracker.instances = {i.id: i for i in unpack_instances("live", state)}
            memory = np.split(state["dormant.slots"].astype(np.int32), np.cumsum(state["dormant.remembered"]))[:-1]
            asleep = zip(
                unpack_instances("dormant", state), memory, state["dormant.deadline"], state["dormant.merged_into"], strict=True
            )
            tracker._dormant = {i.id: _Dormant(i, slots, int(deadline), int(into)) for i, slots, deadline, into in asleep}
        except (KeyError, ValueError) as error:
            raise DataError(f"the saved ids are damaged ({error!r}): start afresh, or load another file") from error
        tracker._deadlines = deque(sorted((d.deadline, i) for i, d in tracker._dormant.items()))
        tracker._slots = _slots_by_id(tracker.instance_of)
        known, capacity = {*tracker.instances, *tracker._dormant}, len(tracker.instance_of)
        if (
            set(tracker._slots) != set(tracker.instances) or max(known, default=0) >= tracker._next_id
            or any(len(d.slots) and not 0 <= d.slots.min() <= d.slots.max() < capacity for d in tracker._dormant.values())
        ):
            raise DataError("the saved ids are damaged (voxels and instances disagree): start afresh, or load another file")
        tracker._bound = False
        return tracker


def _moved(slots: np.ndarray, removed: np.ndarray, heirs: np.ndarray) -> np.ndarray:
    """Slots with those removed (ascending) replaced by their heirs, or left out where there is none (-1)."""
    at = np.minimum(np.searchsorted(removed, slots), len(removed) - 1)
    hit = removed[at] == slots
    if not hit.any():
        return slots
    new = heirs[at[hit]]
    return np.union1d(slots[~hit], new[new >= 0]).astype(np.int32)


def _slots_by_id(instance_of: np.ndarray) -> dict[int, np.ndarray]:
    slots = np.flatnonzero(instance_of).astype(np.int32)
    order = np.argsort(instance_of[slots], kind="stable")
    ids, starts = np.unique(instance_of[slots][order], return_index=True)
    return dict(zip(ids.tolist(), np.split(slots[order], starts[1:]), strict=True)) if len(ids) else {}
