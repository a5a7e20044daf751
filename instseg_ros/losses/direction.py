"""Direction to the centre of the instance (MTML, Lahoud et al. 2019, eq. 5)."""

__all__ = ["direction_loss"]

import torch
import torch.nn.functional as F
from torch import Tensor

from instseg_ros.losses.averages import instance_average

_AT_CENTER_M = 1e-6
_SHORTEST = 1e-3  # a prediction shorter than this is not stretched to full length, which keeps its gradient finite


def direction_loss(direction: Tensor, offset: Tensor, instance: Tensor, count: int) -> Tensor:
    """Minus the cosine between predicted and true direction, averaged over each instance's voxels and then over instances: -1 is perfect.

    Eq. 5 prints the target as voxel minus centre, the text says that it points to the centre: it is centre minus voxel here.
    A voxel at the centre has no direction and does not count, nor does an instance of only such voxels.

    Args:
        direction: [N, 3] predicted, of any length (made unit vectors here).
        offset: [N, 3] from the voxel to the true centre of its instance.
        instance: [N] int64 in 0..count-1.
        count: number of instances.
    """
    length = torch.linalg.vector_norm(offset, dim=1)
    away = length > _AT_CENTER_M
    direction, offset, instance = direction[away], offset[away] / length[away, None], instance[away]
    size = torch.bincount(instance, minlength=count).to(direction.dtype)
    return -instance_average((F.normalize(direction, dim=1, eps=_SHORTEST) * offset).sum(1), instance, size)
