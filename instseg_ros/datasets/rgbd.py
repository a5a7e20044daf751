"""Posed RGB-D sequences: folders with `sequence.json`, TUM RGB-D and ScanNet exports, told apart by what is in them, and `.sens`."""

__all__ = ["FrameFiles", "RgbdSequence", "nearest_stamps", "open_sequence"]

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.images import read_color, read_depth, read_instances, resample_color, undistortion_table
from instseg_ros.datasets.scannet_sens import SensSequence, open_sens
from instseg_ros.errors import DataError

TUM_DEPTH_UNIT_M = 1.0 / 5000.0
TUM_TOLERANCE_NS = 20_000_000
TUM_CALIBRATIONS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, 0.0, 0.0, 0.0, 0.0, 0.0),
}
"""fx fy cx cy and distortion k1 k2 p1 p2 k3 of the colour cameras (to which the depth images are registered)."""


@dataclass(frozen=True)
class FrameFiles:
    """Where one frame's images lie, and its pose."""

    stamp_ns: int
    color: Path
    depth: Path
    T_world_camera: np.ndarray
    instance: Path | None = None


@dataclass(frozen=True)
class RgbdSequence:
    """A posed RGB-D sequence on disk; images are read when a frame is asked for.

    Colour images of another size than the depth's are resampled to the depth image.
    """

    name: str
    files: Sequence[FrameFiles]
    K: np.ndarray
    """[3, 3] intrinsics of the depth image."""
    depth_unit_m: float
    """Metres per count of the depth PNGs."""
    size: tuple[int, int] | None = None
    """(width, height) the depth images must have; None = not declared."""
    K_color: np.ndarray | None = None
    """[3, 3] intrinsics of the colour image where they differ from the depth's."""
    distortion: tuple[float, ...] = ()
    """k1 k2 p1 p2 k3 of images that are still distorted; they are undistorted on reading."""
    skipped: int = 0
    """Frames left out because they had no (finite) pose or no partner image."""

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[RgbdFrame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> RgbdFrame:
        """Read one frame.

        Raises:
            DataError: an image is missing, damaged, of the wrong type or size.
        """
        files = self.files[index]
        depth_m = read_depth(files.depth, self.depth_unit_m)
        if self.size is not None and depth_m.shape != (self.size[1], self.size[0]):
            raise DataError(
                f"{files.depth} is {depth_m.shape[1]} x {depth_m.shape[0]}, but the intrinsics are for "
                f"{self.size[0]} x {self.size[1]}: "
                "correct width, height and K, or export the depth images in that size"
            )
        color = resample_color(read_color(files.color), depth_m.shape, self.K, self.K_color)
        instance = None if files.instance is None else read_instances(files.instance, depth_m.shape)
        if any(self.distortion):
            rows, columns = undistortion_table(depth_m.shape, self.K, self.distortion)
            depth_m, color = depth_m[rows, columns], color[rows, columns]
        return RgbdFrame(files.stamp_ns, depth_m, color, self.K, files.T_world_camera, instance)

    def select(self, stride: int = 1, max_frames: int = 0) -> "RgbdSequence":
        """Every `stride`-th frame, at most `max_frames` of them (0 = all)."""
        return replace(self, files=self.files[::stride][: max_frames or None])


def open_sequence(path: Path | str) -> RgbdSequence | SensSequence:
    """Open a folder of depth and colour images with poses, or a `.sens` file.

    Args:
        path: the folder, its `sequence.json`, or ScanNet's `.sens`.

    Raises:
        DataError: the layout is not one of the three, or a part of it is missing; the message says which.
    """
    path = Path(path)
    if path.suffix == ".sens":
        return open_sens(path)
    if path.name == "sequence.json":
        path = path.parent
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: give the folder that holds the sequence")
    if (path / "sequence.json").is_file():
        sequence = _open_json(path)
    elif (path / "depth.txt").is_file() and (path / "rgb.txt").is_file():
        sequence = _open_tum(path)
    elif (path / "pose").is_dir() and (path / "depth").is_dir():
        sequence = _open_scannet(path)
    else:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{path} is no RGB-D sequence; it holds {found}. "
            "Expected is sequence.json, or rgb.txt + depth.txt + groundtruth.txt (TUM), "
            "or color/ depth/ pose/ intrinsic/ (ScanNet export)"
        )
    if not len(sequence):
        raise DataError(f"{path} has no frame with depth, colour and pose ({sequence.skipped} were left out): check the poses")
    return sequence


