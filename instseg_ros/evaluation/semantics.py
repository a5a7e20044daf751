"""Semantic quality of labelled voxels: confusion, IoU per class, mIoU."""

__all__ = ["SemanticResult", "confusion_matrix", "semantic_result"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.labels import CLASS_NAMES, IGNORE, NUM_CLASSES


@dataclass(frozen=True)
class SemanticResult:
    """IoU of each class (NaN without ground truth), their mean, and the share of voxels that are right."""

    miou: float
    accuracy: float
    per_class: dict[str, float]


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts [20, 21] of voxels by true class (rows) and predicted class (columns; the last one: none).

    Args:
        truth: [N] class indices; voxels with `IGNORE` are left out.
        predicted: [N] class indices; `IGNORE` is a wrong answer.
    """
    known = np.asarray(truth) != IGNORE
    rows = np.asarray(truth, np.int64)[known]
    columns = np.minimum(np.asarray(predicted, np.int64)[known], NUM_CLASSES)
    cells = np.bincount(rows * (NUM_CLASSES + 1) + columns, minlength=NUM_CLASSES * (NUM_CLASSES + 1))
    return cells.reshape(NUM_CLASSES, NUM_CLASSES + 1)


def semantic_result(confusion: np.ndarray) -> SemanticResult:
    """IoU = TP / (TP + FP + FN) per class from `confusion_matrix` (summed over scenes)."""
    hits = np.diagonal(confusion[:, :NUM_CLASSES]).astype(np.float64)
    truth = confusion.sum(1)
    union = truth + confusion.sum(0)[:NUM_CLASSES] - hits
    iou = np.where(truth > 0, hits / np.maximum(union, 1), np.nan)
    total = confusion.sum()
    return SemanticResult(
        float(iou[truth > 0].mean()) if total else float("nan"),
        float(hits.sum() / total) if total else float("nan"),
        dict(zip(CLASS_NAMES, iou.tolist(), strict=True)),
    )
