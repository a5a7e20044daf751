"""The benchmark of the incremental network, on maps small enough for a test."""

import numpy as np
import torch

from instseg_ros.benchmarks import incremental_device
from instseg_ros.benchmarks.incremental import (
    Bench,
    Building,
    cost_by_share,
    cost_by_size,
    cost_by_tolerance,
    exactness,
    memory,
    plot,
    random_net,
)
from instseg_ros.models.weights import save_weights


def test_a_made_up_building_has_a_contiguous_patch():
    building = Building.made_up(4000, 0.05)
    assert building.patch.sum() == 200 and len(np.unique(building.coords, axis=0)) == 4000
    inside = building.coords[building.patch][:, :2]
    distance = np.abs(building.coords[:, :2] - np.median(building.coords[:, :2], axis=0)).max(1)
    assert np.ptp(inside, axis=0).max() <= 2 * np.sort(distance)[199] + 1


def test_a_change_is_taken_back_before_it_is_made_again():
    bench = Bench(random_net(0, (8, 16)), Building.made_up(4000, 0.05), 0.0)
    for kind in ("revealed", "recoloured"):
        row = bench.measure(kind, 2)
        assert row["voxels"] == 4000 and row["changed"] == 200
        assert 0.0 < row["due_share"] < 1.0 and row["refresh_ms"] > 0.0


def test_figures_and_plot(tmp_path):
    net = random_net(1, (8, 16))
    figures, rows = cost_by_share(net, 3000, [0.01, 0.5], 0.01, 1)
    more, lines = cost_by_tolerance(net, 3000, [0.0, 0.05], 1)
    sizes, by_size = cost_by_size(net, [2000, 3000], 0.01, 1)
    assert {"speedup_1pct_cpu", "speedup_1pct_cpu_recoloured"} <= set(figures) and "speedup_1pct_cpu_exact" in more and sizes == {}
    assert lines[0]["label_agreement"] == 1.0 and lines[0]["offset_error_m"] < 1e-5  # tolerance 0 is exact
    assert all(line["voxels"] == size for line, size in zip(by_size, (2000, 3000), strict=True))
    plot(tmp_path / "plot.png", rows + lines + by_size)
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_memory_with_and_without_a_budget(tmp_path):
    save_weights(tmp_path / "net.safetensors", random_net(0, (8, 16)), {})
    figures, rows = memory(str(tmp_path / "net.safetensors"), 20_000, 0.01, [1])
    assert figures["budget_held"] and rows[0]["bytes_cached"] > 1_000_000 >= rows[1]["bytes_cached"]
    assert figures["bytes_per_voxel"] > 8 * 4 * 5 and figures["peak_bytes"] > rows[0]["bytes_cached"]


def test_exact_on_random_histories():
    figures, rows = exactness(8)
    assert figures["exact_histories"] == 8 and figures["exact_max_rel_diff"] <= 1e-4 and len(rows) == 4


def test_what_is_measured_on_a_gpu_is_rehearsed():
    """Every row is reported as soon as it is there; the figures have names that cannot be taken for measured ones."""
    seen = []
    figures, rows = incremental_device.measure(
        random_net(0, (8, 16)), torch.device("cpu"), 1500, 2000, 0.02, 1, 1, [1], lambda figures, rows: seen.append(len(rows)))
    assert seen == list(range(1, len(rows) + 1))
    assert [row["row"] for row in rows] == ["work"] * 2 + ["exact"] * 2 + ["revealed"] * 6 + ["budget"]
    assert figures["exact_max_rel_diff_rehearsal"] <= 1e-4 and figures["budget_held_rehearsal"]
    assert figures["speedup_1pct_rehearsal"] == rows[4]["speedup"] and not any("cuda" in name or "cpu" in name for name in figures)
    assert rows[0]["full_gflop"] < rows[0]["full_gflop_launched"] and rows[1]["voxels"] == 2000
    assert 11 < rows[0]["taps_of_64"][0] < rows[0]["taps_of_64"][1] <= 27
