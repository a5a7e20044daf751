"""sensor_msgs/PointCloud2 to arrays and back."""

__all__ = [
    "LABELLED_DTYPE", "CloudLayout", "check_layout", "check_points", "colored_cloud_to_msg", "labelled_cloud_to_msg", "read_points",
]

import array
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MAX_VOXELS
from instseg_ros.mapping.voxelize import check_reach

_NUMPY_OF = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}
_FIELD_OF = {code: datatype for datatype, code in _NUMPY_OF.items()}

LABELLED_DTYPE = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "instance", "confidence", "label"],
        "formats": ["<f4", "<f4", "<f4", "<u4", "<u4", "<f4", "<u2"],
        "offsets": [0, 4, 8, 12, 16, 20, 24],
        "itemsize": 28,
    }
)
"""A point of the published labelled cloud."""


@dataclass(frozen=True)
class CloudLayout:
    """Where the numbers of a checked cloud lie."""

    dtype: np.dtype
    """x, y, z and, where there is a colour, either `rgb` (any 4-byte type) or r, g, b."""
    color: str
    """packed, separate or none."""
    points: int


MAX_POINT_STEP = 1 << 16
"""Bytes; no point is larger."""


def check_layout(msg: PointCloud2) -> CloudLayout:
    """Whether the points can be read, from the header alone: nothing is copied.

    Raises:
        InputError: fields are missing, named twice, of the wrong type, outside of a point or on top of each other, or the size of
            `data` disagrees.
    """
    _check_size(msg)
    fields = {field.name: field for field in msg.fields}
    color = "none"
    wanted = ["x", "y", "z"]
    for name in wanted:
        if name not in fields or fields[name].datatype not in (PointField.FLOAT32, PointField.FLOAT64):
            raise InputError(f"point cloud has no float field {name!r} (fields: {_listed(msg)}): publish x, y and z as FLOAT32")
    packed = next((name for name in ("rgb", "rgba") if name in fields), None)
    if packed is not None:
        if fields[packed].datatype not in (PointField.FLOAT32, PointField.UINT32, PointField.INT32):
            raise InputError(f"field {packed!r} is not 4 bytes wide: publish it as FLOAT32 or UINT32 with 0x00RRGGBB")
        wanted, color = [*wanted, packed], "packed"
    elif all(name in fields for name in "rgb"):
        if any(fields[name].datatype != PointField.UINT8 for name in "rgb"):
            raise InputError("fields r, g and b must be UINT8, 0 to 255")
        wanted, color = [*wanted, "r", "g", "b"], "separate"
    _check_places(msg, [fields[name] for name in wanted])
    order = ">" if msg.is_bigendian else "<"
    codes = ["u4" if name == packed else _NUMPY_OF[fields[name].datatype] for name in wanted]
    dtype = np.dtype(
        {
            "names": ["rgb" if name == packed else name for name in wanted],
            "formats": [order + code if code[1] != "1" else code for code in codes],
            "offsets": [fields[name].offset for name in wanted],
            "itemsize": msg.point_step,
        }
    )
    return CloudLayout(dtype, color, msg.width * msg.height)


def _listed(msg: PointCloud2) -> str:
    """Names of the first fields: what a stranger wrote goes into the log only so far."""
    names = [repr(field.name[:40]) for field in msg.fields[:12]]
    return ", ".join(names + ["..."] * (len(msg.fields) > 12)) or "none"


def _check_places(msg: PointCloud2, wanted: list[PointField]) -> None:
    """Each field once, within the point, and none on top of another."""
    names = [field.name for field in msg.fields]
    end, before = 0, ""
    for field in sorted(wanted, key=lambda field: field.offset):
        if names.count(field.name) > 1:
            raise InputError(f"field {field.name!r} is named {names.count(field.name)} times: name each field once")
        size = int(_NUMPY_OF[field.datatype][1])
        if field.count not in (0, 1) or field.offset + size > msg.point_step:
            raise InputError(
                f"field {field.name!r} (offset {field.offset}, count {field.count}) does not fit point_step {msg.point_step}: set each "
                "field's offset in bytes, and count 1"
            )
        if field.offset < end:
            raise InputError(f"fields {before!r} and {field.name!r} lie on top of each other: set each field's offset in bytes")
        end, before = field.offset + size, field.name


def _check_size(msg: PointCloud2) -> None:
    if not msg.header.frame_id:
        raise InputError("point cloud has no header.frame_id: fill in the map's fixed frame")
    points = msg.width * msg.height
    if points > MAX_VOXELS:
        raise InputError(f"point cloud of {points} points, more than {MAX_VOXELS}: thin it out or send it in parts")
    if msg.point_step > MAX_POINT_STEP:
        raise InputError(f"point_step is {msg.point_step} bytes, more than {MAX_POINT_STEP}: it is the size of one point")
    if msg.point_step == 0 and points:
        raise InputError("point_step is 0: set it to the bytes of one point")
    row = msg.width * msg.point_step
    if msg.row_step < row and msg.height > 1:
        raise InputError(f"row_step {msg.row_step} is less than width {msg.width} x point_step {msg.point_step}")
    # The rows of an organised cloud may be padded; the row_step of another one is often left 0.
    needed = (msg.row_step if msg.height > 1 else row) * msg.height
    if len(msg.data) != needed:
        raise InputError(
            f"data has {len(msg.data)} bytes, but width {msg.width}, height {msg.height}, point_step {msg.point_step} and "
            f"row_step {msg.row_step} need {needed}: the message is cut short or its sizes are wrong"
        )


