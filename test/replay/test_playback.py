"""What of a bag is played through topics, under which names, and what the nodes are told."""

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from instseg_ros.datasets.bag_writer import write_bag
from instseg_ros.datasets.bags import BagTopics
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import DataError
from instseg_ros.live.recorder import message_store
from instseg_ros.replay.playback import plan_playback, played_messages

STORE = message_store()
T = STORE.types
SECOND = 10**9


def frames(count=3):
    K = np.array([[10.0, 0, 3], [0, 10, 2], [0, 0, 1]])
    return [RgbdFrame(SECOND * (5 + i), np.full((4, 6), 1.5, np.float32), np.full((4, 6, 3), 7, np.uint8), K, np.eye(4)) for i in range(count)]


def header(at_ns, frame="camera"):
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](*divmod(at_ns, SECOND)), frame)


def write(path, messages):
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, at_ns, msg in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msg.__msgtype__, typestore=STORE)
            writer.write(connections[topic], at_ns, STORE.serialize_cdr(msg, msg.__msgtype__))
    return path


def test_images_with_poses(tmp_path):
    write_bag(tmp_path / "bag", frames(), frame_id="odom")
    plan = plan_playback(tmp_path / "bag")
    assert plan.images and plan.frame == "odom" and (plan.start_ns, plan.end_ns, plan.offset_ns) == (5 * SECOND, 7 * SECOND, 0)
    assert plan.remappings == {
        "depth": "/camera/depth/image", "color": "/camera/color/image", "camera_info": "/camera/depth/camera_info", "pose": "/camera/pose"}
    assert plan.parameters == {"segmenter": {"input.frame": "odom"}, "fusion": {"pose.frame": "odom", "pose.source": "topic"}}
    played = list(played_messages(plan))
    assert len(played) == 12 and [at for at, _, _ in played] == sorted(at for at, _, _ in played)
    depth = next(STORE.deserialize_cdr(content, topic.msgtype) for _, topic, content in played if topic.role == "depth")
    assert depth.encoding == "16UC1" and depth.data.view("<u2").tolist() == [1500] * 24


def test_compressed_images_are_played_raw_and_poses_come_from_tf(tmp_path):
    import io

    from PIL import Image

    def compressed(at_ns, kind, pixels):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        return T["sensor_msgs/msg/CompressedImage"](header(at_ns), kind.lower(), np.frombuffer(stream.getvalue(), np.uint8))

    point, turn = T["geometry_msgs/msg/Vector3"](1.0, 0.0, 0.0), T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    step = T["geometry_msgs/msg/TransformStamped"](header(SECOND, "earth"), "camera", T["geometry_msgs/msg/Transform"](point, turn))
    info = T["sensor_msgs/msg/CameraInfo"](
        header(SECOND), 4, 6, "plumb_bob", np.zeros(5), np.array([10.0, 0, 3, 0, 10, 2, 0, 0, 1]), np.eye(3).ravel(), np.zeros(12), 0, 0,
        T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False))
    color, depth = np.full((4, 6, 3), 50, np.uint8), np.full((4, 6), 800, np.uint16)
    plan = plan_playback(write(tmp_path / "bag", [
        ("/tf_static", SECOND, T["tf2_msgs/msg/TFMessage"]([step])), ("/cam/camera_info", SECOND, info),
        ("/cam/color/compressed", SECOND, compressed(SECOND, "PNG", color)), ("/cam/depth", SECOND, compressed(SECOND, "PNG", depth)),
    ]))
    renamed = {t.recorded: t.name for t in plan.topics if t.recorded != t.name}
    assert renamed == {"/cam/color/compressed": "/cam/color", "/cam/depth": "/cam/depth/raw"}
    assert plan.parameters["fusion"] == {"pose.frame": "earth", "pose.source": "tf"}
    content = {topic.recorded: STORE.deserialize_cdr(raw, topic.msgtype) for _, topic, raw in played_messages(plan)}
    assert content["/cam/color/compressed"].encoding == "rgb8" and content["/cam/color/compressed"].data.tolist() == [50] * 72
    assert content["/cam/depth"].data.view("<u2").tolist() == [800] * 24 and content["/tf_static"].transforms[0].child_frame_id == "camera"


def test_stamps_of_another_clock_move_the_clock(tmp_path):
    def update(number, stamp_ns):
        return T["instseg_ros/msg/MapUpdate"](header(stamp_ns, "map"), number, not number, 0.05, np.zeros(3, np.int32), np.zeros(3, np.uint8),
                                              np.ones(1, np.float32), np.zeros(0, np.int32))

    now = 1_700_000_000 * SECOND  # recorded from a simulation that began at 2 s
    bag = write(tmp_path / "bag", [("/updates", now + i * SECOND, update(i, (2 + i) * SECOND)) for i in range(3)])
    plan = plan_playback(bag)
    assert (plan.start_ns, plan.end_ns) == (2 * SECOND, 4 * SECOND) and plan.remappings == {"map_updates": "/updates"} and not plan.images
    assert [at for at, _, _ in played_messages(plan)] == [2 * SECOND, 3 * SECOND, 4 * SECOND]
    with pytest.raises(DataError, match="no topic /map"):
        plan_playback(bag, BagTopics(map="/map"))
