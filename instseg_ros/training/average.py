"""Weights half-way between two runs: a network that generalises better than either (model soups, Wortsman et al. 2022).

It works where one run started from the other's weights, or both from a third's: then the way between them stays in one valley of the loss.
"""

__all__ = ["average_networks", "estimate_norms"]

from collections.abc import Iterable

import torch
from torch import nn

from instseg_ros.errors import WeightsError
from instseg_ros.models.network import InstanceNet
from instseg_ros.settings import to_mapping
from instseg_ros.training.batches import Batch


def average_networks(first: InstanceNet, second: InstanceNet, share: float) -> InstanceNet:
    """(1 - share) of the first's weights plus share of the second's; the norms' running statistics still have to be estimated.

    Args:
        first, second: networks of one shape; not changed.
        share: of the second, 0 to 1.

    Raises:
        WeightsError: the networks differ in shape.
    """
    if first.config != second.config:
        one, other = to_mapping(first.config), to_mapping(second.config)
        differing = ", ".join(f"model.{k} {one[k]} and {other[k]}" for k in one if one[k] != other[k])
        raise WeightsError(f"only networks of one shape can be averaged, these have {differing}: average runs of one model")
    net = InstanceNet(first.config)
    a, b = first.state_dict(), second.state_dict()
    net.load_state_dict({k: torch.lerp(a[k], b[k], share) if a[k].is_floating_point() else b[k] for k in a})
    return net.eval()


@torch.no_grad()
def estimate_norms(net: InstanceNet, batches: Iterable[Batch]) -> None:
    """Set the running statistics of all norms to their mean over the batches; averaged ones fit neither network."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    net.train()
    for batch in batches:
        net(batch.features, batch.tables)
    net.eval()
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
