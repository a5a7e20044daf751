"""ROS messages as rosbags reads them, turned into arrays; and a small transform tree."""

__all__ = ["TransformTree", "decode_cloud", "decode_color", "decode_depth", "decode_update", "pose_matrix", "stamp_ns"]

import io
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.spatial.transform import Rotation, Slerp

from instseg_ros.errors import DataError
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxelize import voxelize_points

GREY = 160
POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
COMPRESSED_DEPTH_HEADER = 12


def stamp_ns(msg: Any) -> int:
    """Header stamp of a message in ns."""
    return int(msg.header.stamp.sec) * 1_000_000_000 + int(msg.header.stamp.nanosec)


def pose_matrix(position: Any, orientation: Any) -> np.ndarray:
    """[4, 4] from a position (or translation) and a quaternion.

    Raises:
        DataError: the quaternion is zero or not finite.
    """
    quaternion = np.array([orientation.x, orientation.y, orientation.z, orientation.w])
    if not np.isfinite(quaternion).all() or np.linalg.norm(quaternion) < 1e-6:
        raise DataError("a pose has a quaternion of zero length: the recorder must fill in orientation.w = 1 for no rotation")
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    matrix[:3, 3] = position.x, position.y, position.z
    return matrix


def _rows(msg: Any, dtype: str, channels: int) -> np.ndarray:
    """Pixels [H, W(, C)] of an image message; padding at the end of rows is left out."""
    width, itemsize = int(msg.width) * channels, np.dtype(dtype).itemsize
    data = np.frombuffer(bytes(msg.data), np.uint8)
    if msg.step < width * itemsize or len(data) < int(msg.step) * int(msg.height):
        raise DataError(
            f"an image of {msg.width} x {msg.height} ({msg.encoding}) has step {msg.step} and {len(data)} bytes: "
            "the message is damaged, record again"
        )
    rows = data[: int(msg.step) * int(msg.height)].reshape(int(msg.height), int(msg.step))[:, : width * itemsize]
    pixels = np.ascontiguousarray(rows).view(np.dtype(dtype).newbyteorder(">" if msg.is_bigendian else "<"))
    return pixels.reshape(int(msg.height), int(msg.width), channels) if channels > 1 else pixels


def _unpack(data: bytes, what: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"a compressed {what} image cannot be read ({error}): record raw, JPEG or PNG images") from error


def decode_depth(msg: Any) -> np.ndarray:
    """Depth [H, W] float32 m, 0 = none, of an Image (16UC1 in mm, 32FC1 in m) or CompressedImage (PNG, compressedDepth).

    Raises:
        DataError: another encoding, or a damaged message.
    """
    if not hasattr(msg, "encoding"):
        data = bytes(msg.data)
        if "compressedDepth" in msg.format:
            data = data[COMPRESSED_DEPTH_HEADER:]
        image = _unpack(data, "depth")
        if "32FC1" in msg.format or image.mode not in ("I", "I;16", "I;16B", "I;16L"):
            raise DataError(f"compressed depth of format {msg.format!r} is not read: record 16UC1 (mm)")
        return np.asarray(image).astype(np.float32) * np.float32(0.001)
    if msg.encoding in ("16UC1", "mono16"):
        return _rows(msg, "u2", 1).astype(np.float32) * np.float32(0.001)
    if msg.encoding == "32FC1":
        depth_m = _rows(msg, "f4", 1).astype(np.float32)
        return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
    raise DataError(
        f"depth of encoding {msg.encoding!r} is not read: record 16UC1 (mm) or 32FC1 (m), "
        "or name another topic with --depth-topic"
    )


def decode_color(msg: Any) -> np.ndarray:
    """Colour [H, W, 3] uint8 RGB of an Image (rgb8, bgr8, rgba8, bgra8, mono8) or CompressedImage (JPEG, PNG).

    Raises:
        DataError: another encoding, or a damaged message.
    """
    if not hasattr(msg, "encoding"):
        return np.array(_unpack(bytes(msg.data), "colour").convert("RGB"))
    order = {
        "rgb8": (3, [0, 1, 2]),
        "bgr8": (3, [2, 1, 0]),
        "rgba8": (4, [0, 1, 2]),
        "bgra8": (4, [2, 1, 0]),
        "8UC3": (3, [2, 1, 0]),
    }
    if msg.encoding == "mono8":
        return np.repeat(_rows(msg, "u1", 1)[..., None], 3, axis=2)
    if msg.encoding not in order:
        raise DataError(
            f"colour of encoding {msg.encoding!r} is not read: record rgb8 or bgr8, or name another topic with --color-topic"
        )
    channels, columns = order[msg.encoding]
    return np.ascontiguousarray(_rows(msg, "u1", channels)[..., columns])


