"""The ablation benchmark: variants that differ in their grouping alone are trained once, and the figures are those of the runs."""

import json

import numpy as np
import pytest

from instseg_ros.benchmarks.ablations import ABLATIONS, _settings, _training
from instseg_ros.cli import main
from instseg_ros.datasets.scenes import VoxelScene, save_scene
from instseg_ros.errors import ConfigError
from instseg_ros.training.objective import check_objective
from instseg_ros.training.run_name import run_name


def boxes(seed: int) -> VoxelScene:
    rng = np.random.default_rng(seed)
    floor = np.argwhere(np.ones((30, 30, 1), bool))
    parts, instance = [floor], [np.full(len(floor), -1)]
    for i, (x, y) in enumerate([(3, 3), (15, 16)]):
        box = np.argwhere(np.ones(rng.integers(4, 7, 3), bool)) + [x, y, 1]
        parts.append(box)
        instance.append(np.full(len(box), i))
    coords, owner = np.concatenate(parts).astype(np.int32), np.concatenate(instance).astype(np.int32)
    return VoxelScene(f"s{seed}", 0.05, coords, np.full((len(coords), 3), 120, np.uint8), np.where(owner < 0, 1, 4).astype(np.uint8), owner)


def test_every_variant_can_be_trained_and_shares_runs_only_with_its_like():
    names = {}
    for preset, variants in ABLATIONS.items():
        for variant in variants:
            config = _training(preset, variant, {"steps": 10})
            check_objective(config)
            assert config.losses.semantic_first_steps <= 2
            names.setdefault(run_name(preset, config), []).append((preset, variant.name))
    shared = [n for n in names.values() if len(n) > 1]
    assert len(shared) == 1 and {p for p, _ in shared[0]} == {"occuseg"} and len(shared[0]) == len(ABLATIONS["occuseg"])


def test_a_small_run_gives_the_table(tmp_path):
    for split, count in (("train", 2), ("validation", 1), ("test", 1)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(count):
            save_scene(tmp_path / "data" / split / f"s{i}.npz", boxes(10 * count + i))
    report = tmp_path / "a.json"
    command = ["bench", "ablations", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"), "--presets", "occuseg", "--seeds", "1",
               "--steps", "1", "--json", str(report), "--set", "model.channels=[8]", "batch_voxels=1000", "model.label_input=true"]
    assert main(command) == 0
    first = json.loads(report.read_text())
    assert set(first["figures"]["ablations"]["occuseg"]) == {v.name for v in ABLATIONS["occuseg"]}
    assert len(list((tmp_path / "runs").iterdir())) == 1 and report.with_suffix(".png").is_file()
    assert main(command) == 0  # nothing is trained again
    assert json.loads(report.read_text())["figures"]["ablations"] == first["figures"]["ablations"]


def test_settings_need_a_name_and_a_value():
    assert _settings(["a.b=2", "c=[1, 2]"]) == {"a.b": 2, "c": [1, 2]}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        _settings(["a.b"])
