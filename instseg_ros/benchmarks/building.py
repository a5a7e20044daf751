"""Made-up maps with a patch that changes, and random histories of changes, for the benchmarks of incremental passes."""

__all__ = ["Building", "nearest", "random_history"]

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M, surface_voxels
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap


@dataclass
class Building:
    """A map with a patch of it that changes."""

    coords: np.ndarray
    colors: np.ndarray
    patch: np.ndarray
    """[N] bool: what changes."""

    @staticmethod
    def made_up(voxels: int, share: float) -> "Building":
        """A building of so many voxels, of which a contiguous share changes."""
        coords, colors = surface_voxels(voxels, 0)
        return Building(coords, colors, nearest(coords, max(1, round(share * voxels))))

    def update(self, which: np.ndarray, colors: np.ndarray | None = None) -> MapUpdate:
        """These voxels as an update."""
        chosen = (self.colors if colors is None else colors)[which]
        return MapUpdate(self.coords[which], chosen, np.ones(len(chosen), np.float32), VOXEL_SIZE_M)

    def removal(self) -> MapUpdate:
        """The patch as an update that takes it away."""
        return replace(self.update(np.zeros(len(self.coords), bool)), deleted=self.coords[self.patch])


def nearest(coords: np.ndarray, count: int) -> np.ndarray:
    """[N] bool: the `count` voxels nearest to the middle of the map, from above a square."""
    distance = np.abs(coords[:, :2] - np.median(coords[:, :2], axis=0)).max(axis=1)
    inside = np.zeros(len(coords), bool)
    inside[np.argsort(distance, kind="stable")[:count]] = True
    return inside


def random_history(rng: np.random.Generator, voxels: VoxelMap) -> Iterator[MapDelta]:
    """A patch of surface, then insertions, recolourings and deletions; what each did to the map."""
    coords, colors = surface_voxels(3000, int(rng.integers(1 << 20)))
    known = np.zeros(len(coords), bool)
    for _ in range(int(rng.integers(2, 6))):
        center = coords[rng.integers(len(coords))]
        near = np.abs(coords - center).max(1) < rng.integers(2, 60)
        gone = known & (np.abs(coords - coords[rng.integers(len(coords))]).max(1) < rng.integers(1, 12)) & ~near
        known = (known | near) & ~gone
        shift = rng.integers(0, 256, 3).astype(np.uint8)
        yield voxels.apply(MapUpdate(coords[near], colors[near] + shift, np.ones(int(near.sum()), np.float32), VOXEL_SIZE_M, deleted=coords[gone]))
