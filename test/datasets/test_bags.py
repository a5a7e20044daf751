"""Bags read without ROS: topics are found by type, frames paired and posed, map topics streamed."""

import io

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from instseg_ros.datasets.bag_messages import TransformTree
from instseg_ros.datasets.bags import BagSequence, BagTopics, BagUpdates, is_bag, open_bag
from instseg_ros.errors import DataError

H, W = 4, 6
MAP_UPDATE = """
std_msgs/Header header
uint64 sequence
bool full
float32 voxel_size
int32[] coords
uint8[] colors
float32[] weights
int32[] deleted
"""
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg(MAP_UPDATE, "instseg_ros/msg/MapUpdate"))
T = STORE.types


def header(at_ns: int, frame: str = "camera_optical"):
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](at_ns // 10**9, at_ns % 10**9), frame)


def image(at_ns: int, encoding: str, array: np.ndarray, padding: int = 0):
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
    data = np.pad(rows, ((0, 0), (0, padding)))
    return T["sensor_msgs/msg/Image"](
        header(at_ns), array.shape[0], array.shape[1], encoding, 0, data.shape[1], data.reshape(-1)
    )


def compressed(at_ns: int, kind: str, array: np.ndarray):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return T["sensor_msgs/msg/CompressedImage"](header(at_ns), kind.lower(), np.frombuffer(stream.getvalue(), np.uint8))


def camera_info(at_ns: int, focal: float = 10.0):
    roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    K = np.array([focal, 0, 3, 0, focal, 2, 0, 0, 1.0])
    return T["sensor_msgs/msg/CameraInfo"](
        header(at_ns), H, W, "plumb_bob", np.zeros(5), K, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
    )


def pose_parts(x: float, yaw_deg: float = 0.0):
    q = Rotation.from_euler("z", yaw_deg, degrees=True).as_quat()
    return T["geometry_msgs/msg/Point"](x, 0.0, 0.0), T["geometry_msgs/msg/Quaternion"](*q)


def pose(at_ns: int, x: float, yaw_deg: float = 0.0):
    return T["geometry_msgs/msg/PoseStamped"](header(at_ns, "map"), T["geometry_msgs/msg/Pose"](*pose_parts(x, yaw_deg)))


def tf(at_ns: int, parent: str, child: str, x: float):
    point, quaternion = pose_parts(x)
    vector = T["geometry_msgs/msg/Vector3"](point.x, point.y, point.z)
    one = T["geometry_msgs/msg/TransformStamped"](
        header(at_ns, parent), child, T["geometry_msgs/msg/Transform"](vector, quaternion)
    )
    return T["tf2_msgs/msg/TFMessage"]([one])


def cloud(at_ns: int, points: np.ndarray, rgb: np.ndarray):
    field = T["sensor_msgs/msg/PointField"]
    fields = [field("x", 0, 7, 1), field("y", 4, 7, 1), field("z", 8, 7, 1), field("rgb", 16, 7, 1)]
    records = np.zeros(len(points), {"names": ["xyz", "rgb"], "formats": ["3<f4", "<u4"], "offsets": [0, 16], "itemsize": 20})
    records["xyz"], records["rgb"] = points, (rgb.astype(np.uint32) * [65536, 256, 1]).sum(axis=1)
    data = np.frombuffer(records.tobytes(), np.uint8)
    return T["sensor_msgs/msg/PointCloud2"](
        header(at_ns, "map"), 1, len(points), fields, False, 20, 20 * len(points), data, False
    )


def map_update(at_ns: int, sequence: int):
    return T["instseg_ros/msg/MapUpdate"](
        header(at_ns, "odom"),
        sequence,
        sequence == 0,
        0.05,
        np.array([sequence, 0, 0], np.int32),
        np.array([1, 2, 3], np.uint8),
        np.ones(1, np.float32),
        np.array([9, 9, 9] if sequence else [], np.int32),
    )


def write_bag(path, messages, plugin=StoragePlugin.MCAP, compression=None):
    """Messages: (topic, receive time ns, message)."""
    with_writer = Writer(path, version=9, storage_plugin=plugin)
    if compression:
        with_writer.set_compression(compression, CompressionFormat.ZSTD)
    with with_writer as writer:
        connections = {}
        for topic, at_ns, msg in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msg.__msgtype__, typestore=STORE)
            writer.write(connections[topic], at_ns, STORE.serialize_cdr(msg, msg.__msgtype__))
    return path


SECOND = 10**9
RED = np.tile(np.array([200, 10, 30], np.uint8), (H, W, 1))


