"""Cases from frames to figures: with ground truth in place of the network everything is found."""

import json

import numpy as np
import pytest
import torch

from instseg_ros.config import FusionConfig, GroupingConfig, ModelConfig, SegmenterConfig
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.evaluation.cases import Case, build_case, cached_case, load_case, save_case
from instseg_ros.evaluation.evaluate import evaluate_case, run_offline, run_online, summarise
from instseg_ros.evaluation.ground_truth import GroundTruth, OracleGrouper, install_oracles, instance_codes
from instseg_ros.evaluation.instances import EVALUATED_CLASSES
from instseg_ros.evaluation.pictures import save_picture
from instseg_ros.evaluation.table import format_table
from instseg_ros.labels import IGNORE, class_index
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.network import InstanceNet
from instseg_ros.report import write_report
from instseg_ros.segmenter import Segmenter

CHAIR, TABLE, FLOOR = class_index("chair"), class_index("table"), class_index("floor")
EMPTY = np.zeros((0, 3), np.int32)


def box(low, size):
    shape = np.indices(size).reshape(3, -1).T
    return (shape + low).astype(np.int32)


def toy_case(updates=4):
    """A floor with two touching chairs and a table, revealed from left to right; a wrong voxel comes and goes."""
    parts = [box((0, 0, 0), (40, 12, 1)), box((4, 3, 1), (4, 4, 6)), box((8, 3, 1), (4, 4, 6)), box((24, 3, 1), (8, 6, 4))]
    coords = np.concatenate(parts)
    sizes = [len(p) for p in parts]
    classes = np.repeat([FLOOR, CHAIR, CHAIR, TABLE], sizes).astype(np.uint8)
    instance = np.repeat([-1, 0, 1, 2], sizes).astype(np.int32)
    colors = np.repeat([[90, 90, 90], [200, 30, 30], [30, 200, 30], [30, 30, 200]], sizes, axis=0).astype(np.uint8)
    ghost = np.array([[20, 9, 9]], np.int32)

    def step(mask, number, full=False, extra=EMPTY, deleted=EMPTY):
        shown = np.concatenate([coords[mask], extra])
        shades = np.concatenate([colors[mask], np.zeros((len(extra), 3), np.uint8)])
        return MapUpdate(shown, shades, np.ones(len(shown), np.float32), 0.05, "map", number * 10**9, number, full, deleted)

    edges = np.linspace(0, 40, updates + 1).astype(int)
    steps = []
    for i in range(updates):
        mask = (coords[:, 0] >= edges[i]) & (coords[:, 0] < edges[i + 1])
        steps.append(step(mask, i, extra=ghost if i == 0 else EMPTY, deleted=ghost if i == updates - 1 else EMPTY))
    truth = GroundTruth.of(
        np.concatenate([coords, ghost]), np.append(classes, IGNORE), np.append(instance, -1), 0.05)
    return Case("toy", steps, step(np.ones(len(coords), bool), 0, full=True), truth)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(channels=(8, 8), embedding_dim=4)).eval()
    return Segmenter(SegmenterConfig(device="cpu", threads=1, grouping=GroupingConfig(min_score=0.0)), net)


@pytest.fixture()
def oracle_segmenter(segmenter):
    runner, grouper = segmenter.runner, segmenter.grouper
    yield segmenter
    segmenter.runner, segmenter.grouper = runner, grouper


def test_ground_truth_is_found_by_coordinates():
    rng = np.random.default_rng(0)
    coords = np.unique(rng.integers(-9, 9, (300, 3)), axis=0).astype(np.int32)
    coords = coords[rng.permutation(len(coords))]
    classes, instance = rng.integers(0, 20, len(coords)).astype(np.uint8), rng.integers(-1, 5, len(coords)).astype(np.int32)
    truth = GroundTruth.of(coords, classes, instance, 0.05)
    pick = rng.permutation(len(coords))[:50]
    found = truth.lookup(np.concatenate([coords[pick], [[50, 0, 0], [-50, 0, 0]]]))
    assert np.array_equal(found[0], np.append(classes[pick], [IGNORE, IGNORE]))
    assert np.array_equal(found[1], np.append(instance[pick], [-1, -1]))
    np.testing.assert_allclose(truth.centers_m()[3], (coords[instance == 3].mean(0) + 0.5) * 0.05)
    nothing = GroundTruth.of(EMPTY, np.zeros(0, np.uint8), np.zeros(0, np.int32), 0.05).lookup(coords)
    assert (nothing[0] == IGNORE).all() and (nothing[1] == -1).all()


