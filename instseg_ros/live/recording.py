"""What a run left on the topics: the segmented map as a listener knows it, update by update, and latencies."""

__all__ = [
    "CLOCK", "DELTA", "DIAGNOSTICS", "EVENTS", "INSTANCES", "UPDATES", "ListenerMap", "Recording", "State", "dropped", "instance_of",
    "latencies_ms", "percentiles", "read_recording", "shown_at", "states",
]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.datasets.bag_messages import decode_update, stamp_ns
from instseg_ros.instance import Instance
from instseg_ros.labels import IGNORE, nyu40_to_class
from instseg_ros.live.recorder import read_messages
from instseg_ros.mapping.update import MapUpdate, coord_keys, voxel_centers, voxel_coords
from instseg_ros.segmenter import LabelledCloud

UPDATES, DELTA, INSTANCES = "/map_updates", "/segmenter/points_delta", "/segmenter/instances"
EVENTS, DIAGNOSTICS, CLOCK = "/segmenter/events", "/diagnostics", "/clock"


@dataclass
class Recording:
    """What a run left on the topics. Times are when a message was published, in ns."""

    updates: list[tuple[int, MapUpdate]] = field(default_factory=list)
    answers: list[tuple[int, Any]] = field(default_factory=list)
    """InstanceArray messages."""
    deltas: dict[int, list[Any]] = field(default_factory=dict)
    """PointCloud2 messages of `~/points_delta` by the stamp in their header."""
    events: list[tuple[int, Any]] = field(default_factory=list)
    """InstanceEvent messages."""
    reports: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    """Name and values of every status in the diagnostics."""
    clock: list[tuple[int, int]] = field(default_factory=list)
    """When a message on /clock came, and the time it showed, ns; empty where time is not simulated."""

    @property
    def diagnostics(self) -> dict[str, dict[str, str]]:
        """The last values of each node, by the name of its status."""
        return {name: values for _, name, values in self.reports}


def read_recording(bag: Path) -> Recording:
    """Read what the figures need out of a bag."""
    found = Recording()
    for topic, at_ns, msg in read_messages(bag, UPDATES, DELTA, INSTANCES, EVENTS, DIAGNOSTICS, CLOCK):
        if topic == UPDATES:
            found.updates.append((at_ns, decode_update(msg)))
        elif topic == INSTANCES:
            found.answers.append((at_ns, msg))
        elif topic == DELTA:
            found.deltas.setdefault(stamp_ns(msg), []).append(msg)
        elif topic == EVENTS:
            found.events.append((at_ns, msg))
        elif topic == CLOCK:
            found.clock.append((at_ns, int(msg.clock.sec) * 1_000_000_000 + int(msg.clock.nanosec)))
        else:
            found.reports += [(at_ns, status.name, {pair.key: pair.value for pair in status.values}) for status in msg.status]
    found.updates.sort(key=lambda entry: entry[1].sequence)
    found.answers.sort(key=lambda entry: entry[0])
    return found


def shown_at(recording: Recording, stamp_ns: int) -> int:
    """When, by this machine's clock, /clock showed a time: between two of its messages in proportion; the time itself without /clock."""
    if not recording.clock:
        return stamp_ns
    came, shown = np.array(recording.clock, np.int64).T
    return int(came[0]) + int(np.interp(stamp_ns - shown[0], shown - shown[0], came - came[0]))


