"""SceneNN: mAP at IoU 0.5 over ten classes, as MLS-CRF (JSIS3D) and OccuSeg (Table 4) report it."""

__all__ = ["SCENENN_CLASSES", "scenenn_map50"]

from collections.abc import Iterable

from instseg_ros.evaluation.instances import Scan
from instseg_ros.evaluation.overlap import InstanceOverlaps
from instseg_ros.evaluation.voc import VocResult, voc_average_precision

SCENENN_CLASSES = ("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "desk", "television", "prop")
"""The ten classes of the table, wall and floor with instances too; `Scan.class_index` is the index into this tuple here, 255 for
anything else (other NYU40 classes of the data set)."""


def scenenn_map50(scans: Iterable[Scan | InstanceOverlaps]) -> VocResult:
    """AP at IoU 0.5 per class (area under the curve), and the mean over classes.

    The papers name the measure and no more, and no public code of theirs computes it; the area under the VOC curve is the
    common reading.
    """
    return voc_average_precision(scans, SCENENN_CLASSES, 0.5)
