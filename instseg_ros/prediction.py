"""What a network says of every voxel."""

__all__ = ["Prediction"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np

from instseg_ros.errors import ConfigError


@dataclass(frozen=True)
class Prediction:
    """Published outputs of a network: one row per slot of a map (rows of dead slots mean nothing), or rows picked from it.

    An output is None where the network has no such head (`ModelConfig.heads`).
    """

    semantic: np.ndarray
    """[n, 20] float32 class probabilities."""
    embedding: np.ndarray | None = None
    """[n, D] float32: alike within an instance, different between instances."""
    offset: np.ndarray | None = None
    """[n, 3] float32: from the voxel's centre to the centre of its instance, m (OccuSeg's spatial embedding)."""
    direction: np.ndarray | None = None
    """[n, 3] float32: unit vector towards the centre of its instance (MTML)."""
    covariance: np.ndarray | None = None
    """[n, 2] float32, > 0: how far embedding and offset (m) scatter within its instance (OccuSeg)."""
    occupancy: np.ndarray | None = None
    """[n, 1] float32: logarithm of the number of voxels of its instance (OccuSeg)."""

    @classmethod
    def empty(cls, widths: Mapping[str, int], rows: int = 0) -> "Prediction":
        """Zeros for the outputs named, with their columns."""
        return cls(**{name: np.zeros((rows, width), np.float32) for name, width in widths.items()})

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and arrays of the outputs there are."""
        for f in fields(self):
            if (values := getattr(self, f.name)) is not None:
                yield f.name, values

    def take(self, rows: np.ndarray) -> "Prediction":
        """A copy of some rows."""
        return Prediction(**{name: values[rows] for name, values in self.items()})

    def grown(self, rows: int) -> "Prediction":
        """A copy with zero rows appended, so that there are this many."""
        more = Prediction.empty({name: values.shape[1] for name, values in self.items()}, rows)
        for name, values in self.items():
            getattr(more, name)[: len(values)] = values
        return more

    def require(self, name: str) -> np.ndarray:
        """The output of that name.

        Raises:
            ConfigError: the network has no such head; the message names the cure.
        """
        values = getattr(self, name)
        if values is None:
            have = ", ".join(n for n, _ in self.items())
            raise ConfigError(f"this needs the output {name!r}, the network has {have}: use weights of a preset with the head {name!r} "
                              "(model.heads), or another grouping.method")
        return values
