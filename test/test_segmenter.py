"""The pipeline: the same result by any history, every change reported, refused updates without trace."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import ModelConfig, SegmenterConfig
from instseg_ros.errors import ConfigError, InputError
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.network import InstanceNet
from instseg_ros.segmenter import Segmenter
from instseg_ros.settings import from_mapping


class ColorNet(InstanceNet):
    """A network that reads classes off the colours, so that a map has objects without training: red is a chair, green a table."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(ModelConfig(channels=(8, 8)))
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(0.3)
            stem = self.backbone.stem.weight
            stem.zero_()
            stem[13, :3, :3] = 4.0 * torch.eye(3)  # a voxel's own colour
            for part in [*self.backbone.encoder, *self.backbone.decoder]:
                for block in part:
                    block.second.weight.zero_()
            for up in self.backbone.up:
                up.weight.zero_()
            first, last = self.heads["semantic"][0], self.heads["semantic"][2]
            first.weight.copy_(torch.eye(8))
            first.bias.zero_()
            last.weight.zero_()
            last.bias.zero_()
            last.bias[1] = 2.0  # floor
            last.weight[4, 0] = last.weight[6, 1] = 4.0
        self.eval()


def box(corner, size, color):
    coords = (np.argwhere(np.ones(size, bool)) + corner).astype(np.int32)
    return coords, np.broadcast_to(np.array(color, np.uint8), coords.shape).copy()


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A black floor, two red boxes and a green one, apart from each other."""
    parts = [
        box((0, 0, 0), (40, 40, 1), (0, 0, 0)), box((3, 3, 1), (6, 6, 6), (255, 0, 0)),
        box((25, 5, 1), (5, 8, 6), (255, 0, 0)), box((10, 25, 1), (9, 7, 5), (0, 255, 0)),
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def update(coords, colors, **fields) -> MapUpdate:
    return MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05, **fields)


def by_voxel(segmenter: Segmenter) -> dict:
    """What is published of every voxel."""
    slots = segmenter.map.live_slots()
    cloud = segmenter.cloud(slots)
    return {
        tuple(c): (k, i, round(float(s), 3), tuple(col))
        for c, k, i, s, col in zip(
            segmenter.map.coords[slots].tolist(), cloud.class_index.tolist(), cloud.instance.tolist(), cloud.confidence, cloud.colors.tolist(),
            strict=True,
        )
    }


def partition(segmenter: Segmenter) -> set:
    """The instances as sets of voxels with their class, whatever their ids."""
    members: dict = {}
    for c, (k, i, _, _) in by_voxel(segmenter).items():
        members.setdefault((i, k) if i else (0, None), set()).add(c)
    return {(k, frozenset(v)) for (_, k), v in members.items()}


def make(**changes) -> Segmenter:
    return Segmenter(from_mapping(SegmenterConfig, {"device": "cpu", "grouping.min_score": 0.0, **changes}), ColorNet())


def test_objects_come_out_with_class_and_box():
    segmenter = make()
    coords, colors = scene()
    result = segmenter.process(update(coords, colors, stamp_ns=7, sequence=3))
    assert (result.stamp_ns, result.sequence, result.voxels) == (7, 3, len(coords))
    assert sorted((i.class_index, i.voxels) for i in result.instances) == [(4, 216), (4, 240), (6, 315)]
    table = next(i for i in result.instances if i.class_index == 6)
    assert np.allclose(table.box_min_m, [0.5, 1.25, 0.05]) and np.allclose(table.box_max_m, [0.95, 1.6, 0.3])
    assert {e.kind for e in result.events} == {"born"} and len(result.events) == 3
    assert set(result.stage_ms) == {"map", "network", "grouping", "tracking", "total"}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from(["full", "incremental"]))
def test_any_history_ends_like_one_update(seed, passes):
    rng = np.random.default_rng(seed)
    coords, colors = scene()
    online = make(passes=passes, tolerance=0.0)
    shadow: dict = {}
    for part in np.array_split(rng.permutation(len(coords)), int(rng.integers(1, 6))):
        stray = rng.integers(-30, 0, (int(rng.integers(0, 60)), 3)).astype(np.int32)
        stray = np.unique(stray, axis=0)
        both = np.concatenate([coords[part], stray])
        result = online.process(update(both, np.concatenate([colors[part], np.full((len(stray), 3), 255, np.uint8)])))
        shadow = check_reported(online, shadow, result.relabelled)
        result = online.process(update(coords[:0], colors[:0], deleted=stray))
        assert len(result.removed_centers_m) == len(stray)
        shadow = check_reported(online, shadow, result.relabelled)
    offline = make()
    offline.process(update(coords, colors, full=True))
    assert partition(online) == partition(offline)


def check_reported(segmenter: Segmenter, before: dict, relabelled: np.ndarray) -> dict:
    """Everything that is published differently than before has been named."""
    now = by_voxel(segmenter)
    named = {tuple(c) for c in segmenter.map.coords[relabelled].tolist()}
    assert {c for c, value in now.items() if before.get(c) != value} <= named
    return now


def test_ids_last_through_growth_and_a_second_look():
    segmenter = make()
    coords, colors = scene()
    half = coords[:, 0] < 27
    segmenter.process(update(coords[half], colors[half]))
    first = {i.id: i.class_index for i in segmenter.tracker.instances.values()}
    segmenter.process(update(coords, colors))
    result = segmenter.resegment_all()
    assert {i.id: i.class_index for i in result.instances} == first
    assert not [e for e in result.events if e.kind in ("born", "retired", "merged", "split")]


def test_a_refused_update_leaves_no_trace():
    segmenter = make()
    coords, colors = scene()
    segmenter.process(update(coords, colors))
    before = by_voxel(segmenter)
    with pytest.raises(InputError, match="more than once"):
        segmenter.process(update(np.concatenate([coords, coords[:1]]), np.concatenate([colors, colors[:1]])))
    with pytest.raises(InputError, match="frame"):
        segmenter.process(update(coords, colors, frame_id="odom"))
    assert by_voxel(segmenter) == before


def test_reset_begins_anew_in_any_frame():
    segmenter = make()
    coords, colors = scene()
    segmenter.process(update(coords, colors))
    segmenter.reset()
    assert len(segmenter.map) == 0 and not segmenter.tracker.instances
    result = segmenter.process(update(coords, colors, frame_id="odom"))
    assert sorted(i.id for i in result.instances) == [1, 2, 3] and result.frame_id == "odom"


def test_an_empty_update_and_an_empty_map():
    segmenter = make()
    nothing = update(np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8))
    assert segmenter.process(nothing).voxels == 0
    coords, colors = scene()
    segmenter.process(update(coords, colors))
    result = segmenter.process(update(coords[:0], colors[:0], full=True))
    assert result.voxels == 0 and len(result.removed_centers_m) == len(coords) and not result.instances


def test_weights_of_another_voxel_size_are_refused():
    with pytest.raises(ConfigError, match=r"0\.05.*0\.02"):
        make(voxel_size_m=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_incremental_passes_on_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match="no GPU"):
        make(passes="incremental", device="cuda")


def test_warming_up_leaves_nothing():
    coords, colors = scene()
    warm, cold = make(), make()
    warm.warm_up()
    assert len(warm.map) == 0 and not warm.tracker.instances
    results = [one.process(update(coords, colors, full=True)) for one in (warm, cold)]
    assert [i.id for i in results[0].instances] == [i.id for i in results[1].instances]
    assert np.array_equal(results[0].relabelled, results[1].relabelled)
