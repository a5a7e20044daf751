"""SceneNN meshes with their XML."""

import numpy as np
import pytest
from raw_writers import LFS_POINTER, join, patch, write_ply

from instseg_ros.datasets.labelled_points import to_scene
from instseg_ros.datasets.scenenn import find_scenenn, read_scenenn
from instseg_ros.errors import DataError
from instseg_ros.evaluation.scenenn import SCENENN_CLASSES
from instseg_ros.labels import CLASS_NAMES, IGNORE

XML = """<?xml version="1.0" encoding="UTF-8"?>
<annotation>
  <label id="21" text="floor" nyu_class="floor" color="0 255 0" aabbox="0 0 0 1 1 1"/>
  <label id="300" text="stool" nyu_class="chair" color="255 0 0"/>
  <label id="41" text="my fridge" nyu_class="fridge" color="0 0 255"/>
  <label id="77" text="cup" nyu_class="prop" color="9 9 9"/>
  <label id="78" text="something" nyu_class="" color="9 9 9"/>
</annotation>
"""


def write_scene(folder, y_up=True):
    """Patches floor, chair, fridge, prop, one with an empty class, one that the XML does not name."""
    folder.mkdir(parents=True)
    ids = (21, 300, 41, 77, 78, 5)
    points, faces, label = join([
        patch((0, 0, 0), 2.0, 12, ids[0]), *(patch((0.5 * k - 1, 0.4, 0.6), 0.3, 6, ids[k]) for k in range(1, 6)),
    ])
    if y_up:
        points = points[:, [0, 2, 1]] * [1, 1, -1]  # z up to y up
    fields = [(c, "f4", points[:, k]) for k, c in enumerate("xyz")] + [("nx", "f4", 0), ("red", "u1", 40), ("green", "u1", 50), ("blue", "u1", 60)]
    write_ply(folder / f"{folder.name}.ply", [*fields, ("label", "u2", label)], faces)
    (folder / f"{folder.name}.xml").write_text(XML)
    return points, label


@pytest.mark.parametrize("y_up", [True, False])
def test_a_scene_is_labelled_and_turned_upright(tmp_path, y_up):
    _, raw = write_scene(tmp_path / "016", y_up)
    scan = read_scenenn(tmp_path / "016" / "016.ply", "y" if y_up else "z")
    names = {21: "floor", 300: "chair", 41: "refrigerator", 77: None, 78: None, 5: None}
    for number, name in names.items():
        expected = CLASS_NAMES.index(name) if name else IGNORE
        assert set(scan.class_index[raw == number].tolist()) == {expected}
    assert set(scan.label[raw == 77].tolist()) == {40} and set(scan.label[raw == 5].tolist()) == {0}
    assert (scan.instance[np.isin(raw, (78, 5))] == -1).all() and len(np.unique(scan.instance[raw == 77])) == 1
    assert np.ptp(scan.points_m[raw == 21, 2]) < 1e-5
    assert np.allclose(scan.points_m[raw == 300, 2] - scan.points_m[raw == 21, 2].mean(), 0.6, atol=1e-5)
    assert scan.metadata["texts"][scan.instance[raw == 300][0]] == "stool"
    scene, points = to_scene(scan, 0.05)
    scene.validate()
    assert len(np.unique(scene.instance)) == 3  # none, stool, fridge
    assert set(points.class_of(SCENENN_CLASSES)[raw == 77].tolist()) == {SCENENN_CLASSES.index("prop")}
    assert (scene.class_index[points.voxel_of_point[raw == 300]] == CLASS_NAMES.index("chair")).all()


def test_missing_and_damaged_annotations_are_refused(tmp_path):
    write_scene(tmp_path / "016")
    mesh, xml = tmp_path / "016" / "016.ply", tmp_path / "016" / "016.xml"
    for content, message in (
        (XML[:200], "no annotation"), (LFS_POINTER, "git lfs pull"), (XML.replace('id="21"', 'id="x"'), "no annotation"),
        (XML.replace("nyu_class", "class"), "no nyu_class"),
        ("<annotation/>", "names no labels"), ('<!DOCTYPE a [<!ENTITY b "c">]>' + XML, "entities"),
    ):
        xml.write_text(content)
        with pytest.raises(DataError, match=message):
            read_scenenn(mesh)
    xml.unlink()
    with pytest.raises(DataError, match="missing"):
        read_scenenn(mesh)
    with pytest.raises(DataError, match="must be one of"):
        read_scenenn(mesh, "up")


def test_a_mesh_without_labels_is_refused(tmp_path):
    points, faces, _ = patch((0, 0, 0), 1.0, 4, 0)
    (tmp_path / "005").mkdir()
    write_ply(tmp_path / "005" / "005.ply", [(c, "f4", points[:, k]) for k, c in enumerate("xyz")], faces)
    (tmp_path / "005" / "005.xml").write_text(XML)
    with pytest.raises(DataError, match="no label"):
        read_scenenn(tmp_path / "005" / "005.ply")


def test_scenes_are_found(tmp_path):
    write_scene(tmp_path / "016")
    write_scene(tmp_path / "005")
    assert [p.stem for p in find_scenenn(tmp_path)] == ["005", "016"]
    with pytest.raises(DataError, match="three digits"):
        find_scenenn(tmp_path / "none")
