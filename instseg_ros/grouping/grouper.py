"""From voxel predictions to instance segments, regrouping only the connected components that a change touches."""

__all__ = ["SPLITTERS", "Grouper"]

from collections.abc import Callable
from typing import Protocol

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.grouping.arrays import array_module
from instseg_ros.grouping.class_components import split_connected_components
from instseg_ros.grouping.components import Components, contacts
from instseg_ros.grouping.confidence import wholeness
from instseg_ros.grouping.hdbscan_grouper import split_hdbscan
from instseg_ros.grouping.mean_shift import split_mean_shift
from instseg_ros.grouping.occupancy_graph import graph_heads, split_occupancy_graph
from instseg_ros.grouping.proposals import proposal_heads, split_proposals
from instseg_ros.grouping.segmentation import Segment, Segmentation
from instseg_ros.grouping.space import space_heads
from instseg_ros.grouping.splitter import FOREGROUND, Component, Splitter, check_heads
from instseg_ros.prediction import Prediction

SPLITTERS: dict[str, Splitter] = {
    "hdbscan": split_hdbscan,
    "mean_shift": split_mean_shift,
    "connected_components": split_connected_components,
    "proposals": split_proposals,
    "occupancy_graph": split_occupancy_graph,
}
"""What splits a component, by `GroupingConfig.method`."""

_HEADS: dict[str, Callable[[GroupingConfig], list[str]]] = {
    "hdbscan": space_heads,
    "mean_shift": space_heads,
    "connected_components": lambda config: [],
    "proposals": proposal_heads,
    "occupancy_graph": graph_heads,
}
"""The heads that a method reads beside the classes."""


class Map(Protocol):
    """What grouping reads of a `mapping.voxel_map.VoxelMap`."""

    voxel_size_m: float

    @property
    def coords(self) -> np.ndarray: ...
    @property
    def colors(self) -> np.ndarray: ...
    @property
    def alive(self) -> np.ndarray: ...
    def lookup(self, coords: np.ndarray) -> np.ndarray: ...
    def live_slots(self) -> np.ndarray: ...


class Delta(Protocol):
    """What grouping reads of a `mapping.voxel_map.MapDelta`."""

    @property
    def added(self) -> np.ndarray: ...
    @property
    def changed(self) -> np.ndarray: ...
    @property
    def removed(self) -> np.ndarray: ...


