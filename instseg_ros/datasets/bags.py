"""ROS bags (mcap and sqlite3, compressed or not) without ROS: RGB-D topics as frames, map topics as updates."""

__all__ = ["BagSequence", "BagTopics", "BagUpdates", "is_bag", "listing", "open_bag", "open_reader"]

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from instseg_ros.datasets.bag_messages import (
    TransformTree,
    decode_cloud,
    decode_color,
    decode_depth,
    decode_update,
    pose_matrix,
    stamp_ns,
)
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.images import resample_color
from instseg_ros.errors import DataError, InstSegError
from instseg_ros.mapping.update import MapUpdate

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
TF = "tf2_msgs/msg/TFMessage"
CLOUD = "sensor_msgs/msg/PointCloud2"
MAP_UPDATE = "instseg_ros/msg/MapUpdate"
PAIR_TOLERANCE_NS = 20_000_000
NAMED_BY = "Topics are named with --depth-topic, --color-topic, --camera-info-topic, --pose-topic or --map-topic"


@dataclass(frozen=True)
class BagTopics:
    """Which topics to read; empty = chosen by type and name."""

    depth: str = ""
    color: str = ""
    camera_info: str = ""
    """CameraInfo of the depth image."""
    pose: str = ""
    """PoseStamped of the camera's optical frame; without one the pose comes from /tf."""
    map: str = ""
    """MapUpdate or PointCloud2 of a map; if given, images are not looked for."""
    fixed_frame: str = ""
    """Frame of the map where the pose comes from /tf; empty = the root of the tree."""
    delta_clouds: bool = False
    """PointCloud2 messages add to the map (true) or each is the whole map (false)."""


@dataclass(frozen=True)
class BagUpdates:
    """The map updates of one topic."""

    path: Path
    topic: str
    msgtype: str
    voxel_size_m: float
    count: int
    delta_clouds: bool = False

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[MapUpdate]:
        with open_reader(self.path) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            for sequence, (connection, _, raw) in enumerate(reader.messages(connections)):
                msg = reader.deserialize(raw, connection.msgtype)
                if self.msgtype == MAP_UPDATE:
                    yield decode_update(msg)
                else:
                    yield decode_cloud(msg, self.voxel_size_m, sequence, full=not self.delta_clouds)


@dataclass(frozen=True)
class BagSequence:
    """RGB-D frames of a bag; colour is the image nearest in time, the pose is read between the recorded ones."""

    path: Path
    topics: BagTopics
    K: np.ndarray
    K_color: np.ndarray | None
    transforms: TransformTree = field(repr=False)
    target_frame: str
    source_frame: str
    """Frames between which the pose is looked up; empty = that of the depth images."""
    count: int
    stride: int = 1

    @property
    def name(self) -> str:
        """Name of the bag."""
        return self.path.stem

    def __len__(self) -> int:
        return self.count

    def select(self, stride: int = 1, max_frames: int = 0) -> "BagSequence":
        """Every `stride`-th frame, at most `max_frames` of them (0 = all)."""
        count = -(-self.count // stride)
        return replace(self, stride=self.stride * stride, count=min(count, max_frames) if max_frames else count)

    def __iter__(self) -> Iterator[RgbdFrame]:
        """Frames in the order of time; depth images without colour within 20 ms or without a pose are left out.

        Raises:
            DataError: a message is damaged or of an encoding that is not read; or not one frame is complete.
        """
        given = 0
        with open_reader(self.path) as reader:
            for index, (depth, color) in enumerate(_pairs(reader, self.topics.depth, self.topics.color)):
                if given == self.count:
                    break
                if index % self.stride:
                    continue
                at_ns = stamp_ns(depth)
                T_world_camera = self.transforms.lookup(self.target_frame, self.source_frame or depth.header.frame_id, at_ns)
                if T_world_camera is None:
                    continue
                depth_m = decode_depth(depth)
                colors = resample_color(decode_color(color), depth_m.shape, self.K, self.K_color)
                given += 1
                yield RgbdFrame(at_ns, depth_m, colors, self.K, T_world_camera)
        if not given:
            raise DataError(
                f"{self.path}: no depth image of {self.topics.depth} has a colour image of {self.topics.color} within "
                f"{PAIR_TOLERANCE_NS // 1_000_000} ms and a pose: "
                f"check the stamps, and that {self.topics.pose or '/tf'} was recorded throughout"
            )


def is_bag(path: Path | str) -> bool:
    """Whether a path is a bag: a file, or a folder with the metadata of one."""
    path = Path(path)
    if path.is_file():
        return path.suffix in (".mcap", ".db3", ".bag")
    return (path / "metadata.yaml").is_file() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))


