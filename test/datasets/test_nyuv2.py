"""NYU Depth V2's labelled frames, in a file laid out as MATLAB 7.3 does."""

import numpy as np
import pytest
from raw_writers import LFS_POINTER
from scipy.io import savemat

from instseg_ros.datasets import nyuv2
from instseg_ros.datasets.labelled_points import to_scene
from instseg_ros.datasets.nyuv2 import NYUV2_K, Nyuv2
from instseg_ros.errors import DataError, MissingDependencyError
from instseg_ros.labels import CLASS_NAMES, IGNORE

NAMES = ("book", "bottle", "chair", "floor", "night stand")
H, W = 24, 32


def write_mat(path, frames=2, **without):
    """Frames of a wall of chairs (two, side by side) 2 m away, unlabelled left columns, and no depth in one corner.

    Returns:
        images [F, H, W, 3], depths [F, H, W], labels and instances [F, H, W], as MATLAB's user sees them.
    """
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (frames, H, W, 3)).astype(np.uint8)
    depths = np.full((frames, H, W), 2.0, np.float32) + rng.uniform(0, 0.01, (frames, H, W)).astype(np.float32)
    depths[:, :3, :3] = 0
    labels = np.full((frames, H, W), 3, np.uint16)
    labels[:, :, :5] = 0
    labels[:, -4:] = 2
    instances = np.ones((frames, H, W), np.uint8)
    instances[:, :, 18:] = 2
    instances[labels == 0] = 0
    with h5py.File(path, "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"], file["labels"], file["instances"] = (a.transpose(0, 2, 1) for a in (depths, labels, instances))
        strings = [file.create_dataset(f"#refs#/{k}", data=np.array([[ord(c)] for c in n], np.uint16)) for k, n in enumerate(NAMES)]
        references = file.create_dataset("names", (1, len(NAMES)), h5py.ref_dtype)
        references[0] = [s.ref for s in strings]
        for name in without:
            del file[name]
    return images, depths, labels, instances


def test_frames_are_back_projected_and_labelled(tmp_path):
    images, depths, labels, instances = write_mat(tmp_path / "nyu_depth_v2_labeled.mat")
    frames = Nyuv2(tmp_path)
    assert len(frames) == 2 and frames.names == list(NAMES)
    scan = frames.read(1)
    v, u = np.nonzero(depths[1] > 0)
    assert len(scan.points_m) == len(u) == H * W - 9
    assert np.array_equal(scan.colors, images[1, v, u]) and np.array_equal(scan.label, labels[1, v, u])
    # x right, y forward, z up; the toolbox counts pixels from 1
    x, y, z = scan.points_m.T if np.allclose(scan.metadata["rotation"], np.eye(3)) else (scan.points_m @ np.array(scan.metadata["rotation"])).T
    assert np.allclose(y, depths[1, v, u]) and np.allclose(x / y * NYUV2_K[0, 0] + NYUV2_K[0, 2], u + 1)
    assert np.allclose(-z / y * NYUV2_K[1, 1] + NYUV2_K[1, 2], v + 1)
    chair = CLASS_NAMES.index("chair")
    assert set(scan.class_index[scan.label == 3].tolist()) == {chair} and set(scan.class_index[scan.label != 3].tolist()) == {IGNORE}
    pairs = {(a, b) for a, b in zip((labels[1, v, u] * 10 + instances[1, v, u]).tolist(), scan.instance.tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 5 and (0, -1) in pairs
    scene, _ = to_scene(scan, 0.05)
    scene.validate()
    assert len(np.unique(scene.instance[scene.class_index == chair])) == 2
    frames.close()


def test_the_mapping_to_forty_classes(tmp_path):
    write_mat(tmp_path / "f.mat")
    savemat(tmp_path / "classMapping40.mat", {"mapClass": np.array([[23, 40, 5, 2, 3]], np.uint8)})
    scan = Nyuv2(tmp_path / "f.mat", tmp_path / "classMapping40.mat").read(0)
    assert scan.label_names[2] == "bottle" and scan.label_names[5] == "night stand"
    savemat(tmp_path / "other.mat", {"mapClass": np.array([[23, 40]])})
    with pytest.raises(DataError, match="expected are 5 labels"):
        Nyuv2(tmp_path / "f.mat", tmp_path / "other.mat")
    savemat(tmp_path / "other.mat", {"something": 1})
    with pytest.raises(DataError, match="mapClass"):
        Nyuv2(tmp_path / "f.mat", tmp_path / "other.mat")


def test_the_region_that_the_depth_camera_saw_is_taken_of_full_images():
    mask = np.zeros((480, 640), bool)
    mask[nyuv2.PROJECTION_MASK] = True
    assert mask.sum() == (471 - 45 + 1) * (601 - 41 + 1) and mask[44, 40] and mask[470, 600] and not mask[471, 600]


def test_missing_and_damaged_files_are_refused(tmp_path):
    write_mat(tmp_path / "f.mat", instances=True)
    with pytest.raises(DataError, match="has no instances"):
        Nyuv2(tmp_path / "f.mat")
    write_mat(tmp_path / "f.mat")
    data = (tmp_path / "f.mat").read_bytes()
    (tmp_path / "f.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cut short"):
        Nyuv2(tmp_path / "f.mat")
    (tmp_path / "f.mat").write_text(LFS_POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        Nyuv2(tmp_path / "f.mat")
    with pytest.raises(DataError, match="missing"):
        Nyuv2(tmp_path)
    write_mat(tmp_path / "f.mat")
    with pytest.raises(DataError, match="frames 0 to 1"):
        Nyuv2(tmp_path / "f.mat").read(2)


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match="pip install h5py"):
        Nyuv2(tmp_path / "f.mat")
