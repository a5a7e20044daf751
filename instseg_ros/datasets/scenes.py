"""Labelled voxel scenes: what the network is trained and judged on, and their files."""

__all__ = ["VoxelScene", "label_voxels", "load_scene", "save_scene"]

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open3d as o3d

from instseg_ros.datasets.scene_mesh import SceneMesh
from instseg_ros.errors import DataError
from instseg_ros.labels import BACKGROUND, IGNORE, NUM_CLASSES
from instseg_ros.mapping.update import MAX_ABS_COORD, coord_keys, voxel_centers

FORMAT = "instseg_ros voxel scene"
VERSION = 1
ARRAYS = {"coords": (np.int32, 3), "colors": (np.uint8, 3), "class_index": (np.uint8, 0), "instance": (np.int32, 0)}
"""Type and columns (0 = one-dimensional) of the arrays in a file."""


@dataclass
class VoxelScene:
    """The surface voxels of a fused map with their true labels."""

    name: str
    voxel_size_m: float
    coords: np.ndarray
    """[N, 3] int32, unique voxel indices, z up."""
    colors: np.ndarray
    """[N, 3] uint8 RGB."""
    class_index: np.ndarray
    """[N] uint8: 0..19, 255 = not labelled."""
    instance: np.ndarray
    """[N] int32: number of the object, -1 = none (wall, floor, or not labelled)."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What made the scene (seed, split, frames, names of the objects): anything JSON can hold."""

    def __len__(self) -> int:
        return len(self.coords)

    def validate(self) -> "VoxelScene":
        """The scene itself, if its arrays fit together.

        Raises:
            DataError: a shape, type or value is impossible; the message says which.
        """
        count = len(self.coords)
        for name, (dtype, columns) in ARRAYS.items():
            array, shape = getattr(self, name), (count, columns) if columns else (count,)
            if array.shape != shape or array.dtype != dtype:
                raise DataError(f"{name} is {array.shape} {array.dtype}, not {shape} {np.dtype(dtype).name}")
        if not np.isfinite(self.voxel_size_m) or self.voxel_size_m <= 0:
            raise DataError(f"voxel_size_m is {self.voxel_size_m}, not a positive length in metres")
        if count and np.abs(self.coords.astype(np.int64)).max() > MAX_ABS_COORD:
            raise DataError(f"coords reach beyond +-{MAX_ABS_COORD} voxels")
        if len(np.unique(coord_keys(self.coords))) != count:
            raise DataError("coords name a voxel more than once")
        if ((self.class_index >= NUM_CLASSES) & (self.class_index != IGNORE)).any():
            raise DataError(f"class_index holds {self.class_index.max()}; allowed are 0 to {NUM_CLASSES - 1} and {IGNORE}")
        if count and self.instance.min() < -1:
            raise DataError("instance holds numbers below -1")
        return self


def save_scene(path: Path | str, scene: VoxelScene) -> None:
    """Write a scene as compressed .npz: arrays and one JSON string, no pickle. Folders are made.

    The file appears under its name only when it is complete.
    """
    scene.validate()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "format": FORMAT, "version": VERSION, "name": scene.name, "voxel_size_m": scene.voxel_size_m,
        "metadata": scene.metadata,
    }
    partial = path.with_name(path.name + ".part")
    with open(partial, "wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **{name: getattr(scene, name) for name in ARRAYS})
    partial.replace(path)


def load_scene(path: Path | str) -> VoxelScene:
    """Read a scene that `save_scene` wrote.

    Raises:
        DataError: the file is missing, damaged or something else; the message says what to do.
    """
    path = Path(path)
    cure = "write it again with `instseg simulate`"
    try:
        with np.load(path, allow_pickle=False) as data:
            missing = sorted({"header", *ARRAYS} - set(data.files))
            if missing:
                raise DataError(f"{path} is not a voxel scene, it lacks {', '.join(missing)}: {cure}")
            header = json.loads(str(data["header"]))
            arrays = {name: data[name] for name in ARRAYS}
    except FileNotFoundError as error:
        raise DataError(f"there is no scene {path}: check the path, or make scenes with `instseg simulate`") from error
    except DataError:
        raise
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged or not a voxel scene ({error}): {cure}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path} is an .npz of something else: {cure}")
    if header.get("version") != VERSION:
        raise DataError(f"{path} has format version {header.get('version')}, this program reads {VERSION}: {cure}")
    try:
        scene = VoxelScene(str(header["name"]), float(header["voxel_size_m"]), **arrays, metadata=dict(header["metadata"]))
        return scene.validate()
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): {cure}") from error


def label_voxels(
    coords: np.ndarray, voxel_size_m: float, mesh: SceneMesh, max_distance_m: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """True labels of voxels by the nearest face of the clean mesh.

    Wall and floor win only where they are nearer than anything else by half a voxel or more: a curtain or a rug's edge
    stands within one voxel of what is behind it, and what a camera has seen there is the thing in front.

    Args:
        coords: [N, 3] int32.
        voxel_size_m: their size.
        mesh: the scene in the same frame.
        max_distance_m: voxels whose centre is farther from every face are not labelled; default 1.5 voxels.

    Returns:
        Class index [N] uint8 (255 = none) and instance [N] int32: the index into `mesh.instances`; -1 for wall, floor and
        what has no class.
    """
    if len(coords) == 0 or len(mesh.faces) == 0:
        return np.full(len(coords), IGNORE, np.uint8), np.full(len(coords), -1, np.int32)
    centers = voxel_centers(coords, voxel_size_m)
    face_class = np.array([i.class_index for i in mesh.instances] + [IGNORE], np.uint8)[mesh.face_instance]
    background = np.isin(face_class, BACKGROUND)
    distance, face = _closest_face(centers, mesh, np.flatnonzero(~background))
    behind, wall = _closest_face(centers, mesh, np.flatnonzero(background))
    nearer = behind + 0.5 * voxel_size_m < distance
    distance, face = np.where(nearer, behind, distance), np.where(nearer, wall, face)
    near = distance <= (1.5 * voxel_size_m if max_distance_m is None else max_distance_m)
    instance = np.where(near, mesh.face_instance[face], -1).astype(np.int32)
    classes = np.array([i.class_index for i in mesh.instances] + [IGNORE], np.uint8)[instance]
    instance[np.isin(classes, (*BACKGROUND, IGNORE))] = -1
    return classes, instance


def _closest_face(points_m: np.ndarray, mesh: SceneMesh, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [N] to the nearest of the given faces, and which it is [N]; infinite where there are none."""
    if len(faces) == 0:
        return np.full(len(points_m), np.inf), np.zeros(len(points_m), np.int64)
    scene = o3d.t.geometry.RaycastingScene()
    triangles = np.ascontiguousarray(mesh.faces[faces].astype(np.uint32))
    scene.add_triangles(o3d.core.Tensor.from_numpy(mesh.vertices), o3d.core.Tensor.from_numpy(triangles))
    closest = scene.compute_closest_points(o3d.core.Tensor.from_numpy(points_m), nthreads=1)
    distance = np.linalg.norm(closest["points"].numpy() - points_m, axis=1)
    return distance, faces[closest["primitive_ids"].numpy().astype(np.int64)]
