"""The heads of a network on some rows of the last layer's output, on the CPU."""

__all__ = ["ReadOut"]

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from instseg_ros.models.heads import published
from instseg_ros.sparse import kernels
from instseg_ros.sparse.program import Head

_BLOCK = 16384  # rows whose hidden layer stays in the cache, in memory that is used again and again


class ReadOut:
    """Runs all heads of a program; their first layers are one layer, since they read the same.

    Args:
        heads: of two layers each.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        self._first = kernels.pad_channels(torch.cat([head.weights[0] for head in heads.values()], 1))
        self._first_bias = kernels.pad_channels(torch.cat([head.biases[0] for head in heads.values()]))
        self._second = {name: (kernels.pad_channels(head.weights[1]), kernels.pad_channels(head.biases[1])) for name, head in heads.items()}
        self._hidden = np.empty((_BLOCK, sum(head.weights[0].shape[1] for head in heads.values())), np.float32)
        self._values = {name: np.empty((_BLOCK, head.weights[1].shape[1]), np.float32) for name, head in heads.items()}

    def __call__(self, x: np.ndarray, rows: np.ndarray) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Published outputs of rows [n] int32 of x [M, Cin], block by block: which of the rows, and float32 arrays [block, C] by name.

        The arrays are good until the next block.
        """
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, min(start + _BLOCK, len(rows)))
            count = block.stop - start
            hidden, begin = self._hidden[:count], 0
            kernels.linear(x, self._first, self._first_bias, True, hidden, rows[block])
            outputs = {}
            for name, (weight, bias) in self._second.items():
                values = self._values[name][:count]
                kernels.linear(hidden, weight, bias, False, values, begin=begin)
                outputs[name] = published(name, torch.from_numpy(values)).numpy()
                begin += len(weight)
            yield block, outputs
