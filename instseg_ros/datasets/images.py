"""Depth, colour and instance images as recordings store them, read with errors that name the cure."""

__all__ = ["read_color", "read_depth", "read_instances", "resample_color", "undistortion_table"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from instseg_ros.errors import DataError

LFS_HEADER = b"version https://git-lfs"


def _read_image(path: Path) -> Image.Image:
    try:
        with path.open("rb") as stream:
            if stream.read(len(LFS_HEADER)) == LFS_HEADER:
                raise DataError(f"{path} is a Git LFS pointer, not an image: run `git lfs pull` in the folder it came from")
        image = Image.open(path)
        image.load()
        return image
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: copy it from the recording, or remove the frame from the list that names it"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}): copy it again, it may be cut short") from error


def read_depth(path: Path, unit_m: float) -> np.ndarray:
    """Depth image [H, W] float32 in metres, 0 = no reading, from a 16-bit PNG.

    Raises:
        DataError: missing, damaged, or not a 16-bit image.
    """
    image = _read_image(path)
    if image.mode not in ("I", "I;16", "I;16B", "I;16L"):
        raise DataError(f"{path} has pixel type {image.mode}: depth must be a 16-bit grey PNG, export it as that")
    return (np.asarray(image).astype(np.float32) * np.float32(unit_m)).astype(np.float32)


def read_color(path: Path) -> np.ndarray:
    """Colour image [H, W, 3] uint8; grey images are repeated over the channels.

    Raises:
        DataError: missing or damaged.
    """
    return np.array(_read_image(path).convert("RGB"))


def read_instances(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Instance image [H, W] int32 from a 16-bit PNG that stores instance + 1, so that 0 is none (-1)."""
    instance = np.asarray(_read_image(path)).astype(np.int32) - 1
    if instance.shape != tuple(shape):
        raise DataError(f"{path} is {instance.shape}, the depth image {tuple(shape)}: write both in the same size")
    return instance


def resample_color(color: np.ndarray, shape: tuple[int, ...], K: np.ndarray, K_color: np.ndarray | None = None) -> np.ndarray:
    """The colour image seen through the depth camera's pixels.

    Args:
        color: [Hc, Wc, 3] uint8.
        shape: (H, W) of the depth image.
        K: [3, 3] of the depth image.
        K_color: [3, 3] of the colour image; None = same field of view, only the size differs.

    Returns:
        [H, W, 3] uint8.
    """
    if color.shape[:2] == tuple(shape) and K_color is None:
        return color
    height, width = shape
    u, v = np.arange(width), np.arange(height)
    if K_color is None:
        u_color = (u + 0.5) * color.shape[1] / width - 0.5
        v_color = (v + 0.5) * color.shape[0] / height - 0.5
    else:
        u_color = (u - K[0, 2]) / K[0, 0] * K_color[0, 0] + K_color[0, 2]
        v_color = (v - K[1, 2]) / K[1, 1] * K_color[1, 1] + K_color[1, 2]
    columns = np.clip(np.rint(u_color).astype(int), 0, color.shape[1] - 1)
    rows = np.clip(np.rint(v_color).astype(int), 0, color.shape[0] - 1)
    return np.ascontiguousarray(color[rows[:, None], columns[None, :]])


def undistortion_table(shape: tuple[int, ...], K: np.ndarray, distortion: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column [H, W] of the distorted image that each pinhole pixel shows (Brown-Conrady, nearest pixel)."""
    k1, k2, p1, p2, k3 = (*distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    v, u = np.indices(shape[:2], dtype=np.float64)
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    x_distorted = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
    y_distorted = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
    columns = np.rint(x_distorted * K[0, 0] + K[0, 2]).astype(int)
    rows = np.rint(y_distorted * K[1, 1] + K[1, 2]).astype(int)
    return np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)
