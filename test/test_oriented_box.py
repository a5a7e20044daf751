"""Boxes around voxels: they hold them whole, are as small as can be, and turn only where that is worth it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.instance import Instance
from instseg_ros.oriented_box import InstanceBoxes, OrientedBox, axis_aligned_box, oriented_box

VOXEL_M = 0.05
DEGREE = np.pi / 180.0


def centers(coords) -> np.ndarray:
    return ((np.asarray(coords) + 0.5) * VOXEL_M).astype(np.float32)


def turned_table(yaw_deg: float, size=(1.2, 0.6), at=(3.0, -7.0)) -> np.ndarray:
    """Voxels [N, 3] of a rectangle that is turned by an angle."""
    i, j = np.meshgrid(np.arange(-40, 40), np.arange(-40, 40), indexing="ij")
    xy = (np.stack([i.ravel(), j.ravel()], axis=1) + 0.5) * VOXEL_M
    c, s = np.cos(yaw_deg * DEGREE), np.sin(yaw_deg * DEGREE)
    inside = (np.abs(xy @ [[c, -s], [s, c]]) <= np.array(size) / 2).all(axis=1)
    coords = np.floor(xy[inside] / VOXEL_M + np.round(np.array(at) / VOXEL_M)).astype(int)
    return np.concatenate([np.column_stack([coords, np.full(len(coords), k)]) for k in range(3)])


def in_own_frame(box: OrientedBox, points: np.ndarray) -> np.ndarray:
    """Points relative to the box's centre, along its own axes."""
    c, s = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    return (points - box.center_m) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def voxel_corners(coords: np.ndarray) -> np.ndarray:
    return np.concatenate([(coords + np.array([i, j, k])) * VOXEL_M for i in (0, 1) for j in (0, 1) for k in (0, 1)])


def least_area(coords: np.ndarray) -> float:
    """By trying every half degree."""
    corners = voxel_corners(coords)[:, :2]
    areas = []
    for yaw in np.arange(0.0, 90.0, 0.5) * DEGREE:
        c, s = np.cos(yaw), np.sin(yaw)
        areas.append(np.prod(np.ptp(corners @ np.array([[c, -s], [s, c]]), axis=0)))
    return min(areas)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([1, 3, 10]), st.sampled_from([0, -2000, 30000]))
def test_a_box_holds_its_voxels_whole_and_is_small(seed, count, spread, far):
    coords = np.random.default_rng(seed).integers(-spread, spread + 1, (count, 3)) + far
    box = oriented_box(centers(coords), VOXEL_M)
    assert -np.pi / 4 < box.yaw_rad <= np.pi / 4 + 1e-9
    reach = np.abs(in_own_frame(box, voxel_corners(coords)))
    assert (reach <= box.size_m / 2 + 1e-3 * VOXEL_M + 1e-7 * abs(far)).all()
    assert np.allclose(reach.max(axis=0), box.size_m / 2, atol=1e-3 * VOXEL_M + 1e-7 * abs(far)), "no slack on any side"
    area = box.size_m[0] * box.size_m[1]
    assert area <= 1.1001 * least_area(coords)


@pytest.mark.parametrize("yaw_deg", [-40, -25, -12, 12, 25, 40])
def test_a_turned_table_gets_a_turned_box(yaw_deg):
    box = oriented_box(centers(turned_table(yaw_deg)), VOXEL_M)
    assert box.yaw_rad / DEGREE == pytest.approx(yaw_deg, abs=3.0)
    assert np.allclose(box.size_m, [1.2, 0.6, 0.15], atol=1.6 * VOXEL_M)
    assert np.allclose(box.center_m, [3.0, -7.0, 0.075], atol=0.5 * VOXEL_M)


def test_a_quarter_turn_swaps_the_edges():
    one, other = (oriented_box(centers(turned_table(yaw)), VOXEL_M) for yaw in (25, 115))
    assert other.yaw_rad == pytest.approx(one.yaw_rad, abs=0.05)
    assert np.allclose(other.size_m, one.size_m[[1, 0, 2]], atol=VOXEL_M)


