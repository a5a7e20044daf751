"""The voxel map: what the robot knows so far, with neighbour tables kept current as voxels come and go."""

__all__ = ["MapDelta", "VoxelMap"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MapUpdate, voxel_centers
from instseg_ros.sparse.pyramid import Pyramid, PyramidDelta


@dataclass(frozen=True)
class MapDelta:
    """What one update did to the map, as slots of its arrays."""

    added: np.ndarray
    """[A] int32: slots that hold a voxel that was not there before."""
    changed: np.ndarray
    """[C] int32: slots whose colour changed."""
    removed: np.ndarray
    """[R] int32: slots whose voxel is gone; a slot can be removed and, with another voxel, added in one delta."""
    removed_coords: np.ndarray
    """[R, 3] int32: the voxels that were there."""
    pyramid: PyramidDelta
    """The same for every level of the pyramid."""

    def dirty(self) -> np.ndarray:
        """Slots with new content: added and changed ones."""
        return np.concatenate([self.added, self.changed])


class VoxelMap:
    """Voxels with colour and weight in lasting slots.

    Args:
        voxel_size_m: voxel size; updates of another size are refused.
        frame_id: fixed frame; empty = that of the first update.
        depth: levels of the pyramid.
    """

    def __init__(self, voxel_size_m: float, frame_id: str = "", depth: int = 4) -> None:
        self.voxel_size_m = float(voxel_size_m)
        self.frame_id = frame_id
        self.pyramid = Pyramid(depth)
        self.colors = np.zeros((0, 3), np.uint8)
        self.weights = np.zeros(0, np.float32)

    @property
    def coords(self) -> np.ndarray:
        """[capacity, 3] int32 voxel indices per slot."""
        return self.pyramid.levels[0].coords

    @property
    def neighbors(self) -> np.ndarray:
        """[capacity, 27] int32 neighbour slots, -1 = none."""
        return self.pyramid.levels[0].neighbors

    @property
    def alive(self) -> np.ndarray:
        """[capacity] bool: the slot holds a voxel."""
        return self.pyramid.levels[0].alive

    @property
    def capacity(self) -> int:
        """Slots of the arrays; arrays per slot kept elsewhere grow with it."""
        return self.pyramid.levels[0].capacity

    def __len__(self) -> int:
        return len(self.pyramid.levels[0])

    def lookup(self, coords: np.ndarray) -> np.ndarray:
        """Slots [M] int32 of voxels [M, 3], -1 where there is none."""
        return self.pyramid.levels[0].lookup(coords)

    def live_slots(self) -> np.ndarray:
        """Slots in use [n] int32, ascending."""
        return self.pyramid.levels[0].live_rows()

    def free_slots(self) -> np.ndarray:
        """Slots whose voxel is gone [n] int32; the last is used again first."""
        return self.pyramid.levels[0].free_rows()

    def restore(self, coords: np.ndarray, colors: np.ndarray, weights: np.ndarray, slots: np.ndarray, free: np.ndarray) -> None:
        """Fill a map that has had no voxel yet, so that it goes on as the one this was taken of.

        Args:
            coords, colors, weights: [n, 3], [n, 3], [n] of the voxels.
            slots: [n] their slots.
            free: [f] all other slots below the highest, in the order of `free_slots`.
        """
        self.pyramid.levels[0].arrange(slots, free)
        self.pyramid.insert(coords)
        self._fit()
        self.colors[slots], self.weights[slots] = colors, weights

    def unchanged(self) -> MapDelta:
        """The delta of an update that does nothing."""
        none = np.zeros(0, np.int32)
        return MapDelta(none, none, none, np.zeros((0, 3), np.int32), self.pyramid.apply(none, np.zeros((0, 3), np.int32)))

    def centers_m(self, slots: np.ndarray) -> np.ndarray:
        """Voxel centres [n, 3] float32 of slots, metres in the map frame."""
        return voxel_centers(self.coords[slots], self.voxel_size_m)

    def apply(self, update: MapUpdate) -> MapDelta:
        """Take an update into the map.

        Raises:
            InputError: the update is malformed, or its voxel size or frame is not the map's; the map is as before.
        """
        update.validate()
        if abs(update.voxel_size_m - self.voxel_size_m) > 1e-4 * self.voxel_size_m:
            raise InputError(
                f"the update has voxels of {update.voxel_size_m:g} m, this map has {self.voxel_size_m:g} m: "
                "set voxel_size_m to the mapper's (weights are trained for one size)"
            )
        if self.frame_id and update.frame_id != self.frame_id:
            raise InputError(
                f"the update is in frame '{update.frame_id}', this map in '{self.frame_id}': keep one fixed frame, or reset the map"
            )
        self.frame_id = update.frame_id
        slots = self.lookup(update.coords)
        known = slots >= 0
        gone = self._gone(update, slots[known])
        gone_coords = self.coords[gone].copy()
        old = slots[known]
        changed = old[(self.colors[old] != update.colors[known]).any(axis=1)]
        self.colors[old] = update.colors[known]
        self.weights[old] = update.weights[known]
        delta = self.pyramid.apply(gone, update.coords[~known])
        self._fit()
        added = delta.added[0]
        self.colors[added] = update.colors[~known]
        self.weights[added] = update.weights[~known]
        return MapDelta(added, changed, gone, gone_coords, delta)

    def to_update(self, stamp_ns: int = 0, sequence: int = 0) -> MapUpdate:
        """The whole map as a full update, voxels in slot order."""
        live = self.live_slots()
        return MapUpdate(
            self.coords[live].copy(), self.colors[live].copy(), self.weights[live].copy(), self.voxel_size_m,
            self.frame_id or "map", stamp_ns, sequence, full=True,
        )

    def _gone(self, update: MapUpdate, kept: np.ndarray) -> np.ndarray:
        if update.full:
            stays = np.zeros(self.capacity, bool)
            stays[kept] = True
            live = self.live_slots()
            return live[~stays[live]]
        slots = self.lookup(update.deleted)
        return slots[slots >= 0]

    def _fit(self) -> None:
        if len(self.colors) < self.capacity:
            colors, weights = np.zeros((self.capacity, 3), np.uint8), np.zeros(self.capacity, np.float32)
            colors[: len(self.colors)], weights[: len(self.weights)] = self.colors, self.weights
            self.colors, self.weights = colors, weights
