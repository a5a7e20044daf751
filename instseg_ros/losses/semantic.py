"""Class loss: cross entropy over the labelled voxels."""

__all__ = ["balance_weights", "semantic_loss"]

import torch
import torch.nn.functional as F
from torch import Tensor

from instseg_ros.labels import IGNORE


def balance_weights(counts: Tensor, power: float = 0.5, lowest: float = 0.2, highest: float = 5.0) -> Tensor:
    """Class weights [K] from voxel counts [K]: (median / count)^power within bounds; 0 for classes without a voxel."""
    present = counts > 0
    weights = torch.zeros(len(counts))
    weights[present] = (counts[present].median() / counts[present]).float().pow(power).clamp(lowest, highest)
    return weights


def semantic_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted cross entropy; voxels with class `IGNORE` do not count.

    Args:
        logits: [N, K]; target: [N] int64; weights: [K].
    """
    if not bool((target != IGNORE).any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE)
