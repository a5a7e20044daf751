"""The benchmark's files: what is written is what the format says, and comes back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import DataError
from instseg_ros.evaluation.instances import Predictions, Scan, average_precision
from instseg_ros.evaluation.scannet_export import (
    read_ground_truth,
    read_submission,
    write_ground_truth,
    write_submission,
)
from instseg_ros.labels import CLASS_NAMES, IGNORE

CHAIR, TABLE, WALL = (CLASS_NAMES.index(n) for n in ("chair", "table", "wall"))


def test_files_are_as_the_benchmark_asks(tmp_path):
    masks = [np.array([1, 1, 0, 0, 0], bool), np.array([0, 1, 1, 0, 0], bool), np.array([0, 0, 0, 1, 1], bool)]
    predictions = Predictions.from_masks(masks, np.array([CHAIR, WALL, TABLE], np.uint8), np.array([0.5, 0.9, 0.123456789]))
    path = write_submission(tmp_path, "scene0011_00", predictions, 5)
    assert path.read_text() == "predicted_masks/scene0011_00_000.txt 5 0.5\npredicted_masks/scene0011_00_002.txt 7 0.123456789\n"
    assert (tmp_path / "predicted_masks" / "scene0011_00_000.txt").read_text() == "1\n1\n0\n0\n0\n"
    assert (tmp_path / "predicted_masks" / "scene0011_00_002.txt").read_text() == "0\n0\n0\n1\n1\n"
    assert len(list((tmp_path / "predicted_masks").iterdir())) == 2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 6))
def test_what_is_written_comes_back(tmp_path_factory, seed, count):
    rng = np.random.default_rng(seed)
    masks = [rng.random(40) < 0.4 for _ in range(count)]
    predictions = Predictions.from_masks(masks, rng.integers(2, 20, count).astype(np.uint8), rng.random(count))
    folder = tmp_path_factory.mktemp("s")
    back = read_submission(write_submission(folder, "scene0000_00", predictions, 40), 40)
    assert back.class_index.tolist() == predictions.class_index.tolist() and back.score.tolist() == predictions.score.tolist()
    for number, mask in enumerate(masks):
        assert np.array_equal(np.sort(back.members[back.owner == number]), np.flatnonzero(mask))


def test_a_second_run_leaves_no_old_masks(tmp_path):
    for count in (3, 1):
        predictions = Predictions.from_masks([np.ones(4, bool)] * count, np.full(count, CHAIR, np.uint8), np.ones(count))
        write_submission(tmp_path, "a", predictions, 4)
    assert [p.name for p in (tmp_path / "predicted_masks").iterdir()] == ["a_000.txt"]


def test_ground_truth_of_the_benchmark(tmp_path):
    write_ground_truth(tmp_path / "gt" / "scene.txt", np.array([5, 5, 0, 7, 1, 40]), np.array([0, 12, -1, 3, -1, 5]))
    assert (tmp_path / "gt" / "scene.txt").read_text().split() == ["5001", "5013", "0", "7004", "1000", "40006"]
    classes, instance = read_ground_truth(tmp_path / "gt" / "scene.txt")
    assert classes.tolist() == [CHAIR, CHAIR, IGNORE, TABLE, WALL, IGNORE]
    assert instance.tolist() == [1, 13, -1, 4, 0, 6]
    with pytest.raises(DataError, match="room for 999"):
        write_ground_truth(tmp_path / "x.txt", np.array([5]), np.array([999]))


def test_predictions_equal_to_the_truth_score_one_through_the_files(tmp_path):
    label, instance = np.repeat([5, 7, 2], 40), np.repeat([0, 1, 2], 40)
    write_ground_truth(tmp_path / "gt.txt", label, instance)
    classes, numbers = read_ground_truth(tmp_path / "gt.txt")
    masks = [instance == 0, instance == 1]
    path = write_submission(tmp_path, "s", Predictions.from_masks(masks, np.array([CHAIR, TABLE], np.uint8), np.ones(2)), 120)
    assert average_precision([Scan(classes, numbers, read_submission(path, 120))]).ap == 1.0


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="missing"):
        read_submission(tmp_path / "none.txt", 4)
    (tmp_path / "predicted_masks").mkdir()
    mask = tmp_path / "predicted_masks" / "a_000.txt"
    mask.write_text("1\n0\n")
    path = tmp_path / "a.txt"
    for content, message in (
        ("predicted_masks/a_000.txt 5\n", "mask-file label score"), ("../a_000.txt 5 1.0\n", "outside"), ("/etc/hostname 5 1.0\n", "outside"),
        ("predicted_masks/a_000.txt 5 1.0\n", "2 lines for 4 vertices"), ("predicted_masks/b.txt 5 1.0\n", "missing"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_submission(path, 4)
    (tmp_path / "gt.txt").write_text("5001\nword\n")
    with pytest.raises(DataError, match="one number a line"):
        read_ground_truth(tmp_path / "gt.txt")
    with pytest.raises(DataError, match="no blanks"):
        write_submission(tmp_path, "a b", Predictions.from_masks([], np.zeros(0, np.uint8), np.zeros(0)), 4)
