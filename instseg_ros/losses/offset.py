"""Spatial embedding d: the vector from a voxel to the centre of its instance (OccuSeg, Han et al. 2020)."""

__all__ = ["offset_loss", "spatial_loss"]

from torch import Tensor

from instseg_ros.losses.averages import distance, instance_average


def offset_loss(offset: Tensor, target: Tensor) -> Tensor:
    """Mean L1 distance over the voxels, m.

    Args:
        offset: [N, 3] predicted vectors from voxel to instance centre, m; target: [N, 3] true ones.
    """
    if not len(offset):
        return offset.sum() * 0.0
    return (offset - target).abs().sum(1).mean()


def spatial_loss(offset: Tensor, target: Tensor, instance: Tensor, size: Tensor) -> Tensor:
    """L_sp (OccuSeg eq. 3): |d_i + mu_i - centre|, Euclidean, averaged over each instance's voxels and then over instances, m.

    Args:
        offset: [N, 3] predicted vectors d from voxel to instance centre, m; target: [N, 3] true ones, centre - mu.
        instance: [N] int64; size: [C] voxels of each instance.
    """
    return instance_average(distance(offset - target), instance, size)
