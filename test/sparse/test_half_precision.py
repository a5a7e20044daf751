"""Outputs kept in half precision: the kernels' conversions, and an incremental network that stays near the exact one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_incremental import corridor_step, networks
from test_program import small_net

from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse import kernels
from instseg_ros.sparse.incremental import IncrementalNetwork

SIZES = [1, 7, 8, 9, 31, 40]


def through_the_kernel(values: np.ndarray, x_half: bool, out_half: bool) -> np.ndarray:
    """Rows [n, C] as the kernels read and write them, by a layer that changes nothing."""
    rows, channels = values.shape
    x = values.astype(np.float16 if x_half else np.float32)
    out = np.zeros((rows, channels), np.float16 if out_half else np.float32)
    identity = kernels.pad_channels(torch.eye(channels)[None])
    bias = kernels.pad_channels(torch.zeros(channels))
    every_row = np.arange(rows, dtype=np.int32)
    moved, _ = kernels.wave([kernels.Step(
        x, None, identity, bias, None, False, out, -1.0, np.zeros(rows, np.uint8), None, None, [(None, every_row)], np.zeros(rows, np.int32), 1)])
    assert np.array_equal(np.sort(moved), every_row)
    return out


@pytest.mark.parametrize("channels", SIZES)
def test_widened_and_narrowed_as_numpy_does(channels):
    rng = np.random.default_rng(channels)
    values = (rng.standard_normal((50, channels)) * 10.0 ** rng.integers(-8, 5, (50, channels))).astype(np.float32)
    values = np.clip(values, -60000.0, 60000.0)
    assert np.array_equal(through_the_kernel(values, False, True), values.astype(np.float16))
    assert np.array_equal(through_the_kernel(values, True, False), values.astype(np.float16).astype(np.float32))
    assert np.array_equal(through_the_kernel(values, True, True), values.astype(np.float16))


@pytest.mark.parametrize("channels", [8, 9])
def test_what_is_too_large_stays_finite(channels):
    values = np.full((1, channels), 1e30, np.float32) * np.where(np.arange(channels) % 2, -1, 1).astype(np.float32)
    assert np.array_equal(through_the_kernel(values, False, True), (np.sign(values) * 65504).astype(np.float16))


def test_rows_that_do_not_change_do_not_move():
    """Though what is stored is rounded and the sum is not: compared is what would be stored."""
    rng = np.random.default_rng(0)
    x, rows = rng.standard_normal((300, 24)).astype(np.float32), np.arange(300, dtype=np.int32)
    weight, bias = kernels.pad_channels(torch.randn(1, 24, 40)), kernels.pad_channels(torch.randn(40))
    residual = rng.standard_normal((300, 40)).astype(np.float16)
    out, fresh = np.zeros((300, 40), np.float16), np.zeros(300, np.uint8)

    def moved() -> list[int]:
        step = kernels.Step(
            x, None, weight, bias, residual, True, out, 0.0, fresh, None, None, [(None, rows)], np.zeros(300, np.int32), 1)
        return sorted(kernels.wave([step])[0].tolist())

    assert moved() == rows.tolist()
    assert moved() == []
    x[7] += 1.0
    assert moved() == [7]


limits = st.sampled_from([(0, 0.0), (60_000, 0.0), (0, 150.0)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), networks, limits, st.integers(2, 6))
def test_stays_near_the_exact_network(seed, changes, limits, steps):
    budget_bytes, radius = limits
    net, rng = small_net(seed % 7, **changes), np.random.default_rng(seed)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    exact = IncrementalNetwork(net)
    half = IncrementalNetwork(net, budget_bytes=budget_bytes, radius_voxels=radius, dtype=np.float16)
    for _ in range(steps):
        delta = voxels.apply(corridor_step(rng, voxels, 900))
        exact.refresh(voxels, delta)
        half.refresh(voxels, delta)
        assert half.held_bytes() <= (budget_bytes or np.inf)
    live = voxels.live_slots()
    for name, values in exact.prediction.items():
        off = np.abs(values[live] - getattr(half.prediction, name)[live]).max(initial=0.0)
        assert off <= 0.02 * np.abs(values[live]).max(initial=1e-6), name


def test_takes_half_the_memory():
    net, rng = small_net(1), np.random.default_rng(0)
    voxels, networks_ = VoxelMap(0.05, depth=len(net.config.channels)), [IncrementalNetwork(net, dtype=d) for d in ("float32", "float16")]
    delta = voxels.apply(corridor_step(rng, voxels, 900))
    for network in networks_:
        network.refresh(voxels, delta)
    assert networks_[0].held_bytes() == 2 * networks_[1].held_bytes() > 0
