"""NYUv2: AP25 of single views, as SGPN, R-PointNet and Liang 2019 (Table 2) report it."""

__all__ = ["NYUV2_CLASSES", "nyuv2_ap25"]

from collections.abc import Iterable

from instseg_ros.evaluation.instances import Scan
from instseg_ros.evaluation.overlap import InstanceOverlaps
from instseg_ros.evaluation.voc import TEN_RECALLS, VocResult, voc_average_precision

NYUV2_CLASSES = (
    "bathtub", "bed", "bookshelf", "box", "chair", "counter", "desk", "door", "dresser", "garbage bin", "lamp", "monitor",
    "night stand", "pillow", "sink", "sofa", "table", "television", "toilet",
)
"""The 19 classes of the table; `Scan.class_index` is the index into this tuple here, 255 for anything else."""


def nyuv2_ap25(scans: Iterable[Scan | InstanceOverlaps]) -> VocResult:
    """AP at IoU 0.25 per class, and the mean over classes.

    The precision is read at ten recalls, as in SGPN's public code, from which the comparison of the table stems; the papers do not
    say how theirs was. `voc_average_precision` gives the area instead.
    """
    return voc_average_precision(scans, NYUV2_CLASSES, 0.25, TEN_RECALLS)
