"""How a bag is played through topics: which of its topics, under which names, and what the nodes must be told."""

__all__ = ["Playback", "PlayedTopic", "plan_playback", "played_messages"]

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from instseg_ros.datasets.bag_messages import decode_color, decode_depth, stamp_ns
from instseg_ros.datasets.bags import MAP_UPDATE, TF, BagSequence, BagTopics, listing, open_bag, open_reader
from instseg_ros.errors import DataError

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
MAX_OFFSET_NS = 5_000_000_000
"""Stamps farther than this from the times of recording are of another clock (simulated, or replayed when recorded)."""


@dataclass(frozen=True)
class PlayedTopic:
    """A topic of the bag."""

    recorded: str
    """Its name in the bag."""
    recorded_type: str
    name: str
    """The name it is played under: that in the bag, except for compressed images, which are played raw."""
    msgtype: str
    role: str
    """The name our nodes have for it: depth, color, camera_info, pose, map_updates, map_points; empty for /tf."""


@dataclass(frozen=True)
class Playback:
    """What is played of a bag."""

    path: Path
    topics: tuple[PlayedTopic, ...]
    frame: str
    """Frame of the map."""
    start_ns: int
    """Of the clock, at the first message."""
    end_ns: int
    """At the last one."""
    offset_ns: int
    """Clock minus time of recording; 0 unless the stamps are of another clock."""
    counts: dict[str, int] = field(default_factory=dict)
    """Messages by role."""
    delta_clouds: bool = False
    fixed_frame: str = ""
    """As asked for."""

    @property
    def images(self) -> bool:
        """Whether it has to be fused."""
        return any(topic.role == "depth" for topic in self.topics)

    @property
    def remappings(self) -> dict[str, str]:
        """Played name by role."""
        return {topic.role: topic.name for topic in self.topics if topic.role}

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """What the nodes must be told, by node."""
        segmenter = {"input.frame": self.frame, **({"input.points_mode": "delta"} if self.delta_clouds else {})}
        source = "topic" if "pose" in self.remappings else "tf"
        return {"segmenter": segmenter, "fusion": {"pose.frame": self.frame, "pose.source": source}} if self.images else {"segmenter": segmenter}


def plan_playback(path: Path | str, topics: BagTopics | None = None) -> Playback:
    """Find out what of a bag is to be played.

    Raises:
        DataError: no bag, damaged, or without usable topics or messages on them.
    """
    topics = topics or BagTopics()
    source = open_bag(path, topics)
    if isinstance(source, BagSequence):
        names = {role: getattr(source.topics, role) for role in ("depth", "color", "camera_info", "pose")}
    else:
        names = {"map_updates" if source.msgtype == MAP_UPDATE else "map_points": source.topic}
    with open_reader(source.path) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
        wanted = {name: role for role, name in names.items() if name}
        if isinstance(source, BagSequence) and not source.topics.pose:
            wanted |= {topic: "" for topic, kind in types.items() if kind == TF}
        played = tuple(_played(topic, types[topic], role) for topic, role in wanted.items())
        counts = {role: sum(c.msgcount for c in reader.connections if c.topic == name) for name, role in wanted.items() if role}
        at_ns, msg = _first(reader, next(iter(wanted)), path)
        frame = source.target_frame if isinstance(source, BagSequence) else msg.header.frame_id
        if names.get("pose"):
            frame = _first(reader, names["pose"], path)[1].header.frame_id
        offset_ns = stamp_ns(msg) - at_ns
        offset_ns = offset_ns if abs(offset_ns) > MAX_OFFSET_NS else 0
        span = min(reader.start_time + offset_ns, stamp_ns(msg)), reader.end_time - 1 + offset_ns
        return Playback(source.path, played, frame, *span, offset_ns, counts, topics.delta_clouds, topics.fixed_frame)


def _first(reader: AnyReader, topic: str, path: Path | str) -> tuple[int, Any]:
    """Time of recording and message of the first one on a topic."""
    for connection, at_ns, raw in reader.messages([c for c in reader.connections if c.topic == topic]):
        return at_ns, reader.deserialize(raw, connection.msgtype)
    raise DataError(f"{path} has no message on {topic}. It holds {listing(reader.connections)}")


def played_messages(plan: Playback) -> Iterator[tuple[int, PlayedTopic, bytes]]:
    """Time on the clock (ns), topic and serialised message (CDR) of all that is played, in the order of recording.

    Raises:
        DataError: the bag is damaged.
    """
    by_name = {topic.recorded: topic for topic in plan.topics}
    store = get_typestore(Stores.ROS2_JAZZY)
    with open_reader(plan.path) as reader:
        for connection, at_ns, raw in reader.messages([c for c in reader.connections if c.topic in by_name]):
            topic = by_name[connection.topic]
            if topic.recorded_type == COMPRESSED_IMAGE:
                content = _decompressed(store, reader.deserialize(raw, connection.msgtype), topic.role)
            elif reader.is2:
                content = bytes(raw)
            else:
                content = bytes(reader.typestore.ros1_to_cdr(raw, connection.msgtype))
            yield at_ns + plan.offset_ns, topic, content


def _played(name: str, msgtype: str, role: str) -> PlayedTopic:
    if msgtype != COMPRESSED_IMAGE:
        return PlayedTopic(name, msgtype, name, msgtype, role)
    base, _, transport = name.rpartition("/")
    raw = base if base and transport in ("compressed", "compressedDepth") else f"{name}/raw"
    return PlayedTopic(name, msgtype, raw, "sensor_msgs/msg/Image", role)


def _decompressed(store: Typestore, msg: Any, role: str) -> bytes:
    """A compressed image as a raw one, 16UC1 or rgb8."""
    if role == "depth":
        pixels, encoding = np.clip(np.rint(decode_depth(msg) * 1000.0), 0, 65535).astype("<u2"), "16UC1"
    else:
        pixels, encoding = decode_color(msg), "rgb8"
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    msg_type = "sensor_msgs/msg/Image"
    image = store.types[msg_type](msg.header, height, width, encoding, 0, len(data) // height, data)
    return bytes(store.serialize_cdr(image, msg_type))