def rgbd_messages(count: int = 4, pose_step: int = 1, color=lambda t: image(t, "rgb8", RED), depth=None):
    depth = depth or (lambda t: image(t, "16UC1", np.full((H, W), 1500, np.uint16)))
    messages = []
    for i in range(count):
        at = (i + 1) * SECOND // 10
        messages += [
            ("/camera/color/image", at, color(at + 5_000_000)),
            ("/camera/depth/image", at + 1, depth(at)),
            ("/camera/depth/camera_info", at + 2, camera_info(at)),
        ]
        if i % pose_step == 0:
            messages.append(("/camera/pose", at + 3, pose(at, float(i), 10.0 * i)))
    return messages


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("compression", [None, CompressionMode.FILE, CompressionMode.MESSAGE])
def test_rgbd_bag(tmp_path, plugin, compression):
    if plugin is StoragePlugin.MCAP and compression is CompressionMode.FILE:
        compression = CompressionMode.STORAGE
    path = write_bag(tmp_path / "bag", rgbd_messages(), plugin, compression)
    assert is_bag(path) and not is_bag(tmp_path)
    sequence = open_bag(path)
    assert isinstance(sequence, BagSequence) and len(sequence) == 4
    frames = list(sequence)
    assert [f.stamp_ns for f in frames] == [100_000_000, 200_000_000, 300_000_000, 400_000_000]
    assert np.allclose(frames[0].depth_m, 1.5) and frames[0].depth_m.dtype == np.float32
    assert frames[0].color[0, 0].tolist() == [200, 10, 30] and frames[0].K[0, 0] == 10.0
    assert [f.T_world_camera[0, 3] for f in frames] == [0.0, 1.0, 2.0, 3.0]
    assert np.allclose(Rotation.from_matrix(frames[3].T_world_camera[:3, :3]).as_euler("zyx", degrees=True)[0], 30.0)


def test_poses_are_read_between_the_recorded_ones(tmp_path):
    frames = list(open_bag(write_bag(tmp_path / "bag", rgbd_messages(5, pose_step=2))))
    assert [round(f.T_world_camera[0, 3], 6) for f in frames] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert np.allclose(Rotation.from_matrix(frames[1].T_world_camera[:3, :3]).as_euler("zyx", degrees=True)[0], 10.0)


def test_select(tmp_path):
    sequence = open_bag(write_bag(tmp_path / "bag", rgbd_messages(7))).select(stride=2, max_frames=3)
    assert len(sequence) == 3
    assert [f.T_world_camera[0, 3] for f in sequence] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("color", "tolerance"),
    [
        (lambda t: image(t, "bgr8", RED[..., ::-1]), 0),
        (lambda t: image(t, "rgba8", np.concatenate([RED, RED[..., :1]], axis=2)), 0),
        (lambda t: image(t, "rgb8", RED, padding=2), 0),
        (lambda t: compressed(t, "JPEG", RED), 6),
        (lambda t: image(t, "rgb8", np.repeat(np.repeat(RED, 2, 0), 2, 1)), 0),
    ],
)
def test_color_encodings(tmp_path, color, tolerance):
    frame = next(iter(open_bag(write_bag(tmp_path / "bag", rgbd_messages(1, color=color)))))
    assert frame.color.shape == (H, W, 3) and np.abs(frame.color.astype(int) - RED).max() <= tolerance


def test_depth_encodings(tmp_path):
    metres = np.full((H, W), 1.5, np.float32)
    metres[0, 0] = np.nan
    bag = write_bag(tmp_path / "a", rgbd_messages(1, depth=lambda t: image(t, "32FC1", metres)))
    depth_m = next(iter(open_bag(bag))).depth_m
    assert depth_m[0, 0] == 0 and depth_m[1, 1] == 1.5
    bag = write_bag(tmp_path / "b", rgbd_messages(1, depth=lambda t: compressed(t, "PNG", np.full((H, W), 700, np.uint16))))
    assert next(iter(open_bag(bag))).depth_m[1, 1] == pytest.approx(0.7)
    bag = write_bag(tmp_path / "c", rgbd_messages(1, depth=lambda t: image(t, "8UC1", np.zeros((H, W), np.uint8))))
    with pytest.raises(DataError, match="'8UC1' is not read"):
        list(open_bag(bag))


