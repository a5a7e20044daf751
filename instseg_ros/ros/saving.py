"""Saving the labelled map, inside one folder only."""

__all__ = ["confined_path", "default_save_dir", "save_labelled_map"]

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.labels import CLASS_NAMES
from instseg_ros.persistence import STATE_SUFFIX
from instseg_ros.visual.ply import write_labelled_ply

SUFFIXES = (".npz", ".ply", STATE_SUFFIX)


def default_save_dir() -> Path:
    """Where maps go if nothing is set: `instseg_ros` in ROS_HOME."""
    return Path(os.environ.get("ROS_HOME", "~/.ros")).expanduser() / "instseg_ros"


def confined_path(save_dir: Path | str, path: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The file to write or read, which lies in `save_dir` whatever `path` says.

    Raises:
        InputError: it would lie elsewhere, cannot be a file's name, or does not end in one of the suffixes.
    """
    root = Path(save_dir).expanduser().resolve()
    try:
        target = (root / path).resolve()  # symbolic links are followed before the comparison
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a zero byte in the name
        raise InputError(f"{path!r} names no file in save_dir ({root}): {error}") from error
    if not path or target == root or not target.is_relative_to(root):
        raise InputError(
            f"{path!r} is not inside save_dir ({root}): give a relative path, or start the node with another save_dir"
        )
    if target.suffix not in suffixes:
        raise InputError(f"{path!r} must end in {' or '.join(suffixes)}")
    return target


def save_labelled_map(
    path: Path, cloud: Any, instances: list[Any], coords: np.ndarray, voxel_size_m: float, frame_id: str, stamp_ns: int
) -> None:
    """Write a labelled map; the file appears whole or not at all.

    Args:
        path: .npz (arrays and, as JSON, the instances) or .ply (points coloured by instance, with label and instance).
        cloud: `segmenter.LabelledCloud` of N voxels.
        instances: `tracking.Instance` records.
        coords: [N, 3] int32 voxel indices in the cloud's order.
        voxel_size_m, frame_id, stamp_ns: of the map.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                _write_npz(file, cloud, instances, coords, voxel_size_m, frame_id, stamp_ns)
        else:
            write_labelled_ply(partial, cloud.points_m, cloud.class_index, cloud.instance, cloud.confidence, frame_id)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_npz(
    file: Any, cloud: Any, instances: list[Any], coords: np.ndarray, voxel_size_m: float, frame_id: str, stamp_ns: int
) -> None:
    records = [
        {
            "id": int(one.id),
            "class_index": int(one.class_index),
            "score": float(one.score),
            "voxels": int(one.voxels),
            "class": CLASS_NAMES[one.class_index] if one.class_index < len(CLASS_NAMES) else "unlabelled",
            "box_min_m": [float(v) for v in one.box_min_m],
            "box_max_m": [float(v) for v in one.box_max_m],
            "first_seen_ns": int(one.first_seen_ns),
            "last_changed_ns": int(one.last_changed_ns),
        }
        for one in instances
    ]
    np.savez_compressed(
        file,
        coords=coords,
        colors=cloud.colors,
        class_index=cloud.class_index,
        instance=cloud.instance,
        confidence=cloud.confidence,
        voxel_size_m=voxel_size_m,
        frame_id=frame_id,
        stamp_ns=stamp_ns,
        instances=json.dumps(records),
    )
