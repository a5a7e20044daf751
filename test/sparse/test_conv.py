"""Sparse convolutions against dense torch ones on small grids, forward and backward, with and without the kernels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.sparse import kernels
from instseg_ros.sparse.conv import apply_conv, sparse_conv
from instseg_ros.sparse.pyramid import build_tables

SIDE = 12


@pytest.fixture(params=["kernel", "torch"], autouse=True)
def path(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(kernels, "available", lambda: False)
    elif not kernels.available():
        pytest.skip("the kernels are not built")
    return request.param


def random_voxels(seed: int, fill: float) -> np.ndarray:
    return np.argwhere(np.random.default_rng(seed).random((SIDE, SIDE, SIDE)) < fill).astype(np.int32)


def to_dense(x: torch.Tensor, coords: np.ndarray, side: int = SIDE) -> torch.Tensor:
    """[N, C] -> [1, C, side, side, side]."""
    index = torch.from_numpy(coords).long()
    flat = (index[:, 0] * side + index[:, 1]) * side + index[:, 2]
    dense = x.new_zeros(side**3, x.shape[1]).index_copy(0, flat, x)
    return dense.T.reshape(1, x.shape[1], side, side, side)


def from_dense(dense: torch.Tensor, coords: np.ndarray) -> torch.Tensor:
    index = torch.from_numpy(coords).long()
    return dense[0][:, index[:, 0], index[:, 1], index[:, 2]].T


def assert_same(ours, theirs, inputs):
    scale = theirs.abs().max().item() + 1e-6
    assert torch.allclose(ours, theirs, atol=2e-5 * scale)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream), strict=True):
        assert torch.allclose(a, b, atol=2e-5 * (b.abs().max().item() + 1e-6))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.3, 1.0]), st.sampled_from([(1, 3), (4, 32), (19, 33), (48, 16), (32, 64)]))
def test_submanifold_equals_dense(seed, fill, widths):
    coords = random_voxels(seed, fill)
    if not len(coords):
        return
    torch.manual_seed(seed)
    cin, cout = widths
    x = torch.randn(len(coords), cin, requires_grad=True)
    weight = torch.randn(27, cin, cout, requires_grad=True)
    tables = build_tables(coords, 1)
    ours = sparse_conv(x, tables.levels[0].neighbors, weight)
    kernel = weight.reshape(3, 3, 3, cin, cout).permute(4, 3, 0, 1, 2)
    theirs = from_dense(F.conv3d(to_dense(x, coords), kernel, padding=1), coords)
    assert_same(ours, theirs, (x, weight))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.3, 1.0]))
def test_strided_and_transposed_equal_dense(seed, fill):
    coords = random_voxels(seed, fill)
    if not len(coords):
        return
    torch.manual_seed(seed)
    levels = build_tables(coords, 2).levels
    coarse = np.argwhere(to_dense(torch.ones(len(coords), 1), coords)[0, 0].reshape(6, 2, 6, 2, 6, 2).amax((1, 3, 5)).numpy())
    coarse_rows = {tuple(c): i for i, c in enumerate(coarse.tolist())}
    # row order of the coarse level, from the children's coordinates
    order = [coarse_rows[tuple((coords[max(row)] >> 1).tolist())] for row in levels[1].children.tolist()]
    coarse = coarse[order].astype(np.int32)

    x = torch.randn(len(coords), 5, requires_grad=True)
    weight = torch.randn(8, 5, 7, requires_grad=True)
    kernel = weight.reshape(2, 2, 2, 5, 7).permute(4, 3, 0, 1, 2)
    ours = sparse_conv(x, levels[1].children, weight, levels[0].up)
    assert_same(ours, from_dense(F.conv3d(to_dense(x, coords), kernel, stride=2), coarse), (x, weight))

    y = torch.randn(len(coarse), 5, requires_grad=True)
    kernel = weight.reshape(2, 2, 2, 5, 7).permute(3, 4, 0, 1, 2)
    ours = sparse_conv(y, levels[0].up, weight, levels[1].children)
    assert_same(ours, from_dense(F.conv_transpose3d(to_dense(y, coarse, 6), kernel, stride=2), coords), (y, weight))


@pytest.mark.parametrize("rows", [1, 5, 511, 3000])
@pytest.mark.parametrize("cout", [3, 16, 40])
def test_bias_residual_and_relu_at_the_end(rows, cout):
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, 6), torch.randn(27, 6, cout), torch.randn(cout)
    residual = torch.randn(rows, cout)
    table = torch.randint(-1, rows, (rows, 27), dtype=torch.int32)
    padded = torch.cat([x, torch.zeros(1, 6)])
    want = torch.relu(torch.einsum("nki,kio->no", padded[table.long()], weight) + bias + residual)
    got = apply_conv(x, table, weight, bias, residual, relu=True)
    assert torch.allclose(got, want, atol=1e-4)


def test_no_rows():
    out = apply_conv(torch.zeros(0, 4), torch.zeros(0, 27, dtype=torch.int32), torch.randn(27, 4, 8))
    assert out.shape == (0, 8)
