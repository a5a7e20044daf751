"""`instseg evaluate toy|scenes` and `--compare`, from scene files to the tables."""

import json
import math
import pickle
import sys

import numpy as np
import pytest
import torch

from instseg_ros import cli
from instseg_ros.config import ModelConfig, SegmenterConfig
from instseg_ros.datasets.scenes import VoxelScene, save_scene
from instseg_ros.distribute import run_tasks
from instseg_ros.errors import ConfigError, DataError, MissingDependencyError
from instseg_ros.evaluation import rotation_average
from instseg_ros.evaluation.comparison import comparison_markdown, save_comparison_plot
from instseg_ros.evaluation.entries import BaselineEntry, SegmenterEntry, parse_entry
from instseg_ros.evaluation.jobs import ComparisonJob, run_job
from instseg_ros.evaluation.sources import scene_sources
from instseg_ros.labels import class_index
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights

BED, CHAIR = class_index("bed"), class_index("chair")


def boxes_scene(name, touching, voxel_size_m=0.1):
    """A bed, two chairs that touch each other or do not, and a floor below that touches nothing."""
    box = np.indices((6, 6, 6)).reshape(3, -1).T
    starts = [(0, 0, 2), (20, 0, 2), (26 if touching else 30, 0, 2)]
    coords = np.concatenate([box + start for start in starts] + [np.indices((40, 6, 1)).reshape(3, -1).T]).astype(np.int32)
    class_of, instance = np.array([BED, CHAIR, CHAIR, class_index("floor")], np.uint8), np.array([0, 1, 2, -1], np.int32)
    of = np.repeat([0, 1, 2, 3], [216, 216, 216, 240])
    return VoxelScene(name, voxel_size_m, coords, np.full_like(coords, 120, np.uint8), class_of[of], instance[of])


@pytest.fixture()
def toy(tmp_path):
    save_scene(tmp_path / "toy" / "test" / "a.npz", boxes_scene("a", touching=False))
    save_scene(tmp_path / "toy" / "test" / "b.npz", boxes_scene("b", touching=True))
    save_scene(tmp_path / "toy" / "train" / "c.npz", boxes_scene("c", touching=True))
    return tmp_path / "toy"


@pytest.fixture()
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "toy.safetensors"
    config = ModelConfig(voxel_size_m=0.1, channels=(8, 8), heads=("semantic", "embedding", "offset", "direction", "occupancy"))
    save_weights(path, InstanceNet(config).eval(), {"classes": ["floor", "chair", "bed"]})
    return path


def evaluate(tmp_path, *arguments, out="report.json"):
    path = tmp_path / out
    status = cli.main(["evaluate", *map(str, arguments), "--json", str(path), "--device", "cpu", "--threads", "1"])
    return status, json.loads(path.read_text()) if path.exists() else None


