"""Evaluation cases: a fused sequence as the map updates a robot would have sent, with ground truth for every voxel."""

__all__ = ["Case", "build_case", "cached_case", "load_case", "save_case"]

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from instseg_ros.config import FusionConfig
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import DataError
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.mapping.fusion import TsdfFusion
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.online import fused_updates

FRAME_ID = "map"
_FORMAT = 1

Labeller = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From voxels [N, 3] to their ground-truth class [N] uint8 and instance [N] int32."""


@dataclass(frozen=True)
class Case:
    """One scene, seen along one trajectory."""

    name: str
    updates: list[MapUpdate]
    """What changed, every few frames. Applied one after the other they give `final`."""
    final: MapUpdate
    """The whole map at the end, as one full update."""
    truth: GroundTruth
    """Of every voxel that any of the updates holds."""


def build_case(
    name: str, frames: Iterable[RgbdFrame], label: Labeller, config: FusionConfig | None = None, frames_per_update: int = 5,
) -> Case:
    """Fuse frames, and keep what a mapper would have published.

    Args:
        name: for people.
        frames: in order of time.
        label: ground truth of voxels, such as `datasets.scenes.label_voxels` bound to a mesh.
        config: settings of the fusion.
        frames_per_update: frames between two updates.

    Raises:
        DataError: the frames leave an empty map.
    """
    fusion = TsdfFusion(config)
    updates = [step.update for step in fused_updates(fusion, frames, frames_per_update, FRAME_ID)]
    stamp_ns = updates[-1].stamp_ns if updates else 0
    final = replace(fusion.take_update(stamp_ns, FRAME_ID, full=True), sequence=0)
    if not len(final):
        raise DataError(f"{name}: no voxel comes of the frames; check that depth is in metres and the poses are T_world_camera")
    seen = np.unique(np.concatenate([update.coords for update in updates]), axis=0)
    class_index, instance = label(seen)
    return Case(name, updates, final, GroundTruth.of(seen, class_index, instance, final.voxel_size_m))


def save_case(path: Path | str, case: Case) -> None:
    """Write a case as one compressed .npz without pickles."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {
        "format": np.array(_FORMAT), "name": np.array(case.name), "voxel_size_m": np.array(case.final.voxel_size_m),
        "truth_coords": case.truth.coords, "truth_class_index": case.truth.class_index, "truth_instance": case.truth.instance,
    }
    steps = [*case.updates, case.final]
    for field in ("coords", "colors", "weights", "deleted"):
        arrays[field] = np.concatenate([getattr(step, field) for step in steps])
    arrays["counts"] = np.array([len(step) for step in steps])
    arrays["deleted_counts"] = np.array([len(step.deleted) for step in steps])
    arrays["stamp_ns"] = np.array([step.stamp_ns for step in steps], np.int64)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def load_case(path: Path | str) -> Case:
    """Read a case.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if int(arrays["format"]) != _FORMAT:
            raise DataError(f"{path} was written by another version: delete it, and it will be made again")
        size = float(arrays["voxel_size_m"])
        ends, gone = np.cumsum(arrays["counts"])[:-1], np.cumsum(arrays["deleted_counts"])[:-1]
        columns = [np.split(arrays[field], ends) for field in ("coords", "colors", "weights")]
        deleted, stamps = np.split(arrays["deleted"], gone), arrays["stamp_ns"].tolist()
        steps = [
            MapUpdate(coords, colors, weights, size, FRAME_ID, stamp, i, False, removed)
            for i, (coords, colors, weights, removed, stamp) in enumerate(zip(*columns, deleted, stamps, strict=True))
        ]
        truth = GroundTruth(arrays["truth_coords"], arrays["truth_class_index"], arrays["truth_instance"], size)
        return Case(str(arrays["name"]), steps[:-1], replace(steps[-1], full=True, sequence=0), truth)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable evaluation case ({error}): delete it, and it will be made again") from error


def cached_case(path: Path, make: Callable[[], Case]) -> Case:
    """The case of a file; made and written first if there is no such file."""
    if path.is_file():
        return load_case(path)
    case = make()
    save_case(path, case)
    return case
