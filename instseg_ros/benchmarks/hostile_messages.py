"""Messages that are wrong on purpose: every way we know in which a MapUpdate or a PointCloud2 can be, by a seed.

Each message has one intended fault, which makes it wrong whatever else is in it; the rest is random but valid, stamps of long ago and odd
sequence numbers among it, so that a node that acts on a part before it has checked the whole gives itself away.
"""

__all__ = ["FAULTS", "Fault", "HostileMessages"]

import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField

from instseg_ros.msg import MapUpdate
from instseg_ros.ros.conversions import ns_to_time

FRAME, VOXEL_M = "map", 0.05
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_FRAMES = ("odom", "/map", "map ", "MAP", "m\u0430p", "map\n[ERROR] all is well", "\x1b[31mmap", "m" * 2000, "'; DROP TABLE voxels; --")


@dataclass(frozen=True)
class Fault:
    """One way to be wrong."""

    name: str
    kind: type
    """MapUpdate or PointCloud2: what the topic carries."""
    make: Callable[["HostileMessages"], Any]
    """A message, or the bytes to send in its place."""
    says: str
    """Regular expression: what the error must say. Empty where nothing is wrong and just nothing may happen."""
    counter: str = "refused"
    """The count that every such message must raise by one, and no other."""


class HostileMessages:
    """Makes them.

    Args:
        seed: of everything random.
        stamp_ns: of the last update that the node has taken.
        sequence: of that update.
    """

    def __init__(self, seed: int, stamp_ns: int, sequence: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.stamp_ns, self.sequence = stamp_ns, sequence

    def one_of(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def update(self, full: bool | None = None) -> MapUpdate:
        """An update with nothing wrong but perhaps its age or number."""
        count = int(self.rng.integers(2, 40))
        coords = np.unique(self.rng.integers(-500, 500, (count, 3)), axis=0)
        msg = MapUpdate(sequence=int(self.one_of(0, self.sequence, self.sequence + 1, 2**64 - 1, int(self.rng.integers(2**40)))), voxel_size=VOXEL_M)
        msg.coords, msg.weights = array.array("i", coords.ravel().tolist()), array.array("f", [1.0] * len(coords))
        msg.colors = array.array("B", self.rng.integers(0, 256, coords.size).tolist())
        msg.full = bool(self.rng.random() < 0.3) if full is None else full
        if not msg.full and self.rng.random() < 0.5:
            msg.deleted = array.array("i", [600, 600, 600, 600, 600, 601])
        self._head(msg)
        return msg

    def cloud(self, colors: str = "", dense: bool = True, height: int = 1) -> PointCloud2:
        """A cloud with nothing wrong but perhaps its age."""
        width, order = int(self.rng.integers(2, 40)), self.one_of("<", ">")
        code = self.one_of("f4", "f8")
        columns = [(name, code) for name in "xyz"]
        columns += {"packed": [("rgb", self.one_of("f4", "u4"))], "separate": [(c, "u1") for c in "rgb"], "none": []}[
            colors or self.one_of("packed", "separate", "none")]
        columns += [("ring", "u2")] * int(self.rng.integers(2))
        if not colors:
            self.rng.shuffle(columns)
        dtype = np.dtype([(name, order + code) for name, code in map(tuple, columns)])
        records = np.zeros((height, width), dtype)
        for name in "xyz":
            records[name] = self.rng.uniform(-40, 40, (height, width))
        msg = PointCloud2(height=height, width=width, is_bigendian=order == ">", is_dense=dense, point_step=dtype.itemsize,
                          row_step=dtype.itemsize * width)
        numbers = {code: number for number, code in _NUMBERS.items()}
        places = [(name, dtype[name].str[1:], int(place[1])) for name, place in (dtype.fields or {}).items()]
        msg.fields = [PointField(name=name, offset=offset, datatype=numbers[code], count=1) for name, code, offset in places]
        msg.data = array.array("B", records.tobytes())
        self._head(msg)
        return msg

    def field(self, msg: PointCloud2, *names: str) -> PointField:
        """One of the named fields of a cloud."""
        return self.one_of(*(f for f in msg.fields if f.name in names))

    def set_points(self, msg: PointCloud2, values: list[float], every: bool = False) -> PointCloud2:
        """Put one of the values into a coordinate of a point, or of every point."""
        field = self.field(msg, "x", "y", "z")
        kind = np.dtype((">" if msg.is_bigendian else "<") + _NUMBERS[field.datatype])
        data = bytearray(msg.data.tobytes())
        points = msg.width * msg.height
        for point in range(points) if every else (int(self.rng.integers(points)),):
            at = point * msg.point_step + field.offset
            data[at : at + kind.itemsize] = np.array([self.one_of(*values)], kind).tobytes()
        msg.data = array.array("B", data)
        return msg

    def _head(self, msg: Any) -> None:
        age_ns = self.one_of(0, 0, int(self.rng.integers(10**9)), int(self.rng.integers(10**18)), self.stamp_ns)
        msg.header.stamp, msg.header.frame_id = ns_to_time(max(0, self.stamp_ns - age_ns)), FRAME


def _with(change: Callable[[HostileMessages, Any], Any], **wanted: Any) -> Callable[[Any], Callable[[HostileMessages], Any]]:
    """A maker for either kind: a good message, changed in place."""

    def of(good: Callable[..., Any]) -> Callable[[HostileMessages], Any]:
        def make(h: HostileMessages) -> Any:
            msg = good(h, **wanted)
            change(h, msg)
            return msg

        return make

    return of


def _update(name: str, says: str, change: Callable[[HostileMessages, Any], Any], **wanted: Any) -> Fault:
    return Fault(f"update: {name}", MapUpdate, _with(change, **wanted)(HostileMessages.update), says)


def _cloud(name: str, says: str, change: Callable[[HostileMessages, Any], Any], **wanted: Any) -> Fault:
    return Fault(f"cloud: {name}", PointCloud2, _with(change, **wanted)(HostileMessages.cloud), says)


def _cut(h: HostileMessages, numbers: Any, step: int = 1) -> None:
    """Take numbers away at the end, or add some."""
    more = int(h.rng.integers(1, 3))
    if h.rng.random() < 0.5:
        del numbers[-more * step :]
    else:
        numbers.extend([1] * (more * step))


def _bytes(name: str, kind: type, good: Callable[[HostileMessages], Any], damage: Callable[[HostileMessages, bytes], bytes]) -> Fault:
    """Bytes that are no message: only those are sent that cannot be read.

    Four bytes at a time, since DDS fills up what it carries: a message without its last byte can arrive whole. And not none at all:
    of a publisher that sent none, Fast DDS delivers nothing more to other processes, whoever listens.
    """

    def make(h: HostileMessages) -> bytes:
        while True:
            data = damage(h, serialize_message(good(h)))
            data = data[: max(4, len(data) // 4 * 4)].ljust(4, b"\0")
            try:
                deserialize_message(data, kind)
            except Exception:  # whatever the middleware raises
                return data

    what = "update" if kind is MapUpdate else "cloud"
    return Fault(f"{what}: {name}", kind, make, r"bytes are no \w+/\w+")


def _longer(h: HostileMessages, data: bytes) -> bytes:
    """A length in the message says more than follows."""
    at = 4 * int(h.rng.integers(3, len(data) // 4))
    return data[:at] + h.one_of(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x40", b"\xff\xff\xff\0") + data[at + 4 :]


def _stamp(h: HostileMessages, msg: Any) -> None:
    stamp = msg.header.stamp
    if h.rng.random() < 0.5:
        stamp.sec = int(h.rng.integers(-(2**31), 0))
    else:
        stamp.nanosec = int(h.rng.integers(10**9, 2**32))


def _ahead(h: HostileMessages, msg: Any) -> None:
    msg.header.stamp.sec = h.one_of(2**31 - 1, h.stamp_ns // 10**9 + 86400)


def _frame(h: HostileMessages, msg: Any) -> None:
    msg.header.frame_id = h.one_of(*_FRAMES)


def _both(kind: type, good: Callable[[HostileMessages], Any]) -> list[Fault]:
    """What is wrong with either kind in the same way."""
    make, garbage = (_update if kind is MapUpdate else _cloud), (lambda h, data: h.rng.bytes(int(h.rng.integers(1, 400))))
    return [
        make("foreign frame", "is in frame", _frame),
        make("no frame", "frame_id", lambda h, m: setattr(m.header, "frame_id", "")),
        make("impossible stamp", "header.stamp is", _stamp),
        make("stamp of the future", "ahead of this node's clock", _ahead),
        _bytes("bytes cut short", kind, good, lambda h, data: data[: int(h.rng.integers(1, len(data)))]),
        _bytes("bytes with a length beyond the end", kind, good, _longer),
        _bytes("bytes at random", kind, good, garbage),
        _bytes("bytes of another encoding", kind, good, lambda h, data: h.one_of(b"\0\0", b"\xff\xff", b"\0\x03", b"\0\x09") + data[2:]),
    ]


def _not_utf8(h: HostileMessages) -> bytes:
    return bytes(serialize_message(h.update())).replace(b"map\0", h.one_of(b"\xff\xfe\xfd\0", b"m\xc3(\0", b"\xed\xa0\x80\0"), 1)


def _nothing_there(h: HostileMessages) -> MapUpdate:
    h.sequence += 1
    h.stamp_ns += 1000
    msg = MapUpdate(sequence=h.sequence, voxel_size=VOXEL_M)
    msg.header.frame_id, msg.header.stamp = FRAME, ns_to_time(h.stamp_ns)
    msg.deleted = array.array("i", np.unique(h.rng.integers(700, 2000, (20, 3)), axis=0).ravel().tolist())
    return msg


def _again(h: HostileMessages) -> MapUpdate:
    msg = h.update()
    msg.sequence = max(0, h.sequence - int(h.rng.integers(0, 40)))
    msg.header.stamp = ns_to_time(h.stamp_ns - int(h.rng.integers(0, 900_000_000)))
    return msg


def _voxel_twice(h: HostileMessages, m: MapUpdate) -> None:
    m.coords[:3] = m.coords[3:6]


def _set_and_deleted(h: HostileMessages, m: MapUpdate) -> None:
    m.deleted = m.coords[:3]


def _full_and_deleted(h: HostileMessages, m: MapUpdate) -> None:
    m.full, m.deleted = True, array.array("i", [900, 0, 0])


def _far(h: HostileMessages, m: MapUpdate) -> None:
    numbers = h.one_of(m.coords, m.deleted or m.coords)
    numbers[int(h.rng.integers(len(numbers)))] = h.one_of(2**31 - 1, -(2**31), 2**20, -(2**20))


def _weight(h: HostileMessages, m: MapUpdate) -> None:
    m.weights[int(h.rng.integers(len(m.weights)))] = h.one_of(float("nan"), float("inf"), -float("inf"), 0.0, -1.0)


_UPDATES = [
    _update("coords of another length", "three for each voxel", lambda h, m: _cut(h, m.coords, h.one_of(1, 3))),
    _update("colors of another length", "three for each voxel", lambda h, m: _cut(h, m.colors, h.one_of(1, 3))),
    _update("weights of another length", "three for each voxel", lambda h, m: _cut(h, m.weights)),
    _update("deleted not in threes", "three for each voxel", lambda h, m: m.deleted.append(1)),
    _update("weight that is none", "finite and positive", _weight),
    _update("voxel twice", "more than once", _voxel_twice),
    _update("voxel set and deleted", "more than once", _set_and_deleted, full=False),
    _update("voxels beyond the map", "units and frame", _far),
    _update("another voxel size", "voxels? size|voxels are|voxel_size is", lambda h, m: setattr(
        m, "voxel_size", h.one_of(0.1, 0.0501, 0.0, -0.05, 1e30, float("nan"), float("inf"), 5.0))),
    _update("full with deletions", "leave `deleted` empty", _full_and_deleted),
    Fault("update: frame not in UTF-8", MapUpdate, _not_utf8, "is in frame"),
    Fault("update: duplicate or late", MapUpdate, _again, "", "dropped_duplicate_or_late"),
    Fault("update: deletes what is not there", MapUpdate, _nothing_there, "", "updates_applied"),
    *_both(MapUpdate, HostileMessages.update),
]


def _other_type(h: HostileMessages, m: PointCloud2, names: str, kinds: tuple[int, ...]) -> None:
    h.field(m, *names.split()).datatype = h.one_of(*kinds)


def _outside(h: HostileMessages, m: PointCloud2) -> None:
    h.field(m, "x", "y", "z", "rgb").offset = h.one_of(m.point_step - 3, m.point_step, 2**31, 2**32 - 1)


def _on_top(h: HostileMessages, m: PointCloud2) -> None:
    field = {f.name: f for f in m.fields}
    field["x"].offset = field["y"].offset + h.one_of(0, 1, 2, 3)


def _twice(h: HostileMessages, m: PointCloud2) -> None:
    field = h.field(m, "x", "y", "z", "rgb")
    m.fields = [*m.fields, PointField(name=field.name, offset=h.one_of(0, 4, 8), datatype=field.datatype, count=1)]


def _resize(h: HostileMessages, m: PointCloud2) -> None:
    name = h.one_of("width", "height")
    setattr(m, name, h.one_of(2**32 - 1, 2**31, 2**24, 10**6, getattr(m, name) + 1))


def _empty_with_data(h: HostileMessages, m: PointCloud2) -> None:
    setattr(m, h.one_of("width", "height"), 0)


def _swapped(h: HostileMessages, m: PointCloud2) -> None:
    """The flag says the other byte order: numbers whose bytes, read that way, are absurd."""
    h.set_points(m, [float(np.array([1e8, 1e20, np.nan], "<f4").view(">f4")[h.one_of(0, 1, 2)])] if m.fields[0].datatype == 7 else [
        float(np.array([1e8, 1e200, np.nan], "<f8").view(">f8")[h.one_of(0, 1, 2)])])
    m.is_bigendian = not m.is_bigendian


_CLOUDS = [
    _cloud("no such field", "no float field", lambda h, m: setattr(h.field(m, "x", "y", "z"), "name", h.one_of("", "X", "lat", "\u0445"))),
    _cloud("no fields", "no float field", lambda h, m: setattr(m, "fields", [])),
    _cloud("coordinate that is no float", "no float field", lambda h, m: _other_type(h, m, "x y z", (0, 1, 2, 3, 4, 5, 6, 9, 255))),
    _cloud("colour that is not 4 bytes", "4 bytes wide", lambda h, m: _other_type(h, m, "rgb", (0, 1, 2, 3, 4, 8, 9, 255)), colors="packed"),
    _cloud("colours that are no bytes", "must be UINT8", lambda h, m: _other_type(h, m, "r g b", (0, 1, 3, 7, 8, 255)), colors="separate"),
    _cloud("field outside of the point", "does not fit point_step", _outside),
    _cloud("field of several numbers", "does not fit point_step", lambda h, m: setattr(
        h.field(m, "x", "y", "z"), "count", h.one_of(2, 3, 1000, 2**32 - 1))),
    _cloud("fields on top of each other", "on top of each other", _on_top, colors="packed"),
    _cloud("field twice", "is named 2 times", _twice, colors="packed"),
    _cloud("no point_step", "point_step is 0", lambda h, m: setattr(m, "point_step", 0)),
    _cloud("point_step that is not the data's", "point_step", lambda h, m: setattr(
        m, "point_step", h.one_of(1, m.point_step - 1, m.point_step + 1, 2**16, 2**16 + 1, 2**32 - 1))),
    _cloud("row_step too small", "is less than width", lambda h, m: setattr(m, "row_step", int(h.rng.integers(m.row_step))), height=3),
    _cloud("more points than data", "thin it out|need [0-9]+: the message is cut short", _resize),
    _cloud("data cut short", "cut short", lambda h, m: setattr(m, "data", m.data[: int(h.rng.integers(len(m.data)))])),
    _cloud("data too long", "sizes are wrong", lambda h, m: m.data.extend(h.rng.integers(0, 256, int(h.rng.integers(1, 400))).tolist())),
    _cloud("data of no points", "sizes are wrong", _empty_with_data),
    _cloud("coordinate that is not finite", "not finite, though is_dense", lambda h, m: h.set_points(m, [np.nan, np.inf, -np.inf])),
    _cloud("no finite point", "not one of", lambda h, m: h.set_points(m, [np.nan, np.inf, -np.inf], every=True), dense=False),
    _cloud("absurd coordinates", "units and frame", lambda h, m: h.set_points(m, [1e6, -1e9, 1e30, -3e38])),
    _cloud("other byte order than said", "units and frame|not finite|not one of", _swapped, colors="packed"),
    *_both(PointCloud2, HostileMessages.cloud),
]

FAULTS = (*_UPDATES, *_CLOUDS)
"""Every class of fault."""
