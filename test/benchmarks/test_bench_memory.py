"""The benchmark of memory, on a floor small enough for a test."""

import numpy as np

from instseg_ros.benchmarks.incremental import random_net
from instseg_ros.benchmarks.memory import explore, plot, rooms_along_the_way
from instseg_ros.config import GroupingConfig, SegmenterConfig
from instseg_ros.segmenter import Segmenter


def test_each_room_is_beside_the_one_before():
    rooms = list(rooms_along_the_way(200_000, 0))
    assert sum(len(room.coords) for room in rooms) == 200_000
    middles = np.array([room.coords[:, :2].mean(axis=0) for room in rooms[:-1]]) * 0.05
    assert np.linalg.norm(np.diff(middles, axis=0), axis=1).max() < 8.0


def test_a_small_floor_stays_in_its_budget(tmp_path):
    config = SegmenterConfig(cache_mb=1, device="cpu", threads=1, grouping=GroupingConfig(method="connected_components"))
    figures, rows = explore(Segmenter(config, random_net(0, (4, 4))), 20_000, 4000, 1, 0)
    assert figures["memory_voxels"] == 20_000 and figures["budget_held"] and 0 < figures["held_bytes_max"] <= 1_000_000
    assert [row["phase"] for row in rows] == ["explore"] * (len(rows) - 3) + ["return"] * 3
    assert rows[-2]["voxels"] == 18_000 and rows[-1]["voxels"] == 20_000  # a piece is gone, and back
    assert figures["resident_bytes_peak"] >= figures["resident_bytes_end"] > 50e6
    parts = {name for name in figures if name.startswith("bytes_per_voxel_")}
    assert {f"bytes_per_voxel_{n}" for n in ("map", "prediction", "grouping", "tracking", "published", "outputs", "network")} == parts
    assert figures["bytes_per_voxel_tracking"] >= 24 and figures["bytes_per_voxel_map"] >= 27 * 4
    plot(tmp_path / "memory.png", rows, 1)
    assert (tmp_path / "memory.png").stat().st_size > 5000
