"""Labelled points of a scan, as a data set gives them, to labelled voxels, and what is known of the voxels back to the points."""

__all__ = ["LabelledPoints", "ScanPoints", "level_by_floor", "load_scan_points", "save_scan_points", "to_scene"]

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.datasets.clouds import sample_triangles
from instseg_ros.datasets.scenes import VoxelScene
from instseg_ros.datasets.vote import vote_voxels
from instseg_ros.errors import DataError
from instseg_ros.labels import BACKGROUND, IGNORE
from instseg_ros.mapping.update import voxel_coords

SAMPLES_PER_VOXEL = 2.0
"""Samples along a voxel's edge on the faces of a mesh, so that large faces leave no holes."""
MAX_TILT_DEG = 45.0
FLOOR_PERCENT = 1.0
"""This share of the points may lie below the floor: reflections and noise."""


@dataclass
class LabelledPoints:
    """One scan: the points of a cloud, or the vertices of a mesh, in the order of the file that holds them."""

    name: str
    points_m: np.ndarray
    """[P, 3] float64, z up."""
    colors: np.ndarray
    """[P, 3] uint8."""
    class_index: np.ndarray
    """[P] uint8: 0..19, 255 = not labelled, or a class that is not among the 20."""
    instance: np.ndarray
    """[P] int32, -1 = none. Wall, floor and what is not among the 20 classes keep their numbers here."""
    label: np.ndarray
    """[P] int32: the data set's own label."""
    label_names: dict[int, str]
    """Name of each of its labels."""
    faces: np.ndarray | None = None
    """[F, 3] int32 for a mesh."""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanPoints:
    """What leads from the voxels of a scene back to the points of its scan, and the truth there."""

    voxel_of_point: np.ndarray
    """[P] int32: row of the scene that each point lies in: `labels[voxel_of_point]` are the labels of the points."""
    label: np.ndarray
    """[P] int32: the data set's own label."""
    instance: np.ndarray
    """[P] int32, -1 = none."""
    label_names: dict[int, str]

    def class_of(self, names: Sequence[str]) -> np.ndarray:
        """[P] uint8: the index into `names` of each point's label, 255 for labels of other names: the truth of an evaluation that
        counts by the data set's own classes."""
        table = {number: names.index(name) for number, name in self.label_names.items() if name in names}
        numbers = np.array(sorted(table), np.int64)
        place = np.minimum(np.searchsorted(numbers, self.label), max(len(numbers) - 1, 0))
        if not len(numbers):
            return np.full(len(self.label), IGNORE, np.uint8)
        found = np.array([table[n] for n in numbers.tolist()], np.uint8)[place]
        return np.where(numbers[place] == self.label, found, IGNORE).astype(np.uint8)


def to_scene(scan: LabelledPoints, voxel_size_m: float) -> tuple[VoxelScene, ScanPoints]:
    """Voxelise a scan: majority labels and mean colours.

    The faces of a mesh are sampled too, each sample with labels and colour of its nearest corner. The scene is moved up or down so that
    the floor, taken to be the height above which 99 % of the points lie, is at 0, which is where networks look for it; `floor_z_m` in the
    scene's metadata is its height in the frame of the scan.

    Args:
        scan: the points.
        voxel_size_m: edge of a voxel.

    Raises:
        DataError: the arrays of the scan do not fit together.
        InputError: a point is not finite or too far out.
    """
    count = len(scan.points_m)
    for name in ("colors", "class_index", "instance", "label"):
        if len(getattr(scan, name)) != count:
            raise DataError(f"{scan.name} has {count} points, but {len(getattr(scan, name))} entries in {name}: its files do not belong together")
    hidden = np.isin(scan.class_index, (*BACKGROUND, IGNORE))
    instance = np.where(hidden, -1, scan.instance).astype(np.int32)
    floor_z_m = float(np.percentile(scan.points_m[:, 2], FLOOR_PERCENT, method="lower")) if count else 0.0
    scan = replace(scan, points_m=scan.points_m - [0.0, 0.0, floor_z_m])
    points_m, vertex = scan.points_m, np.arange(count)
    if scan.faces is not None and len(scan.faces):
        on_faces = [_nearest_corners(scan, points, weights) for points, weights in _samples(scan, voxel_size_m)]
        points_m = np.concatenate([points_m, *(points for points, _ in on_faces)])
        vertex = np.concatenate([vertex, *(rows for _, rows in on_faces)])
    voxels = vote_voxels(points_m, scan.colors[vertex], scan.class_index[vertex], instance[vertex], voxel_size_m)
    numbers = np.unique(voxels.instance[voxels.instance >= 0])
    names = {str(n): scan.label_names.get(int(scan.label[instance == n][0]), "") for n in numbers}
    metadata = {**scan.metadata, "voxels_from": "points" if scan.faces is None else "mesh", "instance_names": names, "floor_z_m": floor_z_m}
    scene = VoxelScene(scan.name, voxel_size_m, voxels.coords, voxels.colors, voxels.class_index, voxels.instance, metadata)
    back = voxels.voxel_of_point[:count].astype(np.int32)
    return scene, ScanPoints(back, scan.label.astype(np.int32), scan.instance.astype(np.int32), scan.label_names)


