"""Occupancy: how many voxels the instance of a voxel has (OccuSeg, Han et al. 2020, eqs. 10, 11)."""

__all__ = ["instance_occupancy", "occupancy_error", "occupancy_loss"]

import numpy as np
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


def instance_occupancy(log_count: np.ndarray, instance: np.ndarray, count: int) -> np.ndarray:
    """Predicted occupancy of instances: the exponential of the mean o of their voxels.

    Args:
        log_count: [N] or [N, 1]; instance: [N] in 0..count-1 (others are left out).

    Returns:
        [count] float64, NaN for an instance without a voxel.
    """
    inside = (instance >= 0) & (instance < count)
    number = np.bincount(instance[inside], minlength=count)
    total = np.bincount(instance[inside], np.reshape(log_count, -1)[inside].astype(np.float64), count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.exp(total / number)


def occupancy_error(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """R_c (eq. 11): relative error |N_c - predicted| / N_c of each instance.

    Args:
        predicted: [C] voxel counts of `instance_occupancy`; true: [C] > 0 voxel counts.
    """
    true = np.asarray(true, np.float64)
    return np.abs(true - predicted) / true
