"""S3DIS: precision and recall of instances at IoU 0.5 over six folds, as SGPN, ASIS and OccuSeg (Table 3) report them."""

__all__ = ["AREAS", "S3DIS_CLASSES", "PrecisionRecall", "precision_recall"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from instseg_ros.datasets.s3dis import S3DIS_NAMES
from instseg_ros.errors import InputError
from instseg_ros.evaluation.instances import Scan
from instseg_ros.evaluation.overlap import InstanceOverlaps, instance_overlaps

S3DIS_CLASSES = S3DIS_NAMES
"""The 13 classes, all of them with instances; `Scan.class_index` is the index into this tuple here."""
AREAS = tuple(f"Area_{number}" for number in range(1, 7))
"""Each area is the test set of one fold, predicted by a network trained on the other five."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Means over classes (NaN without any), and each class (NaN where it has neither instances nor predictions)."""

    mean_precision: float
    mean_recall: float
    precision: dict[str, float]
    recall: dict[str, float]
    instances: dict[str, int]


def precision_recall(
    scans: Iterable[Scan | InstanceOverlaps], classes: Sequence[str] = S3DIS_CLASSES, threshold: float = 0.5,
) -> PrecisionRecall:
    """mPrec and mRec of scans: of the six-fold cross-validation where they are the rooms of all six areas, which are counted together.

    * The class of an instance is the most frequent one of its voxels.
    * A prediction is true if its largest IoU with a true instance of its class is at least `threshold`. Two predictions of
      exactly half an instance each are both true, as in the public evaluations. Scores play no part.
    * Precision = true / predicted, recall = true / instances, counted over all rooms; both are then averaged over classes.
    * A class with instances and no predictions has precision 0; one with predictions and no instances precision 0, and it stays
      out of the mean recall. Public scripts divide by zero there; it does not happen on whole areas.

    Args:
        scans: rooms, or what `instance_overlaps` made of them; consumed once.
        classes: names by class index.
        threshold: IoU.
    """
    true, predicted, instances = (np.zeros(len(classes), np.int64) for _ in range(3))
    for scan in scans:
        table = scan if isinstance(scan, InstanceOverlaps) else instance_overlaps(scan)
        found = table.class_index.astype(np.int64)
        if max(found.max(initial=0), int(table.gt_class.max(initial=0))) >= len(classes):
            raise InputError(f"a class index is beyond the {len(classes)} classes evaluated: map classes to {', '.join(classes)}")
        same = table.gt_class[table.pair_gt] == found[table.pair_prediction]
        best = np.zeros(len(found))
        np.maximum.at(best, table.pair_prediction[same], table.pair_iou[same])
        some = table.size > 0
        predicted += np.bincount(found[some], minlength=len(classes))
        true += np.bincount(found[some & (best >= threshold)], minlength=len(classes))
        instances += np.bincount(table.gt_class, minlength=len(classes))
    present = (instances > 0) | (predicted > 0)
    precision = np.where(present, true / np.maximum(predicted, 1), np.nan)
    recall = np.where(instances > 0, true / np.maximum(instances, 1), np.nan)
    return PrecisionRecall(
        float(precision[present].mean()) if present.any() else float("nan"),
        float(recall[instances > 0].mean()) if instances.any() else float("nan"),
        dict(zip(classes, precision.tolist(), strict=True)), dict(zip(classes, recall.tolist(), strict=True)),
        dict(zip(classes, instances.tolist(), strict=True)),
    )
