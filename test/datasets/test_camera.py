"""The virtual camera: exact depth and labels, noise of the stated size, walks that stay on the floor and see the room."""

import numpy as np
import pytest

from instseg_ros.datasets.camera import PinholeCamera, SceneRenderer
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.free_floor import free_floor
from instseg_ros.datasets.scene_mesh import SceneInstance, SceneMesh, concatenate
from instseg_ros.datasets.sensor_noise import add_kinect_noise, noisy_poses
from instseg_ros.datasets.walk import walk
from instseg_ros.errors import DataError
from instseg_ros.labels import class_index


def box(name: str, low, high, color=(180, 60, 60), inside: bool = False) -> SceneMesh:
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], np.float32) * (high - low) + low
    faces = np.array([
        [0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4],
        [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3, 5], [3, 7, 5],
    ], np.int32)
    keep = slice(4, None) if inside else slice(None)  # the walls of a room: neither bottom nor top
    return SceneMesh(
        corners, faces[keep], np.full((len(faces[keep]), 3), color, np.uint8), np.zeros(len(faces[keep]), np.int32),
        [SceneInstance(name, class_index(name))],
    )


@pytest.fixture(scope="module")
def room() -> SceneMesh:
    """4 m x 3 m with a table in the middle and a cabinet at a wall."""
    return concatenate([
        box("wall", [0, 0, 0], [4, 3, 2.5], inside=True), box("floor", [0, 0, -0.02], [4, 3, 0]),
        box("table", [1.7, 1.2, 0], [2.3, 1.8, 0.7]), box("cabinet", [3.5, 0.5, 0], [4, 1.3, 1.2]),
    ])


def pose_along_x(eye) -> np.ndarray:
    T = np.eye(4)
    T[:3] = np.column_stack([[0, -1, 0], [0, 0, -1], [1, 0, 0], eye])
    return T


def test_a_pixel_shows_the_depth_and_the_object_on_its_ray(room):
    renderer = SceneRenderer(room, 0, PinholeCamera(41, 31, 40.0))
    frame = renderer.render(pose_along_x([0.5, 1.5, 0.4]), 7)
    assert frame.depth_m.shape == (31, 41) and frame.color.dtype == np.uint8 and frame.stamp_ns == 7
    assert frame.K[0, 2] == 20 and frame.K[1, 2] == 15
    assert frame.depth_m[15, 20] == pytest.approx(1.2, abs=1e-4) and frame.instance[15, 20] == 2
    assert frame.depth_m[15, 40] == pytest.approx(3.0, abs=1e-4) or frame.instance[15, 40] != 0
    assert frame.instance[30, 20] == 1 and frame.depth_m[30, 20] == pytest.approx(0.4 / (15 / 40), abs=1e-3)
    points = renderer.camera.rays() * frame.depth_m[..., None] @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]
    table = frame.instance == 2
    assert np.abs(points[table][:, 0] - 1.7).max() < 1e-3
    assert frame.color[15, 20, 0] > 60 and frame.color[15, 20, 0] > 1.5 * frame.color[15, 20, 1]


