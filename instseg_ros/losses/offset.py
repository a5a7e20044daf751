"""Spatial offset: where the centre of a voxel's instance is (the spatial embedding d of OccuSeg, Han et al. 2020, as an L1 loss)."""

__all__ = ["offset_loss"]

from torch import Tensor


def offset_loss(offset: Tensor, target: Tensor) -> Tensor:
    """Mean L1 distance, m.

    Args:
        offset: [N, 3] predicted vectors from voxel to instance centre, m; target: [N, 3] true ones.
    """
    if not len(offset):
        return offset.sum() * 0.0
    return (offset - target).abs().sum(1).mean()
