"""Labelled PLY files: what is written comes back, and other programs can read it."""

import numpy as np
import open3d as o3d
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import DataError
from instseg_ros.labels import instance_color
from instseg_ros.visual.ply import read_labelled_ply, write_labelled_ply


def sample(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 21, count).astype(np.uint8)
    classes[classes == 20] = 255
    return (
        rng.normal(size=(count, 3)).astype(np.float32),
        classes,
        rng.integers(0, 2**32, count).astype(np.uint32),
        rng.random(count, np.float32),
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(0, 99))
def test_round_trip(tmp_path_factory, count, seed):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    points, classes, instance, confidence = sample(count, seed)
    write_labelled_ply(path, points, classes, instance, confidence, "odom")
    back = read_labelled_ply(path)
    assert np.array_equal(back["points_m"], points) and np.array_equal(back["class_index"], classes)
    assert np.array_equal(back["instance"], instance) and np.array_equal(back["confidence"], confidence)
    assert np.array_equal(back["colors"], instance_color(instance)) or count == 0
    assert b"comment frame_id odom" in path.read_bytes()


def test_open3d_reads_it(tmp_path):
    points, classes, instance, confidence = sample(50)
    write_labelled_ply(tmp_path / "a.ply", points, classes, instance, confidence)
    cloud = o3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    assert np.allclose(np.asarray(cloud.points), points)
    assert np.array_equal(np.rint(np.asarray(cloud.colors) * 255), instance_color(instance))


def test_damaged_files_are_explained(tmp_path):
    write_labelled_ply(tmp_path / "a.ply", *sample(5))
    (tmp_path / "b.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-3])
    with pytest.raises(DataError, match="cut short"):
        read_labelled_ply(tmp_path / "b.ply")
    (tmp_path / "c.ply").write_text("ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n")
    with pytest.raises(DataError, match="fields are x"):
        read_labelled_ply(tmp_path / "c.ply")
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled_ply(tmp_path / "none.ply")
