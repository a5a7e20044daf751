"""Posed RGB-D frames as a folder with `sequence.json`, as `rgbd.open_sequence` reads it."""

__all__ = ["write_sequence"]

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import DataError

DEPTH_UNIT_M = 0.001


def write_sequence(path: Path | str, frames: Sequence[RgbdFrame]) -> None:
    """Write frames as 16-bit PNG (mm), JPEG, and 16-bit PNG of instance + 1 where instances are known.

    Raises:
        DataError: there are no frames, or they differ in size or intrinsics.
    """
    if not frames:
        raise DataError("a sequence needs at least one frame")
    first, path = frames[0], Path(path)
    rows = []
    for kind in ("depth", "color", "instance"):
        (path / kind).mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames):
        if frame.depth_m.shape != first.depth_m.shape or not np.array_equal(frame.K, first.K):
            raise DataError(f"frame {k} has another size or other intrinsics than frame 0: write one sequence per camera")
        row = {
            "color": f"color/{k:04d}.jpg", "depth": f"depth/{k:04d}.png", "stamp": frame.stamp_ns / 1e9,
            "T_world_camera": np.asarray(frame.T_world_camera, np.float64).tolist(),
        }
        depth = np.clip(np.rint(np.nan_to_num(frame.depth_m, posinf=0, neginf=0) / DEPTH_UNIT_M), 0, 65535)
        Image.fromarray(depth.astype(np.uint16)).save(path / row["depth"])
        Image.fromarray(frame.color).save(path / row["color"], quality=95, subsampling=0)
        if frame.instance is not None:
            row["instance"] = f"instance/{k:04d}.png"
            Image.fromarray((frame.instance + 1).astype(np.uint16)).save(path / row["instance"])
        rows.append(row)
    height, width = first.depth_m.shape
    header = {"width": width, "height": height, "depth_unit_m": DEPTH_UNIT_M, "K": first.K.tolist(), "frames": rows}
    (path / "sequence.json").write_text(json.dumps(header, indent=1) + "\n")
