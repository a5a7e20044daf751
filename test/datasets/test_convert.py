"""`instseg convert`: splits, files written, and what is left out."""

import numpy as np
import pytest
from raw_writers import TSV, write_scannet_scan

from instseg_ros.cli import main
from instseg_ros.datasets.import_scans import ConvertOptions, find_tasks
from instseg_ros.datasets.labelled_points import load_scan_points
from instseg_ros.datasets.scenes import load_scene
from instseg_ros.errors import DataError


def _files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.npz"))


def _scannet(root):
    for name in ("scene0000_00", "scene0001_00", "scene0002_00"):
        write_scannet_scan(root / "scans" / name)
    (root / "scannetv2-labels.combined.tsv").write_text(TSV)
    (root / "scannetv2_train.txt").write_text("scene0000_00\n")
    (root / "scannetv2_val.txt").write_text("scene0001_00\n")


def test_scannet_goes_into_the_splits_of_its_lists(tmp_path, capsys):
    _scannet(tmp_path / "raw")
    assert main(["convert", "scannet", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--voxel-size", "0.1"]) == 0
    assert _files(tmp_path / "out") == [
        "points/train/scene0000_00.npz", "points/validation/scene0001_00.npz", "train/scene0000_00.npz", "validation/scene0001_00.npz",
    ]
    scene = load_scene(tmp_path / "out" / "train" / "scene0000_00.npz")
    points = load_scan_points(tmp_path / "out" / "points" / "train" / "scene0000_00.npz")
    assert scene.voxel_size_m == 0.1 and scene.metadata["dataset"] == "scannet"
    assert len(points.label) == 121 + 49 + 49 + 25 and points.voxel_of_point.max() < len(scene)
    assert "1 train, 1 validation scenes" in capsys.readouterr().out


def test_lists_by_hand_and_two_processes_give_the_same_scenes(tmp_path):
    _scannet(tmp_path / "raw")
    (tmp_path / "mine.txt").write_text("scene0002_00\nscene0000_00\n")
    for jobs in ("1", "2"):
        arguments = ["convert", "scannet", str(tmp_path / "raw"), "--out", str(tmp_path / jobs), "--list", f"test={tmp_path / 'mine.txt'}"]
        assert main([*arguments, "--jobs", jobs]) == 0
        assert _files(tmp_path / jobs / "test") == ["scene0000_00.npz", "scene0002_00.npz"]
    one, two = (load_scene(tmp_path / jobs / "test" / "scene0002_00.npz") for jobs in ("1", "2"))
    assert np.array_equal(one.coords, two.coords) and np.array_equal(one.instance, two.instance)


def test_a_scan_that_cannot_be_read_stops_or_is_named(tmp_path, capsys):
    _scannet(tmp_path / "raw")
    (tmp_path / "raw" / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.ply").write_bytes(b"ply\n")
    arguments = ["convert", "scannet", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "not a PLY file" in capsys.readouterr().err
    assert main([*arguments, "--keep-going"]) == 1
    assert _files(tmp_path / "out" / "validation") == ["scene0001_00.npz"] and not (tmp_path / "out" / "train").exists()
    assert "not read: scene0000_00" in capsys.readouterr().out


def test_s3dis_holds_out_an_area_and_names_damaged_lines(tmp_path, capsys):
    for area, room in (("Area_1", "office_1"), ("Area_5", "hallway_6")):
        folder = tmp_path / "raw" / area / room / "Annotations"
        folder.mkdir(parents=True)
        (folder / "chair_1.txt").write_text("1.0 2.0 0.5 1 2 3\n" * 20 + ("1.0 2.\x100 0.5 1 2 3\n" if area == "Area_5" else ""))
    assert main(["convert", "s3dis", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 0
    assert _files(tmp_path / "out")[2:] == ["train/Area_1_office_1.npz", "validation/Area_5_hallway_6.npz"]
    out = capsys.readouterr().out
    assert "line 21 of hallway_6/Annotations/chair_1.txt" in out and "\\x10" in out
    held_out = {t.name: t.split for t in find_tasks("s3dis", tmp_path / "raw", ConvertOptions(held_out_area=1))}
    assert held_out == {"Area_1_office_1": "validation", "Area_5_hallway_6": "train"}


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(DataError, match="missing"):
        find_tasks("scannet", tmp_path / "none", ConvertOptions())
    with pytest.raises(DataError, match="known are"):
        find_tasks("kitti", tmp_path, ConvertOptions())
    _scannet(tmp_path / "raw")
    with pytest.raises(DataError, match="belong to this data set"):
        find_tasks("scannet", tmp_path / "raw", ConvertOptions(), lists={"scene9999_00": "train"})
    assert main(["convert", "scannet", str(tmp_path / "raw"), "--out", str(tmp_path / "o"), "--list", "all=x"]) == 2
