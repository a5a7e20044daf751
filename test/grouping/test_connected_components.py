"""The baseline: voxels of one class that touch are one instance."""

import numpy as np
import pytest
from grouping_scenes import CHAIR, TABLE, assert_apart, assert_touched_only_equals_everything, box, component, group
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.class_components import class_components
from instseg_ros.labels import NUM_CLASSES

CONFIG = GroupingConfig(method="connected_components")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(2, 9), reach=st.integers(1, 3))
def test_equals_flooding_by_hand(seed: int, extent: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    one = component(np.unique(rng.integers(0, extent, (80, 3)), axis=0))
    kind = rng.choice([CHAIR, TABLE, 9], len(one))
    one.rows.semantic[:] = 0.6 * np.eye(NUM_CLASSES)[kind]
    one.rows.semantic[:, 1] = 0.9  # a background class may be likelier: only the others count
    labels, left = np.full(len(one), -1), set(range(len(one)))
    while left:
        number, todo = labels.max() + 1, [left.pop()]
        while todo:
            i = todo.pop()
            labels[i] = number
            near = [j for j in left if kind[j] == kind[i] and np.abs(one.coords[j] - one.coords[i]).max() <= reach]
            left -= set(near)
            todo += near
    pairs = set(zip(class_components(one, reach).tolist(), labels.tolist(), strict=True))
    assert len(pairs) == labels.max() + 1 == len({a for a, _ in pairs})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), extent=st.integers(3, 14), reach=st.integers(1, 2))
def test_touched_only_equals_everything(seed: int, extent: int, reach: int) -> None:
    config = GroupingConfig(method="connected_components", min_voxels=3, min_score=0.05, class_reach=reach)
    assert_touched_only_equals_everything(config, seed, extent)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_objects_of_two_classes_come_apart_and_those_of_one_do_not(noise: float) -> None:
    parts = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8)), box((24, 0, 0), (32, 8, 8))
    assert_apart(CONFIG, *parts, classes=(CHAIR, TABLE, CHAIR), noise=noise)
    result, (a, b, c) = group(CONFIG, *parts)
    assert result.segment[a[0]] == result.segment[b[0]] != result.segment[c[0]] and len(result.segments) == 2


def test_a_gap_within_the_reach_is_bridged() -> None:
    parts = box((0, 0, 0), (4, 4, 4)), box((5, 0, 0), (9, 4, 4))
    for reach, expected in ((1, 2), (2, 1)):
        result, _ = group(GroupingConfig(method="connected_components", class_reach=reach), *parts)
        assert len(result.segments) == expected
