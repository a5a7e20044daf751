"""HOTA by the TrackEval library, and our id consistency held against it."""

import sys

import numpy as np
import pytest

from instseg_ros.errors import InputError, MissingDependencyError
from instseg_ros.evaluation.hota import TrackSequence, hota
from instseg_ros.evaluation.id_switches import IdConsistency


@pytest.fixture()
def library():
    return pytest.importorskip("trackeval", reason="trackeval is not installed: pip install trackeval")


def growing_runs(seed, count=3):
    """Objects that are revealed piece by piece under ids that drift: switch, merge with a neighbour, or are missed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        objects = np.repeat(np.arange(-1, 6), rng.integers(10, 80, 7))
        names = rng.permutation(np.arange(1, 40))[: objects.max() + 2]
        names[0] = 0
        steps = []
        for update in range(12):
            seen = slice(0, (update + 1) * len(objects) // 12)
            if rng.random() < 0.4:
                names[int(rng.integers(len(names)))] = rng.integers(0, 40)
            predicted = names[objects + 1]
            predicted = np.where(rng.random(len(predicted)) < 0.15, rng.choice(names, len(predicted)), predicted)
            steps.append((objects[seen], predicted[seen]))
        yield steps


def test_association_accuracy_is_the_librarys(library):
    """Where IoU decides alone who is matched, both are the same number."""
    checked = 0
    for seed in range(10):
        for steps in growing_runs(seed):
            ours, whole, sure = IdConsistency(min_voxels=5), TrackSequence(min_voxels=5), TrackSequence(min_voxels=5)
            for objects, predicted in steps:
                ours.add(objects, predicted)
                whole.add(objects, predicted)
                # more than one half is enough of a match, and there is one at most
                at_update = whole.steps[-1]
                sure.add_similarity(at_update[0], at_update[1], np.where(at_update[2] > 0.5, at_update[2], 0.0))
            result = hota([sure])
            if not ours.instance_updates:
                continue
            assert ours.association_accuracy == pytest.approx(result.at(0.5)["assa"], abs=1e-12)
            assert ours.instance_updates == result.matches
            # all changes of the matched id, those of objects in pieces among them
            assert ours.switches <= result.id_switches
            # with the weak overlaps left in, the library may prefer a weak match of a long track to a match above one half
            assert hota([whole]).at(0.5)["assa"] == pytest.approx(ours.association_accuracy, abs=0.15)
            checked += 1
    assert checked >= 25


def test_id_switches_of_whole_objects_are_the_librarys(library):
    objects = np.repeat([0, 1], 30)
    ours, theirs = IdConsistency(), TrackSequence()
    for names in ((1, 2), (1, 2), (3, 2), (1, 2), (1, 1), (1, 2)):
        ids = np.array(names)[objects]
        ours.add(objects, ids)
        theirs.add(objects, ids)
    assert hota([theirs]).id_switches == ours.switches == 2


def test_perfect_tracks_and_several_sequences(library):
    objects = np.repeat([0, 1, -1], 30)
    perfect, missed = TrackSequence(), TrackSequence()
    for _ in range(5):
        perfect.add(objects, np.array([4, 7, 0])[objects])
        missed.add(objects, np.array([4, 0, 0])[objects])
    assert hota([perfect]).figures() == {
        "hota": 1.0, "hota_deta": 1.0, "hota_assa": 1.0, "hota_assa_50": 1.0, "clear_id_switches": 0, "clear_matches": 10}
    both = hota([perfect, missed]).at(0.5)
    assert both == pytest.approx({"deta": 15 / 20, "assa": 1.0, "hota": np.sqrt(15 / 20)})


def test_refusals(monkeypatch):
    sequence = TrackSequence()
    with pytest.raises(InputError, match="same voxels"):
        sequence.add(np.zeros(3), np.zeros(4))
    with pytest.raises(InputError, match=r"\[objects, ids\]"):
        sequence.add_similarity(np.arange(2), np.arange(3), np.zeros((3, 2)))
    with pytest.raises(InputError, match="twice"):
        sequence.add_similarity(np.zeros(2), np.arange(3), np.zeros((2, 3)))
    with pytest.raises(InputError, match="no sequence"):
        hota([])
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    with pytest.raises(MissingDependencyError, match="pip install trackeval"):
        hota([sequence])