def _samples(scan: LabelledPoints, voxel_size_m: float) -> Any:
    """Parts of (points [n, 3], weights of the corners and number of the face [n, 4]) on faces that a voxel does not hold."""
    assert scan.faces is not None
    corners = scan.points_m[scan.faces]
    coords = voxel_coords(corners.reshape(-1, 3), voxel_size_m).reshape(-1, 3, 3)
    wide = np.flatnonzero((coords != coords[:, :1]).any(axis=(1, 2)))
    attributes = np.empty((len(wide), 3, 4))
    attributes[:, :, :3] = np.eye(3)
    attributes[:, :, 3] = wide[:, None]
    return sample_triangles(corners[wide], attributes, voxel_size_m / SAMPLES_PER_VOXEL)


def _nearest_corners(scan: LabelledPoints, points_m: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The samples that are not corners themselves, and the vertex nearest to each."""
    assert scan.faces is not None
    inner = weights[:, :3].max(axis=1) < 1.0 - 1e-9
    faces = np.rint(weights[inner, 3]).astype(np.int64)
    return points_m[inner], scan.faces[faces, weights[inner, :3].argmax(axis=1)].astype(np.int64)


def level_by_floor(points_m: np.ndarray, floor: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] that turns the normal of the floor to +z: `points_m @ R.T` stand upright.

    Args:
        points_m: [P, 3] in any frame.
        floor: [P] bool, which are floor. With fewer than 50 of them, or a floor tilted more than 45 degrees against `up`, `up`
            itself is turned to +z.
        up: [3] a rough direction upwards in that frame.
    """
    normal = np.asarray(up, np.float64) / np.linalg.norm(up)
    if floor.sum() >= 50:
        centred = points_m[floor] - np.median(points_m[floor], axis=0)
        fitted = np.linalg.svd(centred[:: max(1, len(centred) // 20_000)], full_matrices=False)[2][2]
        fitted = fitted if fitted @ normal >= 0 else -fitted
        if fitted @ normal > np.cos(np.radians(MAX_TILT_DEG)):
            normal = fitted
    side = np.eye(3)[np.argmin(np.abs(normal))]
    x = np.cross(side, normal)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(normal, x), normal])


def save_scan_points(path: Path | str, points: ScanPoints) -> None:
    """Write as compressed .npz, no pickle; folders are made. The file appears under its name only when it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    names = json.dumps({str(k): v for k, v in points.label_names.items()})
    with open(partial, "wb") as file:
        np.savez_compressed(
            file, voxel_of_point=points.voxel_of_point, label=points.label, instance=points.instance, label_names=np.array(names)
        )
    partial.replace(path)


def load_scan_points(path: Path | str) -> ScanPoints:
    """Read what `save_scan_points` wrote.

    Raises:
        DataError: missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            names = {int(k): str(v) for k, v in json.loads(str(data["label_names"])).items()}
            return ScanPoints(data["voxel_of_point"], data["label"], data["instance"], names)
    except (OSError, EOFError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no points of a scan ({error}): write it again with `instseg convert`") from error
