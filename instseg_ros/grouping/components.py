"""Connected components of the foreground voxels, kept current as voxels come, change and go."""

__all__ = ["Components", "canonical_keys", "connect", "contacts", "dilate"]

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from instseg_ros.sparse import kernels

_BASE = (1 << 21) + 16
"""Base of the digits of a key: wider than a coordinate's range by more than any bridge, so that no step runs into the next."""


class VoxelLookup(Protocol):
    """What a voxel map must offer here."""

    @property
    def coords(self) -> np.ndarray: ...

    def lookup(self, coords: np.ndarray) -> np.ndarray: ...


def canonical_keys(coords: np.ndarray) -> np.ndarray:
    """One int64 [N] per voxel [N, 3], in the voxels' lexicographic order; a step (x, y, z) adds (x B + y) B + z."""
    c = np.asarray(coords, np.int64)
    return (c[:, 0] * _BASE + c[:, 1]) * _BASE + c[:, 2]


def _coords_of(keys: np.ndarray) -> np.ndarray:
    half = _BASE // 2
    rest, z = np.divmod(keys + half, _BASE)
    x, y = np.divmod(rest + half, _BASE)
    return np.stack([x, y - half, z - half], axis=1).astype(np.int32)


def dilate(coords: np.ndarray, reach: int) -> np.ndarray:
    """Every voxel [M, 3] int32 within Chebyshev distance `reach` of the voxels [N, 3], themselves among them."""
    keys = canonical_keys(coords)
    steps = np.arange(-reach, reach + 1, dtype=np.int64)
    for axis_step in (1, _BASE, _BASE * _BASE):  # one axis after the other: far fewer duplicates than the whole cube
        keys = np.unique(keys[:, None] + steps * axis_step)
    return _coords_of(keys)


def connect(keys: np.ndarray, reach: int) -> np.ndarray:
    """Connected components of voxels, two being linked within Chebyshev distance `reach`.

    Args:
        keys: [N] canonical keys, ascending and unique.
        reach: largest distance of linked voxels.

    Returns:
        [N] int32 component per voxel, numbered from 0 in the order of their first voxels.
    """
    return kernels.connect(keys, _BASE, reach)


def contacts(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of touching voxels (26-neighbourhood) among sorted keys: indices [P] taken from `rows`, [P] of their neighbours."""
    steps = np.array([(x * _BASE + y) * _BASE + z for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], np.int64)
    wanted = (keys[rows][:, None] + steps[steps != 0]).ravel()
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = np.flatnonzero(keys[place] == wanted)
    return rows[found // 26], place[found]


@dataclass
class ComponentChange:
    """What one update did to the components."""

    ended: list[int]
    """Ids of components that are no more."""
    begun: list[int]
    """Ids of new components: all that a change has touched."""


class Components:
    """Components of the foreground.

    A component that a change touches ends, and what it held is connected anew, together with the new foreground; the rest is
    not looked at. That is enough: two old voxels that are linked were in one component before, and the surroundings of new ones
    are searched.

    Args:
        reach: foreground voxels up to this far apart (Chebyshev) are linked.
    """

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self.of = np.zeros(0, np.int64)
        """[capacity] component per slot, -1 = not foreground. Numbers are not used again, and weeks of updates take more than 31 bits."""
        self.members: dict[int, np.ndarray] = {}
        """Slots [n] int32 of every component, in canonical order."""
        self._next = 0

    def update(
        self, voxel_map: VoxelLookup, removed: np.ndarray, present: np.ndarray, foreground: np.ndarray
    ) -> ComponentChange:
        """Take one change of the map.

        Args:
            voxel_map: the map after the change.
            removed: slots [R] whose voxel is gone (some may hold another voxel by now).
            present: unique slots [n] of living voxels that are new or whose prediction changed.
            foreground: [n] bool, which of them are foreground now.
        """
        self._fit(len(voxel_map.coords))
        touched = [self.of[removed]]
        self.of[removed] = -1
        before = self.of[present]
        touched.append(before)
        self.of[present[~foreground]] = -1
        fresh = present[foreground & (before < 0)]
        if len(fresh) and self.members:
            around = voxel_map.lookup(dilate(voxel_map.coords[fresh], self.reach))
            touched.append(self.of[around[around >= 0]])
        ids = np.unique(np.concatenate(touched))
        ended = ids[ids >= 0].tolist()
        kept = [slots[self.of[slots] == c] for c in ended for slots in (self.members.pop(c),)]
        return ComponentChange(ended, self._begin(voxel_map.coords, np.concatenate([*kept, fresh])))

    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self.of.nbytes + sum(slots.nbytes for slots in self.members.values())

    def _begin(self, coords: np.ndarray, slots: np.ndarray) -> list[int]:
        if not len(slots):
            return []
        keys = canonical_keys(coords[slots])
        order = np.argsort(keys)
        slots = slots[order].astype(np.int32)
        label = connect(keys[order], self.reach)
        self.of[slots] = label.astype(np.int64) + self._next
        by_label = np.argsort(label, kind="stable")
        parts = np.split(slots[by_label], np.cumsum(np.bincount(label))[:-1])
        begun = list(range(self._next, self._next + len(parts)))
        self.members.update(zip(begun, parts, strict=True))
        self._next += len(parts)
        return begun

    def _fit(self, capacity: int) -> None:
        if len(self.of) < capacity:
            self.of = np.concatenate([self.of, np.full(capacity - len(self.of), -1, np.int64)])
