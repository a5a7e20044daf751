"""Average precision the PASCAL VOC way on instances of voxels: what NYUv2 and SceneNN results are reported in."""

__all__ = ["ELEVEN_RECALLS", "TEN_RECALLS", "VocResult", "voc_average_precision"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.evaluation.instances import Scan
from instseg_ros.evaluation.overlap import InstanceOverlaps, instance_overlaps

TEN_RECALLS = tuple(k / 10 for k in range(10))
"""Recalls at which SGPN's public code reads the curve: 0, 0.1, ... 0.9."""
ELEVEN_RECALLS = tuple(k / 10 for k in range(11))
"""Recalls of VOC 2007."""


@dataclass(frozen=True)
class VocResult:
    """Mean over the classes with instances (NaN without any), each class (NaN without instances), and their instances."""

    mean: float
    per_class: dict[str, float]
    instances: dict[str, int]


def voc_average_precision(
    scans: Iterable[Scan | InstanceOverlaps], classes: Sequence[str], threshold: float, recalls: Sequence[float] | None = None,
) -> VocResult:
    """AP at one IoU threshold.

    * Predictions of a class are taken in falling order of score over all scans (of equal scores, the earlier one first).
    * A prediction belongs to the true instance of its class with the largest IoU. It is true if that IoU is at least
      `threshold` and no earlier prediction was true for that instance; everything else is a false positive.
    * AP is the area under the curve of precision by recall, precision being the largest one at this recall or beyond
      (VOC 2010 and later); with `recalls`, the mean of that precision at these recalls.

    Args:
        scans: consumed once; or what `instance_overlaps` made of them.
        classes: names by class index.
        threshold: IoU.
        recalls: see above.

    Raises:
        InputError: a class index beyond `classes`, or a malformed scan.
    """
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in classes]
    instances = np.zeros(len(classes), np.int64)
    for scan in scans:
        table = scan if isinstance(scan, InstanceOverlaps) else instance_overlaps(scan)
        predicted = table.class_index.astype(np.int64)
        if max(predicted.max(initial=0), int(table.gt_class.max(initial=0))) >= len(classes):
            raise InputError(f"a class index is beyond the {len(classes)} classes evaluated: map classes to {', '.join(classes)}")
        instances += np.bincount(table.gt_class, minlength=len(classes))
        for c, parts in enumerate(found):
            parts.append(_hits(table, np.flatnonzero((predicted == c) & (table.size > 0)), c, threshold))
    per_class = np.full(len(classes), np.nan)
    for c in np.flatnonzero(instances).tolist():
        score, true = (np.concatenate([part[i] for part in found[c]]) for i in range(2))
        per_class[c] = _area(true[np.argsort(-score, kind="stable")], int(instances[c]), recalls)
    return VocResult(
        float(np.nanmean(per_class)) if instances.any() else float("nan"),
        dict(zip(classes, per_class.tolist(), strict=True)), dict(zip(classes, instances.tolist(), strict=True)),
    )


def _hits(table: InstanceOverlaps, rows: np.ndarray, c: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n] and truth [n] of the predictions `rows` of a class in one scan, in falling order of score."""
    rows = rows[np.argsort(-table.score[rows], kind="stable")]
    same = table.gt_class[table.pair_gt] == c
    # per prediction its pair of the largest IoU, the first of equal ones: the last writer wins in rising order
    order = np.flatnonzero(same)[np.lexsort((-table.pair_gt[same], table.pair_iou[same]))]
    best = np.full(len(table.size), -1, np.int64)
    best[table.pair_prediction[order]] = order
    pair = best[rows]
    hit = np.flatnonzero((pair >= 0) & (table.pair_iou[pair] >= threshold)) if len(table.pair_iou) else np.zeros(0, np.int64)
    _, first = np.unique(table.pair_gt[pair[hit]], return_index=True)
    true = np.zeros(len(rows), bool)
    true[hit[first]] = True
    return table.score[rows], true


def _area(true: np.ndarray, instances: int, recalls: Sequence[float] | None) -> float:
    """Area under the curve of detections in falling order of score, or its mean height at some recalls."""
    if not len(true):
        return 0.0
    hits = np.cumsum(true)
    recall, precision = hits / instances, hits / np.arange(1, len(true) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if recalls is None:
        return float(np.dot(np.diff(recall, prepend=0.0), envelope))
    place = np.searchsorted(recall, np.asarray(recalls) - 1e-12)
    return float(np.append(envelope, 0.0)[place].mean())
