"""The benchmark of the groupers on a small made-up case."""

import numpy as np
import pytest

from instseg_ros.benchmarks import grouping
from instseg_ros.benchmarks.grouping import measure, plot, row_of_rooms
from instseg_ros.benchmarks.oracle_heads import OracleHeads
from instseg_ros.config import GroupingConfig
from instseg_ros.errors import InstSegError
from instseg_ros.evaluation.cases import Case
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.grouping.grouper import SPLITTERS, Grouper
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap


def small_case(name: str = "small") -> Case:
    """A floor with three blocks that are seen one after the other, in two halves each."""
    axes = np.meshgrid(np.arange(6), np.arange(6), np.arange(1, 7), indexing="ij")
    block = np.stack(axes, -1).reshape(-1, 3)
    parts = [block + (start, 0, 0) for start in (0, 6, 20)]
    floor = np.stack(np.meshgrid(np.arange(26), np.arange(6), [0], indexing="ij"), -1).reshape(-1, 3)
    halves = [floor, *(half for part in parts for half in (part[::2], part[1::2]))]
    updates = [MapUpdate(h.astype(np.int32), np.full(h.shape, 40 * i, np.uint8), np.ones(len(h), np.float32), 0.05) for i, h in enumerate(halves)]
    coords = np.concatenate([floor, *parts])
    instance = np.repeat([-1, 0, 1, 2], [len(floor), *map(len, parts)])
    truth = GroundTruth.of(coords, np.where(instance < 0, 1, 4), instance, 0.05)
    final = MapUpdate(truth.coords, np.zeros(coords.shape, np.uint8), np.ones(len(coords), np.float32), 0.05, full=True)
    return Case(name, updates, final, truth)


def test_every_grouper_is_measured_and_equal(tmp_path) -> None:
    figures, rows = measure(small_case(), list(SPLITTERS), GroupingConfig(supervoxel_min_voxels=20), whole_every=2, noise=0.2)
    assert figures["grouping_updates"] == 7 and figures["grouping_equal"] and len(rows) == 7 * len(SPLITTERS)
    for method in SPLITTERS:
        mine = [row for row in rows if row["method"] == method]
        assert [row["whole_ms"] is not None for row in mine] == [True, False] * 3 + [True]
        assert mine[0]["segments"] == 0 and all(row["regrouped_ms"] > 0 for row in mine)
        assert figures[f"grouping_{method}_ms_p50"] <= figures[f"grouping_{method}_ms_p95"]
        assert figures[f"grouping_{method}_segments"] == (2 if method == "connected_components" else 3)
    plot(tmp_path / "sub" / "grouping.png", rows)
    assert (tmp_path / "sub" / "grouping.png").stat().st_size > 10_000


def test_a_grouper_that_forgets_is_found_out(monkeypatch) -> None:
    class Forgetful(Grouper):
        def regroup(self, voxel_map, prediction, changed, delta):
            return super().regroup(voxel_map, prediction, changed[: len(changed) // 2], type(delta)(
                delta.added[: len(delta.added) // 2], delta.changed, delta.removed, delta.removed_coords, delta.pyramid
            ))

    monkeypatch.setattr(grouping, "Grouper", Forgetful)
    with pytest.raises(InstSegError, match="connected_components: after update"):
        measure(small_case(), ["connected_components"])


def test_predictions_belong_to_a_voxel_and_are_the_truth_without_noise() -> None:
    case = small_case()
    heads, voxel_map = OracleHeads(case.truth, noise=0.0), VoxelMap(0.05)
    for update in case.updates[:4]:
        heads.refresh(voxel_map, voxel_map.apply(update))
    other, other_map = OracleHeads(case.truth, noise=0.0), VoxelMap(0.05)
    other.refresh(other_map, other_map.apply(case.final))
    live = voxel_map.live_slots()
    there = other_map.lookup(voxel_map.coords[live])
    for name, values in heads.prediction.items():
        assert np.array_equal(values[live], getattr(other.prediction, name)[there])
    class_index, instance = case.truth.lookup(other_map.coords[there])
    assert np.array_equal(other.prediction.semantic[there].argmax(axis=1), class_index)
    mine = instance >= 0
    centers = case.truth.centers_m()[instance[mine]]
    np.testing.assert_allclose(other_map.centers_m(there[mine]) + other.prediction.offset[there[mine]], centers, atol=1e-5)
    np.testing.assert_allclose(np.exp(other.prediction.occupancy[there[mine], 0]), 216, rtol=1e-5)


def test_rooms_stand_beside_each_other() -> None:
    case = row_of_rooms([small_case("a"), small_case("b")])
    assert len(case.updates) == 14 and [update.sequence for update in case.updates] == list(range(14))
    voxel_map = VoxelMap(0.05)
    for update in case.updates:
        voxel_map.apply(update)
    assert len(voxel_map) == len(case.final) == len(case.truth.coords) == 2 * len(small_case().final)
    class_index, instance = case.truth.lookup(voxel_map.coords[voxel_map.live_slots()])
    assert set(np.unique(instance)) == set(range(-1, 6)) and set(class_index) == {1, 4}