class Grouper:
    """Groups the foreground of a map into instance segments and keeps them current.

    The segments are the same as if the whole map were grouped at once: a component's split depends on its own voxels only.

    Args:
        config: settings; `method` names one of `SPLITTERS`.

    Raises:
        ConfigError: there is no such method, no such device, or nothing left that the method could go by.
        MissingDependencyError: the device needs CuPy.
    """

    def __init__(self, config: GroupingConfig) -> None:
        if config.method not in SPLITTERS:
            raise ConfigError(f"grouping.method = {config.method!r}: allowed is {', '.join(SPLITTERS)}")
        array_module(config.device)
        _HEADS[config.method](config)
        self.config = config
        self._split = SPLITTERS[config.method]
        self._segments: dict[int, Segment] = {}
        self._next = 0
        self._forgotten: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Forget all segments: the next `regroup` takes the whole map anew and reports the old ones as gone."""
        self._components = Components(self.config.bridge_voxels)
        self._segments_of: dict[int, list[int]] = {}
        self._forgotten |= set(self._segments)
        self._segments.clear()
        self._segment = np.zeros(0, np.int64)
        self._started = False

    def regroup(self, voxel_map: Map, prediction: Prediction, changed: np.ndarray, delta: Delta) -> Segmentation:
        """Bring the segments up to date.

        Args:
            voxel_map: the map after the update.
            prediction: predictions by slot.
            changed: slots whose prediction changed.
            delta: what the update did to the map.

        Returns:
            All segments; the arrays and dicts in it are the grouper's own and change with the next call.

        Raises:
            ConfigError: the method reads a head that the network does not have; nothing has been grouped, and the next call takes
                the whole map anew.
        """
        try:
            check_heads(self.config.method, _HEADS[self.config.method](self.config), prediction)
        except ConfigError:
            self.reset()  # settings can change while the map grows: what this delta says would be missed
            raise
        coords = voxel_map.coords
        if len(self._segment) < len(coords):
            self._segment = np.concatenate([self._segment, np.full(len(coords) - len(self._segment), -1, np.int64)])
        if self._started:
            present = np.unique(np.concatenate([changed, delta.added, delta.changed]).astype(np.int64))
            present = present[voxel_map.alive[present]]
        else:
            present = voxel_map.live_slots()
        self._started = True
        foreground = np.isin(prediction.semantic[present].argmax(axis=1), FOREGROUND)
        change = self._components.update(voxel_map, delta.removed, present, foreground)

        old = [s for c in change.ended for s in self._segments_of.pop(c, ())]
        self._segment[delta.removed] = -1
        for s in old:
            self._segment[self._segments[s].slots] = -1
        keepable = {self._segments[s].slots.tobytes(): s for s in self._without(old, delta)}
        touched: set[int] = set()
        placed: set[int] = set()
        for component in change.begun:
            slots = self._components.members[component]
            if len(slots) < self.config.min_voxels:
                continue
            rows = prediction.take(slots)
            found = self._group(slots, Component(coords[slots], voxel_map.colors[slots], voxel_map.voxel_size_m, rows))
            if found:
                self._segments_of[component] = [self._place(segment, keepable, touched) for segment in found]
                placed.update(self._segments_of[component])
        gone = set(old) - placed
        for s in gone:
            del self._segments[s]
        gone |= self._forgotten
        self._forgotten = set()
        return Segmentation(self._segment, self._segments, touched, gone)

    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self._components.nbytes() + self._segment.nbytes + sum(one.slots.nbytes for one in self._segments.values())

    def _without(self, old: list[int], delta: Delta) -> list[int]:
        """The old segments that hold no slot whose voxel has been exchanged: only those can go on under their id."""
        if not old or not len(delta.removed):
            return old
        return [s for s in old if not np.isin(self._segments[s].slots, delta.removed).any()]

    def _place(self, segment: Segment, keepable: dict[bytes, int], touched: set[int]) -> int:
        """Enter a segment, under its old id if it holds the same voxels as before."""
        s = keepable.get(segment.slots.tobytes(), -1)
        if s < 0:
            s = self._next
            self._next += 1
            touched.add(s)
        elif (segment.class_index, segment.score) != (self._segments[s].class_index, self._segments[s].score):
            touched.add(s)
        self._segments[s] = segment
        self._segment[segment.slots] = s
        return s

    def _group(self, slots: np.ndarray, component: Component) -> list[Segment]:
        """The segments of one component, given its slots and voxels in canonical order."""
        labels, membership = self._split(component, self.config)
        labels = merge_small(component.keys, labels, self.config.min_voxels)
        semantic = component.rows.semantic
        segments = []
        for inside in _members(labels):
            mean = semantic[inside].mean(axis=0, dtype=np.float64)[FOREGROUND]
            if self.config.class_vote == "majority":
                best = int(np.bincount(semantic[inside][:, FOREGROUND].argmax(axis=1)).argmax())
            else:
                best = int(mean.argmax())
            # Membership says how sure the split was, not how likely the object is: it may halve the score, no more
            score = float(np.clip(mean[best] * (0.5 + 0.5 * membership[inside].mean()), 0.0, 1.0))
            if score >= self.config.min_score:
                score *= wholeness(component, inside, self.config)
                segments.append(Segment(slots[inside], int(FOREGROUND[best]), score))
        return segments


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of every label >= 0, ascending, by ascending label."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    return [rows for label, rows in zip(found, np.split(order, starts[1:]), strict=True) if label >= 0]


def merge_small(keys: np.ndarray, labels: np.ndarray, min_voxels: int) -> np.ndarray:
    """Give labels of fewer than `min_voxels` voxels to the large one they touch most (26-neighbourhood), or to none.

    Args:
        keys: [n] canonical keys of the voxels, ascending.
        labels: [n], -1 = none.
        min_voxels: fewest voxels that a label can keep.

    Returns:
        [n] labels, those that are left with their voxels and what they took over.
    """
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    small = np.flatnonzero((sizes > 0) & (sizes < min_voxels))
    if not len(small):
        return labels
    source, target = contacts(keys, np.flatnonzero(np.isin(labels, small)))
    large = (labels[target] >= 0) & (sizes[labels[target]] >= min_voxels)
    table = np.zeros((len(sizes), len(sizes)), np.int64)
    np.add.at(table, (labels[source[large]], labels[target[large]]), 1)
    new = np.arange(len(sizes))
    new[small] = np.where(table[small].any(axis=1), table[small].argmax(axis=1), -1)
    return np.where(labels >= 0, new[labels], -1)
