"""The average all instance losses share: over the voxels of an instance, then over the instances."""

__all__ = ["distance", "instance_average", "instance_means"]

import torch
from torch import Tensor

_TINY = 1e-12  # under the square root, so that its gradient stays finite where two points coincide


def distance(difference: Tensor) -> Tensor:
    """Euclidean norm [...] of [..., D] with a finite gradient at zero."""
    return torch.sqrt((difference * difference).sum(-1) + _TINY)


def instance_means(embedding: Tensor, instance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean embedding [count, D] and size [count] of instances 0..count-1.

    Args:
        embedding: [N, D]; instance: [N] int64, each in 0..count-1.
    """
    size = torch.bincount(instance, minlength=count).to(embedding.dtype)
    total = embedding.new_zeros(count, embedding.shape[1]).index_add_(0, instance, embedding)
    return total / size.clamp(min=1.0)[:, None], size


def instance_average(values: Tensor, instance: Tensor, size: Tensor, power: float = 0.0) -> Tensor:
    """Sum over instances of w_c times the mean of their values, w_c = N_c^p / sum N^p; with p = 0 it is 1/C sum 1/N_c sum.

    Instances without a voxel do not count. The instances of all scenes of a batch are averaged together.

    Args:
        values: [N]; instance: [N] int64; size: [C] voxels of each instance.
        power: p, 0 (instances weigh the same) to 1 (voxels do).

    Returns:
        Scalar; 0 with a gradient where there is no voxel.
    """
    weight = torch.where(size > 0, size**power, torch.zeros_like(size))
    share = weight / size.clamp(min=1.0) / weight.sum().clamp(min=1.0)
    return (values * share[instance]).sum()