# -- layouts -----------------------------------------------------------------------------------------------------------------


def _open_json(path: Path) -> RgbdSequence:
    """`sequence.json`: K, width, height, depth_unit_m and frames of color, depth, stamp (s), T_world_camera(, instance)."""
    try:
        data: dict[str, Any] = json.loads((path / "sequence.json").read_text())
        files = [
            FrameFiles(
                round(float(frame["stamp"]) * 1e9),
                path / frame["color"],
                path / frame["depth"],
                _pose(frame["T_world_camera"], f"frame {index} of {path / 'sequence.json'}"),
                path / frame["instance"] if frame.get("instance") else None,
            )
            for index, frame in enumerate(data["frames"])
        ]
        K = np.array(data["K"], np.float64).reshape(3, 3)
        size = (int(data["width"]), int(data["height"]))
        unit_m = float(data.get("depth_unit_m", 0.001))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path / 'sequence.json'}: {type(error).__name__} {error}. "
            "It must hold width, height, K [3x3], depth_unit_m and frames, "
            "each with color, depth, stamp and T_world_camera [4x4]"
        ) from error
    finite = [f for f in files if np.isfinite(f.T_world_camera).all()]
    return RgbdSequence(path.name, finite, K, unit_m, size, skipped=len(files) - len(finite))