def open_bag(path: Path | str, topics: BagTopics | None = None, voxel_size_m: float = 0.05) -> BagSequence | BagUpdates:
    """Find the RGB-D or the map topics of a bag.

    A MapUpdate topic comes first, then depth images, then a PointCloud2; a topic named in `topics` decides.

    Args:
        path: folder of a rosbag2 recording, or a single .mcap, .db3 or .bag file.
        topics: which topics to read, and how.
        voxel_size_m: voxel size into which clouds are put.

    Raises:
        DataError: no bag, or the topics needed are missing; the message lists those found.
    """
    path, topics = Path(path), topics or BagTopics()
    if path.is_file() and path.suffix in (".db3", ".mcap") and (path.parent / "metadata.yaml").is_file():
        path = path.parent
    with open_reader(path) as reader:
        connections = list(reader.connections)
        _check_named(path, topics, connections)
        updates = _choose(connections, (MAP_UPDATE,), topics.map)
        depth = _choose(connections, IMAGES, topics.depth, ("depth",))
        clouds = _choose(connections, (CLOUD,), topics.map)
        if topics.map or (updates and not topics.depth):
            return _updates(path, reader, topics.map or updates, topics, voxel_size_m)
        if depth:
            return _sequence(path, reader, depth, topics)
        if clouds:
            return _updates(path, reader, clouds, topics, voxel_size_m)
        raise DataError(
            f"{path} has neither depth images nor map updates nor clouds. It holds {listing(connections)}. "
            f"{NAMED_BY}"
        )


@contextmanager
def open_reader(path: Path) -> Iterator[AnyReader]:
    """A reader of a bag, closed afterwards; what goes wrong with the bag is a `DataError`."""
    if not path.exists():
        raise DataError(f"{path} is missing: give a bag's folder or a .mcap, .db3 or .bag file")
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except Exception as error:  # rosbags' own errors, and whatever damaged bytes make of YAML, SQLite and zstd
        raise DataError(
            f"{path} cannot be opened as a bag ({error}): if the recorder was killed, run `ros2 bag reindex` on it"
        ) from error
    try:
        yield reader
    except InstSegError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} is damaged, or ends too early ({type(error).__name__}: {error}): copy or record it again. It holds {listing(reader.connections)}"
        ) from error
    finally:
        reader.close()


def listing(connections: Sequence[Connection]) -> str:
    """The topics of a bag, as errors name them."""
    return ", ".join(sorted(f"{c.topic} ({c.msgtype}, {c.msgcount} messages)" for c in connections)) or "no topics"


def _check_named(path: Path, topics: BagTopics, connections: Sequence[Connection]) -> None:
    present = {c.topic for c in connections}
    for one in fields(topics):
        name = getattr(topics, one.name)
        if one.name in ("depth", "color", "camera_info", "pose", "map") and name and name not in present:
            raise DataError(f"{path} has no topic {name}. It holds {listing(connections)}. {NAMED_BY}")


def _choose(
    connections: Sequence[Connection], types: Sequence[str], named: str, words: Sequence[str] = (), without: Sequence[str] = ()
) -> str:
    """The topic named, or the one of these types whose name holds the words; most messages first. Empty = none."""
    if named:
        return named
    fitting = [
        c
        for c in connections
        if c.msgtype in types and all(w in c.topic.lower() for w in words) and not any(w in c.topic.lower() for w in without)
    ]
    fitting.sort(key=lambda c: (-c.msgcount, IMAGES.index(c.msgtype) if c.msgtype in IMAGES else 0, len(c.topic), c.topic))
    return fitting[0].topic if fitting else ""


def _updates(path: Path, reader: AnyReader, topic: str, topics: BagTopics, voxel_size_m: float) -> BagUpdates:
    connections = [c for c in reader.connections if c.topic == topic]
    _check_filled(path, reader, topic)
    msgtype = connections[0].msgtype
    if msgtype not in (MAP_UPDATE, CLOUD):
        raise DataError(f"{topic} of {path} is {msgtype}: a map topic is {MAP_UPDATE} or {CLOUD}")
    if msgtype == MAP_UPDATE:
        for _, _, raw in reader.messages(connections):
            voxel_size_m = decode_update(reader.deserialize(raw, msgtype)).voxel_size_m
            break
    return BagUpdates(path, topic, msgtype, voxel_size_m, sum(c.msgcount for c in connections), topics.delta_clouds)


def _check_filled(path: Path, reader: AnyReader, topic: str) -> None:
    if not sum(c.msgcount for c in reader.connections if c.topic == topic):
        raise DataError(f"{path} has no message on {topic}. It holds {listing(reader.connections)}. {NAMED_BY}")


