"""Rooms become cases: rendered, fused, labelled, cached."""

from dataclasses import replace

import numpy as np
import pytest

from instseg_ros.errors import DataError
from instseg_ros.evaluation.sources import house_source, room_sources
from instseg_ros.labels import BACKGROUND, IGNORE


def test_a_room_is_fused_once_and_labelled(tmp_path):
    source = room_sources([3], "test", "procedural", 0.1, 10, tmp_path)[0]
    case = source.case()
    assert case.name == source.name == "room_test_0003" and len(case.updates) >= 3
    classes, instance = case.truth.lookup(case.final.coords)
    assert (classes == IGNORE).mean() < 0.2 and len(np.unique(instance[instance >= 0])) >= 3
    assert np.isin(BACKGROUND, classes).all()
    assert (instance[np.isin(classes, (*BACKGROUND, IGNORE))] == -1).all()
    files = list(tmp_path.iterdir())
    assert len(files) == 1
    written = files[0].stat().st_mtime_ns
    again = source.case()
    assert np.array_equal(again.final.coords, case.final.coords) and files[0].stat().st_mtime_ns == written
    replace(source, voxel_size_m=0.2).case()
    assert len(list(tmp_path.iterdir())) == 2  # other settings are another case


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="house.npz"):
        house_source(tmp_path / "none", 0, 0.05, 5, tmp_path)
    with pytest.raises(DataError, match="catalogue"):
        room_sources([0], "test", tmp_path / "none.sh3f", 0.05, 5, tmp_path)
