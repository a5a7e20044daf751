"""The connected-components baseline of the toy scenes (MTML, Table 1)."""

__all__ = ["connected_components_ap", "toy_ap50"]

from collections.abc import Iterable, Sequence

import numpy as np

from instseg_ros.datasets.scenes import VoxelScene
from instseg_ros.datasets.toy import TOY_CLASSES
from instseg_ros.evaluation.baselines import connected_components
from instseg_ros.evaluation.instances import ApResult, Scan, average_precision, default_min_region
from instseg_ros.labels import CLASS_NAMES


def connected_components_ap(scenes: Iterable[VoxelScene], classes: Sequence[int] = TOY_CLASSES) -> ApResult:
    """Average precision of 26-connected components of the true classes; all of them score 1.

    Args:
        scenes: consumed once; all of one voxel size.
        classes: class indices that are evaluated.
    """
    scans, voxel_size_m = [], 0.05
    for scene in scenes:
        predictions = connected_components(scene.coords, scene.class_index, np.ones(len(scene)))
        scans.append(Scan(scene.class_index, scene.instance, predictions))
        voxel_size_m = scene.voxel_size_m
    return average_precision(scans, classes, default_min_region(voxel_size_m))


def toy_ap50(result: ApResult) -> list[float]:
    """AP50 of Obj1 to Obj5, as a row of the paper's Table 1 (but from 0 to 1)."""
    return [result.per_class[CLASS_NAMES[c]].ap50 for c in TOY_CLASSES]
