"""ScanNet's `.sens` files: the recorded frames of a scan, read one at a time."""

__all__ = ["SensSequence", "open_sens"]

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.images import resample_color
from instseg_ros.datasets.raw_files import check_file
from instseg_ros.errors import DataError

VERSION = 4
CURE = "download the .sens file again with ScanNet's download script"
COLOR_RAW, COLOR_PNG, COLOR_JPEG = 0, 1, 2
DEPTH_RAW, DEPTH_ZLIB = 0, 1
FRAME_RATE_HZ = 30
MAX_IMAGE_SIDE = 16384
_CALIBRATION = struct.Struct("<64f")
_FORMAT = struct.Struct("<2i4IfQ")
_FRAME = struct.Struct("<16f4Q")


@dataclass(frozen=True)
class _SensFrame:
    """Where the images of a frame lie in the file."""

    number: int
    T_world_camera: np.ndarray
    stamp_us: int
    offset: int
    color_bytes: int
    depth_bytes: int


@dataclass(frozen=True)
class SensSequence:
    """The frames of a `.sens` file that have a pose; images are unpacked when a frame is asked for (compare `rgbd.RgbdSequence`).

    The colour image is resampled to the depth image through both intrinsics.
    """

    path: Path
    name: str
    K: np.ndarray
    """[3, 3] intrinsics of the depth image."""
    K_color: np.ndarray
    color_type: int
    depth_type: int
    color_size: tuple[int, int]
    """(width, height)."""
    depth_size: tuple[int, int]
    depth_shift: float
    """Counts per metre."""
    frames: Sequence[_SensFrame]
    skipped: int
    """Frames left out because tracking was lost: their pose is not finite."""

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[RgbdFrame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> RgbdFrame:
        """Unpack one frame.

        Raises:
            DataError: an image is damaged or of another size than the header says.
        """
        frame = self.frames[index]
        where = f"frame {frame.number} of {self.path}"
        with self.path.open("rb") as stream:
            stream.seek(frame.offset)
            color_data = stream.read(frame.color_bytes)
            depth_data = stream.read(frame.depth_bytes)
        if len(color_data) + len(depth_data) != frame.color_bytes + frame.depth_bytes:
            raise DataError(f"{where} is cut short: {CURE}")
        color = _unpack_color(color_data, self.color_type, self.color_size, where)
        depth_m = _unpack_depth(depth_data, self.depth_type, self.depth_size, where) / np.float32(self.depth_shift)
        same = self.color_size == self.depth_size and np.array_equal(self.K, self.K_color)
        color = resample_color(color, depth_m.shape, self.K, None if same else self.K_color)
        # the clock of the tablet runs in microseconds; many files hold no stamps at all
        stamp_ns = frame.stamp_us * 1000 if frame.stamp_us else frame.number * 1_000_000_000 // FRAME_RATE_HZ
        return RgbdFrame(stamp_ns, depth_m, color, self.K, frame.T_world_camera)

    def select(self, stride: int = 1, max_frames: int = 0) -> "SensSequence":
        """Every `stride`-th frame, at most `max_frames` of them (0 = all)."""
        return replace(self, frames=self.frames[::stride][: max_frames or None])


def open_sens(path: Path | str) -> SensSequence:
    """Read header, poses and places of the images; the images stay in the file.

    Raises:
        DataError: missing, a Git LFS pointer, of another version, cut short, or packed in a way that is not read.
    """
    path = Path(path)
    size = check_file(path, CURE).stat().st_size
    with path.open("rb") as stream:
        if _read(stream, struct.Struct("<I"), path)[0] != VERSION:
            raise DataError(f"{path} is not a .sens file of version {VERSION}: {CURE}")
        name_bytes = _read(stream, struct.Struct("<Q"), path)[0]
        if name_bytes > size - stream.tell():
            raise DataError(f"{path} is damaged, its sensor name has {name_bytes} bytes: {CURE}")
        stream.seek(name_bytes, io.SEEK_CUR)
        matrices = np.array(_read(stream, _CALIBRATION, path), np.float64).reshape(4, 4, 4)  # colour, its extrinsics, depth, its
        color_type, depth_type, *sizes, shift, count = _read(stream, _FORMAT, path)
        _check_format(path, color_type, depth_type, sizes, shift)
        if count > (size - stream.tell()) // _FRAME.size:
            raise DataError(f"{path} is cut short: {size} bytes cannot hold the {count} frames it declares; {CURE}")
        frames = _scan_frames(stream, path, size, count)
    known = [f for f in frames if np.isfinite(f.T_world_camera).all()]
    if not known:
        raise DataError(f"{path} has no frame with a pose ({count} without): {CURE}")
    return SensSequence(
        path, path.stem, matrices[2, :3, :3].copy(), matrices[0, :3, :3].copy(), color_type, depth_type, (sizes[0], sizes[1]),
        (sizes[2], sizes[3]), shift, known, count - len(known),
    )


def _read(stream: BinaryIO, layout: struct.Struct, path: Path) -> tuple:
    data = stream.read(layout.size)
    if len(data) != layout.size:
        raise DataError(f"{path} is cut short after {stream.tell()} bytes: {CURE}")
    return layout.unpack(data)


def _check_format(path: Path, color_type: int, depth_type: int, sizes: list[int], shift: float) -> None:
    if color_type not in (COLOR_RAW, COLOR_PNG, COLOR_JPEG) or depth_type not in (DEPTH_RAW, DEPTH_ZLIB):
        raise DataError(
            f"{path} packs colour as {color_type} and depth as {depth_type}; read are raw, PNG, JPEG (0, 1, 2) and raw, zlib (0, 1): "
            "export it with ScanNet's SensReader, and open the folder"
        )
    if not all(0 < side <= MAX_IMAGE_SIDE for side in sizes) or not 0 < shift < float("inf"):
        raise DataError(f"{path} is damaged: image sizes {sizes}, depth shift {shift}; {CURE}")


def _scan_frames(stream: BinaryIO, path: Path, size: int, count: int) -> list[_SensFrame]:
    """Poses and places of all frames, without their images."""
    frames = []
    for number in range(count):
        *pose, stamp_us, _, color_bytes, depth_bytes = _read(stream, _FRAME, path)
        offset = stream.tell()
        if color_bytes + depth_bytes > size - offset:
            raise DataError(f"{path} is cut short in frame {number} of {count}: {CURE}")
        frames.append(_SensFrame(number, np.array(pose).reshape(4, 4), stamp_us, offset, color_bytes, depth_bytes))
        stream.seek(color_bytes + depth_bytes, io.SEEK_CUR)
    return frames


def _unpack_color(data: bytes, kind: int, size: tuple[int, int], where: str) -> np.ndarray:
    """[H, W, 3] uint8."""
    if kind == COLOR_RAW:
        if len(data) != size[0] * size[1] * 3:
            raise DataError(f"{where} has {len(data)} bytes of colour for {size[0]} x {size[1]}: {CURE}")
        return np.frombuffer(data, np.uint8).reshape(size[1], size[0], 3)
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",) if kind == COLOR_PNG else ("JPEG",))
        if image.size != size:
            raise DataError(f"the colour of {where} is {image.size[0]} x {image.size[1]}, not {size[0]} x {size[1]}: {CURE}")
        return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"the colour of {where} cannot be unpacked ({error}): {CURE}") from error


def _unpack_depth(data: bytes, kind: int, size: tuple[int, int], where: str) -> np.ndarray:
    """Counts [H, W] float32."""
    expected = size[0] * size[1] * 2
    if kind == DEPTH_ZLIB:
        try:
            data = zlib.decompressobj().decompress(data, expected + 1)
        except zlib.error as error:
            raise DataError(f"the depth of {where} cannot be unpacked ({error}): {CURE}") from error
    if len(data) != expected:
        raise DataError(f"{where} has {len(data)} bytes of depth for {size[0]} x {size[1]}: {CURE}")
    return np.frombuffer(data, "<u2").reshape(size[1], size[0]).astype(np.float32)
