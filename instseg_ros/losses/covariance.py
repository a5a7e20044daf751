"""Covariance: how far around its instance's mean a voxel may lie, in feature and in space (OccuSeg, Han et al. 2020, eqs. 8, 9)."""

__all__ = ["covariance_loss"]

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from instseg_ros.errors import InputError
from instseg_ros.losses.averages import instance_means

_PAIRS = 1 << 20
"""Pairs of voxel and instance of a scene that are held at once: about 25 MB in float32."""
_LEAST_SIGMA = 1e-3
_LEAST_EXPONENT = 1e-6
"""A strange voxel right on the centre of an instance has p = 1 and an infinite cost; it is cut off at p = 1 - 1e-6."""


def covariance_loss(
    embedding: Tensor, center: Tensor, sigma: Tensor, instance: Tensor, scene_of_instance: Tensor, scene_of_voxel: Tensor | None = None,
) -> Tensor:
    """L_cov (eq. 9): binary cross entropy of "voxel i belongs to instance c", over all voxels and instances of a scene.

    How the equations are read: p_i (eq. 8) belongs to a pair, p_ic = exp(-(|s_i - u_c| / sigma_s^c)^2 - (|mu_i + d_i - e_c| / sigma_d^c)^2),
    with the means u_c, e_c, sigma^c over the voxels of c; y_ic is 1 where i is one of them; the sum over i runs over all N voxels
    of the scene, and so over the other instances and the background too. The sum of e_c printed from k = 0 starts at 1.
    -log p_ic is the exponent itself and -log(1 - p_ic) is taken with expm1, so neither can overflow.

    The equation asks for N x C distances per scene. A scene of more than `_PAIRS` is taken in parts that are recomputed in the
    backward pass: memory is bounded, time grows with N x C.

    Args:
        embedding: [N, D] s; center: [N, 3] mu + d, predicted centres, m; sigma: [N, 2] > 0, sigma_s and sigma_d (m) of each voxel
            (an instance's mean is used from 1e-3 up).
        instance: [N] int64 in 0..C-1, or -1: belongs to none (counts with y = 0).
        scene_of_instance: [C] int64.
        scene_of_voxel: [N] int64; may be left out where every voxel has an instance.

    Returns:
        Mean over the instances of all scenes of the mean over their scene's voxels; 0 with a gradient where there is no instance.

    Raises:
        InputError: a voxel has neither an instance nor a scene.
    """
    nothing = (embedding.sum() + center.sum() + sigma.sum()) * 0.0
    member = instance >= 0
    count = len(scene_of_instance)
    if not bool(member.any()):
        return nothing
    if scene_of_voxel is None:
        if not bool(member.all()):
            raise InputError("voxels without an instance need scene_of_voxel: their scene cannot be told from their instance")
        scene_of_voxel = scene_of_instance[instance]
    own = instance[member]
    u, size = instance_means(embedding[member], own, count)
    e, _ = instance_means(center[member], own, count)
    sigma_c = instance_means(sigma[member], own, count)[0].clamp(min=_LEAST_SIGMA)
    total = nothing
    for scene in torch.unique(scene_of_instance[size > 0]).tolist():
        columns = torch.nonzero((scene_of_instance == scene) & (size > 0))[:, 0]
        rows = torch.nonzero(scene_of_voxel == scene)[:, 0]
        for part in rows.split(max(1, _PAIRS // len(columns))):
            belongs = instance[part, None] == columns[None]
            arguments = (embedding[part], center[part], u[columns], e[columns], sigma_c[columns], belongs)
            whole = len(part) == len(rows)  # nothing to be gained from computing it twice
            cost = _cross_entropy(*arguments) if whole else checkpoint(_cross_entropy, *arguments, use_reentrant=False)
            total = total + cost / len(rows)
    return total / (size > 0).sum()


def _cross_entropy(s: Tensor, center: Tensor, u: Tensor, e: Tensor, sigma: Tensor, belongs: Tensor) -> Tensor:
    """Sum over pairs: s [n, D], center [n, 3], u [C, D], e [C, 3], sigma [C, 2], belongs [n, C]."""
    exponent = (_distances(s, u) / sigma[:, 0]) ** 2 + (_distances(center, e) / sigma[:, 1]) ** 2
    outside = -torch.log(-torch.expm1(-exponent.clamp(min=_LEAST_EXPONENT)))
    return torch.where(belongs, exponent, outside).sum()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """[n, C] without the matrix product, which cancels where coordinates are large."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
