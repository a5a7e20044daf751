"""`instseg evaluate` from arguments to report, on toy scenes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from instseg_ros import cli
from instseg_ros.commands import evaluate
from instseg_ros.config import ModelConfig
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.cases import Case
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.labels import class_index
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights


@dataclass(frozen=True)
class CubeSource:
    """A cube of a class on nothing, revealed in two updates."""

    seed: int
    class_name: str

    @property
    def name(self):
        return f"cube_{self.seed}"

    def case(self):
        coords = np.indices((8, 8, 8)).reshape(3, -1).T.astype(np.int32)
        steps = []
        for i, part in enumerate((coords[:256], coords[256:], coords)):
            ones = np.ones(len(part), np.float32)
            steps.append(MapUpdate(part, np.full_like(part, 99, np.uint8), ones, 0.05, "map", i, i, i == 2))
        truth = GroundTruth.of(coords, np.full(512, class_index(self.class_name)), np.zeros(512), 0.05)
        return Case(self.name, steps[:2], steps[2], truth)


@pytest.fixture()
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "toy.safetensors"
    save_weights(path, InstanceNet(ModelConfig(channels=(8, 8))).eval(), {"classes": ["wall", "floor", "chair", "bed"]})
    return path


@pytest.fixture()
def toy_rooms(monkeypatch):
    def sources(seeds, *_):
        return [CubeSource(seed, "chair" if seed % 2 else "bed") for seed in seeds]

    monkeypatch.setattr(evaluate, "room_sources", sources)


def report(tmp_path, *arguments):
    path = tmp_path / "report.json"
    status = cli.main(["evaluate", *map(str, arguments), "--json", str(path), "--device", "cpu", "--threads", "1"])
    return status, json.loads(path.read_text()) if path.exists() else None


def test_rooms_with_oracles(tmp_path, weights, toy_rooms, capsys):
    oracles = ("--oracle", "semantic", "--oracle", "grouping")
    status, found = report(tmp_path, "rooms", "--weights", weights, "--count", 2, *oracles)
    assert status == 0
    figures = found["figures"]
    assert figures["rooms_ap50"] == figures["rooms_ap50_online"] == 1.0 and figures["rooms_ap50_difference"] == 0.0
    assert figures["rooms_scenes"] == 2 and figures["oracles"] == "semantic,grouping"
    assert [row["scene"] for row in found["rows"] if row["row"] == "scene"] == ["cube_0", "cube_1"] * 2
    printed = capsys.readouterr().out
    assert "chair" in printed and "rooms_ap50_online" in printed


def test_one_mode_and_processes(tmp_path, weights, toy_rooms):
    options = ("--weights", weights, "--count", 3, "--offline", "--oracle", "semantic", "--oracle", "grouping")
    _, alone = report(tmp_path, "rooms", *options)
    _, shared = report(tmp_path, "rooms", *options, "--jobs", 2)
    assert alone["figures"]["rooms_ap50"] == shared["figures"]["rooms_ap50"] == 1.0
    assert "rooms_ap50_online" not in alone["figures"]
    times = "seconds", "rooms_seconds_per_scene"
    strip = [[{k: v for k, v in row.items() if k not in times} for row in r["rows"]] for r in (alone, shared)]
    assert strip[0] == strip[1]


def test_pictures(tmp_path, weights, toy_rooms, monkeypatch):
    monkeypatch.setattr("instseg_ros.evaluation.pictures._PANEL", (80, 60))
    report(tmp_path, "rooms", "--weights", weights, "--count", 2, "--online", "--plots", tmp_path / "plots", "--pictures", 1)
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["cube_0_online.png"]


def test_classes_come_from_the_weights(weights):
    assert evaluate.evaluated_classes(None, str(weights)) == (class_index("bed"), class_index("chair"))
    assert evaluate.evaluated_classes("chair, sofa", str(weights)) == (class_index("chair"), class_index("sofa"))
    for names in ("floor", "chair,unicorn"):
        with pytest.raises(ConfigError, match="name some of cabinet"):
            evaluate.evaluated_classes(names, str(weights))


def test_missing_data_names_the_cure(tmp_path, weights, capsys):
    assert report(tmp_path, "house", tmp_path / "nowhere", "--weights", weights)[0] == 2
    assert "instseg evaluate house FOLDER" in capsys.readouterr().err
    assert report(tmp_path, "rooms", Path("nowhere.sh3f"), "--weights", weights)[0] == 2
    assert "catalogue" in capsys.readouterr().err
    assert report(tmp_path, "rooms", "--weights", tmp_path / "none.safetensors")[0] == 2
    assert "instseg train" in capsys.readouterr().err
    assert report(tmp_path, "rooms", "--weights", weights, "--jobs", 0)[0] == 2
