"""Occupancy: how many voxels the instance of a voxel has (OccuSeg, Han et al. 2020). How good it is: evaluation/occupancy.py."""

__all__ = ["occupancy_loss"]

import torch
from torch import Tensor

from instseg_ros.losses.averages import instance_average


def occupancy_loss(log_count: Tensor, instance: Tensor, size: Tensor, true_count: Tensor | None = None) -> Tensor:
    """L_o (eq. 10): |o_i - log N_c|, averaged over each instance's voxels and then over instances.

    Args:
        log_count: [N] or [N, 1] predicted logarithm of the voxel count; instance: [N] int64.
        size: [C] voxels of each instance among the N.
        true_count: [C] > 0 voxels each instance really has, where the N are only some of them; default `size`.
    """
    target = torch.log((size if true_count is None else true_count).clamp(min=1.0))
    return instance_average((log_count.reshape(-1) - target[instance]).abs(), instance, size)
