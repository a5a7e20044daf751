"""Dilated convolutions on the sparse grid against torch's dense ones, and the k nearest against a plain search."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conv import assert_same, from_dense, random_voxels, to_dense

from instseg_ros.sparse import kernels
from instseg_ros.sparse.conv import sparse_conv
from instseg_ros.sparse.neighborhood import nearest_radius
from instseg_ros.sparse.pyramid import build_tables


@pytest.fixture(params=["kernel", "torch"], autouse=True)
def path(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(kernels, "available", lambda: False)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.3, 1.0]), st.integers(1, 4), st.sampled_from([(1, 3), (4, 32), (19, 33)]))
def test_dilated_equals_dense(seed, fill, dilation, widths):
    coords = random_voxels(seed, fill)
    if not len(coords):
        return
    torch.manual_seed(seed)
    cin, cout = widths
    x = torch.randn(len(coords), cin, requires_grad=True)
    weight = torch.randn(27, cin, cout, requires_grad=True)
    table = build_tables(coords, 1).levels[0].read("neighbors", dilation)
    kernel = weight.reshape(3, 3, 3, cin, cout).permute(4, 3, 0, 1, 2)
    theirs = from_dense(F.conv3d(to_dense(x, coords), kernel, padding=dilation, dilation=dilation), coords)
    assert_same(sparse_conv(x, table, weight), theirs, (x, weight))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6))
def test_a_layer_of_a_voxel_itself_is_a_product(seed):
    coords = random_voxels(seed, 0.1)
    if not len(coords):
        return
    torch.manual_seed(seed)
    x, weight = torch.randn(len(coords), 6, requires_grad=True), torch.randn(1, 6, 9, requires_grad=True)
    table = build_tables(coords, 1).levels[0].read("self")
    assert_same(sparse_conv(x, table, weight), x @ weight[0], (x, weight))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([1, 5, 8, 14, 26]))
def test_the_nearest_are_the_nearest(seed, fill, k):
    coords = random_voxels(seed, fill)[:300]
    coords = np.random.default_rng(seed).permutation(coords)
    if not len(coords):
        return
    got = build_tables(coords, 1).levels[0].nearest(k).numpy()
    for row, found in zip(coords, got, strict=True):
        away = coords - row
        window = np.flatnonzero((np.abs(away).max(1) <= nearest_radius(k)) & away.any(1))
        order = sorted(window.tolist(), key=lambda j: ((away[j] ** 2).sum(), *away[j]))[:k]
        assert found[: len(order)].tolist() == order and (found[len(order) :] == -1).all()
