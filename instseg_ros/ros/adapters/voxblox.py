"""Clouds with a distance to the surface, as voxblox's `tsdf_pointcloud` has it in the field `intensity`."""

__all__ = ["near_surface"]

import array

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from instseg_ros.errors import InputError
from instseg_ros.ros.pointcloud import check_layout

_FLOATS = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}


def near_surface(msg: PointCloud2, field: str, band_m: float) -> PointCloud2:
    """The cloud of only those points that are nearer to the surface than `band_m`, with all their fields.

    Args:
        msg: a cloud that `check_layout` accepts.
        field: name of the field with the signed distance in m.
        band_m: the largest distance.

    Raises:
        InputError: there is no such float field, or a distance is not finite although `is_dense` is true.
    """
    check_layout(msg)
    records, distance_m = _read(msg, field)
    finite = np.isfinite(distance_m)
    if msg.is_dense and not finite.all():
        raise InputError(f"{int((~finite).sum())} numbers of field {field!r} are not finite, though is_dense is true: leave those points out")
    near = records[finite & (np.abs(distance_m) < band_m)]
    data = array.array("B")
    data.frombytes(near.tobytes())
    return PointCloud2(
        header=msg.header, height=1, width=len(near), fields=msg.fields, is_bigendian=msg.is_bigendian, point_step=msg.point_step,
        row_step=len(near) * msg.point_step, data=data, is_dense=msg.is_dense,
    )


def _read(msg: PointCloud2, field: str) -> tuple[np.ndarray, np.ndarray]:
    """All points as opaque records [N], and their distances [N]."""
    found = next((f for f in msg.fields if f.name == field), None)
    if found is None or found.datatype not in _FLOATS:
        raise InputError(
            f"point cloud has no float field {field!r} (fields: {', '.join(f.name for f in msg.fields)}): it should hold the distance to the "
            "surface; set parameter input.distance_field to its name, or to nothing if every point is on the surface"
        )
    code = _FLOATS[found.datatype]
    if found.count not in (0, 1) or found.offset + int(code[1]) > msg.point_step:
        raise InputError(f"field {field!r} (offset {found.offset}, count {found.count}) does not fit point_step {msg.point_step}")
    if msg.width * msg.height == 0:
        return np.zeros(0, f"V{max(msg.point_step, 1)}"), np.zeros(0)
    row_step = msg.row_step if msg.height > 1 else msg.width * msg.point_step
    strides, shape = (row_step, msg.point_step), (msg.height, msg.width)
    records = np.ndarray(shape, f"V{msg.point_step}", buffer=memoryview(msg.data), strides=strides).reshape(-1)
    kind = np.dtype({"names": ["d"], "formats": [(">" if msg.is_bigendian else "<") + code], "offsets": [found.offset], "itemsize": msg.point_step})
    distance = np.ndarray(shape, kind, buffer=memoryview(msg.data), strides=strides).reshape(-1)["d"]
    return records, distance.astype(np.float64)
