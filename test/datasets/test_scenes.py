"""Voxel scenes: files that survive a round trip, damaged files that are refused, labels by the nearest face."""

import json

import numpy as np
import pytest

from instseg_ros.datasets.scene_mesh import SceneInstance, SceneMesh, concatenate
from instseg_ros.datasets.scenes import VoxelScene, label_voxels, load_scene, save_scene
from instseg_ros.errors import DataError
from instseg_ros.labels import IGNORE, class_index


def scene() -> VoxelScene:
    coords = np.array([[0, 0, 0], [1, 0, 0], [-5, 7, 2]], np.int32)
    return VoxelScene(
        "kitchen", 0.05, coords, np.full((3, 3), 9, np.uint8), np.array([0, 4, IGNORE], np.uint8),
        np.array([-1, 3, -1], np.int32),
        {"seed": 4, "names": ["Stuhl", "стол"]},
    )


def square(name: str, x: float, y: float) -> SceneMesh:
    """A horizontal square of 40 cm at z = 0.025."""
    vertices = np.array([[x, y, 0.025], [x + 0.4, y, 0.025], [x + 0.4, y + 0.4, 0.025], [x, y + 0.4, 0.025]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    colors, instance = np.zeros((2, 3), np.uint8), np.zeros(2, np.int32)
    return SceneMesh(vertices, faces, colors, instance, [SceneInstance(name, class_index(name))])


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "kitchen.npz"
    save_scene(path, scene())
    back, first = load_scene(path), scene()
    assert (back.name, back.voxel_size_m, back.metadata) == (first.name, first.voxel_size_m, first.metadata)
    for name in ("coords", "colors", "class_index", "instance"):
        read, written = getattr(back, name), getattr(first, name)
        assert np.array_equal(read, written) and read.dtype == written.dtype
    assert [p.name for p in path.parent.iterdir()] == ["kitchen.npz"]


def test_damaged_files_are_refused_with_the_cure(tmp_path):
    good = tmp_path / "good.npz"
    save_scene(good, scene())
    whole = good.read_bytes()
    flipped = whole[:400] + bytes(60) + whole[460:]
    for name, content in {"cut": whole[:200], "empty": b"", "text": b"hello", "flipped": flipped}.items():
        bad = tmp_path / f"{name}.npz"
        bad.write_bytes(content)
        with pytest.raises(DataError, match="instseg simulate"):
            load_scene(bad)
    with pytest.raises(DataError, match="no scene"):
        load_scene(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("change, match", [
    ({"coords": np.zeros((3, 3), np.int32)}, "more than once"), ({"coords": np.zeros((3, 2), np.int32)}, "coords is"),
    ({"class_index": np.array([0, 20, 1], np.uint8)}, "class_index"), ({"instance": np.zeros(2, np.int32)}, "instance is"),
    ({"instance": np.full(3, -2, np.int32)}, "below -1"), ({"colors": np.zeros((3, 3))}, "colors is"),
    ({"header": np.array(json.dumps({"format": "cake"}))}, "something else"), ({"header": np.array("{")}, "damaged"),
    ({"instance": np.array([None] * 3, object)}, "damaged"), ({"coords": np.array([[1 << 30, 0, 0]] * 3, np.int32)}, "beyond"),
])
def test_wrong_contents_are_refused(tmp_path, change, match):
    path = tmp_path / "x.npz"
    save_scene(path, scene())
    with np.load(path) as data:
        arrays = dict(data)
    np.savez(path, **{**arrays, **change})
    with pytest.raises(DataError, match=match):
        load_scene(path)
    del arrays["colors"]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="lacks colors"):
        load_scene(path)


def test_voxels_take_the_label_of_the_nearest_face():
    mesh = concatenate([square("floor", 0, 0), square("chair", 1, 0), square("lamp", 2, 0), square("table", 1, 1)])
    coords = np.array([[2, 2, 0], [22, 2, 0], [42, 2, 0], [22, 22, 1], [22, 22, 3], [60, 60, 60]], np.int32)
    classes, instance = label_voxels(coords, 0.05, mesh)
    assert classes.tolist() == [1, 4, IGNORE, 6, IGNORE, IGNORE]
    assert instance.tolist() == [-1, 1, -1, 3, -1, -1]
    nothing = label_voxels(np.zeros((0, 3), np.int32), 0.05, mesh)
    assert [len(a) for a in nothing] == [0, 0]
