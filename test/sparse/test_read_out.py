"""The heads' kernel against what `models.heads.published` makes of the same layers in torch."""

import numpy as np
import pytest
import torch

from instseg_ros.models.heads import published
from instseg_ros.sparse.program import Head
from instseg_ros.sparse.read_out import ReadOut

WIDTHS = {"semantic": 20, "embedding": 8, "offset": 3, "direction": 3, "covariance": 2, "occupancy": 1}


def make_heads(cin: int, scale: float) -> dict[str, Head]:
    generator = torch.Generator().manual_seed(cin)
    values = lambda *shape: torch.randn(*shape, generator=generator) * scale  # noqa: E731
    return {name: Head([values(cin, cin), values(cin, cout)], [values(cin), values(cout)]) for name, cout in WIDTHS.items()}


def written(heads: dict[str, Head], x: np.ndarray, rows: np.ndarray, place: np.ndarray | None, size: int) -> dict[str, np.ndarray]:
    out = {name: np.full((size, cout), 7.0, np.float32) for name, cout in WIDTHS.items()}
    ReadOut(heads)(x, rows, place, out)
    return out


@pytest.mark.parametrize("cin", [4, 32, 50])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("placed", [False, True])
def test_equals_the_heads_in_torch(cin, scale, placed):
    rng = np.random.default_rng(0)
    heads, x = make_heads(cin, scale), rng.standard_normal((700, cin)).astype(np.float32)
    rows = np.sort(rng.permutation(700)[:613]).astype(np.int32)
    place = rng.permutation(700).astype(np.int32) if placed else None
    out = written(heads, x, rows, place, 700)
    read = torch.from_numpy(x[rows if place is None else place[rows]])
    for name, head in heads.items():
        raw = head.run(read)
        rounding = 1e-5 + 2e-6 * float(raw.abs().max())  # sums are taken in another order; an exponential makes it a share
        np.testing.assert_allclose(out[name][rows], published(name, raw).numpy(), rtol=rounding, atol=rounding, err_msg=name)
        assert (np.delete(out[name], rows, 0) == 7.0).all(), "only the rows asked for are written"


def test_probabilities_stay_within_bounds_for_any_logits():
    cin = 4
    heads = make_heads(cin, 1.0)
    x = np.array([[1e30, -1e30, 3.0, 4.0], [1e4, 1e4, -1e4, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    semantic = written(heads, x, np.arange(3, dtype=np.int32), None, 3)["semantic"]
    assert np.isfinite(semantic).all() and (semantic >= 0.0).all()
    np.testing.assert_allclose(semantic.sum(1), 1.0, rtol=1e-6)


def test_a_network_that_is_not_finite_is_not_made_to_look_so():
    heads = make_heads(4, 1.0)
    x = np.array([[np.nan, 0.0, 0.0, 0.0]], np.float32)
    out = written(heads, x, np.zeros(1, np.int32), None, 1)
    assert np.isnan(out["semantic"]).all() and np.isnan(out["offset"]).all()


def test_no_rows():
    heads = make_heads(4, 1.0)
    out = written(heads, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), None, 2)
    assert all((values == 7.0).all() for values in out.values())