def check_points(msg: PointCloud2, layout: CloudLayout, voxel_size_m: float) -> None:
    """Whether the coordinates are ones that `read_points` and `voxelize_points` take: four passes over the data, a tenth of reading it.

    Raises:
        InputError: a point is not finite although `is_dense` is true, none is, or one is further out than a map can reach.
    """
    if not layout.points:
        return
    records = _records(msg, layout)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        low, high = (np.array([at(records[name]) for name in "xyz"], np.float64) for at in (np.min, np.max))
    if not np.isfinite([low, high]).all():
        points, _, _ = read_points(msg, layout)  # refuses, or leaves out what is not finite
        low, high = points.min(axis=0), points.max(axis=0)
    check_reach(low, high, voxel_size_m)


def _records(msg: PointCloud2, layout: CloudLayout) -> np.ndarray:
    """The points [N] as they lie in `data`."""
    row_step = msg.row_step if msg.height > 1 else msg.width * msg.point_step
    strides = (row_step, msg.point_step)
    return np.ndarray((msg.height, msg.width), layout.dtype, buffer=memoryview(msg.data), strides=strides).reshape(-1)


def read_points(msg: PointCloud2, layout: CloudLayout) -> tuple[np.ndarray, np.ndarray | None, int]:
    """The points of a cloud.

    Points that are not finite are left out if the message announces them (`is_dense` is false, as organised clouds do).

    Returns:
        points [N, 3] float64 (m), colours [N, 3] uint8 or None if the cloud has none, and how many points were left out.

    Raises:
        InputError: a point is not finite although `is_dense` is true, or not one is.
    """
    if layout.points == 0:
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8) if layout.color != "none" else None, 0
    records = _records(msg, layout)
    points = np.empty((len(records), 3))
    with np.errstate(invalid="ignore"):  # a signalling NaN
        for axis, name in enumerate("xyz"):
            points[:, axis] = records[name]
    colors = None
    if layout.color != "none":
        colors = np.empty((len(records), 3), np.uint8)
        for channel, name in enumerate("rgb"):
            colors[:, channel] = (records["rgb"] >> (16 - 8 * channel)) & 0xFF if layout.color == "packed" else records[name]
    finite = np.isfinite(points).all(axis=1)
    dropped = len(points) - int(finite.sum())
    if not dropped:
        return points, colors, 0
    if msg.is_dense:
        raise InputError(
            f"{dropped} points are not finite, though is_dense is true: leave them out, or set is_dense to false to have "
            "them skipped"
        )
    if dropped == len(points):
        raise InputError(f"not one of {dropped} points is finite: a cloud that shows nothing is no map; leave it unsent, or send no points")
    return points[finite], colors[finite] if colors is not None else None, dropped


def labelled_cloud_to_msg(
    header: Header, points_m: np.ndarray, colors: np.ndarray, labels: np.ndarray, instances: np.ndarray, confidence: np.ndarray
) -> PointCloud2:
    """A labelled cloud as a message.

    Args:
        header: stamp and frame.
        points_m: [N, 3] float32.
        colors: [N, 3] uint8, what `rgb` shows.
        labels: [N] uint16 NYU40 ids, 65535 = none.
        instances: [N] uint32, 0 = none.
        confidence: [N] float32, 0 to 1.
    """
    records = np.zeros(len(points_m), LABELLED_DTYPE)
    for axis, name in enumerate("xyz"):
        records[name] = points_m[:, axis]
    records["rgb"] = _packed(colors)
    records["label"], records["instance"], records["confidence"] = labels, instances, confidence
    return _records_to_msg(header, records)


def colored_cloud_to_msg(header: Header, points_m: np.ndarray, colors: np.ndarray) -> PointCloud2:
    """Points [N, 3] with colours [N, 3] uint8 as a message with the fields x, y, z, rgb."""
    records = np.zeros(len(points_m), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    for axis, name in enumerate("xyz"):
        records[name] = points_m[:, axis]
    records["rgb"] = _packed(colors)
    return _records_to_msg(header, records)


def _packed(colors: np.ndarray) -> np.ndarray:
    """0x00RRGGBB [N] uint32."""
    rgb = colors.astype(np.uint32)
    return rgb[:, 0] << 16 | rgb[:, 1] << 8 | rgb[:, 2]


def _records_to_msg(header: Header, records: np.ndarray) -> PointCloud2:
    step = records.dtype.itemsize
    msg = PointCloud2(header=header, height=1, width=len(records), is_bigendian=False, is_dense=True)
    msg.point_step, msg.row_step = step, step * len(records)
    msg.fields = [
        PointField(name=name, offset=offset, datatype=_FIELD_OF[dtype.str[1:]], count=1)
        for name, (dtype, offset, *_) in sorted((records.dtype.fields or {}).items(), key=lambda field: field[1][1])
    ]
    # rclpy copies an array.array at once; bytes it would check one by one, a hundred times slower.
    data = array.array("B")
    data.frombytes(records.tobytes())
    msg.data = data
    return msg
