"""The fusion node: images and poses in, map updates out, and together with the segmenter node."""

import json
from dataclasses import replace

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from instseg_ros.msg import MapUpdate
from PIL import Image as PngImage
from ros_bench import block, update
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

from instseg_ros.errors import ConfigError, DataError, MissingDependencyError
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import header, update_from_msg
from instseg_ros.ros.pointcloud import check_layout, read_points

WIDTH, HEIGHT, FOCAL = 80, 60, 70.0
K = np.array([[FOCAL, 0, 39.5], [0, FOCAL, 29.5], [0, 0, 1]])
LEVEL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""A camera at the origin that looks along x."""


def looking_along_x(y_m: float = 0.0) -> np.ndarray:
    T = LEVEL.copy()
    T[1, 3] = y_m
    return T


class Camera:
    """Publishes what a camera sees of a wall at a distance."""

    def __init__(self, bench, encoding: str = "16UC1") -> None:
        self.encoding = encoding
        self.depth, self.color = (bench.publisher(Image, topic, qos.IMAGES) for topic in ("depth", "color"))
        self.info = bench.publisher(CameraInfo, "camera_info", qos.IMAGES)
        self.poses = bench.publisher(PoseStamped, "pose", qos.IMAGES)

    def calibrate(self) -> None:
        self.info.publish(CameraInfo(header=header(1, "optical"), width=WIDTH, height=HEIGHT, k=K.reshape(-1).tolist()))

    def shoot(self, stamp_ns: int, wall_m: float = 1.5, color_lag_ns: int = 0) -> None:
        if self.encoding == "16UC1":
            data = np.full((HEIGHT, WIDTH), round(wall_m * 1000), np.uint16)
        else:
            data = np.full((HEIGHT, WIDTH), wall_m, np.float32)
        self.depth.publish(self._image(stamp_ns, self.encoding, data))
        self.color.publish(self._image(stamp_ns + color_lag_ns, "bgr8", np.full((HEIGHT, WIDTH, 3), (30, 20, 10), np.uint8)))

    def _image(self, stamp_ns: int, encoding: str, pixels: np.ndarray) -> Image:
        msg = Image(header=header(stamp_ns, "optical"), width=WIDTH, height=HEIGHT, encoding=encoding, step=pixels[0].nbytes)
        msg.data.frombytes(pixels.tobytes())
        return msg

    def pose(self, stamp_ns: int, T: np.ndarray, frame: str = "map") -> None:
        from scipy.spatial.transform import Rotation

        msg = PoseStamped(header=header(stamp_ns, frame))
        msg.pose.position.x, msg.pose.position.y, msg.pose.position.z = T[:3, 3].tolist()
        q = msg.pose.orientation
        q.x, q.y, q.z, q.w = Rotation.from_matrix(T[:3, :3]).as_quat().tolist()
        self.poses.publish(msg)


def ms(value: float) -> int:
    return 10_000_000_000 + int(value * 1e6)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_images_and_poses_become_updates(bench, encoding):
    node = bench.fusion(min_weight=1.0, publish_period_s=0.05)
    updates = bench.record(MapUpdate, "map_updates", qos.DELTAS)
    bench.until(lambda: node.worker.subscribers == 1, "a listener")
    camera = Camera(bench, encoding)
    camera.calibrate()
    camera.pose(ms(0), looking_along_x())
    camera.shoot(ms(0))
    bench.until(lambda: len(updates) == 1, "the first update")
    first = update_from_msg(updates.last)
    assert first.full and first.sequence == 0 and first.stamp_ns == ms(0) and first.frame_id == "map"
    centers = (first.coords + 0.5) * 0.05
    assert len(first) > 100 and np.abs(centers[:, 0] - 1.5).max() < 0.06, "the wall is at x = 1.5 m"
    assert np.median(first.colors, axis=0).tolist() == [10, 20, 30]

    # The second image lies between two poses: the camera has moved half a metre to the left by then.
    camera.pose(ms(100), looking_along_x())
    camera.pose(ms(200), looking_along_x(1.0))
    camera.shoot(ms(150), color_lag_ns=5_000_000)
    bench.until(lambda: len(updates) == 2, "the second update")
    second = update_from_msg(updates.last)
    assert not second.full and second.sequence == 1 and second.stamp_ns == ms(150)
    edge_m = 1.5 * 40 / FOCAL
    assert ((second.coords[:, 1] + 0.5) * 0.05).max() == pytest.approx(edge_m + 0.5, abs=0.1)
    assert node.monitor.counts["frames_fused"] == 2


def test_frames_without_pose_colour_or_calibration_are_dropped_by_cause(bench):
    node = bench.fusion(pose__max_wait_s=0.1)
    camera = Camera(bench)
    camera.pose(ms(0), looking_along_x(), frame="odom")
    bench.until(lambda: node.monitor.counts["poses_refused"] == 1, "a pose in another frame")
    camera.shoot(ms(0))
    bench.until(lambda: node.monitor.counts["dropped_no_pose"] == 1, "no pose")
    camera.pose(ms(100), looking_along_x())
    camera.shoot(ms(100))
    bench.until(lambda: node.monitor.counts["dropped_no_camera_info"] == 1, "no camera info")
    camera.calibrate()
    camera.shoot(ms(200), color_lag_ns=50_000_000)
    bench.until(lambda: node.pairs.counts["dropped_no_color"] == 1, "no colour image in time")
    camera.pose(ms(300), looking_along_x())
    camera.shoot(ms(250))  # between two poses, but further apart than pose.max_gap_s would allow if it were smaller
    bench.until(lambda: node.monitor.counts["frames_fused"] == 1, "a good frame")
    bad = Image(header=header(ms(300), "optical"), width=WIDTH, height=HEIGHT, encoding="mono16", step=1)
    camera.depth.publish(bad)
    camera.color.publish(bad)
    bench.until(lambda: node.monitor.counts["dropped_refused"] == 1, "a malformed image")
    assert "sizes disagree" in node.monitor.last_error


def test_stamps_that_jump_back_begin_a_new_map(bench):
    node = bench.fusion(min_weight=1.0, publish_period_s=0.02)
    updates = bench.record(MapUpdate, "map_updates", qos.DELTAS)
    bench.until(lambda: node.worker.subscribers == 1, "a listener")
    camera = Camera(bench)
    camera.calibrate()
    camera.pose(ms(5000), looking_along_x())
    camera.shoot(ms(5000))
    bench.until(lambda: len(updates) == 1, "the first map")
    camera.shoot(ms(0), wall_m=2.5)
    bench.until(lambda: node.monitor.counts["resets"] == 1, "the reset")
    camera.pose(ms(0), looking_along_x())
    bench.until(lambda: len(updates) == 2, "the second map")
    last = update_from_msg(updates.last)
    assert last.full and last.stamp_ns == ms(0) and ((last.coords[:, 0] + 0.5) * 0.05).min() > 2.3


def write_sequence(path, frames: int = 6):
    """A short sequence.json recording: a camera that moves along a wall with a box before it."""
    path.mkdir()
    entries = []
    for i in range(frames):
        depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
        depth[20:40, 30:50] = 1500
        color = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        color[20:40, 30:50] = (200, 40, 40)
        PngImage.fromarray(depth).save(path / f"{i}.depth.png")
        PngImage.fromarray(color).save(path / f"{i}.color.png")
        entries.append({
            "stamp": 100.0 + 0.1 * i, "depth": f"{i}.depth.png", "color": f"{i}.color.png",
            "T_world_camera": looking_along_x(0.0).tolist(),
        })
    text = json.dumps({"K": K.tolist(), "width": WIDTH, "height": HEIGHT, "depth_unit_m": 0.001, "frames": entries})
    (path / "sequence.json").write_text(text)
    return path


def start_pair(bench, tmp_path, **parameters):
    """Both nodes, the fusion node playing a folder into the segmenter."""
    segmenter = bench.segmenter(input__request_period_s=0.1)
    folder = {"pose__source": "folder", "folder__path": str(write_sequence(tmp_path / "sequence")), "folder__rate_hz": 50.0}
    fusion = bench.fusion(**folder, folder__wait_for_subscribers=1, publish_period_s=0.05, **parameters)
    bench.until(lambda: fusion.monitor.counts["frames_fused"] == 6, "the sequence is fused")
    bench.until(lambda: segmenter.worker.voxels > 100, "it is segmented")
    bench.until(lambda: not fusion.worker._dirty, "all is published")
    return segmenter, fusion


def test_a_folder_is_played_into_the_segmenter(bench, tmp_path):
    segmenter, fusion = start_pair(bench, tmp_path)
    counts = fusion.monitor.counts
    bench.until(lambda: segmenter.monitor.counts["updates_applied"] == counts["updates_published"], "every update is segmented")
    assert not any(name.startswith("dropped") for name in counts) and fusion._player.left == 0
    points = bench.record(PointCloud2, "/fusion/points", qos.LATCHED)
    assert bench.call(Trigger, "/fusion/publish_cloud").success
    bench.until(lambda: len(points), "the whole map as a cloud")
    xyz, colors, _ = read_points(points.last, check_layout(points.last))
    assert len(xyz) == segmenter.worker.voxels and (colors[:, 0] > 150).any()
    bench.until(lambda: segmenter.monitor.counts["updates_received"] == counts["updates_published"], "the full update with it")
    assert segmenter.watch.complete and segmenter.monitor.counts["sequence_gaps"] == 0

    assert bench.call(Trigger, "/fusion/reset").success
    bench.until(lambda: segmenter.worker.voxels == 0, "a reset of the fused map empties the segmenter's")


def test_a_gap_is_healed_by_the_fusion_node(bench, tmp_path):
    segmenter, fusion = start_pair(bench, tmp_path)
    bench.until(
        lambda: segmenter.monitor.counts["updates_applied"] == fusion.monitor.counts["updates_published"], "every update is segmented"
    )
    voxels = segmenter.worker.voxels
    send = bench.sender()
    stamp_ns = segmenter.inputs.last_stamp_ns
    send(replace(update(1000, block(500)), stamp_ns=stamp_ns + 1))
    bench.until(lambda: segmenter.monitor.counts["sequence_gaps"] == 1, "the gap")
    bench.until(lambda: segmenter.monitor.counts["full_requests"] >= 1, "the request")
    published = fusion.monitor.counts
    bench.until(
        lambda: segmenter.watch.complete and segmenter.monitor.counts["updates_applied"] == published["updates_published"] + 1,
        "the whole map",
    )
    assert segmenter.worker.voxels == voxels, "the foreign block is gone again"
    assert fusion.monitor.counts["updates_full"] >= 2
    assert segmenter.segmenter.map.lookup(block(500)[0]).max() < 0


def test_settings_that_cannot_work_are_refused(bench, tmp_path):
    with pytest.raises(ConfigError, match="folder.path is empty"):
        bench.fusion(pose__source="folder")
    with pytest.raises(DataError):
        bench.fusion(pose__source="folder", folder__path=str(tmp_path))
    with pytest.raises(ConfigError, match="pose.sauce.*Did you mean pose.source"):
        bench.fusion(pose__sauce="tf")


def test_tf_without_tf2_is_refused(bench):
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match="tf2_ros is needed to read camera poses.*Install it"):
            bench.fusion(pose__source="tf")
    else:
        node = bench.fusion(pose__source="tf")
        assert node._tf is not None
