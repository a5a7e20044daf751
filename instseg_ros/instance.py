"""What is known of an object in the map, and what can happen to it."""

__all__ = ["Instance", "TrackEvent", "pack_instances", "unpack_instances"]

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Instance:
    """An object in the map."""

    id: int
    class_index: int
    score: float
    voxels: int
    center_m: np.ndarray
    """[3] float32: mean of its voxel centres, m."""
    box_min_m: np.ndarray
    """[3] float32: lowest corner of its axis-parallel box, m."""
    box_max_m: np.ndarray
    """[3] float32: highest corner, m."""
    first_seen_ns: int
    last_changed_ns: int


@dataclass(frozen=True)
class TrackEvent:
    """What happened to an instance."""

    kind: Literal["born", "updated", "merged", "split", "retired"]
    """born: a new id. updated: other voxels, class or score, or back after it had vanished. merged: its voxels went to `other`.
    split: came out of `other`, under a new id or under the one it had before it merged. retired: gone for good."""
    id: int
    other: int
    """Instance id that it merged into or split from, else 0."""
    class_index: int


def pack_instances(prefix: str, instances: list[Instance]) -> dict[str, np.ndarray]:
    """Instances [n] as arrays to save: `PREFIX.FIELD` [n] or [n, 3] for each field."""
    arrays = {}
    for f in fields(Instance):
        values = [getattr(i, f.name) for i in instances]
        vector = f.name.endswith("_m")
        kind = np.float32 if vector else np.float64 if f.name == "score" else np.int64
        arrays[f"{prefix}.{f.name}"] = np.array(values, kind).reshape((len(values), 3) if vector else len(values))
    return arrays


def unpack_instances(prefix: str, state: dict[str, np.ndarray]) -> list[Instance]:
    """The instances that `pack_instances` made arrays of.

    Raises:
        KeyError, ValueError: arrays are missing or not of one length.
    """
    columns = []
    for f in fields(Instance):
        array = state[f"{prefix}.{f.name}"]
        columns.append(list(array) if array.ndim == 2 else array.tolist())
    return [Instance(*row) for row in zip(*columns, strict=True)]
