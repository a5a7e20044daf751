"""What any method must beat: the classes alone, taken as instances or cut into connected components (MTML Tables 1 and 3)."""

__all__ = ["BASELINES", "connected_components", "segmentation_as_instances"]

from collections.abc import Callable

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.evaluation.instances import Predictions
from instseg_ros.grouping.components import canonical_keys, connect
from instseg_ros.labels import BACKGROUND, NUM_CLASSES


def segmentation_as_instances(coords: np.ndarray, class_index: np.ndarray, probability: np.ndarray) -> Predictions:
    """All voxels of a class are one instance ("input segmentation as instances").

    Args:
        coords: [N, 3] int32, unique; not looked at.
        class_index: [N] uint8; wall, floor and 255 belong to nothing.
        probability: [N] of that class; the mean over an instance is its score.

    Raises:
        InputError: arrays of different length.
    """
    _check(coords, class_index, probability)
    foreground = np.flatnonzero(_is_foreground(class_index))
    return _predictions(np.asarray(class_index, np.int64)[foreground], foreground, class_index, probability)


def connected_components(coords: np.ndarray, class_index: np.ndarray, probability: np.ndarray, reach: int = 1) -> Predictions:
    """Every connected component of the voxels of a class is an instance.

    Args:
        coords, class_index, probability: as of `segmentation_as_instances`.
        reach: voxels up to this far apart (Chebyshev) are connected; 1 = the 26-neighbourhood.

    Raises:
        InputError: arrays of different length.
    """
    _check(coords, class_index, probability)
    keys = canonical_keys(coords)
    foreground = np.flatnonzero(_is_foreground(class_index))
    foreground = foreground[np.argsort(keys[foreground])]
    component = np.zeros(len(foreground), np.int64)
    count = 0
    for c in np.unique(np.asarray(class_index)[foreground]):
        mine = np.flatnonzero(np.asarray(class_index)[foreground] == c)
        component[mine] = connect(keys[foreground[mine]], reach) + count
        count = int(component[mine].max()) + 1
    return _predictions(component, foreground, class_index, probability)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Predictions]] = {
    "segmentation_as_instances": segmentation_as_instances,
    "connected_components": connected_components,
}
"""By the name that `instseg evaluate --compare` gives them."""


def _is_foreground(class_index: np.ndarray) -> np.ndarray:
    return (np.asarray(class_index) < NUM_CLASSES) & ~np.isin(class_index, BACKGROUND)


def _check(coords: np.ndarray, class_index: np.ndarray, probability: np.ndarray) -> None:
    if not len(coords) == len(class_index) == len(probability):
        raise InputError(f"{len(coords)} voxels, {len(class_index)} classes, {len(probability)} probabilities: the lengths must agree")


def _predictions(group: np.ndarray, voxels: np.ndarray, class_index: np.ndarray, probability: np.ndarray) -> Predictions:
    """One prediction per group [n] of the voxels [n], which all have one class."""
    _, first, owner, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    score = np.bincount(owner, np.asarray(probability, np.float64)[voxels], len(first)) / size
    return Predictions(voxels, owner, np.asarray(class_index, np.uint8)[voxels[first]], score)
