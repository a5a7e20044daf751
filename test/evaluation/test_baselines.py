"""The baselines, against a flood fill and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import InputError
from instseg_ros.evaluation.baselines import BASELINES, connected_components, segmentation_as_instances
from instseg_ros.labels import CLASS_NAMES, IGNORE

CHAIR, TABLE = CLASS_NAMES.index("chair"), CLASS_NAMES.index("table")


def as_sets(predictions):
    """{(class, voxels): score}."""
    return {
        (int(c), frozenset(predictions.members[predictions.owner == k].tolist())): s
        for k, (c, s) in enumerate(zip(predictions.class_index, predictions.score.tolist(), strict=True))
    }


def flood(coords, class_index, reach):
    """Components by walking from voxel to voxel."""
    left, found = {i for i, c in enumerate(class_index.tolist()) if c not in (0, 1, IGNORE)}, set()
    while left:
        todo = [left.pop()]
        one = set(todo)
        while todo:
            v = todo.pop()
            for w in [w for w in left if class_index[w] == class_index[v] and np.abs(coords[w] - coords[v]).max() <= reach]:
                left.discard(w)
                one.add(w)
                todo.append(w)
        found.add((int(class_index[v]), frozenset(one)))
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_components_are_those_of_a_flood_fill(seed, reach):
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-6, 6, (int(rng.integers(0, 90)), 3)), axis=0).astype(np.int32)
    coords = rng.permutation(coords)
    class_index = rng.choice([0, 1, CHAIR, TABLE, IGNORE], len(coords)).astype(np.uint8)
    probability = rng.random(len(coords))
    found = as_sets(connected_components(coords, class_index, probability, reach))
    assert set(found) == flood(coords, class_index, reach)
    for (_, members), score in found.items():
        assert score == pytest.approx(probability[list(members)].mean())


def test_a_class_is_one_instance():
    coords = np.array([[0, 0, 0], [9, 0, 0], [0, 5, 0], [0, 6, 0], [3, 3, 3]], np.int32)
    class_index = np.array([CHAIR, CHAIR, TABLE, 1, IGNORE], np.uint8)
    found = as_sets(segmentation_as_instances(coords, class_index, np.array([0.5, 0.7, 0.9, 1.0, 1.0])))
    assert found == {(CHAIR, frozenset([0, 1])): pytest.approx(0.6), (TABLE, frozenset([2])): pytest.approx(0.9)}
    for baseline in BASELINES.values():
        assert len(baseline(coords[:0], class_index[:0], np.zeros(0)).score) == 0
        assert len(baseline(coords, np.zeros(5, np.uint8), np.zeros(5)).score) == 0
        with pytest.raises(InputError, match="lengths must agree"):
            baseline(coords, class_index[:2], np.zeros(5))
