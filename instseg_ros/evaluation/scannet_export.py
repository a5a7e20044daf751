"""ScanNet's instance benchmark in files: predictions as it wants them submitted, ground truth as its script reads it."""

__all__ = ["read_ground_truth", "read_submission", "write_ground_truth", "write_submission"]

from pathlib import Path

import numpy as np

from instseg_ros.datasets.raw_files import check_file
from instseg_ros.errors import DataError
from instseg_ros.evaluation.instances import Predictions
from instseg_ros.labels import BACKGROUND, IGNORE, class_to_nyu40, nyu40_to_class

MASK_FOLDER = "predicted_masks"
INSTANCES_PER_LABEL = 1000
"""A vertex of ground truth holds label * 1000 + instance."""


def write_submission(folder: Path | str, scene: str, predictions: Predictions, vertices: int) -> Path:
    """Write `scene.txt`, with a line `predicted_masks/scene_000.txt label score` per mask, and the masks: 0 or 1 per vertex.

    Masks of an earlier run of the same scene are removed. Instances of wall and floor are left out: the benchmark has none.

    Args:
        folder: of the submission; all scenes go into one.
        scene: name of the scan, without blanks.
        predictions: masks over the vertices of `_vh_clean_2.ply`.
        vertices: how many those are.

    Returns:
        The path of `scene.txt`.

    Raises:
        DataError: the name has a blank, or a mask names a vertex that is not there.
    """
    if not scene or any(c.isspace() or c in "/\\" for c in scene):
        raise DataError(f"{scene!r} cannot be the name of a scene: the benchmark allows no blanks, nor slashes")
    if len(predictions.members) and not 0 <= predictions.members.min() <= predictions.members.max() < vertices:
        raise DataError(f"{scene}: a mask names vertex {predictions.members.max()} of {vertices}: project the voxels onto this mesh")
    folder = Path(folder)
    masks = folder / MASK_FOLDER
    masks.mkdir(parents=True, exist_ok=True)
    for old in masks.glob(f"{scene}_[0-9][0-9][0-9]*.txt"):
        old.unlink()
    labels = class_to_nyu40(predictions.class_index)
    order = np.argsort(predictions.owner, kind="stable")
    members = np.split(predictions.members[order], np.cumsum(np.bincount(predictions.owner, minlength=len(labels)))[:-1])
    lines = []
    for number, (label, score) in enumerate(zip(labels.tolist(), predictions.score.tolist(), strict=True)):
        if predictions.class_index[number] in (*BACKGROUND, IGNORE):
            continue
        text = np.full((vertices, 2), ord("\n"), np.uint8)
        text[:, 0] = ord("0")
        text[members[number], 0] = ord("1")
        (masks / f"{scene}_{number:03d}.txt").write_bytes(text.tobytes())
        lines.append(f"{MASK_FOLDER}/{scene}_{number:03d}.txt {label} {score!r}\n")
    path = folder / f"{scene}.txt"
    path.write_text("".join(lines))
    return path


def read_submission(path: Path | str, vertices: int) -> Predictions:
    """The predictions in a `scene.txt` and its masks; what is not 0 belongs to a mask.

    Raises:
        DataError: a file is missing or damaged, names a mask outside of its folder, or a mask has another number of lines.
    """
    path = Path(path)
    members, owner, labels, scores = [], [], [], []
    if not path.is_file():
        raise DataError(f"{path} is missing: every scan needs one, empty if nothing was found in it")
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            name, label, score = line.split(" ")
            labels.append(int(float(label)))
            scores.append(float(score))
        except ValueError as error:
            raise DataError(f"{path}:{number} is {line[:60]!r}; expected is `mask-file label score`") from error
        mask = (path.parent / name).resolve()
        if Path(name).is_absolute() or path.parent.resolve() not in mask.parents:
            raise DataError(f"{path}:{number} names {name}, outside of the folder of the submission")
        values = _read_numbers(mask, "write the submission again")
        if len(values) != vertices:
            raise DataError(f"{mask} has {len(values)} lines for {vertices} vertices: it is of another mesh")
        inside = np.flatnonzero(values)
        members.append(inside)
        owner.append(np.full(len(inside), len(labels) - 1, np.int64))
    empty = np.zeros(0, np.int64)
    return Predictions(
        np.concatenate([empty, *members]), np.concatenate([empty, *owner]), nyu40_to_class(np.array(labels, np.int64)), np.array(scores),
    )


def write_ground_truth(path: Path | str, label: np.ndarray, instance: np.ndarray) -> None:
    """Write the truth of a scan: label * 1000 + instance per vertex, 0 where there is no label.

    Args:
        path: `<ground truth>/<scene>.txt`.
        label: [V] NYU40 ids, 0 = none (`ScanPoints.label` of ScanNet).
        instance: [V] from 0, -1 = none; written as number + 1, as ScanNet's script counts them.

    Raises:
        DataError: an instance beyond 998, for which the format has no room.
    """
    if len(instance) and instance.max() + 1 >= INSTANCES_PER_LABEL:
        raise DataError(f"instance {instance.max()} does not fit: the format has room for {INSTANCES_PER_LABEL - 1} in a scan")
    ids = np.where(label > 0, label.astype(np.int64) * INSTANCES_PER_LABEL + instance + 1, 0)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, ids, fmt="%d")


def read_ground_truth(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """The truth of a scan from the file that the benchmark's script reads.

    Returns:
        Class index [V] uint8 (`IGNORE` where the label is none of the 20) and instance [V] int32: the file's number modulo 1000,
        -1 where the file holds 0.

    Raises:
        DataError: missing, or not one number a line.
    """
    ids = _read_numbers(Path(path), "write it with `write_ground_truth` or ScanNet's export_train_mesh_for_evaluation.py")
    instance = np.where(ids > 0, ids % INSTANCES_PER_LABEL, -1).astype(np.int32)
    return nyu40_to_class(np.clip(ids // INSTANCES_PER_LABEL, 0, 65535)), instance


def _read_numbers(path: Path, cure: str) -> np.ndarray:
    """[V] int64, one a line."""
    text = check_file(path, cure).read_bytes()
    try:
        values = np.array(text.split(), np.int64)
    except ValueError as error:
        raise DataError(f"{path} is not one number a line ({error}): {cure}") from error
    if len(values) and values.min() < 0:
        raise DataError(f"{path} holds negative numbers: {cure}")
    return values
