"""S3DIS rooms in text files, and their damaged lines."""

import numpy as np
import pytest
from raw_writers import LFS_POINTER

from instseg_ros.datasets.labelled_points import to_scene
from instseg_ros.datasets.s3dis import S3DIS_NAMES, find_s3dis, read_s3dis
from instseg_ros.errors import DataError
from instseg_ros.labels import CLASS_NAMES, IGNORE


def write_room(area, room, objects, seed=0):
    """Objects {file stem: (centre, points)}; returns the points of each."""
    rng = np.random.default_rng(seed)
    folder = area / room / "Annotations"
    folder.mkdir(parents=True)
    written = {}
    for stem, (center, count) in objects.items():
        values = np.column_stack([rng.normal(center, 0.1, (count, 3)).round(3), rng.integers(0, 256, (count, 3))])
        lines = [f"{x:.3f} {y:.3f} {z:.3f} {r:.0f} {g:.0f} {b:.0f}" for x, y, z, r, g, b in values]
        (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n")
        written[stem] = values
    return written


OBJECTS = {
    "chair_1": ((1, 1, 0.5), 60), "chair_2": ((3, 1, 0.5), 50), "chair_10": ((5, 1, 0.5), 40), "floor_1": ((2, 2, -3), 80),
    "board_1": ((0, 5, 1), 30), "stairs_1": ((9, 9, 0), 20), "bookcase_1": ((7, 7, 1), 40),
}


def test_a_room_keeps_its_thirteen_classes_and_gets_ours(tmp_path):
    written = write_room(tmp_path / "Area_1", "office_2", OBJECTS)
    scan = read_s3dis(tmp_path / "Area_1" / "office_2")
    assert scan.name == "Area_1_office_2" and scan.metadata["label_names"] == list(S3DIS_NAMES)
    assert scan.metadata["objects"] == ["board_1", "bookcase_1", "chair_1", "chair_2", "chair_10", "floor_1", "stairs_1"]
    for number, stem in enumerate(scan.metadata["objects"]):
        rows = scan.instance == number
        assert np.allclose(scan.points_m[rows], written[stem][:, :3]) and np.array_equal(scan.colors[rows], written[stem][:, 3:])
        name = stem.rpartition("_")[0]
        assert set(scan.label[rows].tolist()) == {S3DIS_NAMES.index("clutter" if name == "stairs" else name)}
    expected = {"chair": CLASS_NAMES.index("chair"), "bookcase": CLASS_NAMES.index("bookshelf"), "board": IGNORE, "floor": 1, "clutter": IGNORE}
    for name, index in expected.items():
        assert set(scan.class_index[scan.label == S3DIS_NAMES.index(name)].tolist()) == {index}
    scene, points = to_scene(scan, 0.05)
    scene.validate()
    assert set(np.unique(scene.instance).tolist()) == {-1, 1, 2, 3, 4}  # the bookcase and the chairs
    assert points.instance.max() == 6 and points.label_names[7] == "table"  # everything, on the points


@pytest.mark.parametrize(
    "damage",
    ["-22.556 6.17 3.05 103.0\x100000 96.000000 89.000000", "19.302 -9.1\x0060 1.785 146 137 106", "1.0 2.0 3.0 4 5 6 7", "1 2 3"],
)
def test_a_damaged_line_is_left_out_and_named(tmp_path, damage):
    written = write_room(tmp_path / "Area_5", "hallway_6", OBJECTS)
    path = tmp_path / "Area_5" / "hallway_6" / "Annotations" / "chair_1.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:10], damage, *lines[10:]]) + "\n")
    scan = read_s3dis(tmp_path / "Area_5" / "hallway_6")
    assert np.allclose(scan.points_m[scan.instance == 2], written["chair_1"][:, :3])
    (file, number, text), = scan.metadata["damaged_lines"]
    assert file == "hallway_6/Annotations/chair_1.txt" and number == 11 and text.isprintable()


def test_copies_and_hidden_files_are_no_objects(tmp_path):
    """Area_5/office_36 of the release has a `wall_3 (1).txt` beside its `wall_3.txt`; unpacking on a Mac leaves `._chair_1.txt`."""
    written = write_room(tmp_path / "Area_5", "office_36", {"wall_3": ((0, 0, 0), 20), "wall_3 (1)": ((0, 0, 0), 20), "chair_1": ((1, 1, 0), 10)})
    annotations = tmp_path / "Area_5" / "office_36" / "Annotations"
    (annotations / "._chair_1.txt").write_bytes(b"\x00\x05\x16\x07")
    scan = read_s3dis(tmp_path / "Area_5" / "office_36")
    assert scan.metadata["objects"] == ["chair_1", "wall_3"] and len(scan.points_m) == 30
    assert scan.metadata["files_left_out"] == ["._chair_1.txt", "wall_3 (1).txt"]
    assert np.allclose(scan.points_m[scan.instance == 1], written["wall_3"][:, :3])


def test_files_of_something_else_are_refused(tmp_path):
    write_room(tmp_path / "Area_1", "office_2", OBJECTS)
    room = tmp_path / "Area_1" / "office_2"
    path = room / "Annotations" / "chair_1.txt"
    for content, message in (
        ("word\n" * 50, "is damaged"), ("1 2 3\n" * 5, "numbers"), (LFS_POINTER, "git lfs pull"), ("", "empty"), ("nan " * 6, "finite"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_s3dis(room)
    (tmp_path / "Area_1" / "void" / "Annotations").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no"):
        read_s3dis(tmp_path / "Area_1" / "void")


def test_rooms_are_found_from_every_level(tmp_path):
    for area, room in (("Area_1", "office_1"), ("Area_5", "hallway_6")):
        write_room(tmp_path / area, room, {"chair_1": ((0, 0, 0), 5)})
    assert [p.name for p in find_s3dis(tmp_path)] == ["office_1", "hallway_6"]
    assert [p.name for p in find_s3dis(tmp_path / "Area_5")] == ["hallway_6"]
    assert [p.name for p in find_s3dis(tmp_path / "Area_5" / "hallway_6")] == ["hallway_6"]
    with pytest.raises(DataError, match="Annotations"):
        find_s3dis(tmp_path / "Area_5" / "hallway_6" / "Annotations")
