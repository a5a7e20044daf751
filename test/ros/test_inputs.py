"""Sequence numbers, the queue, image pairs, poses, markers and images, without nodes."""

import numpy as np
import pytest
from ros_bench import block, update
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import Marker

from instseg_ros.errors import InputError
from instseg_ros.instance import Instance
from instseg_ros.mapping.merge import merge_updates
from instseg_ros.oriented_box import OrientedBox, axis_aligned_box
from instseg_ros.ros.conversions import header, ns_to_time, time_to_ns, update_from_msg, update_to_msg
from instseg_ros.ros.images import color_from_msg, depth_from_msg, intrinsics_from_msg
from instseg_ros.ros.inputs import Arrival, SequenceWatch, UpdateQueue
from instseg_ros.ros.markers import MarkerBook, _text, box_edges
from instseg_ros.ros.poses import PoseBuffer, pose_matrix
from instseg_ros.ros.sync import ImagePairs


def test_updates_survive_the_message():
    one = update(7, block(3), deleted=[[1, 2, 3], [-4, 5, 6]])
    again = update_from_msg(update_to_msg(one))
    for name in ("coords", "colors", "weights", "deleted"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
        assert getattr(again, name).dtype == getattr(one, name).dtype
    assert (again.voxel_size_m, again.frame_id, again.stamp_ns) == (0.05, "map", one.stamp_ns)
    assert (again.sequence, again.full) == (7, False)
    assert time_to_ns(ns_to_time(1_700_000_000_123_456_789)) == 1_700_000_000_123_456_789


def check(watch, sequence, stamp_ns=None, full=False):
    return watch.check(sequence, stamp_ns if stamp_ns is not None else sequence, full)


def test_sequence_numbers():
    watch = SequenceWatch()
    assert [check(watch, i) for i in (0, 1, 2)] == [Arrival.IN_ORDER] * 3 and watch.complete
    assert check(watch, 2) is Arrival.STALE and check(watch, 1) is Arrival.STALE and watch.complete
    assert check(watch, 5) is Arrival.GAP and not watch.complete
    assert check(watch, 6) is Arrival.IN_ORDER and not watch.complete, "a gap is not healed by what follows"
    assert check(watch, 7, full=True) is Arrival.IN_ORDER and watch.complete
    assert check(watch, 0, stamp_ns=100) is Arrival.RESTART and not watch.complete
    assert check(watch, 500, stamp_ns=101, full=True) is Arrival.GAP and watch.complete
    assert check(watch, 1, stamp_ns=101) is Arrival.RESTART, "too far back for a duplicate"


def test_joining_late_is_a_gap_unless_the_first_is_full():
    assert check(SequenceWatch(), 12) is Arrival.GAP
    assert check(SequenceWatch(), 12, full=True) is Arrival.IN_ORDER


def test_the_queue_is_bounded_and_loses_nothing_it_took():
    queue = UpdateQueue(200)
    updates = [update(i, block(10 * i)) for i in range(4)]
    assert [queue.put(u, len(u), 0, u.full) for u in updates] == [True, True, True, False]
    assert queue.counts == {"coalesced": 2, "dropped_queue_full": 1} and queue.voxels == 192 and queue.frame() == "map"
    full = update(9, block(0), block(50), full=True)
    assert queue.put(full, len(full), 0, True), "a full update makes room: what waits is void"
    assert [w.content for w in queue.take()] == [full] and len(queue) == 0
    queue.put(updates[0], 64, 0)
    queue.put_reset()
    queue.put(full, len(full), 0, True)
    assert [w.content is UpdateQueue.RESET for w in queue.take()] == [True, False], "a reset stays before what follows it"


def test_a_map_larger_than_the_bound_can_be_sent_whole():
    queue = UpdateQueue(100)
    full, more = update(0, block(0), block(10), full=True), update(1, block(20))
    assert queue.put(full, len(full), 0, True) and not queue.put(more, len(more), 0) and queue.put(full, len(full), 0, True)
    assert [w.content for w in queue.take()] == [full] and queue.put(more, len(more), 0)


def test_what_waits_is_merged_before_anything_is_dropped():
    queue = UpdateQueue(200)
    updates = [update(i, block(0, value=i)) for i in range(20)]
    assert all(queue.put(u, len(u), 0) for u in updates), "the same voxels again and again need no more room"
    assert queue.counts == {"coalesced": 19} and queue.voxels <= 200
    waiting = queue.take()
    assert sum(w.updates for w in waiting) == 20
    merged, whole = merge_updates([w.content for w in waiting]), merge_updates(updates)
    np.testing.assert_array_equal(merged.coords, whole.coords)
    assert set(merged.colors.ravel()) == {19} and merged.sequence == 19


def test_a_full_update_in_the_queue_equals_the_merge():
    parts = [update(0, block(0)), update(1, block(10), full=True), update(2, block(20))]
    queue = UpdateQueue(1000)
    for one in parts:
        queue.put(one, len(one), 0, one.full)
    kept, whole = merge_updates([w.content for w in queue.take()]), merge_updates(parts)
    np.testing.assert_array_equal(kept.coords, whole.coords)
    assert kept.full and whole.full


def test_depth_is_paired_with_the_nearest_colour():
    pairs = ImagePairs()
    for stamp in (100, 200, 300, 400):
        pairs.add_depth(stamp, f"d{stamp}")
    pairs.add_color(95, "c95")
    assert pairs.take(10) == [], "a nearer one may come"
    pairs.add_color(102, "c102")
    assert pairs.take(10) == [(100, "d100", "c102")]
    pairs.add_color(300, "c300")
    assert pairs.take(10) == [(300, "d300", "c300")] and pairs.counts["dropped_no_color"] == 1
    pairs.keep_only(0, 350)
    pairs.add_color(400, "c400")
    assert pairs.take(10) == []


def test_poses_are_interpolated_and_never_guessed():
    poses = PoseBuffer()
    start, end = np.eye(4), np.eye(4)
    end[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    end[:3, 3] = [2.0, 0.0, 4.0]
    assert poses.at(5, 100) is None
    poses.add(100, start)
    poses.add(200, end)
    assert poses.at(99, 1000) is None and poses.at(201, 1000) is None
    np.testing.assert_array_equal(poses.at(200, 0), end)
    middle = poses.at(150, 100)
    np.testing.assert_allclose(middle[:3, 3], [1.0, 0.0, 2.0])
    np.testing.assert_allclose(middle[:3, :3], Rotation.from_euler("z", 45, degrees=True).as_matrix(), atol=1e-12)
    assert poses.at(150, 99) is None, "the gap is too wide"
    poses.keep_only(150, 300)
    assert poses.at(100, 1000) is None


def test_malformed_poses_are_refused():
    from geometry_msgs.msg import Point, Quaternion

    np.testing.assert_array_equal(pose_matrix(Point(x=1.0), Quaternion(w=1.0))[:3, 3], [1, 0, 0])
    for x, w in ((float("nan"), 1.0), (0.0, 0.0), (0.0, 2.0)):
        with pytest.raises(InputError, match="length 1"):
            pose_matrix(Point(x=x), Quaternion(w=w))


def image(encoding, pixels, pad=0, bigendian=False) -> Image:
    rows = np.pad(pixels.reshape(len(pixels), -1).view(np.uint8), ((0, 0), (0, pad)))
    height, width = pixels.shape[:2]
    msg = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(bigendian))
    msg.data.frombytes(rows.tobytes())
    return msg


@pytest.mark.parametrize("pad", [0, 8])
def test_images(pad):
    counts = np.array([[0, 1000, 65535], [1, 2, 3]], np.uint16)
    np.testing.assert_allclose(depth_from_msg(image("16UC1", counts, pad), 0.001), counts / 1000.0, rtol=1e-6)
    np.testing.assert_allclose(depth_from_msg(image("16UC1", counts.byteswap(), pad, True), 0.001), counts / 1000.0, rtol=1e-6)
    metres = np.array([[1.5, np.nan, np.inf], [-1.0, 0.0, 2.0]], np.float32)
    np.testing.assert_array_equal(depth_from_msg(image("32FC1", metres, pad), 0.001), [[1.5, 0, 0], [0, 0, 2.0]])
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(color_from_msg(image("rgb8", rgb, pad)), rgb)
    np.testing.assert_array_equal(color_from_msg(image("bgr8", np.ascontiguousarray(rgb[..., ::-1]), pad)), rgb)
    bgra = np.concatenate([rgb[..., ::-1], np.zeros((2, 3, 1), np.uint8)], axis=2)
    np.testing.assert_array_equal(color_from_msg(image("bgra8", bgra, pad)), rgb)
    np.testing.assert_array_equal(color_from_msg(image("mono8", rgb[..., :1].copy(), pad))[..., 1], rgb[..., 0])


def test_malformed_images_are_refused():
    good = image("16UC1", np.zeros((2, 3), np.uint16))
    with pytest.raises(InputError, match="16UC1 .* or 32FC1"):
        depth_from_msg(image("rgb8", np.zeros((2, 3, 3), np.uint8)), 0.001)
    with pytest.raises(InputError, match="not compressed"):
        color_from_msg(good)
    good.data = good.data[:-1]
    with pytest.raises(InputError, match="sizes disagree"):
        depth_from_msg(good, 0.001)
    with pytest.raises(InputError, match="calibration"):
        intrinsics_from_msg(CameraInfo())


def instance(number, x=0.0):
    return Instance(number, 4, 0.9, 10, np.zeros(3), np.array([x, 0, 0]), np.array([x + 1, 2, 3]), 0, 0)


def test_markers_are_whole_and_delete_by_name():
    book = MarkerBook()

    def array(stamp_ns, instances):
        boxes = {one.id: axis_aligned_box(one.box_min_m, one.box_max_m) for one in instances}
        return book.array(header(stamp_ns, "map"), instances, boxes, 0.1).markers

    first = array(1, [instance(1), instance(2), instance(2**32 - 1)])
    assert len({(m.ns, m.id) for m in first}) == 6 and all(m.action == Marker.ADD for m in first)
    for _ in range(MarkerBook.REPEAT_DELETE):
        later = array(2, [instance(2)])
        deleted = {(m.ns, m.id) for m in later if m.action == Marker.DELETE}
        assert deleted == {(ns, i) for ns in ("boxes", "labels") for i in (1, -1)}
    assert {m.action for m in array(3, [instance(2)])} == {Marker.ADD}
    back = array(4, [instance(1), instance(2, x=5.0)])
    assert {m.action for m in back} == {Marker.ADD}
    assert next(m for m in back if m.ns == "boxes" and m.id == 2).points[0].x == 5.0


def test_a_box_has_twelve_edges_of_its_own_lengths():
    box = OrientedBox(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.5, 2.5]), 0.6)
    points = np.array([[p.x, p.y, p.z] for p in box_edges(box)])
    lengths = np.linalg.norm(points[1::2] - points[::2], axis=1)
    assert sorted(lengths.round(6)) == [0.5] * 4 + [1.5] * 4 + [2.5] * 4
    assert len(np.unique(points.round(6), axis=0)) == 8 and np.allclose(points.mean(axis=0), box.center_m)
    text = _text(instance(1), box, 0.1).pose.position
    assert (text.x, text.y, text.z) == pytest.approx((1.0, 2.0, 3.0 + 1.25 + 0.1))
