"""The loop without ROS: updates after every n-th frame and after the last, and what is recorded of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.online import OnlineRun, fused_updates, run_online, run_updates


class CountingFusion:
    """One voxel per frame, handed out at each update."""

    def __init__(self):
        self.frames = self.taken = self.sequence = 0

    def integrate(self, depth_m, color, K, T_world_camera):
        self.frames += 1

    def take_update(self, stamp_ns, frame_id, full=False):
        coords = np.stack([np.arange(self.taken, self.frames)] * 3, axis=1).astype(np.int32)
        self.taken, self.sequence = self.frames, self.sequence + 1
        count = len(coords)
        return MapUpdate(
            coords,
            np.zeros((count, 3), np.uint8),
            np.ones(count, np.float32),
            0.05,
            frame_id,
            stamp_ns,
            self.sequence - 1,
            full,
        )


class CountingSegmenter:
    """Every update brings one instance more."""

    def __init__(self):
        self.voxels, self.ids = 0, []

    def process(self, update):
        self.voxels += len(update)
        self.ids.append(len(self.ids) + 1)
        events = [SimpleNamespace(kind="born")] + [SimpleNamespace(kind="updated")] * (len(self.ids) - 1)
        return SimpleNamespace(
            stamp_ns=update.stamp_ns,
            sequence=update.sequence,
            voxels=self.voxels,
            stage_ms={"network": 2.0 * len(self.ids)},
            instances=[SimpleNamespace(id=i) for i in self.ids],
            events=events,
        )


def frames(count):
    image = np.zeros((2, 2), np.float32)
    return [RgbdFrame(i, image, np.zeros((2, 2, 3), np.uint8), np.eye(3), np.eye(4)) for i in range(count)]


@pytest.mark.parametrize(("count", "every", "expected"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (0, 2, [])])
def test_every_frame_ends_up_in_an_update(count, every, expected):
    steps = list(fused_updates(CountingFusion(), frames(count), every, "odom"))
    assert [s.frames for s in steps] == expected and [len(s.update) for s in steps] == expected
    assert [s.update.stamp_ns for s in steps] == [n - 1 for n in np.cumsum(expected)]
    assert all(s.update.frame_id == "odom" and s.fuse_ms >= 0 for s in steps)


def test_a_run_records_what_happened():
    seen = []
    run = run_online(
        CountingSegmenter(), CountingFusion(), frames(7), 3, lambda result, update: seen.append((result.voxels, len(update)))
    )
    assert seen == [(3, 3), (6, 3), (7, 1)]
    assert [r.ids for r in run.records] == [[1], [1, 2], [1, 2, 3]]
    figures = run.figures()
    assert figures["updates"] == 3 and figures["frames"] == 7 and figures["voxels"] == 7 and figures["instances"] == 3
    assert figures["events"] == {"born": 3, "updated": 3}
    assert figures["stage_ms"]["network"] == {"p50": 4.0, "p95": pytest.approx(5.8), "max": 6.0}
    assert run.records[1].row()["instances"] == 2 and run.records[1].row()["changed"] == 3


def test_ready_made_updates_and_empty_runs():
    update = MapUpdate(np.zeros((1, 3), np.int32), np.zeros((1, 3), np.uint8), np.ones(1, np.float32), 0.05, full=True)
    run = run_updates(CountingSegmenter(), [update, update])
    assert [r.frames for r in run.records] == [0, 0] and run.figures()["voxels"] == 2
    assert OnlineRun().figures()["segment_ms"]["p95"] == 0.0
