"""Every preset trains two iterations on the CPU, and its weights run online with the grouping they bring."""

from dataclasses import replace

import numpy as np
import pytest
from test_training import boxes_scene, data  # noqa: F401

from instseg_ros.config import GroupingConfig, SegmenterConfig, TrainingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.entries import parse_entry
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.weights import load_weights, save_weights, settings_over_weights
from instseg_ros.presets import preset_file
from instseg_ros.segmenter import Segmenter
from instseg_ros.settings import from_mapping, load_yaml
from instseg_ros.training.objective import check_objective
from instseg_ros.training.trainer import Trainer

PRESETS = ("rooms", "mtml", "occuseg", "ssen", "structure_gcn", "toy")


def preset(name: str) -> TrainingConfig:
    return load_yaml(TrainingConfig, preset_file(name))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_and_run_online(name, data, tmp_path):  # noqa: F811
    config = preset(name)
    check_objective(config)
    model = replace(config.model, channels=(8,) * len(config.model.channels), encoder_blocks=(1,))
    losses = replace(config.losses, semantic_first_steps=1 if config.losses.semantic_first_steps else 0)
    small = replace(config, steps=2, batch_voxels=3000, batch_scenes=2, validate_every=2, model=model, losses=losses)
    figures = Trainer(small, data, tmp_path / "run", "cpu", name).run()
    assert np.isfinite(figures["accuracy"])
    weights = str(tmp_path / "run" / "last.safetensors")
    settings = settings_over_weights(SegmenterConfig, lambda base: from_mapping(SegmenterConfig, {"weights": weights}, base))
    assert settings.grouping == config.grouping
    segmenter = Segmenter(settings)
    scene = boxes_scene(5)
    first = MapUpdate(scene.coords, scene.colors, np.ones(len(scene.coords), np.float32), 0.05)
    if config.model.label_input:
        with pytest.raises(ConfigError, match="label_input"):
            segmenter.process(first)
        return
    segmenter.process(first)
    result = segmenter.process(MapUpdate(scene.coords[-30:], 255 - scene.colors[-30:], np.ones(30, np.float32), 0.05))
    again = Segmenter(replace(settings, passes="full"))
    again.process(first)
    again.process(MapUpdate(scene.coords[-30:], 255 - scene.colors[-30:], np.ones(30, np.float32), 0.05))
    assert result.voxels == len(scene.coords)
    for output, values in segmenter.runner.prediction.items():
        want = getattr(again.runner.prediction, output)
        error = np.abs(values - want).max()
        assert error <= 0.05 * max(np.abs(want).max(), 1e-6), (output, error)


def test_settings_given_count_before_those_the_weights_bring(tmp_path):
    net, grouping = load_weights(), GroupingConfig(min_voxels=33, merge_distance=0.7)
    save_weights(tmp_path / "w.safetensors", net, {"grouping": {"min_voxels": 33, "merge_distance": 0.7}})
    given = {"weights": str(tmp_path / "w.safetensors")}
    assert settings_over_weights(SegmenterConfig, lambda base: from_mapping(SegmenterConfig, given, base)).grouping == grouping
    over = settings_over_weights(SegmenterConfig, lambda base: from_mapping(SegmenterConfig, {**given, "grouping.min_voxels": 12}, base))
    assert over.grouping == replace(grouping, min_voxels=12) and over.weights == given["weights"]
    entry = parse_entry(f"a={given['weights']},grouping.min_voxels=12", SegmenterConfig(tolerance=0.5))
    assert entry.config == replace(over, tolerance=0.5)
    shipped = settings_over_weights(SegmenterConfig, lambda base: from_mapping(SegmenterConfig, {}, base))
    assert shipped == SegmenterConfig(grouping=preset("rooms").grouping)
