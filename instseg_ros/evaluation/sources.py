"""Where evaluation cases come from: simulated rooms and the house, rendered and fused on first use."""

__all__ = ["CaseSource", "HouseSource", "RoomSource", "house_source", "room_sources"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from instseg_ros.config import FusionConfig
from instseg_ros.datasets.camera import SceneRenderer
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.free_floor import free_floor
from instseg_ros.datasets.house import load_house
from instseg_ros.datasets.rooms import Room, compose_room
from instseg_ros.datasets.scenes import label_voxels
from instseg_ros.datasets.sensor_noise import add_kinect_noise, noisy_poses
from instseg_ros.datasets.walk import walk
from instseg_ros.errors import DataError
from instseg_ros.evaluation.cases import Case, build_case, cached_case

_FRAMES_PER_M2 = 20.0
"""Length of a walk by the floor one can stand on; with the margin to furniture and walls that is a part of the room's floor."""
_MIN_FRAMES = 150
_FRAME_NS = 100_000_000


class CaseSource(Protocol):
    """Makes one case, or reads it from the cache."""

    @property
    def name(self) -> str: ...
    def case(self) -> Case: ...


@dataclass(frozen=True)
class RoomSource:
    """A room composed by seed.

    Attributes:
        seed: of room, trajectory and noise.
        split: whose furniture it holds.
        library: as `compose_room` takes it.
        voxel_size_m: of the map.
        frames_per_update: frames fused between two updates.
        cache: folder for the fused case.
    """

    seed: int
    split: str
    library: str
    voxel_size_m: float
    frames_per_update: int
    cache: Path

    @property
    def name(self) -> str:
        """`room_test_0007`."""
        return f"room_{self.split}_{self.seed:04d}"

    def case(self) -> Case:
        """The case, from the cache if it is there."""
        library = "" if self.library == "auto" else f"_{Path(self.library).stem}"
        return cached_case(self.cache / f"{self.name}{library}_{_settings(self)}.npz", self._make)

    def _make(self) -> Case:
        return _room_case(self.name, compose_room(self.seed, self.split, self.library), self)


@dataclass(frozen=True)
class HouseSource:
    """The house, seen on a walk through its rooms; attributes as of `RoomSource`, `path` is the house's file or folder."""

    path: Path
    seed: int
    voxel_size_m: float
    frames_per_update: int
    cache: Path

    @property
    def name(self) -> str:
        """`house_0000`."""
        return f"house_{self.seed:04d}"

    def case(self) -> Case:
        """The case, from the cache if it is there."""
        return cached_case(self.cache / f"{self.name}_{_settings(self)}.npz", self._make)

    def _make(self) -> Case:
        return _room_case(self.name, load_house(self.path), self)


def room_sources(
    seeds: Iterable[int], split: str, library: Path | None, voxel_size_m: float, frames_per_update: int, cache: Path,
) -> list[RoomSource]:
    """A source per seed; `library` is a furniture catalogue, None = the installed one.

    Raises:
        DataError: the catalogue named is not there.
    """
    if library is not None and str(library) != "procedural" and not library.exists():
        raise DataError(f"no furniture catalogue at {library}: leave it out for the installed one, or name a .sh3f file")
    return [RoomSource(seed, split, str(library or "auto"), voxel_size_m, frames_per_update, cache) for seed in seeds]


def house_source(path: Path, seed: int, voxel_size_m: float, frames_per_update: int, cache: Path) -> HouseSource:
    """The source of the house.

    Raises:
        DataError: there is no house at the path.
    """
    if not path.exists():
        raise DataError(f"no house at {path}: name its folder, the one with house.npz in it: instseg evaluate house FOLDER")
    return HouseSource(path, seed, voxel_size_m, frames_per_update, cache)


def _settings(source: RoomSource | HouseSource) -> str:
    return f"{round(source.voxel_size_m * 1000)}mm_every{source.frames_per_update}"


def _room_case(name: str, room: Room, source: RoomSource | HouseSource) -> Case:
    label = partial(label_voxels, voxel_size_m=source.voxel_size_m, mesh=room.mesh)
    frames = _frames(room, source.seed)
    return build_case(name, frames, label, FusionConfig(voxel_size_m=source.voxel_size_m), source.frames_per_update)


def _frames(room: Room, seed: int) -> Iterator[RgbdFrame]:
    """A walk through the room as a robot would record it: noisy depth, and poses that are a little off."""
    renderer, floor = SceneRenderer(room.mesh, seed), free_floor(room.mesh)
    area_m2 = len(floor.centers_m()) * floor.cell_m**2
    poses = walk(renderer, seed, max(_MIN_FRAMES, round(_FRAMES_PER_M2 * area_m2)), floor)
    rng = np.random.default_rng([seed, 3])
    reported = noisy_poses(poses, rng)
    for i, (true, told) in enumerate(zip(poses, reported, strict=True)):
        frame = add_kinect_noise(renderer.render(true, i * _FRAME_NS), rng)
        yield replace(frame, T_world_camera=told)
