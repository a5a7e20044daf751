"""Which instances are shown."""

import numpy as np
import pytest

from instseg_ros.config import OutputConfig
from instseg_ros.instance import Instance
from instseg_ros.labels import IGNORE, class_index
from instseg_ros.selection import selected


def instance(i, name, score, voxels):
    return Instance(i, class_index(name), score, voxels, np.zeros(3), np.zeros(3), np.ones(3), 0, 0)


THERE = [instance(1, "chair", 0.9, 100), instance(2, "sofa", 0.4, 500), instance(3, "chair", 0.5, 20), instance(4, "thing", 0.9, 50)]


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({}, [1, 2, 3, 4]),
        ({"classes": ("chair",)}, [1, 3]),
        ({"classes": ("sofa", "chair")}, [1, 2, 3]),
        ({"min_confidence": 0.5}, [1, 3, 4]),
        ({"min_voxels": 100}, [1, 2]),
        ({"classes": ("chair",), "min_confidence": 0.6, "min_voxels": 10}, [1]),
    ],
)
def test_all_settings_must_agree(settings, ids):
    assert THERE[3].class_index == IGNORE
    assert [one.id for one in selected(THERE, OutputConfig(**settings))] == ids