def test_pose_from_tf(tmp_path):
    messages = [m for m in rgbd_messages(3) if m[0] != "/camera/pose"]
    messages.append(("/tf_static", 1, tf(0, "base", "camera_optical", 0.5)))
    messages += [("/tf", i * SECOND // 10, tf(i * SECOND // 10, "odom", "base", float(i))) for i in range(5)]
    bag = write_bag(tmp_path / "bag", messages)
    assert [f.T_world_camera[0, 3] for f in open_bag(bag)] == [1.5, 2.5, 3.5]
    assert [f.T_world_camera[0, 3] for f in open_bag(bag, BagTopics(fixed_frame="base"))] == [0.5, 0.5, 0.5]
    with pytest.raises(DataError, match="does not connect mars"):
        open_bag(bag, BagTopics(fixed_frame="mars"))


def test_map_updates_come_first(tmp_path):
    messages = rgbd_messages(2) + [("/fusion/map_updates", i, map_update(i * SECOND, i)) for i in range(3)]
    source = open_bag(write_bag(tmp_path / "bag", messages))
    assert isinstance(source, BagUpdates) and len(source) == 3
    updates = list(source)
    for update in updates:
        update.validate()
    assert [u.sequence for u in updates] == [0, 1, 2] and [u.full for u in updates] == [True, False, False]
    assert updates[1].coords.tolist() == [[1, 0, 0]] and updates[1].deleted.tolist() == [[9, 9, 9]]
    assert updates[2].stamp_ns == 2 * SECOND and updates[2].frame_id == "odom" and updates[2].voxel_size_m == 0.05
    assert isinstance(open_bag(tmp_path / "bag", BagTopics(depth="/camera/depth/image")), BagSequence)


def test_clouds_are_whole_maps_or_deltas(tmp_path):
    points = np.array([[0.01, 0.01, 0.01], [np.nan, 0, 0], [0.11, 0.01, 0.01]])
    rgb = np.array([[255, 1, 2], [9, 9, 9], [3, 4, 5]])
    bag = write_bag(tmp_path / "bag", [("/map", i, cloud(i, points + i, rgb)) for i in range(2)])
    source = open_bag(bag, voxel_size_m=0.1)
    updates = list(source)
    assert isinstance(source, BagUpdates) and [u.full for u in updates] == [True, True]
    assert updates[0].coords.tolist() == [[0, 0, 0], [1, 0, 0]] and updates[0].colors.tolist() == [[255, 1, 2], [3, 4, 5]]
    assert [u.full for u in open_bag(bag, BagTopics(delta_clouds=True))] == [False, False]


def test_what_is_missing_is_named_with_what_is_there(tmp_path):
    bag = write_bag(tmp_path / "a", [("/camera/pose", 1, pose(1, 0.0))])
    with pytest.raises(DataError, match=r"neither depth images.*/camera/pose \(geometry_msgs/msg/PoseStamped, 1 messages\)"):
        open_bag(bag)
    bag = write_bag(tmp_path / "b", [m for m in rgbd_messages(1) if m[0] == "/camera/depth/image"])
    with pytest.raises(DataError, match="lacks a colour image and a CameraInfo and a PoseStamped or /tf"):
        open_bag(bag)
    with pytest.raises(DataError, match="no topic /depth"):
        open_bag(bag, BagTopics(depth="/depth"))
    with pytest.raises(DataError, match="is missing"):
        open_bag(tmp_path / "none")
    (tmp_path / "c.mcap").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be opened as a bag"):
        open_bag(tmp_path / "c.mcap")


def test_frames_without_pose_or_color_are_an_error_only_if_none_is_left(tmp_path):
    messages = [m for m in rgbd_messages(4) if not (m[0] == "/camera/pose" and m[1] > 2 * SECOND // 10 + 5)]
    assert len(list(open_bag(write_bag(tmp_path / "a", messages)))) == 2
    late = [
        (topic, at, pose(at + 100 * SECOND, 0.0) if topic == "/camera/pose" else msg) for topic, at, msg in rgbd_messages(2)
    ]
    with pytest.raises(DataError, match="check the stamps"):
        list(open_bag(write_bag(tmp_path / "b", late)))


def test_transform_tree_does_not_bridge_long_gaps():
    tree = TransformTree(max_gap_ns=100)
    tree.add("map", "base", np.eye(4), 0)
    tree.add("map", "base", np.eye(4), 1000)
    assert tree.lookup("map", "base", 500) is None
    assert tree.lookup("map", "base", 1005) is not None and tree.lookup("map", "base", 1050) is None
    assert tree.lookup("nowhere", "base", 0) is None and tree.root("base") == "map"
