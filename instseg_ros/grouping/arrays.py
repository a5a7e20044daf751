"""Where the heavy arrays of a grouper live: NumPy, or CuPy on a GPU, behind the same functions."""

__all__ = ["array_module", "smallest", "squared_distances", "to_host"]

from types import ModuleType
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from instseg_ros.errors import ConfigError, require

Array = Any
"""A numpy.ndarray, or a cupy.ndarray of the module at hand."""


def array_module(device: str) -> ModuleType:
    """The array module of a device: numpy for "cpu", cupy for "cuda".

    Raises:
        MissingDependencyError: CuPy is not installed.
        ConfigError: there is no CUDA device.
    """
    if device == "cpu":
        return np
    cupy = require("cupy", "group on the GPU (grouping.device = cuda)", "pip install cupy-cuda12x")
    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        found = 0
    if not found:
        raise ConfigError("grouping.device = cuda, but there is no CUDA device here: set grouping.device to cpu")
    return cupy


def to_host(array: Array) -> np.ndarray:
    """The array as a NumPy array."""
    return array.get() if hasattr(array, "get") else array


def squared_distances(xp: ModuleType, a: Array, b: Array) -> Array:
    """Squared Euclidean distances [n, m] of the rows of a [n, F] and b [m, F].

    As sums of squared differences, not through products of the rows: what lies on a limit by construction (voxels do) must not
    fall to either side of it by rounding. Every module adds up in the same order, so that equal distances are equal on all.
    """
    if xp is np:
        return cdist(a, b, "sqeuclidean")
    total = xp.zeros((len(a), len(b)))
    for column, other in zip(a.T, b.T, strict=True):
        difference = column[:, None] - other
        total += difference * difference
    return total


def smallest(xp: ModuleType, values: Array, count: int) -> tuple[Array, Array]:
    """The `count` smallest of every row of values [n, m], ascending: columns [n, count] and values [n, count]."""
    if count < values.shape[1]:
        columns = xp.argpartition(values, count - 1, axis=1)[:, :count]
    else:
        columns = xp.broadcast_to(xp.arange(values.shape[1]), values.shape)
    found = xp.take_along_axis(values, columns, axis=1)
    order = xp.argsort(found, axis=1)
    return xp.take_along_axis(columns, order, axis=1), xp.take_along_axis(found, order, axis=1)
