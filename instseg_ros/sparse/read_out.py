"""The heads of a network on some rows of the last layer's output, on the CPU."""

__all__ = ["ReadOut"]

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from instseg_ros.sparse import kernels
from instseg_ros.sparse.program import Head


class ReadOut:
    """Runs all heads of a program on rows, in one call: `models.heads.published` of `Head.run`.

    Args:
        heads: of two layers each.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        self._heads: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        for name, head in heads.items():
            w1, w2, b1, b2 = (kernels.pad_channels(part) for part in (*head.weights, *head.biases))
            self._heads[name] = (w1, b1, w2, b2)

    def __call__(self, x: np.ndarray, rows: np.ndarray, place: np.ndarray | None, out: Mapping[str, np.ndarray]) -> None:
        """Write out[name][rows] by head, of x[rows], or of x[place[rows]].

        Args:
            x: [M, Cin] float32.
            rows: [n] int32, each once.
            place: int32 where rows are stored in `x`; None = in the row of their own number.
            out: [*, C] float32 of each head.
        """
        kernels.heads(x, rows, place, [(name, *parts, out[name]) for name, parts in self._heads.items()])
