"""ScanNet scans in the release's own files."""

import json

import numpy as np
import pytest
from raw_writers import LFS_POINTER, TSV, write_ply, write_scannet_scan

from instseg_ros.datasets.labelled_points import to_scene
from instseg_ros.datasets.nyu40 import NYU40_NAMES, class_of_name, nyu40_of_name, read_label_map
from instseg_ros.datasets.raw_files import read_ply
from instseg_ros.datasets.scannet import find_scannet, read_scannet, read_split
from instseg_ros.errors import DataError
from instseg_ros.labels import CLASS_NAMES, IGNORE, NYU40_IDS

CHAIR, FLOOR = CLASS_NAMES.index("chair"), CLASS_NAMES.index("floor")


@pytest.fixture
def label_map(tmp_path):
    (tmp_path / "labels.tsv").write_text(TSV)
    return read_label_map(tmp_path / "labels.tsv")


def test_names_of_the_forty_classes():
    for index, number in enumerate(NYU40_IDS):
        assert class_of_name(CLASS_NAMES[index]) == index and nyu40_of_name(NYU40_NAMES[number]) == number
    assert [nyu40_of_name(n) for n in ("Night_Stand", "fridge", "other-prop", "floor mat", "gargoyle")] == [32, 24, 40, 20, 0]
    assert class_of_name("ceiling") == IGNORE


def test_classes_and_instances_of_a_scan(tmp_path, label_map):
    points, part = write_scannet_scan(tmp_path / "scene0000_00")
    scan = read_scannet(tmp_path / "scene0000_00", label_map)
    assert np.allclose(scan.points_m, points, atol=1e-6)
    assert scan.label.tolist() == np.array([2, 5, 5, 0])[part].tolist()
    assert scan.class_index.tolist() == np.array([FLOOR, CHAIR, CHAIR, IGNORE])[part].tolist()
    assert scan.instance.tolist() == np.array([1, 0, 2, -1])[part].tolist()
    assert scan.colors[0].tolist() == [10, 20, 30]
    scene, back = to_scene(scan, 0.05)
    scene.validate()
    assert set(scene.instance.tolist()) == {-1, 0, 2}
    for number in (0, 2):
        assert (scene.class_index[scene.instance == number] == CHAIR).all()
    assert (scene.class_index[back.voxel_of_point] == scan.class_index).all()


