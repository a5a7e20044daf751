"""`.sens` files, written as ScanNet's own tools write them."""

import io

import numpy as np
import pytest
from PIL import Image
from raw_writers import LFS_POINTER, sens_bytes

from instseg_ros.datasets.rgbd import open_sequence
from instseg_ros.datasets.scannet_sens import open_sens
from instseg_ros.errors import DataError

K_DEPTH = np.array([[10.0, 0, 7.5], [0, 10.0, 5.5], [0, 0, 1]])
K_COLOR = np.array([[20.0, 0, 15.5], [0, 20.0, 11.5], [0, 0, 1]])


def _pose(x):
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def _color(kind, value, size=(32, 24)):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[:, : size[0] // 2] = value
    if kind == 0:
        return image.tobytes()
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG" if kind == 1 else "JPEG", **({} if kind == 1 else {"quality": 95}))
    return stream.getvalue()


def _depth(k):
    return (np.arange(16 * 12, dtype=np.uint16) * 10 + k).reshape(12, 16)


def _file(tmp_path, color_type=2, depth_type=1, **changes):
    lost = np.full((4, 4), -np.inf)
    frames = [(_pose(k) if k != 1 else lost, 0, _color(color_type, 60 * (k + 1)), _depth(k)) for k in range(4)]
    path = tmp_path / "scene0000_00.sens"
    path.write_bytes(sens_bytes(frames, (32, 24), (16, 12), K_COLOR, K_DEPTH, color_type, depth_type, **changes))
    return path


@pytest.mark.parametrize(("color_type", "depth_type"), [(0, 0), (1, 1), (2, 1)])
def test_frames_come_out_as_they_went_in(tmp_path, color_type, depth_type):
    sequence = open_sequence(_file(tmp_path, color_type, depth_type))
    assert len(sequence) == 3 and sequence.skipped == 1 and sequence.name == "scene0000_00"  # one had lost its pose
    for frame, k in zip(sequence, (0, 2, 3), strict=True):
        assert np.allclose(frame.depth_m, _depth(k) / 1000.0) and frame.depth_m.dtype == np.float32
        assert np.allclose(frame.T_world_camera, _pose(k)) and np.allclose(frame.K, K_DEPTH)
        assert frame.color.shape == (12, 16, 3)
        assert np.abs(frame.color[:, :6].astype(int) - 60 * (k + 1)).max() <= 4 and frame.color[:, 10:].max() <= 4
        assert frame.stamp_ns == k * 1_000_000_000 // 30
    assert [f.T_world_camera[0, 3] for f in sequence.select(2, 2)] == [0.0, 3.0]


def test_stamps_are_microseconds_where_there_are_any(tmp_path):
    path = tmp_path / "a.sens"
    path.write_bytes(sens_bytes([(_pose(0), 1_500_000, _color(2, 9), _depth(0))], (32, 24), (16, 12), K_COLOR, K_DEPTH))
    assert open_sens(path)[0].stamp_ns == 1_500_000_000


def test_damaged_files_are_refused_on_opening(tmp_path):
    data = _file(tmp_path).read_bytes()
    bad = tmp_path / "bad.sens"
    for content, message in (
        (data[:-60], "cut short in frame 3"), (data[:100], "cut short"), (b"\x05" + data[1:], "version 4"),
        (LFS_POINTER.encode(), "git lfs pull"), (b"\x04\0\0\0" + b"\xff" * 8 + data[12:], "sensor name"),
    ):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_sens(bad)
    with pytest.raises(DataError, match="cannot hold the 1000000000000 frames"):
        open_sens(_file(tmp_path, count=10**12))
    with pytest.raises(DataError, match="SensReader"):
        open_sens(_file(tmp_path, depth_type=2))
    with pytest.raises(DataError, match="depth shift 0.0"):
        open_sens(_file(tmp_path, shift=0.0))
    with pytest.raises(DataError, match="missing"):
        open_sequence(tmp_path / "none.sens")


def test_damaged_images_are_refused_when_asked_for(tmp_path):
    frames = [
        (_pose(0), 0, b"\xff\xd8 no jpeg", _depth(0)), (_pose(1), 0, _color(2, 9, (30, 24)), _depth(0)),
        (_pose(2), 0, _color(2, 9), np.zeros((200, 200), np.uint16)),
    ]
    path = tmp_path / "a.sens"
    path.write_bytes(sens_bytes(frames, (32, 24), (16, 12), K_COLOR, K_DEPTH))
    sequence = open_sens(path)
    for index, message in enumerate(("colour of frame 0", "30 x 24", "bytes of depth")):
        with pytest.raises(DataError, match=message):
            sequence[index]
