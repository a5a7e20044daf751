"""Where evaluation cases come from: simulated rooms and the house, rendered and fused on first use, and files of labelled voxels."""

__all__ = ["CaseSource", "HouseSource", "RoomSource", "SceneSource", "house_source", "room_sources", "scene_case", "scene_sources"]

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from instseg_ros.config import FusionConfig
from instseg_ros.datasets.house import load_house
from instseg_ros.datasets.rooms import Room, compose_room
from instseg_ros.datasets.scenes import VoxelScene, label_voxels, load_scene
from instseg_ros.datasets.simulate import simulate_sequence
from instseg_ros.errors import DataError
from instseg_ros.evaluation.cases import FRAME_ID, Case, build_case, cached_case
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.mapping.update import MapUpdate


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
        """Compose the room; fuse a walk through it, or take that from the cache."""
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
        """Load the house; fuse a walk through it, or take that from the cache."""
        return _room_case(self.name, load_house(self.path), self)


@dataclass(frozen=True)
class SceneSource:
    """A file of labelled voxels (`datasets.scenes`): a toy scene, or a scan that was converted; no trajectory is known.

    Attributes:
        path: of the .npz file.
        voxel_size_m: what all scenes of an evaluation have.
    """

    path: Path
    voxel_size_m: float

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def case(self) -> Case:
        """The scene as one full update.

        Raises:
            DataError: the file is no scene, is empty, or has voxels of another size.
        """
        scene = load_scene(self.path)
        if not len(scene):
            raise DataError(f"{self.path} holds no voxel: take it out of the folder")
        if abs(scene.voxel_size_m - self.voxel_size_m) > 1e-6:
            raise DataError(f"{self.path} has voxels of {scene.voxel_size_m} m, the first scene of {self.voxel_size_m} m: one folder per size")
        return scene_case(self.name, scene)


def scene_case(name: str, scene: VoxelScene) -> Case:
    """A scene as one full update, its voxels in their order."""
    ones = np.ones(len(scene), np.float32)
    final = MapUpdate(scene.coords, scene.colors, ones, scene.voxel_size_m, FRAME_ID, full=True)
    return Case(name, [final], final, GroundTruth.of(scene.coords, scene.class_index, scene.instance, scene.voxel_size_m))


def scene_sources(folder: Path, count: int | None = None) -> list[SceneSource]:
    """A source per scene file of a folder, or of its subfolder `test` if it has one, in the order of their names.

    Args:
        folder: with .npz files that `save_scene` wrote.
        count: at most so many; None = all.

    Raises:
        DataError: there is no scene.
    """
    place = folder / "test" if (folder / "test").is_dir() else folder
    files = sorted(place.glob("*.npz"))
    if not files:
        raise DataError(f"no scenes (.npz) in {place}: name the folder that `instseg simulate` or a converter wrote")
    size = load_scene(files[0]).voxel_size_m
    return [SceneSource(path, size) for path in files[:count]]


def room_sources(
    seeds: Iterable[int], split: str, library: Path | str | None, voxel_size_m: float, frames_per_update: int, cache: Path,
) -> list[RoomSource]:
    """A source per seed; `library` is a furniture catalogue or "procedural", None = the installed catalogue.

    Raises:
        DataError: the catalogue named is not there.
    """
    name = str(library or "auto")
    if name not in ("auto", "procedural") and not Path(name).exists():
        raise DataError(f"no furniture catalogue at {name}: leave it out for the installed one, or name a .sh3f file")
    return [RoomSource(seed, split, name, voxel_size_m, frames_per_update, cache) for seed in seeds]


def house_source(path: Path, seed: int, voxel_size_m: float, frames_per_update: int, cache: Path) -> HouseSource:
    """The source of the house.

    Raises:
        DataError: there is no house at the path.
    """
    if not path.exists():
        raise DataError(f"no house at {path}: name its folder, the one with house.npz in it: instseg evaluate house FOLDER")
    return HouseSource(path, seed, voxel_size_m, frames_per_update, cache)


def _room_case(name: str, room: Room, source: RoomSource | HouseSource) -> Case:
    """The case of a scene, from the cache if that scene was fused with these settings before."""
    # the scene itself is part of the name: without the catalogue, or after a change to the composer, a seed is another room
    digest = hashlib.sha256()
    for array in (room.mesh.vertices, room.mesh.faces, room.mesh.face_colors, room.mesh.face_instance):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr(room.mesh.instances).encode())
    size = f"{round(source.voxel_size_m * 1000)}mm_every{source.frames_per_update}"
    path = source.cache / f"{name}_{size}_{digest.hexdigest()[:10]}.npz"
    return cached_case(path, partial(_fuse, name, room, source))


def _fuse(name: str, room: Room, source: RoomSource | HouseSource) -> Case:
    label = partial(label_voxels, voxel_size_m=source.voxel_size_m, mesh=room.mesh)
    frames = simulate_sequence(room, source.seed)
    return build_case(name, frames, label, FusionConfig(voxel_size_m=source.voxel_size_m), source.frames_per_update)