def test_codes_keep_instances_apart():
    codes = instance_codes(np.arange(300), 4)
    gaps = np.linalg.norm(codes[:, None] - codes, axis=-1)
    assert gaps[~np.eye(300, dtype=bool)].min() >= 2.0


@pytest.mark.parametrize("parts", [("semantic", "grouping"), ("semantic", "offset", "embedding")])
def test_all_is_found_with_ground_truth_in_place_of_the_network(oracle_segmenter, parts):
    case = toy_case()
    install_oracles(oracle_segmenter, case.truth, parts)
    figures, rows = summarise("rooms", [evaluate_case(oracle_segmenter, case)], EVALUATED_CLASSES, 16)
    for name in ("rooms_ap", "rooms_ap50", "rooms_ap25", "rooms_ap50_online", "rooms_miou"):
        assert figures[name] == pytest.approx(1.0), name
    assert figures["rooms_ap50_difference"] == pytest.approx(0.0)
    assert figures["rooms_id_switches"] == 0
    assert figures["rooms_voxels"] == len(case.final) and figures["rooms_scenes"] == 1
    chairs = next(row for row in rows if row.get("class") == "chair" and row["mode"] == "offline")
    assert chairs["instances"] == 2 and chairs["predictions"] == 2
    assert {row["mode"] for row in rows if row["row"] == "scene"} == {"offline", "online"}


class EverythingIsAToilet:
    """A runner that finds one class everywhere, which the toy case does not hold."""

    def __init__(self, runner):
        self.runner = runner

    @property
    def prediction(self):
        return self.runner.prediction

    def reset(self):
        self.runner.reset()

    def refresh(self, voxels, delta):
        changed = self.runner.refresh(voxels, delta)
        self.prediction.semantic[:] = np.eye(20, dtype=np.float32)[class_index("toilet")]
        return changed


def test_true_instances_with_wrong_classes_are_not_found(oracle_segmenter):
    case = toy_case()
    assert class_index("toilet") not in case.truth.class_index
    oracle_segmenter.runner = EverythingIsAToilet(oracle_segmenter.runner)
    install_oracles(oracle_segmenter, case.truth, ["grouping"])
    outcome = run_offline(oracle_segmenter, case)
    figures, _ = summarise("rooms", [evaluate_case(oracle_segmenter, case, ["offline"])], EVALUATED_CLASSES, 16)
    assert figures["rooms_ap50"] == 0.0 and "rooms_ap50_online" not in figures
    assert len(outcome.scan.predictions.score) <= 3


def test_online_sees_the_final_map_and_follows_ids(oracle_segmenter):
    case = toy_case(updates=5)
    install_oracles(oracle_segmenter, case.truth, ["semantic", "grouping"])
    online = run_online(oracle_segmenter, case)
    offline = run_offline(oracle_segmenter, case)
    assert len(online.update_ms) == 5 and len(offline.update_ms) == 1
    assert len(online.scan.instance) == len(offline.scan.instance) == len(case.final)
    assert online.consistency.instance_updates > 5 and online.consistency.switches == 0


def test_oracles_of_direction_and_occupancy_are_the_true_ones():
    torch.manual_seed(0)
    net = InstanceNet(ModelConfig(channels=(8, 8), heads=("semantic", "embedding", "offset", "direction", "occupancy"))).eval()
    segmenter, case = Segmenter(SegmenterConfig(device="cpu", threads=1), net), toy_case()
    install_oracles(segmenter, case.truth, ["direction", "occupancy"])
    outcome = run_offline(segmenter, case)
    live = segmenter.map.live_slots()
    instance, prediction = outcome.scan.instance, segmenter.runner.prediction.take(live)
    points_m = segmenter.map.centers_m(live)
    for number, voxels in ((0, 96), (2, 192)):
        mine = instance == number
        to_center = points_m[mine].mean(0) - points_m[mine]
        expected = to_center / np.linalg.norm(to_center, axis=1, keepdims=True)
        np.testing.assert_allclose(prediction.direction[mine], expected, atol=1e-4)
        np.testing.assert_allclose(prediction.occupancy[mine], np.log(voxels), rtol=1e-6)
    assert outcome.occupancy_errors == pytest.approx([0, 0, 0], abs=1e-5)


