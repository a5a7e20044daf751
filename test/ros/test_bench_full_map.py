"""`instseg bench full-map` in short, on a small building."""

import argparse

import numpy as np

from instseg_ros.benchmarks import full_map
from instseg_ros.benchmarks.chair_net import chair_weights
from instseg_ros.mapping.voxelize import voxelize_points


def test_clouds_have_their_size_and_change_by_their_share():
    clouds = full_map.Clouds(30_000, 1.5, 0.02, False, 0)
    (first, _), (second, colors) = clouds.next(), clouds.next()
    assert first.shape == second.shape == (30_000, 3) and colors.shape == (30_000, 3)
    one, other = ({tuple(c) for c in voxelize_points(p, colors, 0.05).coords.tolist()} for p in (first, second))
    assert len(one) == len(other) == 19_800 and len(one ^ other) == 400
    shuffled, _ = full_map.Clouds(30_000, 1.5, 0.02, True, 0).next()
    assert np.abs(np.diff(shuffled[:, 0])).mean() > 2 * np.abs(np.diff(first[:, 0])).mean()


def test_it_runs(ros_context, tmp_path):
    chair_weights(tmp_path / "chairs.safetensors")
    figures, rows = full_map.run(argparse.Namespace(
        points=5000, points_per_voxel=1.2, share=0.02, clouds=3, rate=2.0, shuffled=True, threads=1, seed=0,
        weights=str(tmp_path / "chairs.safetensors"), folder=tmp_path,
    ))
    assert len(rows) == 3 and figures["applied"] + figures["coalesced"] == 3 and figures["refused"] == figures["dropped_queue_full"] == 0
    assert 4000 < figures["voxels"] < 4200 and figures["convert_ms_p50"] > 0 and figures["cpu_s_per_cloud"] > 0
