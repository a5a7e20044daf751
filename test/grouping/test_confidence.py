"""A whole object is believed more than a piece of it, and a large one more than a small one."""

from dataclasses import replace

import numpy as np
import pytest

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.confidence import wholeness
from instseg_ros.grouping.splitter import Component
from instseg_ros.prediction import Prediction

VOXEL_M = 0.05
PLAIN = GroupingConfig(score_surface_m2=0.0, score_gap=0.0)


def slab(width: int, depth: int, offsets: bool = True) -> Component:
    """A table top whose voxels see its centre where it is."""
    coords = np.stack(np.meshgrid(np.arange(width), np.arange(depth), [7], indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    offset = ((coords.mean(axis=0) - coords) * VOXEL_M).astype(np.float32) if offsets else None
    rows = replace(Prediction.empty({"semantic": 20}), semantic=np.zeros((len(coords), 20), np.float32), offset=offset)
    return Component(coords, np.zeros((len(coords), 3), np.uint8), VOXEL_M, rows)


def test_only_what_is_asked_for_counts():
    table = slab(10, 8)
    everything, half = np.arange(80), np.arange(40)
    assert wholeness(table, everything, PLAIN) == wholeness(table, half, PLAIN) == 1.0
    assert wholeness(slab(10, 8, offsets=False), half, replace(PLAIN, score_gap=5.0)) == 1.0


def test_a_piece_sees_the_centre_elsewhere():
    table, config = slab(10, 8), replace(PLAIN, score_gap=1.0)
    assert wholeness(table, np.arange(80), config) == pytest.approx(1.0, abs=1e-6)
    # Half of it: 5 x 8 voxels, whose own centre lies 2.5 voxels from the table's
    half = np.exp(-2.5 / np.linalg.norm([5, 8, 1]))
    assert wholeness(table, np.arange(40), config) == pytest.approx(half, rel=1e-5)
    assert wholeness(table, np.arange(8), config) < half
    assert wholeness(table, np.arange(40), replace(config, score_gap=2.0)) == pytest.approx(half**2, rel=1e-5)


def test_size_counts_in_square_metres():
    config = replace(PLAIN, score_surface_m2=0.1)
    assert wholeness(slab(8, 5), np.arange(40), config) == pytest.approx(0.5**0.5)  # 40 voxels of 5 cm are 0.1 m2
    assert wholeness(replace(slab(8, 5), voxel_size_m=0.1), np.arange(10), config) == pytest.approx(0.5**0.5)
    values = [wholeness(slab(40, 40), np.arange(n), config) for n in (1, 20, 400, 1600)]
    assert values == sorted(values) and values[-1] > 0.98
