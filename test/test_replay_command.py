"""`instseg replay` in this process: bags of all kinds, what is reported of them, and errors that say what to do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from instseg_ros.cli import main
from instseg_ros.config import ModelConfig
from instseg_ros.datasets.bag_writer import write_bag
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.scenes import VoxelScene, save_scene
from instseg_ros.labels import class_index
from instseg_ros.live.recorder import message_store
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights

STORE = message_store()
T = STORE.types
CHAIR = class_index("chair")


def cube(x: int, size: int = 4) -> np.ndarray:
    return (np.stack(np.meshgrid(*(np.arange(size),) * 3, indexing="ij"), -1).reshape(-1, 3) + [x, 0, 0]).astype(np.int32)


BRIDGE = np.stack([np.arange(4, 10), np.full(6, 1), np.full(6, 1)], axis=1).astype(np.int32)
A, B, C = cube(0), cube(10), cube(30)
STEPS = [  # new or changed, deleted: two chairs, a bridge between them, the bridge gone, a third chair, that gone
    (np.concatenate([A, B]), ()), (BRIDGE, ()), ((), BRIDGE), (C, ()), (A[:1], C), (A[:1], ()), (A[:1], ()),
]


def map_update(number: int, changed, deleted):
    changed, deleted = (np.array(part, np.int32).reshape(-1, 3) for part in (changed, deleted))
    stamp = T["builtin_interfaces/msg/Time"](100 + number, 0)
    colors = np.full(changed.size, 90 + number, np.uint8)
    return T["instseg_ros/msg/MapUpdate"](
        T["std_msgs/msg/Header"](stamp, "odom"), number, number == 0, 0.05, changed.ravel(), colors, np.ones(len(changed), np.float32),
        deleted.ravel())


def write_updates(path: Path, plugin=StoragePlugin.MCAP, compression=None, steps=tuple(STEPS)) -> Path:
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/mapper/changes", "instseg_ros/msg/MapUpdate", typestore=STORE)
        for number, step in enumerate(steps):
            msg = map_update(number, *step)
            writer.write(connection, (100 + number) * 10**9, STORE.serialize_cdr(msg, msg.__msgtype__))
    return path


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    """Weights that call every voxel a chair: instances are the connected parts."""
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(channels=(4, 4))).eval()
    with torch.no_grad():
        for head in net.heads.values():
            head[-1].weight.zero_()
            head[-1].bias.zero_()
        net.heads["semantic"][-1].bias[CHAIR] = 10.0
    path = tmp_path_factory.mktemp("weights") / "chairs.safetensors"
    save_weights(path, net, {})
    return ["--weights", str(path), "--grouping.method", "connected_components", "--tracking.retire-after", "2", "--threads", "1"]


def replay(bag: Path, out: Path, *arguments: str) -> dict:
    assert main(["replay", str(bag), "--out", str(out), *arguments]) == 0
    report = json.loads((out / "replay.json").read_text())
    for name in ("latency", "stages", "growth", "ids"):
        image = Image.open(out / f"{name}.png")
        assert image.width >= 1000 and 300 <= image.height <= 2000 and len(set(image.convert("L").tobytes())) > 20
    return report


KINDS = [
    (StoragePlugin.MCAP, None), (StoragePlugin.MCAP, CompressionMode.STORAGE), (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    (StoragePlugin.SQLITE3, None), (StoragePlugin.SQLITE3, CompressionMode.FILE), (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
]


@pytest.mark.parametrize(("plugin", "compression"), KINDS)
def test_a_bag_of_map_updates(tmp_path, flags, plugin, compression):
    report = replay(write_updates(tmp_path / "bag", plugin, compression), tmp_path / "out", *flags)
    figures, rows = report["figures"], report["rows"]
    assert figures["updates"] == len(STEPS) and figures["voxels"] == 128 and figures["instances"] == 2 and figures["bag_seconds"] == 6.0
    assert figures["updates_per_s"] > 0 and figures["ids"] == {"ids": 3, "born": 3, "merged": 1, "split": 1, "retired": 1}
    assert [row["voxels"] for row in rows if row["row"] == "update"] == [128, 134, 128, 192, 128, 128, 128]
    first, second, third = (row for row in rows if row["row"] == "id")
    gone, stays = sorted((first, second), key=lambda row: len(row["events"]), reverse=True)
    assert stays["spans_s"] == [[0.0, 6.0]] and gone["spans_s"] == [[0.0, 1.0], [2.0, 6.0]]
    events = [(e["at_s"], e["kind"], e["other"]) for e in gone["events"]]
    assert events == [(0.0, "born", 0), (1.0, "merged", stays["id"]), (2.0, "split", stays["id"])]
    assert third["class"] == "chair" and third["spans_s"] == [[3.0, 4.0]] and third["events"][-1]["kind"] == "retired"


def test_truth_gives_accuracy_and_id_switches(tmp_path, flags):
    coords = np.concatenate([A, B, BRIDGE])
    instance = np.repeat(np.array([0, 1, -1], np.int32), [64, 64, 6])
    scene = VoxelScene("two", 0.05, coords, np.zeros_like(coords, np.uint8), np.full(134, CHAIR, np.uint8), instance)
    save_scene(tmp_path / "truth.npz", scene)
    bag = write_updates(tmp_path / "bag")
    figures = replay(bag, tmp_path / "out", "--truth", str(tmp_path / "truth.npz"), *flags)["figures"]
    assert figures["ap50"] == 1.0 and figures["id_switches"] == 0 and figures["instance_updates"] >= 12 and figures["truth_share"] == 1.0


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bag_of_images(tmp_path, flags, stride):
    K = np.array([[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]])
    depth_m, color = np.full((32, 48), 1.5, np.float32), np.full((32, 48, 3), 120, np.uint8)
    T_world_camera = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1.5], [0, 0, 0, 1]])
    write_bag(tmp_path / "bag", [RgbdFrame(10**9 + i * 10**8, depth_m, color, K, T_world_camera) for i in range(8)])
    given = ["--stride", str(stride), "--update-every", "2", "--json", str(tmp_path / "out" / "replay.json"), "--fusion.min-weight", "1"]
    figures = replay(tmp_path / "bag", tmp_path / "out", *given, *flags)["figures"]
    assert figures["frames"] == 8 // stride and figures["updates"] == 4 // stride and figures["voxels"] > 100 and figures["frames_per_s"] > 0


def fails(capsys, *arguments: str) -> str:
    assert main(["replay", *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_replayed_is_named_with_what_is_there(tmp_path, flags, capsys):
    out = ["--out", str(tmp_path / "out"), *flags]
    assert "nothing is missing: give a bag's folder" in fails(capsys, str(tmp_path / "nothing"), *out)
    assert "is no bag" in fails(capsys, str(tmp_path), *out)
    bag = write_updates(tmp_path / "bag")
    wrong = fails(capsys, str(bag), "--map-topic", "/map", *out)
    assert "no topic /map" in wrong and "/mapper/changes (instseg_ros/msg/MapUpdate, 7 messages)" in wrong and "--map-topic" in wrong
    with Writer(tmp_path / "poses", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/odom", "nav_msgs/msg/Odometry", typestore=STORE)
    unusable = fails(capsys, str(tmp_path / "poses"), *out)
    assert "/odom (nav_msgs/msg/Odometry, 0 messages)" in unusable and "--depth-topic" in unusable
    assert "no message on /mapper/changes" in fails(capsys, str(write_updates(tmp_path / "empty", steps=())), *out)
    for flag, value in (("--rate", "0"), ("--update-every", "0"), ("--period", "nan")):
        assert f"{flag} {value}" in fails(capsys, str(bag), flag, value, *out).replace("0.0", "0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_damaged_bags(tmp_path, flags, capsys, plugin):
    bag = write_updates(tmp_path / "bag", plugin)
    file = next(path for path in bag.iterdir() if path.suffix != ".yaml")
    content = bytearray(file.read_bytes())
    at = content.find(b"odom")
    while at >= 0:  # the length of a string in every message
        content[at - 4 : at] = b"\xff\xff\xff\x7f"
        at = content.find(b"odom", at + 1)
    file.write_bytes(bytes(content))
    assert "damaged" in fails(capsys, str(bag), "--out", str(tmp_path / "out"), *flags)
    file.write_bytes(bytes(content[: len(content) // 3]))
    assert "bag" in fails(capsys, str(bag), "--out", str(tmp_path / "out"), *flags)


def test_a_truth_of_another_place_or_size_is_refused(tmp_path, flags, capsys):
    bag = write_updates(tmp_path / "bag")
    far = (A + 1000).astype(np.int32)
    for name, size_m, said in (("far", 0.05, "knows 0 % of the map's voxels"), ("coarse", 0.1, "has voxels of 0.1 m, the map 0.05 m")):
        scene = VoxelScene(name, size_m, far, np.zeros_like(far, np.uint8), np.full(64, CHAIR, np.uint8), np.zeros(64, np.int32))
        save_scene(tmp_path / f"{name}.npz", scene)
        assert said in fails(capsys, str(bag), "--truth", str(tmp_path / f"{name}.npz"), "--out", str(tmp_path / "out"), *flags)
