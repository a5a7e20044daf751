"""sensor_msgs/Image and CameraInfo to arrays."""

__all__ = ["color_from_msg", "depth_from_msg", "intrinsics_from_msg"]

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from instseg_ros.errors import InputError

_DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_COLOR = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
"""Channels of each encoding, and which of them are red, green and blue."""


def _pixels(msg: Image, dtype: np.dtype, channels: int) -> np.ndarray:
    """A view [H, W, channels] into the message."""
    row = msg.width * channels * dtype.itemsize
    if msg.width == 0 or msg.height == 0 or msg.step < row or len(msg.data) < msg.step * (msg.height - 1) + row:
        raise InputError(
            f"image of {msg.width} x {msg.height} {msg.encoding} with step {msg.step} and {len(msg.data)} bytes: "
            f"the sizes disagree (a row needs {row} bytes)"
        )
    strides = (msg.step, channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray((msg.height, msg.width, channels), dtype, buffer=memoryview(msg.data), strides=strides)


def depth_from_msg(msg: Image, unit_m: float) -> np.ndarray:
    """Depth [H, W] float32 in m, 0 = no reading.

    Args:
        msg: 16UC1 (counts of `unit_m`) or 32FC1 (metres).
        unit_m: metres per count.

    Raises:
        InputError: another encoding, or sizes that disagree.
    """
    if msg.encoding not in _DEPTH:
        raise InputError(f"depth image has encoding {msg.encoding!r}: publish 16UC1 (millimetres) or 32FC1 (metres)")
    dtype = np.dtype((">" if msg.is_bigendian else "<") + _DEPTH[msg.encoding])
    values = _pixels(msg, dtype, 1)[:, :, 0].astype(np.float32)
    if dtype.kind == "u":
        return values * np.float32(unit_m)
    values[~np.isfinite(values) | (values < 0)] = 0.0
    return values


def color_from_msg(msg: Image) -> np.ndarray:
    """Colour [H, W, 3] uint8 RGB.

    Raises:
        InputError: an encoding that is not one of rgb8, bgr8, rgba8, bgra8, mono8, or sizes that disagree.
    """
    if msg.encoding not in _COLOR:
        raise InputError(f"colour image has encoding {msg.encoding!r}: publish one of {', '.join(_COLOR)}, not compressed")
    channels, order = _COLOR[msg.encoding]
    return np.ascontiguousarray(_pixels(msg, np.dtype("u1"), channels)[:, :, list(order)])


def intrinsics_from_msg(msg: CameraInfo) -> np.ndarray:
    """The pinhole matrix [3, 3].

    Raises:
        InputError: the camera is not calibrated.
    """
    K = np.array(msg.k, np.float64).reshape(3, 3)
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError("camera_info has no calibration (k is not a pinhole matrix): calibrate the camera or fix its driver")
    return K
