"""Pairs of near voxels of a component."""

__all__ = ["near_pairs"]

import numpy as np

from instseg_ros.grouping.components import canonical_keys

_CELLS_PER_VOXEL = 64
_CELLS = 1 << 20


def near_pairs(coords: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of voxels within Chebyshev distance `reach`.

    Args:
        coords: [n, 3] voxels in canonical order.
        reach: 1 = the 26-neighbourhood.

    Returns:
        [P] int64 the first and [P] the second voxel of every pair, each pair once and the first before the second.
    """
    steps = np.array(
        [(x, y, z) for x in range(reach + 1) for y in range(-reach, reach + 1) for z in range(-reach, reach + 1) if (x, y, z) > (0, 0, 0)]
    )
    low = coords.min(axis=0) - reach
    shape = coords.max(axis=0).astype(np.int64) - low + reach + 1
    rows = np.arange(len(coords))
    if shape.prod() <= _CELLS + _CELLS_PER_VOXEL * len(coords):  # a look-up per pair in a box around them
        strides = np.array([shape[1] * shape[2], shape[2], 1])
        cell = (coords - low) @ strides
        box = np.full(int(shape.prod()), -1, np.int32)
        box[cell] = rows
        others = [box[cell + step] for step in steps @ strides]
    else:
        keys = canonical_keys(coords)
        others = []
        for step in steps:
            wanted = canonical_keys(coords + step)
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            others.append(np.where(keys[place] == wanted, place, -1))
    found = [other >= 0 for other in others]
    first = np.concatenate([rows[there] for there in found])
    return first, np.concatenate([other[there] for other, there in zip(others, found, strict=True)]).astype(np.int64)
