"""A recorded run and what is read from it: the map a listener of the topics has, latencies, drops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import DataError
from instseg_ros.labels import IGNORE, class_to_nyu40
from instseg_ros.live.recorder import BagRecorder, message_store
from instseg_ros.live.recording import ListenerMap, Recording, dropped, latencies_ms, percentiles, read_recording, states
from instseg_ros.mapping.update import MapUpdate, voxel_centers

SIZE_M = 0.05
STORE = message_store()
TYPES = STORE.types
POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("label", "<u2"), ("instance", "<u4"), ("confidence", "<f4")]
)
FIELD_TYPES = {"f4": 7, "u4": 6, "u2": 4}
TOPICS = {
    "/map_updates": "instseg_ros/msg/MapUpdate",
    "/segmenter/points_delta": "sensor_msgs/msg/PointCloud2",
    "/segmenter/instances": "instseg_ros/msg/InstanceArray",
}


def header(stamp_ns):
    return TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000)), "map")


def delta_message(coords, classes, ids, removed=(), stamp_ns=0):
    """A `~/points_delta` message: labelled voxels, then those that are gone."""
    coords, removed = np.reshape(coords, (-1, 3)), np.reshape(removed, (-1, 3))
    points = np.zeros(len(coords) + len(removed), POINT)
    points["x"], points["y"], points["z"] = voxel_centers(np.concatenate([coords, removed]), SIZE_M).T
    points["label"][: len(coords)] = class_to_nyu40(np.array(classes, int))
    points["instance"][: len(coords)] = ids
    points["confidence"] = np.r_[np.ones(len(coords)), -np.ones(len(removed))]
    fields = [
        TYPES["sensor_msgs/msg/PointField"](name, POINT.fields[name][1], FIELD_TYPES[POINT[name].str[1:]], 1)
        for name in POINT.names
    ]
    data = np.frombuffer(points.tobytes(), np.uint8)
    step = POINT.itemsize
    return TYPES["sensor_msgs/msg/PointCloud2"](
        header(stamp_ns), 1, len(points), fields, False, step, step * len(points), data, True
    )


def update_message(update):
    return TYPES["instseg_ros/msg/MapUpdate"](
        header(update.stamp_ns),
        update.sequence,
        update.full,
        update.voxel_size_m,
        update.coords.ravel(),
        update.colors.ravel(),
        update.weights,
        update.deleted.ravel(),
    )


def update(coords, sequence=0, full=False, deleted=(), stamp_ns=0, color=7):
    coords = np.array(coords, np.int32).reshape(-1, 3)
    return MapUpdate(
        coords,
        np.full((len(coords), 3), color, np.uint8),
        np.ones(len(coords), np.float32),
        SIZE_M,
        "map",
        stamp_ns,
        sequence,
        full,
        np.array(deleted, np.int32).reshape(-1, 3),
    )


def answer(sequence, stamp_ns, instances=()):
    return TYPES["instseg_ros/msg/InstanceArray"](header(stamp_ns), sequence, list(instances))


voxels = st.lists(st.tuples(*[st.integers(-3, 3)] * 3), max_size=12, unique=True)
steps = st.lists(st.tuples(voxels, voxels, st.booleans(), st.integers(1, 5)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_listener_map_equals_a_dictionary(history):
    book, wanted = ListenerMap(), {}
    for number, (changed, relabelled, full, name) in enumerate(history):
        if full:
            wanted = {voxel: row for voxel, row in wanted.items() if voxel in changed}
            deleted = []
        else:
            deleted = [voxel for voxel in wanted if voxel not in changed][:2]
            wanted = {voxel: row for voxel, row in wanted.items() if voxel not in deleted}
        for voxel in changed:
            wanted[voxel] = (number, *wanted.get(voxel, (0, IGNORE, 0))[1:])
        book.apply_update(update(changed, full=full, deleted=deleted, color=number))
        relabelled = [voxel for voxel in relabelled if voxel in wanted]
        for voxel in relabelled:
            wanted[voxel] = (wanted[voxel][0], name, name)
        book.apply_delta(delta_message(relabelled, [name] * len(relabelled), name), SIZE_M)
    cloud = book.cloud(SIZE_M)
    rows = zip(cloud.colors[:, 0].tolist(), cloud.class_index.tolist(), cloud.instance.tolist(), strict=True)
    assert dict(zip(map(tuple, book.coords.tolist()), rows, strict=True)) == wanted


def test_a_bag_gives_back_the_states_of_the_map(tmp_path):
    first, second = (
        update([[0, 0, 0], [1, 0, 0]], 0, full=True, stamp_ns=10**9),
        update([[2, 0, 0]], 1, deleted=[[0, 0, 0]], stamp_ns=2 * 10**9),
    )
    point = TYPES["geometry_msgs/msg/Point"](0.1, 0.2, 0.3)
    time = TYPES["builtin_interfaces/msg/Time"](1, 5)
    chair = TYPES["instseg_ros/msg/Instance"](3, 5, "chair", 0.5, 2, point, point, point, time, time)
    messages = [
        ("/map_updates", update_message(first)),
        ("/segmenter/points_delta", delta_message(first.coords, [4, 4], 3, stamp_ns=10**9)),
        ("/segmenter/instances", answer(0, 10**9, [chair])),
        ("/map_updates", update_message(second)),
        ("/segmenter/points_delta", delta_message(second.coords, [6], 4, [[0, 0, 0]], stamp_ns=2 * 10**9)),
        ("/segmenter/instances", answer(1, 2 * 10**9)),
    ]
    with BagRecorder(tmp_path / "bag", TOPICS) as bag:
        for number, (topic, message) in enumerate(messages):
            bag.write(topic, 10**9 * (1 + number), bytes(STORE.serialize_cdr(message, TOPICS[topic])))
    recording = read_recording(tmp_path / "bag")
    before, after = states(recording)
    assert before.coords.tolist() == [[0, 0, 0], [1, 0, 0]] and before.cloud.instance.tolist() == [3, 3]
    assert (before.instances[0].id, before.instances[0].class_index, before.instances[0].first_seen_ns) == (3, 4, 10**9 + 5)
    assert after.coords.tolist() == [[1, 0, 0], [2, 0, 0]] and after.cloud.class_index.tolist() == [4, 6]
    assert after.cloud.colors.tolist() == [[7, 7, 7]] * 2
    assert latencies_ms(recording) == {0: 2000.0, 1: 4000.0}


def test_latency_of_updates_that_were_answered_together_or_not_at_all():
    ms = 1_000_000
    recording = Recording(
        updates=[(0, update([], number, stamp_ns=number * 10 * ms)) for number in range(4)],
        answers=[(25 * ms, answer(0, 0)), (95 * ms, answer(2, 20 * ms))],
    )
    assert latencies_ms(recording) == {0: 25.0, 1: 85.0, 2: 75.0}


def test_with_simulated_time_latency_counts_from_when_the_clock_showed_the_stamp():
    ms, start = 1_000_000, 10**18
    recording = Recording(
        updates=[(0, update([], number, stamp_ns=5 * 10**9 + number * 100 * ms)) for number in range(2)],
        answers=[(start + 30 * ms, answer(0, 0)), (start + 120 * ms, answer(1, 0))],
        clock=[(start + at * ms, 5 * 10**9 + 2 * at * ms) for at in (0, 40, 80)],  # twice as fast
    )
    assert latencies_ms(recording) == {0: 30.0, 1: 70.0}


def test_drops_are_added_up_by_cause():
    found = dropped(
        {
            "segmenter": {"dropped_queue_full": "2", "refused": "0", "voxels": "9", "last_error": "1"},
            "fusion": {"dropped_no_pose": "3", "dropped_queue_full": "1", "frames_fused": "70"},
        }
    )
    assert found == {"dropped_queue_full": 3, "dropped_no_pose": 3}


def test_percentiles_of_nothing_are_not_a_number():
    assert all(np.isnan(value) for value in percentiles([]).values())
    assert percentiles([1.0, 2.0, 3.0]) == {"p50": 2.0, "p95": 2.9, "max": 3.0}


def test_a_folder_that_is_no_bag_is_not_removed(tmp_path):
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not a bag"):
        BagRecorder(tmp_path / "bag", TOPICS)
    assert (tmp_path / "bag" / "thesis.txt").exists()
