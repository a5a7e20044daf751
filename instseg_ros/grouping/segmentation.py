"""What grouping hands on: segments, the voxels they hold, and which of them are new."""

__all__ = ["PredictionLike", "PredictionRows", "Segment", "Segmentation"]

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class PredictionLike(Protocol):
    """Arrays of per-voxel predictions, by slot of the map or as rows picked from it."""

    @property
    def semantic(self) -> np.ndarray: ...
    @property
    def embedding(self) -> np.ndarray: ...
    @property
    def offset(self) -> np.ndarray: ...


@dataclass
class PredictionRows:
    """The predictions of some voxels, in the order of those voxels."""

    semantic: np.ndarray
    """[n, 20] class probabilities."""
    embedding: np.ndarray
    """[n, D] instance embedding."""
    offset: np.ndarray
    """[n, 3] vector to the centre of the voxel's instance, m."""

    @classmethod
    def take(cls, prediction: PredictionLike, slots: np.ndarray) -> "PredictionRows":
        """The rows of the slots [n]."""
        return cls(prediction.semantic[slots], prediction.embedding[slots], prediction.offset[slots])


@dataclass(frozen=True)
class Segment:
    """One instance candidate."""

    slots: np.ndarray
    """[n] int32 slots of its voxels, in the order of the voxels' coordinates."""
    class_index: int
    """0..19, never a background class."""
    score: float
    """0..1: mean probability of the class over the voxels, lowered where the grouping was unsure."""


@dataclass
class Segmentation:
    """All segments of a map, after one regrouping."""

    segment: np.ndarray
    """[capacity] int32 segment id per slot, -1 = none."""
    segments: dict[int, Segment]
    """Every segment by its id. An id names the same segment for as long as its voxels do not change, and is not used again."""
    touched: set[int] = field(default_factory=set)
    """Ids of the segments that are new, or whose class or score changed."""
    gone: set[int] = field(default_factory=set)
    """Ids of segments that ended: their voxels are in touched segments, in none, or deleted."""
