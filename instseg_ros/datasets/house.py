"""The furnished house used for checks: a labelled mesh in one .npz file."""

__all__ = ["load_house"]

import zipfile
from pathlib import Path

import numpy as np

from instseg_ros.datasets.rooms import Room
from instseg_ros.datasets.scene_mesh import SceneInstance, SceneMesh
from instseg_ros.errors import DataError
from instseg_ros.labels import class_index

_FIELDS = ("vertices", "faces", "corner_rgb", "face_instance", "instance_name", "benchmark_class")


def load_house(path: Path | str) -> Room:
    """A house as a room with many rooms.

    The file holds `vertices [V, 3]` (m, z up), `faces [F, 3]`, `corner_rgb [F, 3, 3]` uint8, `face_instance [F]`, and per
    instance `instance_name` and `benchmark_class` (a ScanNet-20 name; '' becomes `labels.IGNORE`).

    Args:
        path: the .npz file, or the folder with `house.npz` in it.

    Returns:
        A `Room`; its polygon is the bounding rectangle of the floor: use `free_floor` to find where one can stand.

    Raises:
        DataError: the file is missing, damaged or lacks something.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "house.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _FIELDS if name not in archive.files]
            if missing:
                raise DataError(f"{path} lacks {', '.join(missing)}; a house file holds {', '.join(_FIELDS)}")
            data = {name: archive[name] for name in _FIELDS}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read a house from {path}: {error}. Give the path of house.npz or of its folder") from error
    names, classes = data["instance_name"], data["benchmark_class"]
    if data["corner_rgb"].shape != (len(data["faces"]), 3, 3) or len(names) != len(classes):
        raise DataError(f"{path}: corner_rgb must be [F, 3, 3] and every instance needs a name and a class")
    mesh = SceneMesh(
        data["vertices"].astype(np.float32), data["faces"].astype(np.int32),
        data["corner_rgb"].astype(np.float32).mean(axis=1).round().astype(np.uint8), data["face_instance"].astype(np.int32),
        [SceneInstance(str(n), class_index(str(c))) for n, c in zip(names, classes, strict=False)],
    ).validate()
    floor = mesh.face_class() == class_index("floor")
    if not floor.any():
        raise DataError(f"{path} has no instance of class floor")
    points = mesh.vertices[mesh.faces[floor]].reshape(-1, 3)
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    polygon = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
    floor_z = float(np.median(points[:, 2]))
    return Room(mesh, polygon, float(mesh.vertices[:, 2].max()) - floor_z, floor_z, "house")