def test_classes_from_the_mesh_of_labels_where_there_is_no_table(tmp_path, label_map):
    write_scannet_scan(tmp_path / "scene0000_00")
    with_table = read_scannet(tmp_path / "scene0000_00", label_map)
    without = read_scannet(tmp_path / "scene0000_00")
    assert np.array_equal(with_table.label, without.label) and np.array_equal(with_table.instance, without.instance)
    (tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply").unlink()
    with pytest.raises(DataError, match="--labels"):
        read_scannet(tmp_path / "scene0000_00")


def test_the_scan_is_turned_by_its_alignment(tmp_path, label_map):
    T = np.array([[0, -1, 0, 1.5], [1, 0, 0, -2], [0, 0, 1, 0.25], [0, 0, 0, 1]], float)
    points, _ = write_scannet_scan(tmp_path / "scene0001_00", T)
    assert np.allclose(read_scannet(tmp_path / "scene0001_00", label_map).points_m, points @ T[:3, :3].T + T[:3, 3], atol=1e-6)
    assert np.allclose(read_scannet(tmp_path / "scene0001_00", label_map, align=False).points_m, points, atol=1e-6)


def test_of_two_groups_on_a_segment_the_last_counts(tmp_path, label_map):
    write_scannet_scan(tmp_path / "scene0000_00")
    path = tmp_path / "scene0000_00" / "scene0000_00.aggregation.json"
    data = json.loads(path.read_text())
    data["segGroups"].append({"id": 3, "objectId": 3, "segments": [28, 99999], "label": "ceiling"})
    path.write_text(json.dumps(data))
    scan = read_scannet(tmp_path / "scene0000_00", label_map)
    assert set(scan.instance[scan.label == 22].tolist()) == {3} and (scan.class_index[scan.label == 22] == IGNORE).all()
    assert (scan.instance == 2).sum() + (scan.instance == 3).sum() == 49


def test_a_test_scan_has_no_labels(tmp_path, label_map):
    write_scannet_scan(tmp_path / "scene0707_00")
    (tmp_path / "scene0707_00" / "scene0707_00.aggregation.json").unlink()
    scan = read_scannet(tmp_path / "scene0707_00", label_map)
    assert (scan.class_index == IGNORE).all() and (scan.instance == -1).all() and scan.metadata["annotated"] is False


def test_ids_beyond_the_forty_classes_are_no_label(tmp_path):
    """The labels.ply of scene0270_00 and scene0384_00 of the release hold 50 and 149."""
    folder = tmp_path / "scene0270_00"
    write_scannet_scan(folder)
    path = folder / "scene0270_00_vh_clean_2.labels.ply"
    mesh = read_ply(path, "")
    labels = np.where(mesh.vertices["label"] == 5, 149, mesh.vertices["label"])
    write_ply(path, [(c, "f4", mesh.vertices[c]) for c in "xyz"] + [("label", "u2", labels)], mesh.faces)
    scan = read_scannet(folder)
    assert set(scan.class_index[scan.label == 149].tolist()) == {IGNORE} and (scan.class_index[scan.label == 2] == FLOOR).all()
    scene, points = to_scene(scan, 0.05)
    assert (scene.instance == -1).all() and set(points.class_of(CLASS_NAMES)[scan.label == 149].tolist()) == {IGNORE}


def test_files_that_do_not_fit_are_refused(tmp_path, label_map):
    folder = tmp_path / "scene0000_00"
    write_scannet_scan(folder)
    segs = folder / "scene0000_00_vh_clean_2.0.010000.segs.json"
    good = segs.read_text()
    segs.write_text(json.dumps({"segIndices": [1, 2, 3]}))
    with pytest.raises(DataError, match="another mesh"):
        read_scannet(folder, label_map)
    segs.write_text(LFS_POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        read_scannet(folder, label_map)
    segs.unlink()
    with pytest.raises(DataError, match="missing"):
        read_scannet(folder, label_map)
    segs.write_text(good)
    with pytest.raises(DataError, match="label table lacks"):
        read_scannet(folder, {"floor": 2})
    (folder / "scene0000_00.aggregation.json").write_text('{"segGroups": [{"objectId": 1}]}')
    with pytest.raises(DataError, match="segGroups"):
        read_scannet(folder, label_map)


def test_scans_and_lists_are_found(tmp_path):
    for name in ("scene0001_00", "scene0000_01"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    assert [p.name for p in find_scannet(tmp_path)] == ["scene0000_01", "scene0001_00"]
    with pytest.raises(DataError, match="sceneXXXX_YY"):
        find_scannet(_empty(tmp_path))
    (tmp_path / "list.txt").write_text("scene0001_00\nscene0000_01\n")
    assert read_split(tmp_path / "list.txt") == ["scene0001_00", "scene0000_01"]
    (tmp_path / "list.txt").write_text("<html>not found</html>")
    with pytest.raises(DataError, match="not the name of a scan"):
        read_split(tmp_path / "list.txt")


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_damaged_table_of_labels_is_refused(tmp_path):
    (tmp_path / "l.tsv").write_text("raw_category\tnyu40id\nchair\tfive\n")
    with pytest.raises(DataError, match="not a number"):
        read_label_map(tmp_path / "l.tsv")
    (tmp_path / "l.tsv").write_text("chair,5\n")
    with pytest.raises(DataError, match="no column"):
        read_label_map(tmp_path / "l.tsv")
