"""A step made of several micro-batches, in one process or shared out over several, with the same result.

Gradients are means over all micro-batches of the step (`trainer.py`). Here are the means of what else a step leaves behind: the loss
terms, and the running statistics of batch normalisation. Every micro-batch is normalised by its own statistics, and the running
ones move once a step, by the mean of the micro-batches'; that does not depend on their order, nor on which process had which.
"""

__all__ = ["StepMeans"]

import torch
from torch import Tensor, nn

from instseg_ros.training.objective import TERMS
from instseg_ros.training.processes import Processes


class StepMeans:
    """Means over the micro-batches of a step.

    Args:
        model: whose buffers are running statistics.
        processes: that share the micro-batches.
        micro_batches: in a step, all processes together.
    """

    def __init__(self, model: nn.Module, processes: Processes, micro_batches: int) -> None:
        self._processes, self._micro_batches = processes, micro_batches
        self._buffers = list(model.buffers()) if micro_batches > 1 else []
        self._before = self._flat()
        # [2 T + S]: how many micro-batches have a term, the sums of the terms, the sums of the running statistics
        self._sums = torch.zeros(2 * len(TERMS) + len(self._before), dtype=torch.float64, device=processes.device)

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count a micro-batch after its backward pass, and set the running statistics back to those before the step."""
        zero = self._sums.new_zeros(())
        values = [terms[name].detach().double() if name in terms else zero for name in TERMS]
        present = self._sums.new_tensor([name in terms for name in TERMS])
        self._sums += torch.cat([present, torch.stack(values), self._flat()])
        self._set_buffers(self._before)

    def finish(self) -> dict[str, float]:
        """Set the running statistics of all processes to the mean, and return the mean of every term that some micro-batch had."""
        present, terms, statistics = self._processes.total(self._sums).split([len(TERMS), len(TERMS), len(self._before)])
        self._set_buffers(statistics / self._micro_batches)
        means = (terms / self._micro_batches).tolist()
        return {name: mean for name, mean, count in zip(TERMS, means, present.tolist(), strict=True) if count}

    def _flat(self) -> Tensor:
        """[S] float64: all running statistics; counts of steps are whole numbers, whose mean is exact."""
        return torch.cat([b.detach().double().flatten() for b in self._buffers]) if self._buffers else torch.zeros(
            0, dtype=torch.float64, device=self._processes.device)

    def _set_buffers(self, values: Tensor) -> None:
        for buffer, part in zip(self._buffers, values.split([b.numel() for b in self._buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))