def decode_cloud(msg: Any, voxel_size_m: float, sequence: int, full: bool) -> MapUpdate:
    """A PointCloud2 with x y z and, if it has, rgb or rgba; points that are not finite are left out.

    Raises:
        DataError: no x y z, or a damaged message.
    """
    fields = {f.name: f for f in msg.fields}
    if not {"x", "y", "z"} <= set(fields):
        raise DataError(f"a PointCloud2 has the fields {', '.join(fields)}: x, y and z are needed")
    names = [name for name in ("x", "y", "z", "rgb", "rgba") if name in fields]
    order = ">" if msg.is_bigendian else "<"
    layout = np.dtype(
        {
            "names": names,
            "formats": [order + ("u4" if n.startswith("rgb") else POINT_TYPES[fields[n].datatype]) for n in names],
            "offsets": [fields[n].offset for n in names],
            "itemsize": msg.point_step,
        }
    )
    data = bytes(msg.data)
    row_step = int(msg.row_step) or int(msg.width) * int(msg.point_step)
    if len(data) < row_step * int(msg.height) or row_step < int(msg.width) * int(msg.point_step):
        raise DataError(
            f"a PointCloud2 of {msg.width} x {msg.height} points has {len(data)} bytes: the message is damaged, record again"
        )
    points = np.ndarray((int(msg.height), int(msg.width)), layout, data, strides=(row_step, int(msg.point_step))).reshape(-1)
    points_m = np.stack([points[c].astype(np.float64) for c in "xyz"], axis=1)
    finite = np.isfinite(points_m).all(axis=1)
    colors = np.full((len(points), 3), GREY, np.uint8)
    packed = "rgb" if "rgb" in names else "rgba"
    if packed in names:
        colors = np.stack([(points[packed] >> shift).astype(np.uint8) for shift in (16, 8, 0)], axis=1)
    return voxelize_points(
        points_m[finite],
        colors[finite],
        voxel_size_m,
        frame_id=msg.header.frame_id or "map",
        stamp_ns=stamp_ns(msg),
        sequence=sequence,
        full=full,
    )


def decode_update(msg: Any) -> MapUpdate:
    """An instseg_ros/msg/MapUpdate."""
    return MapUpdate(
        coords=np.array(msg.coords, np.int32).reshape(-1, 3),
        colors=np.array(msg.colors, np.uint8).reshape(-1, 3),
        weights=np.array(msg.weights, np.float32),
        voxel_size_m=float(np.float32(msg.voxel_size).astype(str)),
        frame_id=msg.header.frame_id,
        stamp_ns=stamp_ns(msg),
        sequence=int(msg.sequence),
        full=bool(msg.full),
        deleted=np.array(msg.deleted, np.int32).reshape(-1, 3),
    )


class TransformTree:
    """Poses of frames in their parents over time, read between the recorded ones."""

    def __init__(self, max_gap_ns: int = 500_000_000) -> None:
        self.max_gap_ns = max_gap_ns
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        self._moving: dict[str, tuple[str, list[tuple[int, np.ndarray]]]] = {}
        self._sorted: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, parent: str, child: str, T_parent_child: np.ndarray, at_ns: int, static: bool = False) -> None:
        """Take a transform [4, 4] that was valid at `at_ns`, or always if static."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if static:
            self._static[child] = (parent, T_parent_child)
        else:
            self._moving.setdefault(child, (parent, []))[1].append((at_ns, T_parent_child))
            self._sorted.pop(child, None)

    def parent(self, child: str) -> str | None:
        """The frame that a frame's transforms are given in."""
        found = self._moving.get(child) or self._static.get(child)
        return found[0] if found else None

    def root(self, frame: str) -> str:
        """The topmost frame over a frame."""
        frame, seen = frame.lstrip("/"), set()
        while (above := self.parent(frame)) is not None and frame not in seen:
            seen.add(frame)
            frame = above
        return frame

    def lookup(self, target: str, source: str, at_ns: int) -> np.ndarray | None:
        """T_target_source [4, 4], `target` being above `source`; None where no transform is recorded near that time."""
        target, frame = target.lstrip("/"), source.lstrip("/")
        T_target_source, seen = np.eye(4), set()
        while frame != target:
            above = self.parent(frame)
            step = None if above is None or frame in seen else self._at(frame, at_ns)
            if step is None or above is None:
                return None
            seen.add(frame)
            T_target_source, frame = step @ T_target_source, above
        return T_target_source

    def _at(self, child: str, at_ns: int) -> np.ndarray | None:
        if child not in self._moving:
            return self._static[child][1]
        if child not in self._sorted:
            entries = sorted(self._moving[child][1], key=lambda entry: entry[0])
            stamps = np.array([e[0] for e in entries], np.int64)
            keep = np.concatenate([[True], np.diff(stamps) > 0])
            self._sorted[child] = (stamps[keep], np.stack([e[1] for e in entries])[keep])
        stamps, poses = self._sorted[child]
        after = int(np.searchsorted(stamps, at_ns))
        if after < len(stamps) and stamps[after] == at_ns:
            return poses[after]
        if after in (0, len(stamps)):  # before the first or after the last: take it if it is very near
            end = min(after, len(stamps) - 1)
            return poses[end] if abs(int(stamps[end]) - at_ns) <= self.max_gap_ns // 10 else None
        before = after - 1
        if stamps[after] - stamps[before] > self.max_gap_ns:
            return None
        share = (at_ns - stamps[before]) / (stamps[after] - stamps[before])
        pose = np.eye(4)
        pose[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix(poses[[before, after], :3, :3]))(share).as_matrix()
        pose[:3, 3] = (1.0 - share) * poses[before, :3, 3] + share * poses[after, :3, 3]
        return pose
