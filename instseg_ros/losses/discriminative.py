"""SSEN's metric-learning loss (Zhang et al. 2020, eqs. 1 to 4): pull with a size weight, push between instances.

The paper calls the push term "intra" and the pull term "inter"; here they are pull and push.
"""

__all__ = ["instance_means", "pull_loss", "push_loss"]

import torch
from torch import Tensor

_TINY = 1e-12  # under the square root, so that its gradient stays finite where two points coincide


def _distance(difference: Tensor) -> Tensor:
    return torch.sqrt((difference * difference).sum(-1) + _TINY)


def instance_means(embedding: Tensor, instance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean embedding [count, D] and size [count] of instances 0..count-1.

    Args:
        embedding: [N, D]; instance: [N] int64, each in 0..count-1.
    """
    size = torch.bincount(instance, minlength=count).to(embedding.dtype)
    total = embedding.new_zeros(count, embedding.shape[1]).index_add_(0, instance, embedding)
    return total / size.clamp(min=1.0)[:, None], size


def pull_loss(embedding: Tensor, instance: Tensor, means: Tensor, size: Tensor, margin: float, power: float) -> Tensor:
    """L_inter (eqs. 3, 4): the mean over instances of the mean of [|mu - e| - margin]_+, weighted by size^p / sum size^p.

    Eq. 3 prints a further 1/|I| before the weights, which already sum to one; it is left out, or the pull would fade
    against the push as scenes get richer.

    Args:
        embedding: [N, D]; instance: [N]; means: [C, D]; size: [C] > 0.
        margin: delta_inter; power: p, 0 to 1.
    """
    excess = torch.relu(_distance(embedding - means[instance]) - margin)
    per_instance = excess.new_zeros(len(size)).index_add_(0, instance, excess) / size
    weight = size**power
    return (weight / weight.sum() * per_instance).sum()


def push_loss(means: Tensor, scene: Tensor, margin: float) -> Tensor:
    """L_intra (eq. 2): mean over ordered pairs of instances of one scene of [2 margin - |mu_i - mu_j|]_+.

    Args:
        means: [C, D]; scene: [C] scene of each instance (pairs across scenes do not count).
        margin: delta_intra.

    Returns:
        Mean over the scenes that have a pair; 0 where none has.
    """
    gap = torch.relu(2.0 * margin - _distance(means[:, None] - means[None]))
    pair = (scene[:, None] == scene[None]) & ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    per_instance = (gap * pair).sum(1)
    scenes = int(scene.max()) + 1 if len(scene) else 0
    number = torch.bincount(scene, minlength=scenes).to(means.dtype)
    pairs = number * (number - 1.0)
    total = means.new_zeros(scenes).index_add_(0, scene, per_instance)
    has = pairs > 0
    return (total[has] / pairs[has]).mean() if bool(has.any()) else means.sum() * 0.0
