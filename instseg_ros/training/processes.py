"""The processes a run is spread over: one, or those that torchrun started, joined by Hugging Face's Accelerate."""

__all__ = ["Processes", "cores_each"]

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from instseg_ros.errors import ConfigError, DataError, require
from instseg_ros.models.network import resolve_device

_TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells every process, beside WORLD_SIZE."""


def cores_each() -> int:
    """CPU threads of a process such that those of one machine share its cores; 0 = all, when it is the only one."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // here) if here > 1 else 0


class Processes:
    """What a trainer needs of the processes beside its own. A plain run is one process, and all of this does nothing.

    Args:
        device: "auto", "cpu" or "cuda"; with several processes each takes the GPU of its number on its machine.

    Raises:
        ConfigError: the environment or the number of GPUs does not fit.
        MissingDependencyError: several processes, and no accelerate.
    """

    rank: int
    """Of this process; 0 writes the files and shows the progress."""
    count: int
    """Of processes."""
    device: torch.device
    """Of this process."""

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.rank, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        self._accelerator: Any = None
        if self.count > 1:
            self._join()

    def _join(self) -> None:
        if missing := [name for name in _TORCHRUN if name not in os.environ]:
            raise ConfigError(f"WORLD_SIZE is {self.count}, but {', '.join(missing)} is not set: start with torchrun, or unset WORLD_SIZE")
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if self.device.type == "cuda" and here > torch.cuda.device_count():
            raise ConfigError(f"{here} processes on a machine with {torch.cuda.device_count()} GPU(s): "
                              f"--nproc-per-node {torch.cuda.device_count()}, or --device cpu")
        accelerate = require("accelerate", "train with several processes", "pip install 'instseg_ros[distributed]' or pip install accelerate")
        # Which parameters a step uses changes (classes first; scenes without instances): those that none used keep no gradient, as in one process.
        wrapping = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = accelerate.Accelerator(cpu=self.device.type == "cpu", mixed_precision="no", kwargs_handlers=[wrapping])
        self.rank, self.device = int(self._accelerator.process_index), self._accelerator.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes in every backward pass outside `kept_apart`."""
        return module if self._accelerator is None else self._accelerator.prepare_model(module)

    def kept_apart(self, module: nn.Module, apart: bool) -> AbstractContextManager[None]:
        """A forward and backward pass whose gradients are added up in this process only, if `apart`."""
        return nullcontext() if self._accelerator is None or not apart else self._accelerator.no_sync(module)

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        return values if self._accelerator is None else self._accelerator.reduce(values, "sum")

    def gather(self, item: Any) -> list[Any]:
        """What every process gave, in the order of their ranks."""
        if self._accelerator is None:
            return [item]
        from accelerate.utils import gather_object

        return gather_object([item])

    def check_same(self, **values: Any) -> None:
        """Whether values are the same in all processes.

        Raises:
            DataError: some are not; raised in all of them.
        """
        given = self.gather(values)
        if different := [name for name in values if any(g[name] != given[0][name] for g in given)]:
            raise DataError(f"the processes do not have the same {', '.join(different)}: give every machine the same command, copies of the same "
                            "scenes, and an --out that all of them see")

    def close(self) -> None:
        """Part from the others; all processes have to."""
        if self._accelerator is not None:
            self._accelerator.end_training()
