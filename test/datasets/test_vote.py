"""Voxels by majority, and the way back to the points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.datasets.labelled_points import LabelledPoints, level_by_floor, load_scan_points, save_scan_points, to_scene
from instseg_ros.datasets.vote import majority, vote_voxels
from instseg_ros.errors import DataError, InputError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=40))
def test_majority_is_what_counting_gives(pairs):
    groups = np.unique([g for g, _ in pairs], return_inverse=True)[1]
    values = np.array([v for _, v in pairs])
    found = majority(groups, values, groups.max() + 1)
    for g in range(groups.max() + 1):
        mine = values[groups == g].tolist()
        best = max(mine.count(v) for v in mine)
        assert found[g] == min(v for v in mine if mine.count(v) == best)


def test_class_and_instance_are_voted_for_together():
    # instance 1 of class 4 has two points, instances 2 and 3 of class 6 one each: class 6 alone would tie or win
    points = np.full((5, 3), 0.01)
    voxels = vote_voxels(points, None, np.array([4, 4, 6, 6, 6], np.uint8), np.array([1, 1, 2, 3, 5]), 0.05)
    assert voxels.class_index.tolist() == [4] and voxels.instance.tolist() == [1]


def test_points_find_their_voxel_and_colours_are_means():
    points = np.array([[0.01, 0.01, 0.01], [-0.01, 0.01, 0.01], [0.02, 0.02, 0.04]])
    colors = np.array([[10, 0, 0], [7, 8, 9], [20, 0, 3]], np.uint8)
    voxels = vote_voxels(points, colors, np.array([2, 3, 2], np.uint8), np.array([0, -1, 0]), 0.05)
    assert voxels.coords[voxels.voxel_of_point].tolist() == [[0, 0, 0], [-1, 0, 0], [0, 0, 0]]
    assert voxels.colors[voxels.voxel_of_point[0]].tolist() == [15, 0, 2]
    assert voxels.instance[voxels.voxel_of_point].tolist() == [0, -1, 0]


def test_what_has_no_label_has_no_instance():
    voxels = vote_voxels(np.zeros((2, 3)), None, np.array([255, 255], np.uint8), np.array([4, 4]), 0.05)
    assert voxels.instance.tolist() == [-1]


def test_bad_points_are_refused():
    with pytest.raises(InputError, match="not finite"):
        vote_voxels(np.array([[np.nan, 0, 0]]), None, np.zeros(1, np.uint8), np.zeros(1), 0.05)
    with pytest.raises(InputError, match="lengths"):
        vote_voxels(np.zeros((2, 3)), None, np.zeros(1, np.uint8), np.zeros(2), 0.05)


def _scan(points, classes, instance, faces=None):
    return LabelledPoints(
        "s", np.asarray(points, float), np.full((len(points), 3), 9, np.uint8), np.asarray(classes, np.uint8),
        np.asarray(instance, np.int32), np.asarray(classes, np.int32), {4: "chair", 1: "floor"}, faces,
    )


def test_large_faces_of_a_mesh_leave_no_holes():
    corners = [[0.0, 0, 0.01], [1.0, 0, 0.01], [0, 1.0, 0.01]]
    scene, points = to_scene(_scan(corners, [4, 1, 1], [3, 0, 0], np.array([[0, 1, 2]])), 0.1)
    inside = {(i, j) for i in range(10) for j in range(10) if (i + 1) + (j + 1) <= 10}
    assert inside <= {(c[0], c[1]) for c in scene.coords.tolist()}
    near = np.abs(scene.coords[:, :2]).sum(axis=1) <= 3
    assert (scene.class_index[near] == 4).all() and (scene.instance[near] == 3).all()
    far = scene.coords[:, 0] >= 7
    assert (scene.class_index[far] == 1).all() and (scene.instance[far] == -1).all()  # floor has no instances in a scene
    assert points.instance.tolist() == [3, 0, 0]  # but on the points
    assert scene.class_index[points.voxel_of_point].tolist() == [4, 1, 1]
    assert scene.metadata["instance_names"] == {"3": "chair"}
    scene.validate()


def test_labels_by_the_names_of_an_evaluation():
    _, points = to_scene(_scan([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [4, 1, 7], [0, 1, 2]), 0.05)
    assert points.class_of(("table", "floor", "chair")).tolist() == [2, 1, 255]
    assert points.class_of(("table",)).tolist() == [255, 255, 255]


def test_points_of_a_scan_come_back_from_their_file(tmp_path):
    _, points = to_scene(_scan([[0, 0, 0], [1, 1, 1]], [4, 4], [0, 1]), 0.05)
    save_scan_points(tmp_path / "a" / "s.npz", points)
    back = load_scan_points(tmp_path / "a" / "s.npz")
    for name in ("voxel_of_point", "label", "instance"):
        assert np.array_equal(getattr(back, name), getattr(points, name))
    assert back.label_names == {4: "chair", 1: "floor"}
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match="instseg convert"):
        load_scan_points(tmp_path / "bad.npz")


@pytest.mark.parametrize("seed", range(4))
def test_the_floor_is_levelled(seed):
    rng = np.random.default_rng(seed)
    from scipy.spatial.transform import Rotation

    tilt = Rotation.from_rotvec(rng.uniform(-0.3, 0.3, 3)).as_matrix()
    floor = np.column_stack([rng.uniform(-2, 2, (500, 2)), rng.normal(0, 0.002, 500)])
    points = np.concatenate([floor, rng.uniform(-1, 1, (50, 3)) + [0, 0, 1.5]]) @ tilt.T
    R = level_by_floor(points, np.arange(550) < 500, np.array([0.0, 0.0, 1.0]))
    level = points @ R.T
    assert np.allclose(R @ R.T, np.eye(3)) and np.linalg.det(R) == pytest.approx(1.0)
    assert np.ptp(level[:500, 2]) < 0.05 and (level[500:, 2] > level[:500, 2].mean()).all()


def test_without_floor_the_axis_named_goes_up():
    R = level_by_floor(np.zeros((3, 3)), np.zeros(3, bool), np.array([0.0, -1.0, 0.0]))
    assert np.allclose(R @ [0, -1, 0], [0, 0, 1])


@pytest.mark.parametrize("height_m", [0.0, 7.3, -1.6])
def test_scenes_stand_on_their_floor(height_m):
    """S3DIS gives heights in the frame of the building, NYUv2 below the camera, SceneNN anywhere: networks read the height above the floor."""
    rng = np.random.default_rng(0)
    floor = rng.uniform(0, 4, (3000, 3)) * [1, 1, 0] + [0, 0, 0.001]
    chair = rng.uniform(0, 0.4, (500, 3)) + [1, 1, 0.4]
    noise = np.array([[2.0, 2.0, -3.0]])  # below the floor, as mirrors make it
    points = np.concatenate([floor, chair, noise]) + [0, 0, height_m]
    count = len(points)
    label = np.repeat([1, 4, 255], [3000, 500, 1])
    instance = np.repeat([-1, 0, -1], [3000, 500, 1]).astype(np.int32)
    colors, names = np.zeros((count, 3), np.uint8), {1: "floor", 4: "chair"}
    scan = LabelledPoints("s", points, colors, label.astype(np.uint8), instance, label.astype(np.int32), names)
    scene, back = to_scene(scan, 0.05)
    assert set(scene.coords[scene.class_index == 1, 2].tolist()) == {0}
    assert scene.coords[scene.class_index == 4, 2].min() in (7, 8) and scene.coords[scene.class_index == 4, 2].max() in (15, 16)
    assert scene.metadata["floor_z_m"] == pytest.approx(height_m + 0.001) and len(back.voxel_of_point) == count
