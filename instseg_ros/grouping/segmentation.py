"""What grouping hands on: segments, the voxels they hold, and which of them are new."""

__all__ = ["Segment", "Segmentation"]

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Segment:
    """One instance candidate."""

    slots: np.ndarray
    """[n] int32 slots of its voxels, in the order of the voxels' coordinates."""
    class_index: int
    """0..19, never a background class."""
    score: float
    """0..1: mean probability of the class over the voxels, lowered where the grouping was unsure, and for what may be a piece of an object."""


@dataclass
class Segmentation:
    """All segments of a map, after one regrouping."""

    segment: np.ndarray
    """[capacity] int64 segment id per slot, -1 = none."""
    segments: dict[int, Segment]
    """Every segment by its id. An id names the same segment for as long as its voxels do not change, and is not used again."""
    touched: set[int] = field(default_factory=set)
    """Ids of the segments that are new, or whose class or score changed."""
    gone: set[int] = field(default_factory=set)
    """Ids of segments that ended: their voxels are in touched segments, in none, or deleted."""
