"""Grouping: regrouping what was touched equals grouping everything, and made-up scenes come apart where they should."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from grouping_scenes import (
    CHAIR,
    TABLE,
    VOXEL_M,
    WALL,
    assert_touched_only_equals_everything,
    box,
    component,
    one_update,
    perfect,
    predict,
    update,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig, ModelConfig
from instseg_ros.errors import ConfigError
from instseg_ros.grouping.components import canonical_keys
from instseg_ros.grouping.grouper import SPLITTERS, Grouper, merge_small
from instseg_ros.grouping.splitter import PRESETS_WITH
from instseg_ros.prediction import Prediction
from instseg_ros.settings import Setting, settings_of

PRESETS = Path(__file__).parents[2] / "config" / "presets"


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), bridge=st.integers(1, 3), extent=st.integers(3, 14))
def test_touched_only_equals_everything(seed: int, bridge: int, extent: int) -> None:
    config = GroupingConfig(bridge_voxels=bridge, min_voxels=3, min_cluster_voxels=5, min_score=0.05)
    assert_touched_only_equals_everything(config, seed, extent)


def test_touching_objects_come_apart_by_embedding_and_by_predicted_centre() -> None:
    left, right = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8))
    for by_offset in (False, True):
        voxel_map, delta, prediction, (a, b) = one_update(left, right)
        for slots, part, sign in ((a, left, 0.0), (b, right, 1.0)):
            towards = (part.mean(axis=0) - part) * VOXEL_M if by_offset else -part * VOXEL_M
            predict(prediction, slots, CHAIR, 0.0 if by_offset else sign, towards)
        config = GroupingConfig(offset_scale=4.0)
        result = Grouper(config).regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
        assert sorted(map(len, (s.slots for s in result.segments.values()))) == [512, 512]
        assert len(set(result.segment[a])) == len(set(result.segment[b])) == 1


def test_an_even_component_is_one_segment_and_walls_are_none() -> None:
    chair, wall = box((0, 0, 0), (6, 6, 6)), box((6, 0, 0), (7, 20, 20))
    voxel_map, delta, prediction, (a, b) = one_update(chair, wall)
    predict(prediction, a, CHAIR, 0.0, -chair * VOXEL_M)
    predict(prediction, b, WALL, 0.0)
    plain = Grouper(GroupingConfig(score_surface_m2=0.0, score_gap=0.0))
    result = plain.regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
    (segment,) = result.segments.values()
    assert segment.class_index == CHAIR and segment.score == pytest.approx(0.9) and set(segment.slots) == set(a)
    assert (result.segment[b] == -1).all()


def test_a_gap_within_the_bridge_is_closed_and_a_wider_one_is_not() -> None:
    for gap, expected in ((1, 1), (2, 2)):
        first, second = box((0, 0, 0), (4, 4, 4)), box((4 + gap, 0, 0), (8 + gap, 4, 4))
        voxel_map, delta, prediction, _ = one_update(first, second)
        predict(prediction, voxel_map.live_slots(), TABLE, 0.0)
        grouper = Grouper(GroupingConfig(bridge_voxels=2, offset_scale=0.0))
        result = grouper.regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
        assert len(result.segments) == expected


def test_only_the_touched_component_is_regrouped() -> None:
    first, second = box((0, 0, 0), (4, 4, 4)), box((20, 0, 0), (24, 4, 4))
    voxel_map, delta, prediction, (a, b) = one_update(first, second)
    predict(prediction, a, CHAIR, 0.0)
    predict(prediction, b, TABLE, 0.0)
    grouper = Grouper(GroupingConfig())
    before = dict(grouper.regroup(voxel_map, prediction, voxel_map.live_slots(), delta).segments)
    other = int(grouper._segment[b[0]])
    more = box((4, 0, 0), (5, 4, 4))
    delta = voxel_map.apply(update(more))
    predict(prediction, delta.added, CHAIR, 0.0)
    result = grouper.regroup(voxel_map, prediction, delta.added, delta)
    assert result.segments[other] is before[other] and other not in result.touched
    assert result.gone == set(before) - {other} and len(result.touched) == 1
    quiet = grouper.regroup(voxel_map, prediction, a, voxel_map.apply(update(np.zeros((0, 3), np.int32))))
    assert not quiet.touched and not quiet.gone  # looked at again, found the same


def test_reset_reports_the_old_segments_as_gone() -> None:
    part = box((0, 0, 0), (4, 4, 4))
    voxel_map, delta, prediction, (a,) = one_update(part)
    predict(prediction, a, CHAIR, 0.0)
    grouper = Grouper(GroupingConfig())
    first = set(grouper.regroup(voxel_map, prediction, a, delta).segments)
    grouper.reset()
    nothing = voxel_map.apply(update(np.zeros((0, 3), np.int32)))
    result = grouper.regroup(voxel_map, prediction, np.zeros(0, np.int32), nothing)
    assert result.gone == first and len(result.segments) == 1 and result.touched == set(result.segments)


def test_small_labels_go_to_what_they_touch_most() -> None:
    coords = np.array([[x, 0, 0] for x in range(12)] + [[20, 0, 0]], np.int32)
    labels = np.array([0] * 5 + [2, 2] + [1] * 5 + [3])
    new = merge_small(canonical_keys(coords), labels, 3)
    assert new.tolist() == [0] * 7 + [1] * 5 + [-1]


def test_a_component_too_rich_for_the_cap_is_still_grouped() -> None:
    rng = np.random.default_rng(0)
    left, right = box((0, 0, 0), (12, 12, 12)), box((12, 0, 0), (24, 12, 12))
    voxel_map, delta, prediction, (a, b) = one_update(left, right)
    for slots, part, embedding in ((a, left, 0.0), (b, right, 3.0)):
        predict(prediction, slots, CHAIR, embedding, (part.mean(axis=0) - part) * VOXEL_M)
        prediction.embedding[slots] += rng.normal(0, 0.15, (len(slots), 4))
    result = Grouper(GroupingConfig(cell_size=0.0)).regroup(voxel_map, prediction, voxel_map.live_slots(), delta)
    assert sorted(map(len, (s.slots for s in result.segments.values()))) == [1728, 1728]


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="hdbscan"):
        Grouper(GroupingConfig(method="magic"))


def test_the_setting_offers_all_methods() -> None:
    (method,) = (s for s in settings_of(GroupingConfig) if s.name == "method")
    assert isinstance(method, Setting) and method.choices == tuple(SPLITTERS)


@pytest.mark.parametrize("method", SPLITTERS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_smallest_components_are_split_into_something(method: str, count: int) -> None:
    labels, membership = SPLITTERS[method](component(box((0, 0, 0), (count, 1, 1))), GroupingConfig())
    assert labels.shape == membership.shape == (count,) and set(labels.tolist()) <= {-1, 0}
    assert ((membership >= 0) & (membership <= 1)).all()


@pytest.mark.parametrize(
    ("method", "lacks", "presets"),
    [
        ("hdbscan", "embedding", "ssen"), ("hdbscan", "offset", "rooms"), ("mean_shift", "embedding", "structure_gcn"),
        ("proposals", "embedding", "mtml"), ("occupancy_graph", "offset", "occuseg"), ("occupancy_graph", "occupancy", "occuseg"),
        ("occupancy_graph", "covariance", "occuseg"),
    ],
)
def test_a_missing_head_is_named_before_anything_changes(method: str, lacks: str, presets: str) -> None:
    part = box((0, 0, 0), (6, 6, 6))
    voxel_map, delta, prediction, (slots,) = one_update(part)
    perfect(prediction, slots, part, CHAIR, 0)
    without = Prediction(**{name: values for name, values in prediction.items() if name != lacks})
    grouper = Grouper(GroupingConfig(method=method))
    with pytest.raises(ConfigError, match=f"{method}.*{lacks}.*{presets}"):
        grouper.regroup(voxel_map, without, slots, delta)
    assert not grouper._started and not grouper._components.members
    assert len(grouper.regroup(voxel_map, prediction, slots, delta).segments) == 1


@pytest.mark.parametrize(
    ("settings_", "heads"),
    [
        (GroupingConfig(method="connected_components"), ()),
        (GroupingConfig(method="hdbscan", offset_scale=0.0), ("embedding",)),
        (GroupingConfig(method="mean_shift", embedding_scale=0.0), ("offset",)),
        (GroupingConfig(method="proposals"), ("embedding", "direction")),
        (GroupingConfig(method="proposals"), ("embedding", "offset")),
        (GroupingConfig(method="proposals", proposal_direction_weight=0.0), ("embedding",)),
        (GroupingConfig(method="occupancy_graph", graph_feature=False), ("offset", "covariance", "occupancy")),
        (GroupingConfig(method="occupancy_graph", graph_spatial=False), ("embedding", "covariance", "occupancy")),
        (GroupingConfig(method="occupancy_graph", graph_occupancy=False), ("embedding", "offset", "covariance")),
    ],
)
def test_what_is_not_read_need_not_be_there(settings_: GroupingConfig, heads: tuple[str, ...]) -> None:
    parts = box((0, 0, 0), (6, 6, 6)), box((20, 0, 0), (26, 6, 6))
    voxel_map, delta, prediction, slots = one_update(*parts)
    for number, (mine, part) in enumerate(zip(slots, parts, strict=True)):
        perfect(prediction, mine, part, CHAIR, number)
    fewer = Prediction(**{name: values for name, values in prediction.items() if name in ("semantic", *heads)})
    assert len(Grouper(settings_).regroup(voxel_map, fewer, voxel_map.live_slots(), delta).segments) == 2


def test_the_presets_that_errors_name_have_the_head() -> None:
    for head, presets in PRESETS_WITH.items():
        for preset in presets:
            file = PRESETS / f"{preset}.yaml"
            model = yaml.safe_load(file.read_text()).get("model", {}) if file.is_file() else {}
            assert not file.is_file() or head in model.get("heads", ModelConfig().heads), (preset, head)
    assert (PRESETS / "rooms.yaml").is_file()


def test_a_delta_refused_for_its_settings_is_made_up_for() -> None:
    first, second = box((0, 0, 0), (6, 6, 6)), box((6, 0, 0), (12, 6, 6))
    voxel_map, delta, prediction, (slots,) = one_update(first)
    perfect(prediction, slots, first, CHAIR, 0)
    grouper = Grouper(GroupingConfig())
    old = set(grouper.regroup(voxel_map, prediction, slots, delta).segments)
    grouper.config.embedding_scale = grouper.config.offset_scale = 0.0  # as a parameter of a running node
    delta = voxel_map.apply(update(second))
    prediction = prediction.grown(voxel_map.capacity)
    perfect(prediction, delta.added, voxel_map.coords[delta.added], TABLE, 1)
    with pytest.raises(ConfigError, match="both 0"):
        grouper.regroup(voxel_map, prediction, delta.added, delta)
    grouper.config.embedding_scale = 1.0
    result = grouper.regroup(voxel_map, prediction, slots[:0], voxel_map.apply(update(first[:0])))
    assert sorted(len(s.slots) for s in result.segments.values()) == [216, 216] and result.gone == old


@pytest.mark.parametrize("method", ["hdbscan", "mean_shift"])
def test_both_scales_zero_are_refused(method: str) -> None:
    with pytest.raises(ConfigError, match="both 0"):
        Grouper(GroupingConfig(method=method, embedding_scale=0.0, offset_scale=0.0))


def test_class_by_mean_probability_or_by_majority() -> None:
    part = box((0, 0, 0), (10, 5, 5))
    voxel_map, delta, prediction, (slots,) = one_update(part)
    perfect(prediction, slots, part, CHAIR, 0)
    few, most = slots[:100], slots[100:]  # few are sure of a table, most lean towards a chair
    prediction.semantic[slots] = 0.0
    prediction.semantic[few, TABLE] = 1.0
    prediction.semantic[most, CHAIR], prediction.semantic[most, TABLE] = 0.55, 0.45
    for vote, expected in (("mean", TABLE), ("majority", CHAIR)):
        (segment,) = Grouper(GroupingConfig(class_vote=vote)).regroup(voxel_map, prediction, slots, delta).segments.values()
        assert segment.class_index == expected