def _open_tum(path: Path) -> RgbdSequence:
    """TUM RGB-D: three lists, matched by the nearest stamp within 20 ms."""
    color_ns, color_files = _tum_list(path / "rgb.txt", 1)
    depth_ns, depth_files = _tum_list(path / "depth.txt", 1)
    pose_ns, poses = _tum_list(path / "groundtruth.txt", 7)
    color_at, pose_at = (
        nearest_stamps(depth_ns, color_ns, TUM_TOLERANCE_NS),
        nearest_stamps(depth_ns, pose_ns, TUM_TOLERANCE_NS),
    )
    files = []
    for index in np.flatnonzero((color_at >= 0) & (pose_at >= 0)):
        T_world_camera = np.eye(4)
        numbers = np.array(poses[pose_at[index]], np.float64)
        T_world_camera[:3, 3] = numbers[:3]
        T_world_camera[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
        files.append(
            FrameFiles(
                int(depth_ns[index]), path / color_files[color_at[index]][0], path / depth_files[index][0], T_world_camera
            )
        )
    calibration = _tum_calibration(path)
    K = np.array([[calibration[0], 0.0, calibration[2]], [0.0, calibration[1], calibration[3]], [0.0, 0.0, 1.0]])
    return RgbdSequence(
        path.name, files, K, TUM_DEPTH_UNIT_M, distortion=tuple(calibration[4:]), skipped=len(depth_ns) - len(files)
    )


def _tum_list(path: Path, columns: int) -> tuple[np.ndarray, list[list[str]]]:
    """Stamps [N] int64 ns, ascending, and the other columns of a TUM list."""
    if not path.is_file():
        raise DataError(f"{path} is missing: a TUM sequence needs rgb.txt, depth.txt and groundtruth.txt")
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        parts = line.split()
        if not parts or line.lstrip().startswith("#"):
            continue
        try:
            entries.append((round(float(parts[0]) * 1e9), parts[1:]))
        except ValueError as error:
            raise DataError(f"{path}:{number} does not begin with a time stamp: {line[:60]!r}") from error
        if len(parts) != columns + 1:
            raise DataError(f"{path}:{number} has {len(parts)} columns, expected {columns + 1}: {line[:60]!r}")
    entries.sort(key=lambda entry: entry[0])
    return np.array([e[0] for e in entries], np.int64), [e[1] for e in entries]


def _tum_calibration(path: Path) -> tuple[float, ...]:
    """fx fy cx cy [k1 k2 p1 p2 k3] from calibration.txt, or by the name of the sequence."""
    own = path / "calibration.txt"
    if own.is_file():
        try:
            numbers = tuple(float(word) for word in own.read_text().split())
        except ValueError:
            numbers = ()
        if not 4 <= len(numbers) <= 9:
            raise DataError(f"{own} must hold `fx fy cx cy` and, if the images are distorted, `k1 k2 p1 p2 k3`")
        return numbers
    for name, calibration in TUM_CALIBRATIONS.items():
        if name in path.resolve().name or f"fr{name[-1]}_" in path.resolve().name:
            return calibration
    raise DataError(
        f"the camera of {path} is unknown: name the folder after its sequence (...freiburg1...) or write fx fy cx cy to {own}"
    )


def nearest_stamps(query_ns: np.ndarray, stamps_ns: np.ndarray, tolerance_ns: int) -> np.ndarray:
    """Index [Q] of the nearest stamp for each query, -1 where it is further than the tolerance; `stamps_ns` ascend."""
    if not len(stamps_ns):
        return np.full(len(query_ns), -1)
    after = np.clip(np.searchsorted(stamps_ns, query_ns), 0, len(stamps_ns) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(stamps_ns[before] - query_ns) <= np.abs(stamps_ns[after] - query_ns), before, after)
    return np.where(np.abs(stamps_ns[nearest] - query_ns) <= tolerance_ns, nearest, -1)


def _open_scannet(path: Path) -> RgbdSequence:
    """ScanNet's exported .sens: color/N.jpg, depth/N.png (mm), pose/N.txt, intrinsic/*.txt; 30 frames a second."""
    K = _matrix(path / "intrinsic" / "intrinsic_depth.txt")[:3, :3]
    color_intrinsic = path / "intrinsic" / "intrinsic_color.txt"
    poses = {p.stem: p for p in (path / "pose").glob("*.txt")}
    depths = {p.stem: p for p in (path / "depth").glob("*.png")}
    colors = {p.stem: p for pattern in ("*.jpg", "*.png") for p in (path / "color").glob(pattern)}
    for name, have in (("color", colors), ("pose", poses)):
        if len(have) != len(depths):
            raise DataError(
                f"{path} has {len(depths)} depth images, but {len(have)} in {name}/: export the sequence again, completely"
            )
    missing = sorted(set(depths) - (set(colors) & set(poses)))
    if missing:
        raise DataError(
            f"{path}: frame {missing[0]} has depth, but no colour or pose of that number: export the sequence again"
        )
    files: list[FrameFiles] = []
    skipped = 0
    for stem in sorted(depths, key=lambda s: (int(s), s) if s.isdigit() else (1 << 60, s)):
        T_world_camera = _matrix(poses[stem])
        if not np.isfinite(T_world_camera).all():
            skipped += 1
            continue
        stamp_ns = (int(stem) if stem.isdigit() else len(files)) * 1_000_000_000 // 30
        files.append(FrameFiles(stamp_ns, colors[stem], depths[stem], T_world_camera))
    K_color = _matrix(color_intrinsic)[:3, :3] if color_intrinsic.is_file() else None
    return RgbdSequence(path.name, files, K, 0.001, K_color=K_color, skipped=skipped)


def _matrix(path: Path) -> np.ndarray:
    """A 4x4 matrix from a text file."""
    try:
        return np.array(path.read_text().split(), np.float64).reshape(4, 4)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: export the sequence with poses and intrinsics") from error
    except ValueError as error:
        raise DataError(f"{path} must hold a 4x4 matrix of numbers") from error


def _pose(values: Any, where: str) -> np.ndarray:
    """[4, 4] from nested lists; a rotation that is none is refused, not finite poses are left to the caller."""
    T_world_camera = np.array(values, np.float64)
    if T_world_camera.shape != (4, 4):
        raise DataError(f"T_world_camera of {where} has shape {T_world_camera.shape}, expected (4, 4)")
    rotation = T_world_camera[:3, :3]
    if np.isfinite(rotation).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2:
        raise DataError(f"T_world_camera of {where} is not a rigid transform: its 3x3 part must be a rotation")
    return T_world_camera