@pytest.mark.parametrize("yaw_deg", [0, 1.5, -1.5, 90])
def test_a_box_that_is_nearly_as_small_stays_along_the_axes(yaw_deg):
    assert oriented_box(centers(turned_table(yaw_deg)), VOXEL_M).yaw_rad == 0.0


def test_degenerate_footprints():
    single = oriented_box(centers([[7, -3, 2]]), VOXEL_M)
    assert single.yaw_rad == 0.0 and np.allclose(single.size_m, VOXEL_M) and np.allclose(single.center_m, [0.375, -0.125, 0.125])
    pole = oriented_box(centers([[0, 0, k] for k in range(20)]), VOXEL_M)
    assert pole.yaw_rad == 0.0 and np.allclose(pole.size_m, [0.05, 0.05, 1.0])
    row = oriented_box(centers([[0, j, 0] for j in range(20)]), VOXEL_M)
    assert row.yaw_rad == 0.0 and np.allclose(row.size_m, [0.05, 1.0, 0.05])
    for sign in (-1, 1):
        diagonal = oriented_box(centers([[i, sign * i, 0] for i in range(20)]), VOXEL_M)
        assert diagonal.yaw_rad == pytest.approx(np.pi / 4), "the same name for the same turn"
        assert sorted(diagonal.size_m[:2]) == pytest.approx([np.sqrt(2) * VOXEL_M, 20 * np.sqrt(2) * VOXEL_M])


def test_the_order_of_voxels_does_not_matter():
    points, rng = centers(turned_table(33)), np.random.default_rng(1)
    boxes = [oriented_box(rng.permutation(points), VOXEL_M) for _ in range(5)]
    assert len({box.yaw_rad for box in boxes}) == 1
    assert np.allclose([box.center_m for box in boxes], boxes[0].center_m, atol=1e-5)


def test_corners_and_orientation_say_the_same():
    box = OrientedBox(np.array([1.0, 2.0, 3.0]), np.array([0.4, 0.8, 1.2]), 0.5)
    assert np.allclose(np.abs(in_own_frame(box, box.corners_m())), box.size_m / 2)
    x, y, z, w = box.quaternion_xyzw()
    assert (x, y) == (0.0, 0.0) and 2 * np.arctan2(z, w) == pytest.approx(0.5)
    edge = box.corners_m()[4] - box.corners_m()[0]
    assert np.arctan2(edge[1], edge[0]) == pytest.approx(0.5)
    plain = axis_aligned_box([0, 1, 2], [1, 3, 5])
    assert np.allclose(plain.corners_m()[[0, 7]], [[0, 1, 2], [1, 3, 5]]) and plain.yaw_rad == 0.0


def instance(i: int) -> Instance:
    return Instance(i, 4, 0.9, 10, np.zeros(3), np.zeros(3), np.full(3, 0.3), 0, 0)


def test_only_changed_instances_are_computed():
    asked = []

    def points_of(i):
        asked.append(i)
        return centers(turned_table(25)) if i != 3 else np.zeros((0, 3), np.float32)

    boxes, first, second, third = InstanceBoxes(), instance(1), instance(2), instance(3)
    before = boxes.of([first, second, third], points_of, VOXEL_M)
    assert asked == [1, 2, 3] and before[1].yaw_rad != 0.0
    assert np.allclose(before[3].size_m, 0.3), "without voxels the box that is known"
    again = boxes.of([first, instance(2), third], points_of, VOXEL_M)
    assert asked == [1, 2, 3, 2] and again[1] is before[1]
    boxes.of([second], points_of, VOXEL_M)
    assert set(boxes.of([first], points_of, VOXEL_M)) == {1} and asked == [1, 2, 3, 2, 2, 1]
