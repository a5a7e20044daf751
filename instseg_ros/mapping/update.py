"""MapUpdate: one step in the life of a fused map, as every mapper's output is turned into."""

__all__ = ["MAX_ABS_COORD", "MAX_VOXELS", "MapUpdate", "coord_keys", "voxel_centers", "voxel_coords"]

from dataclasses import dataclass, field

import numpy as np

from instseg_ros.errors import InputError

MAX_ABS_COORD = (1 << 20) - 1
"""Voxel indices beyond this are refused: at 5 cm it is 52 km from the origin."""
MAX_VOXELS = 50_000_000
"""More voxels in one update than this are refused before memory is taken for them."""


def voxel_coords(points_m: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """Indices [N, 3] int32 of the voxels that hold the points [N, 3] (metres, map frame)."""
    return np.floor(np.asarray(points_m, np.float64) / voxel_size_m).astype(np.int32)


def voxel_centers(coords: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """Centres [N, 3] float32 (metres, map frame) of voxels [N, 3]."""
    return ((np.asarray(coords, np.float64) + 0.5) * voxel_size_m).astype(np.float32)


@dataclass(frozen=True)
class MapUpdate:
    """The voxels that appeared, changed or vanished since the update before.

    Voxel (i, j, k) covers [i, i+1) x [j, j+1) x [k, k+1) times `voxel_size_m` in the frame `frame_id`.
    """

    coords: np.ndarray
    """[N, 3] int32, unique: voxels that are new or have changed (all of them if `full`)."""
    colors: np.ndarray
    """[N, 3] uint8 RGB."""
    weights: np.ndarray
    """[N] float32 > 0: how much was measured there (number of observations; 1 where unknown)."""
    voxel_size_m: float
    frame_id: str = "map"
    stamp_ns: int = 0
    sequence: int = 0
    """Counts updates of one source from 0; a gap means that something was lost."""
    full: bool = False
    """The whole map: every voxel that is not in `coords` is gone."""
    deleted: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    """[M, 3] int32: voxels that are gone; none of them may also be in `coords`."""

    def __len__(self) -> int:
        return len(self.coords)

    def validate(self) -> None:
        """Refuse what would damage a map.

        Raises:
            InputError: wrong shape or type, lengths that disagree, duplicates, coordinates out of range,
                weights that are not finite and positive, a voxel both set and deleted.
        """
        if not np.isfinite(self.voxel_size_m) or not 1e-4 <= self.voxel_size_m <= 10.0:
            raise InputError(f"voxel_size is {self.voxel_size_m} m: set the mapper's voxel size, in metres, between 0.0001 and 10")
        if not self.frame_id:
            raise InputError("frame_id is empty: the mapper must fill header.frame_id with the map's fixed frame")
        for name, array, dtype in (("coords", self.coords, np.int32), ("deleted", self.deleted, np.int32), ("colors", self.colors, np.uint8)):
            if array.ndim != 2 or array.shape[1] != 3 or array.dtype != dtype:
                raise InputError(f"{name} has shape {array.shape} and type {array.dtype}: it must be [N, 3] {np.dtype(dtype).name}")
        count = len(self.coords)
        if count + len(self.deleted) > MAX_VOXELS:
            raise InputError(f"{count + len(self.deleted)} voxels in one update, more than {MAX_VOXELS}: send the map in parts")
        if len(self.colors) != count or self.weights.shape != (count,):
            raise InputError(
                f"{count} coords, {len(self.colors)} colors and weights of shape {self.weights.shape}: the lengths must agree"
            )
        for name, array in (("coords", self.coords), ("deleted", self.deleted)):
            if len(array) and (array.min() < -MAX_ABS_COORD or array.max() > MAX_ABS_COORD):
                raise InputError(f"{name} reach beyond +-{MAX_ABS_COORD} voxels: check the mapper's units and frame")
        if count and not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise InputError("weights must be finite and positive: leave unobserved voxels out, or send 1 where the weight is unknown")
        keys = coord_keys(np.concatenate([self.coords, self.deleted]))
        if (keys[1:] > keys[:-1]).all():
            return
        keys.sort()  # np.unique takes ten times as long
        if (keys[1:] == keys[:-1]).any():
            raise InputError("a voxel is named more than once: send each voxel once, either in coords or in deleted")


def coord_keys(coords: np.ndarray) -> np.ndarray:
    """One int64 [N] per voxel index [N, 3] within +-`MAX_ABS_COORD`, distinct for distinct voxels and in their order."""
    c = np.asarray(coords, np.int64) + (1 << 20)
    return (c[:, 0] << 42) | (c[:, 1] << 21) | c[:, 2]