def test_comparison_of_baselines_and_entries(tmp_path, toy, weights, capsys):
    perfect = "oracle=semantic+offset+embedding+direction+occupancy,grouping.offset_scale=20.0"
    status, found = evaluate(
        tmp_path, "toy", toy, "--compare", "--entry", f"untrained={weights}", "--entry", f"perfect={weights},{perfect}",
        "--out", tmp_path / "out")
    assert status == 0
    figures = found["figures"]
    assert figures["toy_scenes"] == 2 and figures["toy_classes"] == ["cabinet", "bed", "chair", "sofa", "table"]
    assert figures["toy_ap50"]["perfect"] == [None, 1.0, 1.0, None, None]
    assert list(figures["toy_ap50"]) == ["segmentation_as_instances", "connected_components", "untrained", "perfect"]
    # one class as one instance: beds right; of four chairs none (IoU one half is not beyond it)
    assert figures["toy_ap50"]["segmentation_as_instances"][1:3] == [1.0, 0.0]
    # components: the two that touch are one; equal scores are one point of the curve: (2/3, 1/2), then (1, 0)
    assert figures["toy_ap50"]["connected_components"][1:3] == pytest.approx([1.0, 2 / 3 * 0.25 + 0.25])
    assert figures["toy_mean_ap50"]["perfect"] == 1.0 > figures["toy_mean_ap50"]["untrained"]
    assert figures["toy_occupancy_within_0.3"]["perfect"] == 1.0
    assert set(figures["toy_seconds_per_scene"]) == set(figures["toy_ap50"])
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["figures"] == figures
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| perfect | 1.000 | 1.000 | 1.000 |" in text and "| chair | 0.000 | 0.417 |" in text and text in capsys.readouterr().out
    for name in ("comparison.png", "occupancy.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"


def test_baselines_on_predicted_classes_of_any_scenes(tmp_path, toy, weights):
    options = ("--entry", f"one={weights}", "--baseline", "connected_components", "--out", tmp_path / "o")
    status, found = evaluate(tmp_path, "scenes", toy / "test", "--compare", *options)
    assert status == 0 and list(found["figures"]["scenes_ap50"]) == ["connected_components", "one"]
    assert found["figures"]["scenes_ap50"]["connected_components"] < 0.5  # the classes are an untrained network's
    assert {row["class"] for row in found["rows"] if row["row"] == "class"} == {"bed", "chair"}


def test_jobs_and_their_results_can_be_sent_to_other_processes(toy, weights):
    config = SegmenterConfig(voxel_size_m=0.1, weights=str(weights), device="cpu", threads=1)
    entries = (BaselineEntry("b", "connected_components"), SegmenterEntry("s", config))
    job = pickle.loads(pickle.dumps(ComparisonJob(scene_sources(toy)[1], entries, ("offline",))))
    name, scores = pickle.loads(pickle.dumps(run_job(job)))
    assert name == "b" and list(scores) == ["b", "s"]
    predictions = scores["b"]["offline"].scan.predictions
    assert sorted(np.bincount(predictions.owner).tolist()) == [216, 432]  # the chairs are one component


def test_one_segmenter_on_scenes(tmp_path, toy, weights, capsys):
    status, found = evaluate(tmp_path, "toy", toy, "--weights", weights, "--oracle", "semantic", "--oracle", "grouping", "--count", 1)
    assert status == 0 and found["figures"]["toy_ap50"] == 1.0 and found["figures"]["toy_scenes"] == 1
    assert "chair" in capsys.readouterr().out


def test_rotations_are_a_setting_of_the_command_and_of_entries(tmp_path, toy, weights, capsys, monkeypatch):
    asked = []

    def spy(program, config, coords, colors, rotations, *rest):
        asked.append(rotations)
        return np.eye(20, dtype=np.float32)[np.full(len(coords), BED)]

    monkeypatch.setattr(rotation_average, "average_semantics", spy)
    options = ("--weights", weights, "--oracle", "grouping", "--grouping.min-score", "0.0")
    averaged = evaluate(tmp_path, "scenes", toy / "test", *options, "--rotations", 4)[1]["figures"]
    assert set(asked) == {4} and "scenes_ap50_online" not in averaged
    assert averaged["scenes_accuracy"] == pytest.approx(216 / (3 * 216 + 240))  # the beds are right, and nothing else
    assert averaged["scenes_ap50"] == pytest.approx(1 / 3)  # the partition is the true one, and all six are beds of the same score
    entries = ("--entry", f"one={weights}", "--entry", f"three={weights},rotations=3")
    status, found = evaluate(tmp_path, "scenes", toy / "test", "--compare", *entries, "--out", tmp_path / "o")
    assert status == 0 and list(found["figures"]["scenes_ap50"])[-2:] == ["one", "three"] and 3 in asked
    for wrong in (("--rotations", 0), ("--rotations", 2, "--compare"), ("--rotations", 2, "--online")):
        assert evaluate(tmp_path, "scenes", toy / "test", *wrong)[0] == 2
        assert "--rotations" in capsys.readouterr().err


def test_tables_of_any_rows(tmp_path):
    """What other tables (ablations) are made of: entries with some of the measures, classes with AP50."""
    rows = [
        {"row": "entry", "entry": "p = 1", "mode": "offline", "ap50": 0.5, "assa": None},
        {"row": "class", "entry": "p = 1", "mode": "offline", "class": "bed", "ap50": None},
        {"row": "class", "entry": "p = 1", "mode": "offline", "class": "chair", "ap50": 0.25},
    ]
    text = comparison_markdown("Sizes", rows)
    assert text.splitlines()[2:5] == ["| offline | AP50 |", "| --- | ---: |", "| p = 1 | 0.500 |"]
    assert "| chair | 0.250 |" in text and "bed" not in text
    save_comparison_plot(tmp_path / "a.png", "Sizes", rows)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_refusals_name_the_cure(tmp_path, toy, weights, capsys):
    for arguments, cure in (
        (("toy",), "instseg simulate toy"),
        (("scenes", tmp_path / "nothing"), "no scenes"),
        (("toy", toy, "--online"), "trajectory"),
        (("toy", toy, "--entry", "a="), "--compare"),
        (("toy", toy, "--compare", "--entry", "nameless"), "NAME=WEIGHTS"),
        (("toy", toy, "--compare", "--entry", f"a={weights}", "--entry", f"a={weights}"), "same name"),
        (("toy", toy, "--compare", "--oracle", "semantic"), "oracle=PART"),
        (("toy", toy, "--compare"), "voxels of 0.05"),  # the shipped weights are for other voxels
    ):
        assert evaluate(tmp_path, *arguments)[0] == 2
        assert cure in capsys.readouterr().err


def test_scenes_of_another_size_are_refused(tmp_path, toy):
    save_scene(toy / "test" / "d.npz", boxes_scene("d", True, voxel_size_m=0.05))
    sources = scene_sources(toy)
    assert [source.name for source in sources] == ["a", "b", "d"] and sources[1].case().name == "b"
    with pytest.raises(DataError, match="one folder per size"):
        sources[2].case()


def test_entries_are_parsed(weights):
    base = SegmenterConfig(voxel_size_m=0.1)
    entry = parse_entry(f"mine={weights},grouping.min_voxels=7,passes=full,floor_known=false,oracle=semantic+offset", base)
    assert (entry.name, entry.config.weights, entry.config.grouping.min_voxels, entry.config.passes, entry.config.floor_known) == (
        "mine", str(weights), 7, "full", False)
    assert entry.oracles == ("semantic", "offset") and entry.config.voxel_size_m == 0.1
    assert parse_entry("mine=", base) == SegmenterEntry("mine", base)
    for text, cause in (
        ("x=,passes", "NAME=WEIGHTS"), ("x=,oracle=magic", "magic"), ("x=,nonsense=1", "nonsense"), ("=w", "NAME")):
        with pytest.raises(ConfigError, match=cause):
            parse_entry(text, base)


def test_baselines_take_predicted_classes(toy, weights):
    case = scene_sources(toy)[0].case()
    config = SegmenterConfig(voxel_size_m=0.1, weights=str(weights), device="cpu", threads=1)
    baseline = BaselineEntry("one", "segmentation_as_instances", config)
    first, second = (baseline.scores(case, ("offline",))["offline"].scan for _ in range(2))
    semantic = SegmenterEntry("s", config).scores(case, ("offline",))["offline"]
    assert semantic.occupancy_errors is not None and len(semantic.occupancy_errors) == 3
    np.testing.assert_array_equal(first.predictions.members, second.predictions.members)
    assert 0 < first.predictions.score.max() < 1  # mean probability of an untrained network's classes


@pytest.mark.parametrize("options", [{}, {"processes": 2}, {"ray_address": "local"}])
def test_tasks_are_run_wherever(options):
    if "ray_address" in options:
        pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    assert sorted(run_tasks(math.sqrt, [9, 1, 4], **options)) == [1, 2, 3]
    with pytest.raises(ValueError, match="math domain|nonnegative"):
        list(run_tasks(math.sqrt, [-1], **options))
    with pytest.raises(ConfigError, match="at least 1"):
        run_tasks(math.sqrt, [1], processes=0)


def test_a_missing_library_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="use --jobs"):
        list(run_tasks(math.sqrt, [1], ray_address="auto"))
