"""Components against brute force, from scratch and kept through changes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.grouping.components import canonical_keys, connect, contacts, dilate
from instseg_ros.mapping.update import MAX_ABS_COORD


def random_voxels(seed: int, count: int, extent: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.unique(rng.integers(-extent, extent + 1, (count, 3)), axis=0).astype(np.int32)


def brute_components(coords: np.ndarray, reach: int) -> np.ndarray:
    near = np.abs(coords[:, None].astype(int) - coords[None]).max(axis=2) <= reach
    label = np.arange(len(coords))
    while True:
        lower = np.where(near, label[None], len(coords)).min(axis=1)
        if np.array_equal(lower, label):
            return label
        label = lower


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 120), extent=st.integers(1, 14), reach=st.integers(1, 4))
def test_connect_equals_brute_force(seed: int, count: int, extent: int, reach: int) -> None:
    coords = random_voxels(seed, count, extent)  # np.unique leaves them in canonical order
    label = connect(canonical_keys(coords), reach)
    expected = brute_components(coords, reach)
    pairs = set(zip(label.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len(set(label.tolist())) == len(set(expected.tolist()))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), reach=st.integers(1, 4))
def test_dilate_equals_brute_force(seed: int, count: int, reach: int) -> None:
    coords = random_voxels(seed, count, 10)
    cube = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    expected = np.unique((coords[:, None] + cube).reshape(-1, 3), axis=0)
    assert np.array_equal(dilate(coords, reach), expected)


def test_far_corners_of_the_coordinate_range_do_not_meet() -> None:
    edge = MAX_ABS_COORD
    coords = np.array([[0, 0, edge], [0, 1, -edge], [0, edge, 0], [1, -edge, 0]], np.int32)
    keys = np.sort(canonical_keys(coords))
    assert len(set(connect(keys, 4).tolist())) == 4
    assert np.array_equal(np.unique(dilate(coords[:1], 1)[:, 2]), [edge - 1, edge, edge + 1])


def test_contacts_are_the_26_neighbours() -> None:
    coords = random_voxels(3, 60, 3)
    rows, others = contacts(canonical_keys(coords), np.arange(len(coords)))
    near = np.abs(coords[:, None] - coords[None]).max(axis=2) == 1
    expected = set(zip(*np.nonzero(near), strict=True))
    assert {(int(a), int(b)) for a, b in zip(rows, others, strict=True)} == {(int(a), int(b)) for a, b in expected}
