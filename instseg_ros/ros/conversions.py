"""Messages to the package's own types and back."""

__all__ = [
    "class_name",
    "event_to_msg",
    "header",
    "instances_to_msg",
    "ns_to_time",
    "stamp_of",
    "time_to_ns",
    "update_from_msg",
    "update_to_msg",
]

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import Header

from instseg_ros.errors import InputError
from instseg_ros.labels import CLASS_NAMES, class_to_nyu40
from instseg_ros.mapping.update import MAX_VOXELS, MapUpdate
from instseg_ros.msg import Instance as InstanceMsg
from instseg_ros.msg import InstanceArray, InstanceEvent
from instseg_ros.msg import MapUpdate as MapUpdateMsg

_EVENT_TYPES = {
    "born": InstanceEvent.BORN,
    "updated": InstanceEvent.UPDATED,
    "merged": InstanceEvent.MERGED,
    "split": InstanceEvent.SPLIT,
    "retired": InstanceEvent.RETIRED,
}


def time_to_ns(stamp: Time) -> int:
    """Integer nanoseconds of a message stamp."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_of(header: Header) -> int:
    """Integer nanoseconds of the stamp of a message that is to be believed.

    Raises:
        InputError: the stamp is negative, or its nanoseconds make more than a second.
    """
    stamp = header.stamp
    if stamp.sec < 0 or stamp.nanosec >= 1_000_000_000:
        raise InputError(f"header.stamp is {stamp.sec} s and {stamp.nanosec} ns: it must not be negative, and hold less than 1e9 ns")
    return time_to_ns(stamp)


def ns_to_time(stamp_ns: int) -> Time:
    """A message stamp of integer nanoseconds."""
    return Time(sec=int(stamp_ns // 1_000_000_000), nanosec=int(stamp_ns % 1_000_000_000))


def header(stamp_ns: int, frame_id: str) -> Header:
    """A message header."""
    return Header(stamp=ns_to_time(stamp_ns), frame_id=frame_id)


def update_from_msg(msg: MapUpdateMsg) -> MapUpdate:
    """A valid map update from a message; its arrays are copies.

    Raises:
        InputError: the message is malformed; the text names the cause and the cure.
    """
    count = len(msg.weights)
    for name, array_, expected in (("coords", msg.coords, 3 * count), ("colors", msg.colors, 3 * count)):
        if len(array_) != expected:
            raise InputError(
                f"{name} has {len(array_)} numbers, but {count} weights need {expected}: send three for each voxel"
            )
    if len(msg.deleted) % 3:
        raise InputError(f"deleted has {len(msg.deleted)} numbers: send three for each voxel")
    if count + len(msg.deleted) // 3 > MAX_VOXELS:
        raise InputError(f"{count + len(msg.deleted) // 3} voxels in one update, more than {MAX_VOXELS}: send the map in parts")
    if msg.full and len(msg.deleted):
        raise InputError("a full update names deleted voxels: leave `deleted` empty, what is not in coords is gone")
    update = MapUpdate(
        coords=np.array(msg.coords, np.int32).reshape(-1, 3),
        colors=np.array(msg.colors, np.uint8).reshape(-1, 3),
        weights=np.array(msg.weights, np.float32),
        # The shortest decimal that is this float32: 0.05 and not 0.05000000074505806.
        voxel_size_m=float(str(np.float32(msg.voxel_size))),
        frame_id=msg.header.frame_id,
        stamp_ns=stamp_of(msg.header),
        sequence=int(msg.sequence),
        full=bool(msg.full),
        deleted=np.array(msg.deleted, np.int32).reshape(-1, 3),
    )
    update.validate()
    return update


def _array(code: str, values: np.ndarray) -> array.array:
    """An array.array, which rclpy takes over at once instead of checking each number."""
    out = array.array(code)
    out.frombytes(np.ascontiguousarray(values, np.dtype(code)).tobytes())
    return out


def update_to_msg(update: MapUpdate) -> MapUpdateMsg:
    """A map update as a message."""
    return MapUpdateMsg(
        header=header(update.stamp_ns, update.frame_id),
        sequence=update.sequence,
        full=update.full,
        voxel_size=float(update.voxel_size_m),
        coords=_array("i", update.coords),
        colors=_array("B", update.colors),
        weights=_array("f", update.weights),
        deleted=_array("i", update.deleted),
    )


def class_name(class_index: int) -> str:
    """Published name of a class index."""
    return CLASS_NAMES[class_index] if 0 <= class_index < len(CLASS_NAMES) else "unlabelled"


def instances_to_msg(stamp_ns: int, frame_id: str, sequence: int, instances: Sequence[Any]) -> InstanceArray:
    """`tracking.Instance` records as a message."""
    msg = InstanceArray(header=header(stamp_ns, frame_id), sequence=sequence)
    msg.instances = [
        InstanceMsg(
            id=int(one.id),
            label=int(class_to_nyu40(np.array([one.class_index]))[0]),
            class_name=class_name(one.class_index),
            score=float(one.score),
            voxels=int(one.voxels),
            center=_point(one.center_m),
            box_min=_point(one.box_min_m),
            box_max=_point(one.box_max_m),
            first_seen=ns_to_time(one.first_seen_ns),
            last_changed=ns_to_time(one.last_changed_ns),
        )
        for one in instances
    ]
    return msg


def _point(position: Sequence[float]) -> Point:
    return Point(x=float(position[0]), y=float(position[1]), z=float(position[2]))


def event_to_msg(stamp_ns: int, frame_id: str, event: Any) -> InstanceEvent:
    """A `tracking.TrackEvent` as a message."""
    return InstanceEvent(
        header=header(stamp_ns, frame_id),
        type=_EVENT_TYPES[event.kind],
        id=int(event.id),
        other=int(event.other or 0),
        class_name=class_name(event.class_index),
    )
