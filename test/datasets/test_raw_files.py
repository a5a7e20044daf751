"""PLY meshes of all kinds, and files that are missing, pointers, or damaged."""

import numpy as np
import pytest
from raw_writers import LFS_POINTER, patch, write_ply

from instseg_ros.datasets.raw_files import check_file, read_json, read_ply, read_tsv
from instseg_ros.errors import DataError


def _fields(points):
    return [(c, "f4", points[:, k]) for k, c in enumerate("xyz")] + [("label", "u2", np.arange(len(points)) * 3)]


@pytest.mark.parametrize(("order", "text"), [("<", False), (">", False), ("<", True)])
def test_a_mesh_is_read_in_every_encoding(tmp_path, order, text):
    points, faces, _ = patch((1, 2, 3), 1.0, 4, 0)
    write_ply(tmp_path / "m.ply", _fields(points), faces, order, text)
    mesh = read_ply(tmp_path / "m.ply", "", ("x", "y", "z", "label"))
    assert np.allclose(mesh.points_m(), points) and np.array_equal(mesh.faces, faces)
    assert mesh.vertices["label"].tolist() == (np.arange(len(points)) * 3).tolist()
    assert mesh.colors() is None


def test_a_cut_mesh_is_refused_before_memory_is_taken(tmp_path):
    points, faces, _ = patch((1, 2, 3), 1.0, 4, 0)
    write_ply(tmp_path / "m.ply", _fields(points), faces)
    data = (tmp_path / "m.ply").read_bytes()
    for damaged, message in (
        (data[:-5], "cut short"), (data[:200], "damaged|not a PLY"), (data.replace(b"element vertex 16", b"element vertex 99999999999"), "cut short"),
        (data.replace(b"float x", b"flaot x"), "damaged PLY header"), (b"solid cube" + data, "not a PLY"),
        (data.replace(b"property ushort label", b"property ushort lable"), "no label"),
    ):
        (tmp_path / "bad.ply").write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            read_ply(tmp_path / "bad.ply", "", ("x", "y", "z", "label"))


def test_faces_must_be_triangles_of_these_vertices(tmp_path):
    points, faces, _ = patch((1, 2, 3), 1.0, 4, 0)
    write_ply(tmp_path / "m.ply", _fields(points), faces + 1)
    with pytest.raises(DataError, match="beyond"):
        read_ply(tmp_path / "m.ply", "")
    header = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement face 1\n"
    header += "property list uchar int vertex_indices\nend_header\n"
    (tmp_path / "quad.ply").write_text(header + "0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")
    with pytest.raises(DataError, match="no triangle"):
        read_ply(tmp_path / "quad.ply", "")


def test_missing_empty_and_pointer_files(tmp_path):
    with pytest.raises(DataError, match="missing: fetch it"):
        check_file(tmp_path / "none", "fetch it")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        check_file(tmp_path / "empty", "")
    (tmp_path / "lfs").write_text(LFS_POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        check_file(tmp_path / "lfs", "")


def test_tables_and_json_are_checked(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n")
    assert read_tsv(tmp_path / "t.tsv", ("b", "a"), "") == [("2", "1")]
    with pytest.raises(DataError, match="no column c"):
        read_tsv(tmp_path / "t.tsv", ("c",), "")
    (tmp_path / "j").write_text('{"a": [1,')
    with pytest.raises(DataError, match="not JSON"):
        read_json(tmp_path / "j", "")
    (tmp_path / "j").write_text("[1]")
    with pytest.raises(DataError, match="not a JSON object"):
        read_json(tmp_path / "j", "")
