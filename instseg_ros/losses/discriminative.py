"""Metric learning: pull the voxels of an instance together, push instances apart, keep their means near the origin.

One pair of functions stands for both forms in use: the hinges of SSEN (Zhang et al. 2020, eqs. 1 to 4), and the squared
hinges of the discriminative loss (MTML, Lahoud et al. 2019, eqs. 1 to 4; OccuSeg, Han et al. 2020, eqs. 4 to 7).
SSEN calls the push term "intra" and the pull term "inter"; here they are pull and push.
"""

__all__ = ["instance_means", "pull_loss", "push_loss", "regularization_loss"]

import torch
from torch import Tensor

from instseg_ros.losses.averages import distance, instance_average, instance_means


def pull_loss(
    embedding: Tensor, instance: Tensor, means: Tensor, size: Tensor, margin: float, power: float = 0.0, squared: bool = False,
) -> Tensor:
    """The mean over instances of the mean of [|mu - e| - margin]_+, weighted by size^p / sum size^p.

    SSEN (eqs. 3, 4): not squared, p = 1, margin 0.1. MTML (eq. 2) and OccuSeg (eq. 5): squared, p = 0, margin delta_v = 0.1.
    SSEN's eq. 3 prints a further 1/|I| before the weights, which already sum to one; it is left out, or the pull would fade
    against the push as scenes get richer.

    Args:
        embedding: [N, D]; instance: [N]; means: [C, D]; size: [C].
        margin: distance to the mean that costs nothing.
        power: p, 0 to 1.
        squared: the hinge is squared.
    """
    excess = torch.relu(distance(embedding - means[instance]) - margin)
    return instance_average(excess**2 if squared else excess, instance, size, power)


def push_loss(means: Tensor, scene: Tensor, margin: float, squared: bool = False) -> Tensor:
    """Mean over ordered pairs of instances of one scene of [2 margin - |mu_i - mu_j|]_+, squared or not.

    SSEN (eq. 2): not squared, margin 0.5. MTML (eq. 3) and OccuSeg (eq. 6): squared, margin delta_d = 1.5. OccuSeg's sum names
    every pair once under the same 1 / C(C-1), which is half of this.

    Args:
        means: [C, D]; scene: [C] scene of each instance (pairs across scenes do not count).
        margin: half the distance at which two instances no longer push each other.
        squared: the hinge is squared.

    Returns:
        Mean over the scenes that have a pair; 0 where none has.
    """
    gap = torch.relu(2.0 * margin - distance(means[:, None] - means[None]))
    pair = (scene[:, None] == scene[None]) & ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    per_instance = ((gap**2 if squared else gap) * pair).sum(1)
    scenes = int(scene.max()) + 1 if len(scene) else 0
    number = torch.bincount(scene, minlength=scenes).to(means.dtype)
    pairs = number * (number - 1.0)
    total = means.new_zeros(scenes).index_add_(0, scene, per_instance)
    has = pairs > 0
    return (total[has] / pairs[has]).mean() if bool(has.any()) else means.sum() * 0.0


def regularization_loss(means: Tensor) -> Tensor:
    """Mean over instances of |mu| (MTML eq. 4 and OccuSeg eq. 7; MTML weighs it 0.001, SSEN does without).

    Args:
        means: [C, D].
    """
    return distance(means).mean() if len(means) else means.sum() * 0.0