def test_unknown_oracles_are_refused(oracle_segmenter):
    with pytest.raises(ConfigError, match="there is one for semantic"):
        install_oracles(oracle_segmenter, toy_case().truth, ["magic"])


def test_oracle_grouper_drops_what_is_predicted_as_background(oracle_segmenter):
    case = toy_case()
    truth = GroundTruth(case.truth.coords, np.full(len(case.truth.coords), FLOOR, np.uint8), case.truth.instance, 0.05)
    install_oracles(oracle_segmenter, truth, ["semantic", "grouping"])
    assert isinstance(oracle_segmenter.grouper, OracleGrouper)
    assert len(run_offline(oracle_segmenter, case).scan.predictions.score) == 0


def test_cases_survive_the_cache(tmp_path):
    case, calls = toy_case(), []

    def make():
        calls.append(1)
        return case

    path = tmp_path / "deep" / "toy.npz"
    for _ in range(2):
        loaded = cached_case(path, make)
    assert calls == [1] and loaded.name == "toy" and len(loaded.updates) == 4
    for a, b in zip([*case.updates, case.final], [*loaded.updates, loaded.final], strict=True):
        for name in ("coords", "colors", "weights", "deleted", "stamp_ns", "sequence", "full", "voxel_size_m", "frame_id"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        b.validate()
    assert np.array_equal(loaded.truth.instance, case.truth.instance)


def test_damaged_cases_say_what_to_do(tmp_path):
    path = tmp_path / "toy.npz"
    with pytest.raises(DataError, match="delete it"):
        load_case(path)
    path.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="delete it"):
        load_case(path)
    save_case(path, toy_case())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="delete it"):
        load_case(path)


def wall_frames(count):
    """A camera that looks at a wall 1 m away and moves sideways."""
    K = np.array([[60.0, 0, 40], [0, 60.0, 30], [0, 0, 1]])
    for i in range(count):
        T = np.eye(4)
        T[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).astype(float)
        T[0, 3] = 0.1 * i
        yield RgbdFrame(i * 10**8, np.full((60, 80), 1.0, np.float32), np.full((60, 80, 3), 100, np.uint8), K, T)


def test_frames_become_a_case():
    def label(coords):
        return np.full(len(coords), CHAIR, np.uint8), (coords[:, 0] > 5).astype(np.int32)

    case = build_case("wall", wall_frames(7), label, FusionConfig(block_count=500), frames_per_update=3)
    assert [update.sequence for update in case.updates] == [0, 1, 2] and case.updates[-1].stamp_ns == 6 * 10**8
    voxels = {}
    for update in case.updates:
        voxels.update({tuple(c): tuple(rgb) for c, rgb in zip(update.coords.tolist(), update.colors.tolist(), strict=True)})
        for c in update.deleted.tolist():
            del voxels[tuple(c)]
    final = {tuple(c): tuple(rgb) for c, rgb in zip(case.final.coords.tolist(), case.final.colors.tolist(), strict=True)}
    assert voxels == final and len(final) > 100
    classes, instance = case.truth.lookup(case.final.coords)
    assert (classes == CHAIR).all() and np.array_equal(instance, case.final.coords[:, 0] > 5)


def test_frames_without_depth_are_refused():
    blind = (RgbdFrame(f.stamp_ns, np.zeros_like(f.depth_m), f.color, f.K, f.T_world_camera) for f in wall_frames(2))
    with pytest.raises(DataError, match="no voxel"):
        build_case("blind", blind, lambda c: (np.zeros(len(c)), np.zeros(len(c))), FusionConfig(block_count=500))


def test_report_table_and_picture(oracle_segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr("instseg_ros.evaluation.pictures._PANEL", (160, 120))  # drawing toy voxels large takes seconds
    case = toy_case()
    install_oracles(oracle_segmenter, case.truth, ["semantic", "grouping"])
    result = evaluate_case(oracle_segmenter, case)
    figures, rows = summarise("rooms", [result], [CHAIR, class_index("bed")], 16)
    assert figures["rooms_ap50"] == 1.0  # a class without ground truth stays out
    write_report(tmp_path / "report.json", figures, rows)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert report["figures"]["rooms_ap50_online"] == 1.0
    table = format_table(rows, figures, "rooms")
    assert "chair" in table and "online" in table and "1.000" in table
    save_picture(tmp_path / "plots" / "toy.png", result.outcomes["online"], 0.05)
    assert (tmp_path / "plots" / "toy.png").stat().st_size > 2000
