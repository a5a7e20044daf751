"""The incremental form of the embedding's refinement (Liang 2019) on a device: further layers of the wave, after the heads.

The rule is that of `refinement.py`, for up to eight nearest voxels: those are all in the table of neighbours, which is on the device.
"""

__all__ = ["DeviceRefinement"]

import torch
from torch import Tensor

from instseg_ros.sparse.device_update import DueLists, update_attention
from instseg_ros.sparse.neighborhood import nearest_columns
from instseg_ros.sparse.program import Head, Refinement
from instseg_ros.sparse.triton_updates import APART


class DeviceRefinement:
    """Keeps refined embeddings current on a device.

    It has lists of its own in the wave: after that of the voxels whose embedding the head has to say anew, one for each layer, and one of
    all voxels whose outputs changed.

    Args:
        refinement: the layers, on the device.
        head: what says the embeddings they begin with.
        tolerance: a row counts as moved when one of its columns moves by more than this times the mean magnitude.
        after: number of the list of voxels whose embedding the head has to say.
    """

    def __init__(self, refinement: Refinement, head: Head, tolerance: float, after: int) -> None:
        self._layers, self._k, self._head, self._tolerance, self._after = refinement.layers, refinement.k, head, tolerance, after
        device = head.weights[-1].device
        self._order = torch.from_numpy(nearest_columns()).to(device)
        self._values = [torch.zeros(0, head.weights[-1].shape[1], device=device) for _ in range(len(self._layers) + 1)]
        self._threshold = torch.zeros(len(self._layers), APART, device=device)
        self._thresholds = self._threshold[:, :1].unbind()

    @property
    def lists(self) -> int:
        """How many it has in the wave."""
        return len(self._layers) + 1

    @property
    def refined(self) -> Tensor:
        """[N, F] float32; the last row is nobody's."""
        return self._values[-1]

    def nbytes(self) -> int:
        """Memory of the embeddings, bytes."""
        return sum(values.numel() * values.element_size() for values in self._values)

    def fit(self, rows: int) -> None:
        """Let there be so many rows, the one for "none" among them."""
        for i, old in enumerate(self._values):
            self._values[i] = old.new_zeros(rows, old.shape[1])
            self._values[i][: len(old)] = old

    def connect(self, lists: DueLists, neighbors: Tensor) -> None:
        """Fill in who reads whose rows; neighbors: [N, 27] of the finest level."""
        last = self._after + len(self._layers)
        for i in range(self._after, last):
            lists.readers[i] = [lists.own[i + 1]._replace(table=neighbors)]
        lists.readers[self._after].append(lists.own[last + 1])
        lists.readers[last] = [lists.own[last + 1]]

    def wave(self, lists: DueLists, x: Tensor, neighbors: Tensor, fresh: Tensor, measure: bool, before: DueLists | None) -> None:
        """Refine what the change reaches.

        Args:
            lists: of the wave, all layers before done.
            x: [N, C] the last layer's output.
            neighbors: [N, 27] of the finest level; fresh: [N] bool: its new rows.
            measure, before: as in `DeviceIncrementalNetwork`.
        """
        rows = lists.collect(self._after)
        self._values[0].index_put_((rows.long(),), self._head.run(x[rows.long()].float()))
        self._values[0][-1].zero_()
        for reader in lists.readers[self._after]:
            lists.announce(rows, None, reader)
        for i, parts in enumerate(self._layers):
            number = self._after + 1 + i
            if before is not None:
                for reader in lists.readers[number]:
                    lists.announce(before.rows[number], before.moved[number], reader)
            update_attention(
                self._values[i], neighbors, self._order, self._k, parts, self._values[i + 1], self._thresholds[i], fresh, lists, number)
            if measure and self._tolerance:
                out = self._values[i + 1]
                due = lists.counts[number, 0].clamp(min=1)
                self._threshold[i, 0] = self._tolerance * out.abs().sum() / (due * out.shape[1])
