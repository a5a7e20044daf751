"""A compiled program run with another library's convolutions: the order of layers stays ours, the sparse tensors are theirs."""

__all__ = ["run_foreign", "shifted"]

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from instseg_ros.sparse.program import INPUT, Layer, Program

SparseTensor = TypeVar("SparseTensor")


def run_foreign(
    program: Program, first: SparseTensor, apply: Callable[[int, Layer, SparseTensor, SparseTensor | None], SparseTensor]
) -> SparseTensor:
    """Walk a program's layers; a value is let go after its last use, as in `Program.run`.

    Args:
        program: whose layers are run.
        first: input features.
        apply: number of a layer, the layer, what it reads and its residual -> what it gives.

    Returns:
        The output of the last layer, which the heads read.
    """
    reads = ((i, source) for i, layer in enumerate(program.layers) for source in (layer.source, layer.residual))
    last_use = {source: i for i, source in reads if source is not None}
    values = {INPUT: first}
    for i, layer in enumerate(program.layers):
        values[i] = apply(i, layer, values[layer.source], None if layer.residual is None else values[layer.residual])
        for done in [k for k in values if last_use.get(k) == i]:
            del values[done]
    return values[len(program.layers) - 1]


def shifted(coords: np.ndarray, depth: int) -> tuple[np.ndarray, list[int]]:
    """Voxels moved to non-negative places by a multiple of the coarsest stride, so that parents stay parents.

    Args:
        coords: [N, 3] int32, N >= 1.
        depth: levels of the pyramid.

    Returns:
        [N, 4] int32 with a batch index of 0 first, and the size of the grid, whole coarsest voxels.
    """
    low = coords.min(axis=0) >> depth << depth
    indices = np.zeros((len(coords), 4), np.int32)
    np.subtract(coords, low, out=indices[:, 1:])
    return indices, ((indices[:, 1:].max(axis=0) >> depth) + 1 << depth).tolist()
