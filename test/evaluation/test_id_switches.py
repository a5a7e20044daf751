"""Id switches: what is one, and what is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import InputError
from instseg_ros.evaluation.id_switches import IdConsistency

OBJECTS = np.repeat([0, 1, -1], [100, 60, 40])


def run(*states, gt=OBJECTS):
    consistency = IdConsistency()
    for state in states:
        consistency.add(gt, state)
    return consistency


def ids(first, second, rest=0):
    return np.repeat([first, second, rest], [100, 60, 40])


def test_lasting_ids_have_no_switch():
    c = run(ids(1, 2), ids(1, 2), ids(1, 2))
    assert (c.switches, c.instance_updates, c.switches_per_1000, c.association_accuracy) == (0, 6, 0.0, 1.0)


def test_a_new_id_on_a_whole_object_is_one_switch():
    c = run(ids(1, 2), ids(3, 2), ids(3, 2))
    assert c.switches == 1 and c.switched == [(1, 0, 1, 3)]
    assert c.switches_per_1000 == pytest.approx(1000 / 6)
    # object 0: 1 update with id 1 (A = 1/3), 2 with id 3 (A = 2/3); object 1: A = 1
    assert c.association_accuracy == pytest.approx((1 / 3 + 2 * 2 / 3 + 3) / 6)


def test_exchanged_ids_are_two_switches():
    assert run(ids(1, 2), ids(2, 1)).switches == 2


def test_a_switch_is_found_across_a_gap():
    assert run(ids(1, 2), ids(0, 2), ids(5, 2)).switches == 1
    assert run(ids(1, 2), ids(0, 2), ids(1, 2)).switches == 0


def test_an_object_in_pieces_or_merged_is_no_switch():
    pieces = ids(1, 2)
    pieces[:50] = 7  # two halves: neither holds more than half of the union
    assert run(ids(1, 2), pieces, ids(1, 2)).switches == 0
    merged = ids(2, 2)  # 100 of 160 voxels: matches object 0, not object 1
    c = run(merged, ids(2, 3))
    assert c.switches == 0 and c.instance_updates == 3


def test_a_larger_piece_found_later_is_no_switch_but_a_takeover_is():
    gt = [np.repeat([0, -1], [50, 100]), np.repeat([0, -1], [130, 20])]
    first = np.repeat([1, 0], [50, 100])

    def consistency(*later):
        c = IdConsistency()
        c.add(gt[0], first)
        for sizes in later:
            c.add(gt[1], np.repeat([1, 2, 0], [*sizes, 20]))
        return c

    assert consistency((50, 80)).switches == 0  # id 1 holds all it had, id 2 is on what is new
    assert consistency((50, 80), (130, 0)).switches == consistency((50, 80), (0, 130)).switches == 0  # joined under either id
    assert consistency((20, 110)).switched == [(1, 0, 1, 2)]  # id 1 lost most of what it had to id 2
    c = consistency((50, 80), (0, 130), (130, 0))
    assert c.switches == 1  # after the pieces were one under id 2, the id changed


def test_background_under_an_id_enlarges_the_union():
    gt = np.repeat([0, -1], [30, 40])
    assert run(np.full(70, 1), gt=gt).instance_updates == 0
    assert run(np.where(np.arange(70) < 50, 1, 0), gt=gt).instance_updates == 1


def test_small_objects_are_left_out():
    c = IdConsistency(min_voxels=80)
    c.add(OBJECTS, ids(1, 2))
    c.add(OBJECTS, ids(1, 9))
    assert c.switches == 0 and c.instance_updates == 2


def test_empty_maps_and_wrong_shapes():
    c = IdConsistency()
    assert c.add(np.zeros(0, np.int32), np.zeros(0, np.uint32)) == 0
    assert np.isnan(c.switches_per_1000) and np.isnan(c.association_accuracy)
    with pytest.raises(InputError, match="same voxels"):
        c.add(np.zeros(3, np.int32), np.zeros(4, np.uint32))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_names_of_ids_and_objects_do_not_matter(seed, updates):
    rng = np.random.default_rng(seed)
    rename_id, rename_gt = np.append(0, rng.permutation(50)[:9] + 1), rng.permutation(50)[:6]
    plain, renamed = IdConsistency(5), IdConsistency(5)
    for _ in range(updates):
        gt = rng.integers(-1, 6, 40).repeat(6)
        state = np.where(rng.random(len(gt)) < 0.8, (gt + rng.integers(0, 3)) % 7 + 1, rng.integers(0, 10, len(gt)))
        order = rng.permutation(len(gt))
        plain.add(gt, state)
        renamed.add(np.where(gt >= 0, rename_gt[np.maximum(gt, 0)], -1)[order], rename_id[state][order].astype(np.uint32))
    assert (plain.switches, plain.instance_updates) == (renamed.switches, renamed.instance_updates)
    if plain.instance_updates:
        assert plain.association_accuracy == pytest.approx(renamed.association_accuracy)
        assert 0 < plain.association_accuracy <= 1