def _sequence(path: Path, reader: AnyReader, depth: str, topics: BagTopics) -> BagSequence:
    connections = list(reader.connections)
    _check_filled(path, reader, depth)
    color = _choose(connections, IMAGES, topics.color, ("color",), ("depth",)) or _choose(
        connections, IMAGES, "", ("rgb",), ("depth",)
    )
    color = color or _choose(connections, IMAGES, "", (), ("depth", "infra", "mask", "label", "instance"))
    camera_info = topics.camera_info or _near(connections, depth, ("depth",))
    pose = _choose(connections, (POSE,), topics.pose)
    has_tf = any(c.msgtype == TF for c in connections)
    missing = [
        name
        for name, found in (("a colour image", color), ("a CameraInfo", camera_info), ("a PoseStamped or /tf", pose or has_tf))
        if not found
    ]
    if missing:
        raise DataError(f"{path} has depth on {depth}, but lacks {' and '.join(missing)}. It holds {listing(connections)}. {NAMED_BY}")
    color_info = _near(connections, color, ())
    K, frame_id = _intrinsics(path, reader, camera_info)
    K_color = _intrinsics(path, reader, color_info)[0] if color_info and color_info != camera_info else None
    if K_color is not None and np.allclose(K_color, K):
        K_color = None
    transforms = TransformTree()
    if pose:
        _read_poses(reader, pose, transforms)
        target, source = "world", "camera"
    else:
        _read_tf(reader, transforms)
        target, source = topics.fixed_frame.lstrip("/") or transforms.root(frame_id), ""
        if topics.fixed_frame and transforms.root(target) != transforms.root(frame_id):
            raise DataError(
                f"/tf of {path} does not connect {target} with the camera's frame {frame_id}: record /tf_static too"
            )
    chosen = replace(topics, depth=depth, color=color, camera_info=camera_info, pose=pose)
    count = sum(c.msgcount for c in connections if c.topic == depth)
    return BagSequence(path, chosen, K, K_color, transforms, target, source, count)


def _near(connections: Sequence[Connection], image: str, words: Sequence[str]) -> str:
    """The CameraInfo beside an image topic: the one that shares the most of its name."""
    infos = [c.topic for c in connections if c.msgtype == CAMERA_INFO]
    if not infos:
        return ""

    def shared(topic: str) -> tuple[int, int]:
        same = 0
        for a, b in zip(topic.split("/"), image.split("/"), strict=False):
            if a != b:
                break
            same += 1
        return same, sum(word in topic for word in words)

    return max(sorted(infos), key=shared)


def _intrinsics(path: Path, reader: AnyReader, topic: str) -> tuple[np.ndarray, str]:
    """K [3, 3] and frame of the first CameraInfo."""
    for connection, _, raw in reader.messages([c for c in reader.connections if c.topic == topic]):
        msg: Any = reader.deserialize(raw, connection.msgtype)
        K = np.array(msg.k if hasattr(msg, "k") else msg.K, np.float64).reshape(3, 3)
        if K[0, 0] <= 0 or K[1, 1] <= 0:
            raise DataError(
                f"{topic} of {path} has K = {K.ravel().tolist()}: the camera is not calibrated, focal lengths must be positive"
            )
        return K, msg.header.frame_id
    raise DataError(f"{topic} of {path} has no message: record the CameraInfo of the depth camera")


def _read_poses(reader: AnyReader, topic: str, transforms: TransformTree) -> None:
    for connection, _, raw in reader.messages([c for c in reader.connections if c.topic == topic]):
        msg: Any = reader.deserialize(raw, connection.msgtype)
        transforms.add("world", "camera", pose_matrix(msg.pose.position, msg.pose.orientation), stamp_ns(msg))


def _read_tf(reader: AnyReader, transforms: TransformTree) -> None:
    for connection, _, raw in reader.messages([c for c in reader.connections if c.msgtype == TF]):
        msg: Any = reader.deserialize(raw, connection.msgtype)
        for one in msg.transforms:
            T_parent_child = pose_matrix(one.transform.translation, one.transform.rotation)
            transforms.add(
                one.header.frame_id,
                one.child_frame_id,
                T_parent_child,
                stamp_ns(one),
                static=connection.topic.endswith("tf_static"),
            )


def _pairs(reader: AnyReader, depth_topic: str, color_topic: str) -> Iterator[tuple[Any, Any]]:
    """Depth messages with the colour message nearest in time, as soon as a later colour has been seen."""
    depths: deque[Any] = deque()
    colors: deque[Any] = deque(maxlen=64)
    for connection, _, raw in reader.messages([c for c in reader.connections if c.topic in (depth_topic, color_topic)]):
        msg = reader.deserialize(raw, connection.msgtype)
        (depths if connection.topic == depth_topic else colors).append(msg)
        while depths and colors and stamp_ns(colors[-1]) >= stamp_ns(depths[0]):
            yield from _pair(depths.popleft(), colors)
    for depth in depths:
        yield from _pair(depth, colors)


def _pair(depth: Any, colors: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    nearest = min(colors, key=lambda color: abs(stamp_ns(color) - stamp_ns(depth)), default=None)
    if nearest is not None and abs(stamp_ns(nearest) - stamp_ns(depth)) <= PAIR_TOLERANCE_NS:
        yield depth, nearest