def test_where_there_is_nothing_there_is_no_depth(room):
    up = pose_along_x([2, 1, 2.0])
    up[:3, :3] = np.column_stack([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    frame = SceneRenderer(room).render(up)
    middle = frame.depth_m[40:80, 60:100]
    assert (middle == 0).all() and (frame.instance[40:80, 60:100] == -1).all() and np.isfinite(frame.depth_m).all()


def test_visibility_counts_what_hides_but_not_the_surface_itself(room):
    renderer = SceneRenderer(room)
    points = np.array([[1.7, 1.5, 0.4], [2.3, 1.5, 0.4], [4.0, 1.5, 0.4], [4.0, 1.5, 2.4], [0, 1.5, 1.0]])
    seen = renderer.visible(np.array([0.5, 1.5, 0.4]), points)
    assert seen.tolist() == [True, False, False, True, True]


def flat_frame(depth: float, shape=(120, 160)) -> RgbdFrame:
    return RgbdFrame(0, np.full(shape, depth, np.float32), np.zeros((*shape, 3), np.uint8), PinholeCamera().K, np.eye(4))


@pytest.mark.parametrize("depth", [0.8, 2.0, 4.0])
def test_axial_noise_has_the_size_that_was_measured_on_a_kinect(depth):
    noisy = add_kinect_noise(flat_frame(depth), np.random.default_rng(0)).depth_m
    assert (noisy > 0).mean() > 0.98
    error = noisy[noisy > 0] - depth
    quantum = depth**2 / (8 * 43.5)
    expected = np.hypot(0.0012 + 0.0019 * (depth - 0.4) ** 2, quantum / np.sqrt(12))
    assert error.std() == pytest.approx(expected, rel=0.2) and abs(error.mean()) < 0.25 * expected + quantum / 2
    counts = 8 * 43.5 / noisy[noisy > 0].astype(np.float64)
    assert np.abs(counts - np.rint(counts)).max() < 1e-3


def test_readings_are_lost_out_of_range_at_edges_and_at_grazing_incidence():
    rng = np.random.default_rng(1)
    assert not add_kinect_noise(flat_frame(0.3), rng).depth_m.any()
    assert not add_kinect_noise(flat_frame(6.0), rng).depth_m.any()
    step = flat_frame(1.0)
    step.depth_m[:, 80:] = 2.0
    lost = add_kinect_noise(step, rng).depth_m == 0
    assert 0.3 < lost[:, 79:81].mean() < 0.7 and lost[:, :70].mean() < 0.02
    rays = PinholeCamera().rays()
    floor = flat_frame(0)
    with np.errstate(divide="ignore"):
        depth = 0.3 / rays[..., 1]
    floor.depth_m[:] = np.where((depth > 0) & (depth < 4.4), depth, 0)
    far = (floor.depth_m > 3.0) & (floor.depth_m < 4.2)
    near = (floor.depth_m > 0.7) & (floor.depth_m < 0.9)
    lost = add_kinect_noise(floor, rng).depth_m == 0
    assert lost[far].mean() > lost[near].mean() + 0.3


def test_pose_noise_drifts_slowly_within_its_size():
    poses = np.tile(np.eye(4), (4000, 1, 1))
    noisy = noisy_poses(poses, np.random.default_rng(3))
    offset = noisy[:, :3, 3]
    assert offset.std() == pytest.approx(0.005, rel=0.25) and np.diff(offset, axis=0).std() < 0.5 * offset.std()
    angle = np.degrees(np.arccos(np.clip((np.trace(noisy[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 0.2 < angle.mean() < 0.9
    assert np.allclose(noisy[:, :3, :3] @ noisy[:, :3, :3].transpose(0, 2, 1), np.eye(3))


def test_a_walk_stays_on_free_floor_turns_smoothly_and_sees_the_room(room):
    renderer = SceneRenderer(room, 5)
    floor = free_floor(room)
    poses = walk(renderer, 5, 60, floor)
    assert poses.shape == (60, 4, 4)
    rotations = poses[:, :3, :3]
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3)) and (np.linalg.det(rotations) > 0).all()
    heights = poses[:, 2, 3] - floor.floor_z_m
    assert (heights >= 0.9).all() and (heights <= 1.7).all()
    assert (np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) < 0.4).all()
    for low, high in (([1.7, 1.2], [2.3, 1.8]), ([3.5, 0.5], [4, 1.3])):
        gap = np.maximum(np.maximum(low - poses[:, :2, 3], poses[:, :2, 3] - high), 0)
        assert (np.linalg.norm(gap, axis=1) > 0.1).all()
    turn = np.einsum("tki,tki->t", poses[1:, :3, :3], poses[:-1, :3, :3])
    assert np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1))).max() < 40
    assert (poses[:, 2, 2] < -np.sin(np.radians(10))).mean() > 0.2  # looks down part of the time
    pixels = np.zeros(4)
    yaws = set()
    for T in poses[::3]:
        frame = renderer.render(T)
        pixels += np.bincount(frame.instance[frame.instance >= 0], minlength=4)
        yaws.add(int(np.degrees(np.arctan2(T[1, 2], T[0, 2])) // 90))
    assert (pixels[2:] > 500).all() and len(yaws) == 4
    assert np.array_equal(poses, walk(SceneRenderer(room, 5), 5, 60)) and not np.array_equal(poses, walk(renderer, 6, 60))


def test_without_free_floor_there_is_no_walk(room):
    crowded = concatenate([room, box("bed", [0.2, 0.2, 0.3], [3.8, 2.8, 0.6])])
    with pytest.raises(DataError, match="free floor"):
        walk(SceneRenderer(crowded), 0, 10)
    with pytest.raises(DataError, match="at least 1"):
        walk(SceneRenderer(room), 0, 0)