def latencies_ms(recording: Recording) -> dict[int, float]:
    """For each map update (by sequence): how long from its stamp, that of its newest image, to the first InstanceArray with it.

    With simulated time, from the moment at which the clock showed its stamp. Updates without an answer are missing.
    """
    found = {}
    for _, update in recording.updates:
        answer = next((at_ns for at_ns, msg in recording.answers if msg.sequence >= update.sequence), None)
        if answer is not None:
            found[update.sequence] = (answer - shown_at(recording, update.stamp_ns)) / 1e6
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and max; NaN without values."""
    if not len(values):
        return dict.fromkeys(("p50", "p95", "max"), float("nan"))
    p50, p95, top = np.percentile(values, (50, 95, 100))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "max": round(float(top), 1)}


def dropped(diagnostics: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """What the nodes say they lost or refused, by cause; causes that did not happen are left out."""
    causes: dict[str, int] = {}
    for values in diagnostics.values():
        for key, value in values.items():
            if (
                key.startswith(("dropped_", "refused", "poses_refused", "failures", "sequence_gaps"))
                and value.isdigit()
                and int(value)
            ):
                causes[key] = causes.get(key, 0) + int(value)
    return causes


class ListenerMap:
    """Voxels with colours from the map updates and labels from the delta clouds."""

    ROW = np.dtype(
        [
            ("coord", "i4", 3),
            ("color", "u1", 3),
            ("class_index", "u1"),
            ("instance", "u4"),
            ("confidence", "f4"),
        ]
    )

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.int64)
        self._rows = np.zeros(0, self.ROW)

    def __len__(self) -> int:
        return len(self._keys)

    def apply_update(self, update: MapUpdate) -> None:
        """Take over the voxels of a map update; new ones have no label yet."""
        if update.full:
            keep = np.isin(self._keys, coord_keys(update.coords))
            self._keys, self._rows = self._keys[keep], self._rows[keep]
        self._remove(update.deleted)
        rows = self._places(update.coords)
        self._rows["color"][rows] = update.colors

    def apply_delta(self, cloud: Any, voxel_size_m: float) -> None:
        """Take over the labels of a delta cloud; points with negative confidence are voxels that are gone."""
        kinds = {2: "u1", 4: "u2", 6: "u4", 7: "f4"}
        layout = np.dtype(
            {
                "names": [f.name for f in cloud.fields],
                "formats": [kinds[f.datatype] for f in cloud.fields],
                "offsets": [f.offset for f in cloud.fields],
                "itemsize": cloud.point_step,
            }
        )
        points = np.frombuffer(bytes(cloud.data), layout)
        coords = voxel_coords(np.stack([points[c] for c in "xyz"], axis=1), voxel_size_m)
        gone = points["confidence"] < 0
        self._remove(coords[gone])
        rows = self._places(coords[~gone])
        self._rows["class_index"][rows] = nyu40_to_class(points["label"][~gone])
        self._rows["instance"][rows] = points["instance"][~gone]
        self._rows["confidence"][rows] = points["confidence"][~gone]

    def _remove(self, coords: np.ndarray) -> None:
        if len(coords):
            keep = ~np.isin(self._keys, coord_keys(coords))
            self._keys, self._rows = self._keys[keep], self._rows[keep]

    def _places(self, coords: np.ndarray) -> np.ndarray:
        """Rows of voxels [N, 3], added where they are not there; rows are sorted by key."""
        keys = coord_keys(coords)
        fresh = ~np.isin(keys, self._keys)
        if fresh.any():
            rows = np.zeros(int(fresh.sum()), self.ROW)
            rows["coord"], rows["class_index"] = coords[fresh], IGNORE
            joined = np.concatenate([self._keys, keys[fresh]])
            order = np.argsort(joined, kind="stable")
            self._keys, self._rows = joined[order], np.concatenate([self._rows, rows])[order]
        return np.searchsorted(self._keys, keys)

    @property
    def coords(self) -> np.ndarray:
        """[N, 3] int32."""
        return self._rows["coord"].copy()

    def cloud(self, voxel_size_m: float) -> LabelledCloud:
        """The map as it is now; arrays are copies."""
        r = self._rows
        return LabelledCloud(
            voxel_centers(r["coord"], voxel_size_m),
            r["color"].copy(),
            r["class_index"].copy(),
            r["instance"].copy(),
            r["confidence"].copy(),
        )


@dataclass(frozen=True)
class State:
    """The map after one InstanceArray."""

    sequence: int
    stamp_ns: int
    coords: np.ndarray
    cloud: LabelledCloud
    instances: list[Instance]


def states(recording: Recording, voxel_size_m: float = 0.0) -> Iterator[State]:
    """The map after every InstanceArray, as the topics tell it.

    Args:
        recording: of a run from an empty map on.
        voxel_size_m: where there are no map updates (the segmenter read clouds), which say it and bring the colours.
    """
    book, waiting = ListenerMap(), [update for _, update in recording.updates]
    seen: set[int] = set()
    for _, msg in recording.answers:
        while waiting and waiting[0].sequence <= msg.sequence:
            update = waiting.pop(0)
            voxel_size_m = update.voxel_size_m
            book.apply_update(update)
        at_ns = stamp_ns(msg)
        if at_ns not in seen:
            seen.add(at_ns)
            for delta in recording.deltas.get(at_ns, []):
                book.apply_delta(delta, voxel_size_m)
        yield State(
            int(msg.sequence), at_ns, book.coords, book.cloud(voxel_size_m), [instance_of(one) for one in msg.instances]
        )


def instance_of(msg: Any) -> Instance:
    """An Instance message as the package's own record."""

    def point(p: Any) -> np.ndarray:
        return np.array([p.x, p.y, p.z], np.float32)

    def time_ns(t: Any) -> int:
        return int(t.sec) * 1_000_000_000 + int(t.nanosec)

    return Instance(
        int(msg.id),
        int(nyu40_to_class(np.array([msg.label]))[0]),
        float(msg.score),
        int(msg.voxels),
        point(msg.center),
        point(msg.box_min),
        point(msg.box_max),
        time_ns(msg.first_seen),
        time_ns(msg.last_changed),
    )
