"""What any method must beat: the classes alone, taken as instances or cut into connected components (MTML Tables 1 and 3)."""

__all__ = ["BASELINES", "components_of_classes", "connected_components", "segmentation_as_instances"]

from collections.abc import Callable, Sequence

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.evaluation.instances import Predictions
from instseg_ros.grouping.components import canonical_keys, connect
from instseg_ros.labels import BACKGROUND, NUM_CLASSES

_FOREGROUND = tuple(c for c in range(NUM_CLASSES) if c not in BACKGROUND)


def segmentation_as_instances(
    coords: np.ndarray, class_index: np.ndarray, probability: np.ndarray, classes: Sequence[int] = _FOREGROUND,
) -> Predictions:
    """All voxels of a class are one instance ("input segmentation as instances").

    Args:
        coords: [N, 3] int32, unique; not looked at.
        class_index: [N] uint8; 255 belongs to nothing.
        probability: [N] of that class; the mean over an instance is its score.
        classes: that have instances; default: all but wall and floor.

    Raises:
        InputError: arrays of different length.
    """
    _check(coords, class_index, probability)
    foreground = np.flatnonzero(np.isin(class_index, classes))
    return _predictions(np.asarray(class_index, np.int64)[foreground], foreground, class_index, probability)


def connected_components(
    coords: np.ndarray, class_index: np.ndarray, probability: np.ndarray, reach: int = 1, classes: Sequence[int] = _FOREGROUND,
) -> Predictions:
    """Every connected component of the voxels of a class is an instance.

    Args:
        coords, class_index, probability, classes: as of `segmentation_as_instances`.
        reach: voxels up to this far apart (Chebyshev) are connected; 1 = the 26-neighbourhood.

    Raises:
        InputError: arrays of different length.
    """
    _check(coords, class_index, probability)
    component, _ = components_of_classes(coords, class_index, classes, reach)
    foreground = np.flatnonzero(component >= 0)
    return _predictions(component[foreground], foreground, class_index, probability)


def components_of_classes(
    coords: np.ndarray, class_index: np.ndarray, classes: Sequence[int], reach: int = 1,
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
        rows = np.flatnonzero(np.asarray(class_index) == c)
        if not len(rows):
            continue
        rows = rows[np.argsort(keys[rows])]
        label = connect(keys[rows], reach)
        component[rows] = label + len(owner)
        owner += [c] * (int(label.max()) + 1)
    return component, np.array(owner, np.uint8)


BASELINES: dict[str, Callable[..., Predictions]] = {
    "segmentation_as_instances": segmentation_as_instances,
    "connected_components": connected_components,
}
"""By the name that `instseg evaluate --compare` gives them."""


def _check(coords: np.ndarray, class_index: np.ndarray, probability: np.ndarray) -> None:
    if not len(coords) == len(class_index) == len(probability):
        raise InputError(f"{len(coords)} voxels, {len(class_index)} classes, {len(probability)} probabilities: the lengths must agree")


def _predictions(group: np.ndarray, voxels: np.ndarray, class_index: np.ndarray, probability: np.ndarray) -> Predictions:
    """One prediction per group [n] of the voxels [n], which all have one class."""
    _, first, owner, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    score = np.bincount(owner, np.asarray(probability, np.float64)[voxels], len(first)) / size
    return Predictions(voxels, owner, np.asarray(class_index, np.uint8)[voxels[first]], score)
