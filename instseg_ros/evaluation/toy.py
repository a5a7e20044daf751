"""The connected-components baseline of the toy scenes (MTML, Table 1)."""

__all__ = ["components_of_classes", "connected_components_ap", "toy_ap50"]

from collections.abc import Iterable, Sequence

import numpy as np

from instseg_ros.datasets.scenes import VoxelScene
from instseg_ros.datasets.toy import TOY_CLASSES
from instseg_ros.evaluation.instances import ApResult, Predictions, Scan, average_precision, default_min_region
from instseg_ros.grouping.components import canonical_keys, connect
from instseg_ros.labels import CLASS_NAMES


def components_of_classes(
    coords: np.ndarray, class_index: np.ndarray, classes: Sequence[int], reach: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of the voxels of each class.

    Args:
        coords: [N, 3] int32, unique.
        class_index: [N].
        classes: whose voxels form components.
        reach: voxels up to this far apart (Chebyshev) are linked; 1 = 26-connectivity.

    Returns:
        Component per voxel [N] int32 (-1 = of another class), and the class of each component.
    """
    component = np.full(len(coords), -1, np.int32)
    owner: list[int] = []
    keys = canonical_keys(coords)
    for c in classes:
        rows = np.flatnonzero(class_index == c)
        if not len(rows):
            continue
        rows = rows[np.argsort(keys[rows])]
        label = connect(keys[rows], reach)
        component[rows] = label + len(owner)
        owner += [c] * (int(label.max()) + 1)
    return component, np.array(owner, np.uint8)


def connected_components_ap(scenes: Iterable[VoxelScene], classes: Sequence[int] = TOY_CLASSES) -> ApResult:
    """Average precision of 26-connected components of the true classes; all of them score 1.

    Args:
        scenes: consumed once.
        classes: class indices that are evaluated.
    """
    scans, voxel_size_m = [], 0.05
    for scene in scenes:
        component, owner = components_of_classes(scene.coords, scene.class_index, classes)
        predictions = Predictions.from_map(component, np.arange(len(owner)), owner, np.ones(len(owner)))
        scans.append(Scan(scene.class_index, scene.instance, predictions))
        voxel_size_m = scene.voxel_size_m
    return average_precision(scans, classes, default_min_region(voxel_size_m))


def toy_ap50(result: ApResult) -> list[float]:
    """AP50 of Obj1 to Obj5, as a row of the paper's Table 1 (but from 0 to 1)."""
    return [result.per_class[CLASS_NAMES[c]].ap50 for c in TOY_CLASSES]
