"""Class probabilities as one more thing that groupers tell voxels apart by."""

import numpy as np
import pytest
from grouping_scenes import CHAIR, TABLE, assert_touched_only_equals_everything, box, one_update, perfect

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.grouper import Grouper

METHODS = {
    "hdbscan": {}, "mean_shift": {}, "proposals": {"proposal_direction_weight": 0.0, "proposal_size_weight": 0.0, "class_reach": 4},
    "occupancy_graph": {"graph_occupancy": False},
}


def segments(config: GroupingConfig, mixed: bool = False) -> list[int]:
    """Sizes of the segments of two touching boxes of 512 voxels that differ in their classes alone."""
    left, right = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8))
    both = np.concatenate([left, right])
    colors = np.repeat(np.array([[200, 40, 40], [40, 200, 40]], np.uint8), 512, axis=0)
    voxel_map, delta, prediction, slots = one_update(left, right, colors=colors)
    perfect(prediction, np.concatenate(slots), both, CHAIR, 0)
    for mine, (a, b) in zip(slots, ((CHAIR, TABLE), (TABLE, CHAIR)), strict=True):
        prediction.semantic[mine] = 0.0
        prediction.semantic[mine, a], prediction.semantic[mine, b] = (0.51, 0.49) if mixed else (0.9, 0.1)
    return sorted(len(s.slots) for s in Grouper(config).regroup(voxel_map, prediction, voxel_map.live_slots(), delta).segments.values())


@pytest.mark.parametrize("method", [m for m in METHODS if m != "proposals"])  # these have the components of the classes in any case
def test_objects_that_differ_in_class_alone_come_apart(method: str) -> None:
    assert segments(GroupingConfig(method=method, **METHODS[method])) == [1024]
    assert segments(GroupingConfig(method=method, semantic_scale=3.0, **METHODS[method])) == [512, 512]


@pytest.mark.parametrize("method", METHODS)
def test_a_doubtful_class_does_not_cut(method: str) -> None:
    assert segments(GroupingConfig(method=method, semantic_scale=3.0, **METHODS[method]), mixed=True) == [1024]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_touched_only_equals_everything(method: str, seed: int) -> None:
    config = GroupingConfig(method=method, min_voxels=3, min_score=0.05, semantic_scale=2.0)
    assert_touched_only_equals_everything(config, seed, 10)
