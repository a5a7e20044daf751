"""What is recorded for the rerun viewer: as calls of a stand-in, and in a real file where rerun-sdk is installed."""

import sys
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.cli import main
from instseg_ros.config import GroupingConfig, SegmenterConfig
from instseg_ros.labels import class_index
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.segmenter import Segmenter
from instseg_ros.visual.rerun_recording import RerunRecording

Logged = namedtuple("Logged", "update path what static")


class FakeStream:
    """Keeps what is logged."""

    streams: list = []

    def __init__(self, application: str) -> None:
        self.logged, self.times, self.open = [], {}, True
        self.streams.append(self)

    def save(self, path) -> None:
        self.path = path

    def set_time(self, timeline, **value) -> None:
        (self.times[timeline],) = value.values()

    def log(self, path, what, static=False) -> None:
        assert self.open
        self.logged.append(Logged(self.times.get("update"), path, what, static))

    def disconnect(self) -> None:
        self.open = False


@pytest.fixture
def streams(monkeypatch):
    def kept(name):
        return lambda *values, **named: types.SimpleNamespace(kind=name, values=values, **named)

    fake = types.ModuleType("rerun")
    fake.RecordingStream, fake.ViewCoordinates = FakeStream, types.SimpleNamespace(RIGHT_HAND_Z_UP="z up")
    for name in ("AnnotationContext", "Boxes3D", "Clear", "Points3D", "Quaternion", "TextLog"):
        setattr(fake, name, kept(name))
    monkeypatch.setitem(sys.modules, "rerun", fake)
    monkeypatch.setattr(FakeStream, "streams", [])
    return FakeStream.streams


def chairs() -> Segmenter:
    """Calls every voxel a chair: what touches is an instance, however small it is."""
    return Segmenter(SegmenterConfig(threads=1, grouping=GroupingConfig(min_cluster_voxels=100_000, score_surface_m2=0.0)), chair_net())


def cube(x: int) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(4),) * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.int32) + [x, 0, 0]


def update(coords=None, deleted=None, stamp_ns=0) -> MapUpdate:
    coords = np.zeros((0, 3), np.int32) if coords is None else coords.astype(np.int32)
    deleted = np.zeros((0, 3), np.int32) if deleted is None else deleted.astype(np.int32)
    return MapUpdate(
        coords, np.full((len(coords), 3), 90, np.uint8), np.ones(len(coords), np.float32), 0.05, stamp_ns=stamp_ns, deleted=deleted
    )


UPDATES = [update(np.concatenate([cube(0), cube(100)]), stamp_ns=10**9), update(cube(40), stamp_ns=2 * 10**9), update(deleted=cube(100))]


def record(path: Path) -> None:
    segmenter = chairs()
    recording = RerunRecording(path, segmenter)
    for one in UPDATES:
        recording.take(segmenter.process(one))
    recording.close()


def test_only_blocks_that_changed_are_logged(streams, tmp_path):
    record(tmp_path / "new" / "map.rrd")
    (stream,) = streams
    assert stream.path == tmp_path / "new" / "map.rrd" and stream.path.parent.is_dir() and not stream.open
    assert stream.times == {"update": 3, "stamp": np.datetime64(2, "s")}
    voxels = {(one.update, one.path.removeprefix("map/voxels/")): one.what for one in stream.logged if one.path.startswith("map/voxels/")}
    assert set(voxels) == {(1, "0_0_0"), (1, "3_0_0"), (2, "1_0_0"), (3, "3_0_0")}
    assert voxels[3, "3_0_0"].kind == "Clear"
    points = voxels[2, "1_0_0"]
    assert np.allclose(np.sort(points.values[0], axis=0)[[0, -1]], [[2.025, 0.025, 0.025], [2.175, 0.175, 0.175]])
    assert set(points.class_ids) == {class_index("chair")} and points.radii == pytest.approx(0.025)


def test_instances_and_events(streams, tmp_path):
    record(tmp_path / "map.rrd")
    logged = streams[0].logged
    boxes = {one.update: one.what for one in logged if one.path == "map/instances"}
    assert [len(boxes[n].labels) for n in (1, 2, 3)] == [2, 3, 2]
    assert boxes[1].labels[0] == "chair #1 100 %" and np.allclose(boxes[1].half_sizes, 0.1) and np.allclose(boxes[1].centers[0], 0.1)
    assert boxes[1].quaternions[0].xyzw == (0.0, 0.0, 0.0, 1.0)
    words = [(one.update, one.what.values[0]) for one in logged if one.path == "events"]
    assert words == [(1, "chair #1 born"), (1, "chair #2 born"), (2, "chair #3 born"), (3, "chair #2 retired")]


def test_a_map_without_instances(streams, tmp_path):
    segmenter = chairs()
    recording = RerunRecording(tmp_path / "map.rrd", segmenter)
    recording.take(segmenter.process(update(cube(0)[:5])))  # too few voxels for an instance
    assert [one.what.kind for one in streams[0].logged if one.path == "map/instances"] == ["Clear"]


def test_without_rerun_the_command_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    np.savez(tmp_path / "cloud.npz", points=np.random.default_rng(0).uniform(0, 1, (2000, 3)), colors=np.full((2000, 3), 90, np.uint8))
    assert main(["segment", str(tmp_path / "cloud.npz"), "--out", str(tmp_path / "out"), "--rerun", str(tmp_path / "a.rrd")]) == 2
    assert "pip install 'rerun-sdk" in capsys.readouterr().err
    assert main(["segment", "a.ply", "b.ply", "--out", str(tmp_path / "out"), "--rerun", str(tmp_path / "a.rrd")]) == 2


def test_a_real_file(tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    chunk = pytest.importorskip("rerun.chunk", reason="this rerun-sdk reads recordings in another way")
    record(tmp_path / "map.rrd")
    rows: dict[str, int] = {}
    timelines = set()
    for one in chunk.RrdReader(tmp_path / "map.rrd").stream().to_chunks():
        rows[one.entity_path] = rows.get(one.entity_path, 0) + one.num_rows
        timelines |= set(one.timeline_names)
    assert {"update", "stamp"} <= timelines
    assert {path: n for path, n in rows.items() if path.startswith("/map/voxels")} == {
        "/map/voxels/0_0_0": 1, "/map/voxels/1_0_0": 1, "/map/voxels/3_0_0": 2,
    }
    assert rows["/map/instances"] == 3 and rows["/events"] == 4
