"""Counting shared voxels, choosing pairs, and which added voxel replaces a removed one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.matching import assign, highest, main_owner, replacements, tally


def test_tally_counts_and_weighs_and_leaves_out_zero() -> None:
    ids, columns = np.array([3, 3, 0, 7, 3]), np.array([0, 0, 0, 1, 1])
    assert tally(ids, columns) == {(3, 0): 2, (7, 1): 1, (3, 1): 1}
    assert tally(ids, columns, np.array([0.5, 0.25, 9.0, 1.0, 2.0])) == {(3, 0): 0.75, (7, 1): 1.0, (3, 1): 2.0}
    assert tally(np.zeros(0, np.uint32), np.zeros(0, int)) == {}


def test_highest_is_taken_of_every_pair_and_leaves_out_zero() -> None:
    ids, columns = np.array([3, 3, 0, 7, 3]), np.array([0, 0, 0, 1, 1])
    assert highest(ids, columns, np.array([2, 5, 9, 1, 4])) == {(3, 0): 5.0, (7, 1): 1.0, (3, 1): 4.0}
    assert highest(np.zeros(0, np.uint32), np.zeros(0, int), np.zeros(0)) == {}


def test_assign_takes_the_greatest_sum() -> None:
    assert assign([(0, 0, 5.0), (0, 1, 4.0), (1, 0, 4.0)], 2, 2) == [(0, 1), (1, 0)]
    assert assign([], 2, 2) == []


def test_main_owner_needs_half() -> None:
    assert main_owner(np.array([4, 4, 0, 5]), 4) == 4
    assert main_owner(np.array([4, 0, 0, 5]), 4) == 0


def test_replacements_are_next_to_the_removed_and_the_nearest() -> None:
    added = np.array([[5, 5, 5], [6, 6, 5], [9, 0, 0]])
    removed = np.array([[6, 5, 5], [7, 7, 6], [7, 0, 0], [5, 4, 5]])
    assert replacements(removed, np.array([40, 41, 42]), added).tolist() == [40, 41, -1, 40]
    nothing = np.zeros((0, 3), np.int32)
    assert replacements(removed, np.zeros(0, int), nothing).tolist() == [-1] * 4
    assert replacements(nothing, np.array([40, 41, 42]), added).tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_replacements_do_not_depend_on_order_and_are_as_near_as_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxels = rng.permutation(np.unique(rng.integers(-4, 4, (60, 3)), axis=0))
    removed, added = voxels[:20], voxels[20:]
    slots = rng.permutation(100)[: len(added)]
    heirs = replacements(removed, slots, added)
    order = rng.permutation(len(added))
    assert heirs.tolist() == replacements(removed, slots[order], added[order]).tolist()
    place = {int(s): a for s, a in zip(slots, added, strict=True)}
    for voxel, heir in zip(removed, heirs.tolist(), strict=True):
        near = ((added - voxel) ** 2).sum(1)[np.abs(added - voxel).max(1) <= 1]
        if heir < 0:
            assert not len(near)
        else:
            assert ((place[heir] - voxel) ** 2).sum() == pytest.approx(near.min())
