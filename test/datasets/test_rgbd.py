"""RGB-D folders in three layouts, and what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instseg_ros.datasets.images import resample_color
from instseg_ros.datasets.rgbd import nearest_stamps, open_sequence
from instseg_ros.errors import DataError

H, W = 6, 8
K = np.array([[10.0, 0.0, 4.0], [0.0, 10.0, 3.0], [0.0, 0.0, 1.0]])


def pose(x: float) -> np.ndarray:
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T_world_camera[0, 3] = x
    return T_world_camera


def write_images(folder: Path, name: str, depth_counts: int, color_scale: int = 1) -> None:
    (folder / "depth").mkdir(parents=True, exist_ok=True)
    (folder / "color").mkdir(parents=True, exist_ok=True)
    depth = np.full((H, W), depth_counts, np.uint16)
    depth[0, 0] = 0
    Image.fromarray(depth).save(folder / "depth" / f"{name}.png")
    color = np.zeros((H * color_scale, W * color_scale, 3), np.uint8)
    color[:, : W * color_scale // 2] = (255, 0, 0)
    Image.fromarray(color).save(folder / "color" / f"{name}.png")


def write_json(folder: Path, count: int = 3, **changes) -> Path:
    frames = []
    for i in range(count):
        write_images(folder, f"{i:03d}", 1000 + i)
        frames.append(
            {
                "color": f"color/{i:03d}.png",
                "depth": f"depth/{i:03d}.png",
                "stamp": 100.0 + i,
                "T_world_camera": pose(i).tolist(),
            }
        )
    data = {"width": W, "height": H, "depth_unit_m": 0.001, "K": K.tolist(), "frames": frames, **changes}
    (folder / "sequence.json").write_text(json.dumps(data))
    return folder


def test_json_layout(tmp_path):
    sequence = open_sequence(write_json(tmp_path))
    assert len(sequence) == 3 and sequence.skipped == 0
    frames = list(sequence)
    assert [f.stamp_ns for f in frames] == [100_000_000_000, 101_000_000_000, 102_000_000_000]
    assert (
        frames[1].depth_m.dtype == np.float32
        and frames[1].depth_m[3, 3] == pytest.approx(1.001)
        and frames[1].depth_m[0, 0] == 0
    )
    assert frames[2].T_world_camera[0, 3] == 2.0
    assert frames[0].color.shape == (H, W, 3) and frames[0].color[0, 0].tolist() == [255, 0, 0]
    assert frames[0].instance is None
    assert np.array_equal(frames[0].K, K)


def test_json_file_itself_can_be_named(tmp_path):
    assert len(open_sequence(write_json(tmp_path) / "sequence.json")) == 3


def test_instances_are_stored_plus_one(tmp_path):
    write_json(tmp_path)
    labels = np.zeros((H, W), np.uint16)
    labels[2, 2] = 5
    Image.fromarray(labels).save(tmp_path / "instance.png")
    data = json.loads((tmp_path / "sequence.json").read_text())
    data["frames"][0]["instance"] = "instance.png"
    (tmp_path / "sequence.json").write_text(json.dumps(data))
    instance = open_sequence(tmp_path)[0].instance
    assert instance is not None and instance.dtype == np.int32
    assert instance[2, 2] == 4 and instance[0, 0] == -1


def test_select_takes_every_nth_up_to_a_number(tmp_path):
    sequence = open_sequence(write_json(tmp_path, 7)).select(stride=2, max_frames=3)
    assert [f.T_world_camera[0, 3] for f in sequence] == [0.0, 2.0, 4.0]
    assert len(open_sequence(tmp_path).select(3)) == 3


def test_frames_with_infinite_poses_are_counted(tmp_path):
    write_json(tmp_path)
    data = json.loads((tmp_path / "sequence.json").read_text())
    data["frames"][1]["T_world_camera"] = np.full((4, 4), np.inf).tolist()
    (tmp_path / "sequence.json").write_text(json.dumps(data))
    sequence = open_sequence(tmp_path)
    assert len(sequence) == 2 and sequence.skipped == 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: (p / "depth/001.png").unlink(), "missing"),
        (
            lambda p: (p / "depth/001.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git lfs pull",
        ),
        (
            lambda p: (p / "color/001.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git lfs pull",
        ),
        (lambda p: (p / "depth/001.png").write_bytes((p / "depth/001.png").read_bytes()[:40]), "cannot be read"),
        (lambda p: Image.fromarray(np.zeros((H, W), np.uint8)).save(p / "depth/001.png"), "16-bit"),
        (lambda p: Image.fromarray(np.zeros((H, 2 * W), np.uint16)).save(p / "depth/001.png"), "intrinsics are for 8 x 6"),
    ],
)
def test_a_damaged_image_is_named_with_its_cure(tmp_path, damage, words):
    write_json(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        list(open_sequence(tmp_path))
    assert "001" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"K": [[1, 2], [3, 4]]}, "K"),
        ({"frames": [{"color": "a", "stamp": 0, "T_world_camera": np.eye(4).tolist()}]}, "depth"),
        ({"frames": [{"color": "a", "depth": "b", "stamp": 0, "T_world_camera": np.eye(3).tolist()}]}, r"\(4, 4\)"),
        (
            {"frames": [{"color": "a", "depth": "b", "stamp": 0, "T_world_camera": np.diag([2.0, 2, 2, 1]).tolist()}]},
            "rotation",
        ),
        ({"frames": []}, "no frame"),
    ],
)
def test_a_wrong_sequence_file_is_explained(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        open_sequence(write_json(tmp_path, **change))


def write_tum(folder: Path, color_shift_s: float = 0.01, pose_shift_s: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "rgb").mkdir()
    lists = {"rgb": "# colour\n", "depth": "# depth\n", "groundtruth": "# poses\n"}
    for i in range(3):
        write_images(folder, str(i), 5000 * (i + 1))
        lists["rgb"] += f"{10.0 + i + color_shift_s:.6f} color/{i}.png\n"
        lists["depth"] += f"{10.0 + i:.6f} depth/{i}.png\n"
        lists["groundtruth"] += f"{10.0 + i + pose_shift_s:.4f} {i} 0 1 0 0 {np.sin(np.pi / 4)} {np.cos(np.pi / 4)}\n"
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_tum_layout(tmp_path):
    folder = write_tum(tmp_path / "rgbd_dataset_freiburg3_office")
    sequence = open_sequence(folder)
    assert sequence.K[0, 0] == 535.4 and len(sequence) == 3
    frame = sequence[1]
    assert frame.depth_m[3, 3] == pytest.approx(2.0)
    assert frame.T_world_camera[:3, 3].tolist() == [1.0, 0.0, 1.0]
    assert np.allclose(frame.T_world_camera[:3, 0], [0, 1, 0])  # a quarter turn about z
    assert frame.stamp_ns == 11_000_000_000


def test_tum_frames_without_partner_are_left_out(tmp_path):
    folder = write_tum(tmp_path / "freiburg1_x")
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:-1]))
    sequence = open_sequence(folder)
    assert len(sequence) == 2 and sequence.skipped == 1
    with pytest.raises(DataError, match="no frame"):
        open_sequence(write_tum(tmp_path / "freiburg1_y", color_shift_s=0.03))


def test_tum_distortion_is_taken_out(tmp_path):
    folder = write_tum(tmp_path / "own")
    with pytest.raises(DataError, match="calibration.txt"):
        open_sequence(folder)
    (folder / "calibration.txt").write_text("10 10 4 3 0.5")
    straight = open_sequence(folder)[0]
    # x = -0.4, y = -0.3: r2 = 0.25, stretched by 1.125, so the corner is read 0.5 pixel further out
    assert straight.depth_m.shape == (H, W) and straight.depth_m[3, 4] == pytest.approx(1.0)
    (folder / "calibration.txt").write_text("10 10 4")
    with pytest.raises(DataError, match="fx fy cx cy"):
        open_sequence(folder)


def test_tum_list_errors_name_the_line(tmp_path):
    folder = write_tum(tmp_path / "freiburg1_x")
    (folder / "depth.txt").write_text("# x\nten depth/0.png\n")
    with pytest.raises(DataError, match="depth.txt:2"):
        open_sequence(folder)
    (folder / "groundtruth.txt").unlink()
    (folder / "depth.txt").write_text("10.0 depth/0.png\n")
    with pytest.raises(DataError, match="groundtruth.txt is missing"):
        open_sequence(folder)


def write_scannet(folder: Path, count: int = 3) -> Path:
    for part in ("pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    matrix, color_matrix = np.eye(4), np.eye(4)
    matrix[:3, :3] = K
    color_matrix[:3, :3] = K * 2
    color_matrix[2, 2] = 1
    np.savetxt(folder / "intrinsic/intrinsic_depth.txt", matrix)
    np.savetxt(folder / "intrinsic/intrinsic_color.txt", color_matrix)
    for i in range(count):
        write_images(folder, str(i * 10), 1500, color_scale=2)
        np.savetxt(folder / f"pose/{i * 10}.txt", pose(i) if i != 1 else np.full((4, 4), -np.inf))
    return folder


def test_scannet_layout(tmp_path):
    sequence = open_sequence(write_scannet(tmp_path))
    assert len(sequence) == 2 and sequence.skipped == 1
    frames = list(sequence)
    assert [f.T_world_camera[0, 3] for f in frames] == [0.0, 2.0]
    assert frames[0].color.shape == (H, W, 3)
    assert frames[0].color[0, 0].tolist() == [255, 0, 0] and frames[0].color[0, -1].tolist() == [0, 0, 0]
    assert frames[1].stamp_ns == 20 * 1_000_000_000 // 30


def test_scannet_counts_must_agree(tmp_path):
    write_scannet(tmp_path)
    (tmp_path / "pose/20.txt").unlink()
    with pytest.raises(DataError, match="3 depth images, but 2 in pose"):
        open_sequence(tmp_path)
    np.savetxt(tmp_path / "pose/21.txt", np.eye(4))
    with pytest.raises(DataError, match="frame 20"):
        open_sequence(tmp_path)


def test_an_unknown_folder_says_what_is_expected(tmp_path):
    (tmp_path / "cat.jpg").write_text("")
    with pytest.raises(DataError, match=r"cat\.jpg.*sequence\.json.*TUM.*ScanNet"):
        open_sequence(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        open_sequence(tmp_path / "none")


def test_color_follows_the_intrinsics_not_only_the_size():
    color = np.zeros((6, 20, 3), np.uint8)
    color[:, 10] = 255  # the column of the optical axis
    K_color = np.array([[10.0, 0, 10.0], [0, 10.0, 3.0], [0, 0, 1]])
    seen = resample_color(color, (H, W), K, K_color)
    assert seen[:, 4].min() == 255 and seen[:, [3, 5]].max() == 0


def test_nearest_stamps_keeps_to_the_tolerance():
    found = nearest_stamps(np.array([0, 14, 100]), np.array([2, 10, 20]), 5)
    assert found.tolist() == [0, 1, -1]
    assert nearest_stamps(np.array([1]), np.zeros(0, np.int64), 5).tolist() == [-1]
