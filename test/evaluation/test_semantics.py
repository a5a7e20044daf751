"""mIoU on cases computed by hand."""

import numpy as np
import pytest

from instseg_ros.evaluation.semantics import confusion_matrix, semantic_result
from instseg_ros.labels import IGNORE


def test_iou_by_hand():
    truth = np.array([0, 0, 0, 0, 4, 4, IGNORE, IGNORE])
    predicted = np.array([0, 0, 4, IGNORE, 4, 4, 4, 0])
    result = semantic_result(confusion_matrix(truth, predicted))
    assert result.per_class["wall"] == pytest.approx(2 / 4)  # what has no prediction is missed
    assert result.per_class["chair"] == pytest.approx(2 / 3)  # voxels without truth are no false positives
    assert result.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.accuracy == pytest.approx(4 / 6)
    assert np.isnan(result.per_class["bed"])


def test_confusions_add_up():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 20, 500), rng.integers(0, 20, 500)
    halves = confusion_matrix(truth[:200], predicted[:200]) + confusion_matrix(truth[200:], predicted[200:])
    assert np.array_equal(halves, confusion_matrix(truth, predicted))
    assert semantic_result(confusion_matrix(truth, truth)).miou == 1.0


def test_nothing_known_is_nan():
    assert np.isnan(semantic_result(confusion_matrix(np.array([IGNORE]), np.array([3]))).miou)
