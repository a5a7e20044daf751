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


def semantic_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None, calibration: float = 0.0) -> Tensor:
    """Weighted cross entropy; voxels with class `IGNORE` do not count.

    Its least is at probabilities times weights: what could be of two classes is said to be of the rarer, the wall behind a worktop to be
    part of it. Where log weights are added to the logits here, it is the sum that is learnt to be that, and the logits alone are those
    of the probabilities (the logit adjustment of Menon et al. 2021, the other way about).

    Args:
        logits: [N, K]; target: [N] int64; weights: [K], 0 for classes that do not occur: they are learnt to be unlikely.
        calibration: share of the log weights to add, 0 to 1.
    """
    if not bool((target != IGNORE).any()):
        return logits.sum() * 0.0
    if weights is not None:
        logits = logits + calibration * torch.where(weights > 0, weights, 1.0).log()
    return F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE)
