"""Settings: derived flags, YAML and names agree with the dataclasses; nonsense is refused."""

import argparse

import pytest

from instseg_ros.config import OutputConfig, SegmenterConfig, SegmenterNodeConfig, TrainingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.settings import (
    add_setting_arguments,
    flatten,
    from_mapping,
    load_yaml,
    settings_from_arguments,
    settings_of,
    to_mapping,
)


@pytest.mark.parametrize("cls", [SegmenterNodeConfig, TrainingConfig])
def test_every_setting_has_a_meaning_and_an_allowed_default(cls):
    assert [s.name for s in settings_of(cls)] == list(flatten(cls()))
    for s in settings_of(cls):
        assert len(s.doc) > 10
        assert s.check(s.default) == s.default


@pytest.mark.parametrize("cls", [SegmenterNodeConfig, TrainingConfig])
def test_round_trips(cls, tmp_path):
    assert from_mapping(cls, to_mapping(cls())) == cls()
    assert from_mapping(cls, flatten(cls())) == cls()


def test_dotted_and_nested_names_are_the_same():
    a = from_mapping(SegmenterConfig, {"grouping.min_voxels": 33})
    assert a == from_mapping(SegmenterConfig, {"grouping": {"min_voxels": 33}})
    assert a.grouping.min_voxels == 33 and a.tracking == SegmenterConfig().tracking


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nonsense": 1}, "unknown setting nonsense; SegmenterConfig has voxel_size_m"),
        ({"voxel_size_m": -1.0}, "allowed is"),
        ({"voxel_size_m": float("nan")}, "allowed is"),
        ({"voxel_size_m": "5 cm"}, "expected float"),
        ({"threads": True}, "expected int"),
        ({"device": "tpu"}, "'auto', 'cpu', 'cuda'"),
        ({"grouping.proposal_bandwidths": ["a"]}, "expected a list of float"),
    ],
)
def test_nonsense_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        from_mapping(SegmenterConfig, values)


@pytest.mark.parametrize(("word", "choice"), [("off", "off"), ("'off'", "off"), ("no", "off"), ("on", "on"), ("auto", "auto")])
def test_what_yaml_reads_as_a_boolean_is_the_word_meant(word, choice, tmp_path):
    (file := tmp_path / "settings.yaml").write_text(f"input:\n  nvblox: {word}\n")
    assert load_yaml(SegmenterNodeConfig, file).input.nvblox == choice


def test_lists_may_be_empty_where_their_default_is():
    assert from_mapping(SegmenterNodeConfig, {"output.classes": []}).output.classes == ()
    assert from_mapping(SegmenterNodeConfig, {"output": {"classes": ["chair", "sofa"]}}).output.classes == ("chair", "sofa")
    for value, words in ((["chiar"], "'chair', 'sofa', 'table'"), ("chair", "expected a list of str, like"), ([1], "expected a list of str")):
        with pytest.raises(ConfigError, match=words):
            from_mapping(SegmenterNodeConfig, {"output.classes": value})
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser, OutputConfig)
    assert settings_from_arguments(OutputConfig, parser.parse_args(["--classes", "chair"])).classes == ("chair",)
    assert settings_from_arguments(OutputConfig, parser.parse_args(["--classes"])).classes == ()


def test_whole_numbers_in_lists_of_floats_become_floats():
    bandwidths = from_mapping(SegmenterConfig, {"grouping.proposal_bandwidths": [1, 2.5]}).grouping.proposal_bandwidths
    assert bandwidths == (1.0, 2.5) and {type(b) for b in bandwidths} == {float}


def test_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("grouping:\n  min_voxels: 7\n")
    assert load_yaml(SegmenterConfig, tmp_path / "a.yaml").grouping.min_voxels == 7
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping"):
        load_yaml(SegmenterConfig, tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_yaml(SegmenterConfig, tmp_path / "c.yaml")


def test_flags_beat_the_file():
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser, TrainingConfig)
    base = from_mapping(TrainingConfig, {"steps": 5, "learning_rate": 0.5})
    args = parser.parse_args(["--steps", "9", "--model.channels", "8", "16", "--amp", "no"])
    config = settings_from_arguments(TrainingConfig, args, base)
    assert (config.steps, config.learning_rate, config.model.channels, config.amp) == (9, 0.5, (8, 16), False)
