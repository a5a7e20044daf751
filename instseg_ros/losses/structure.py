"""Structure-aware loss (Liang et al. 2019, eqs. 1 to 5): far from the centre of its instance a voxel is pulled harder.

The caller applies both terms twice, to the initial embedding and to the one the graph network refined, and adds them up.
"""

__all__ = ["structure_pull_loss", "structure_push_loss"]

import torch
from torch import Tensor

from instseg_ros.losses.averages import distance, instance_average
from instseg_ros.losses.discriminative import push_loss


def structure_pull_loss(
    embedding: Tensor, instance: Tensor, means: Tensor, size: Tensor, distance_m: Tensor, margin: float = 0.7, power: float = 0.0,
) -> Tensor:
    """Loss_intra (eqs. 1 to 3): [|mu - e| - alpha]_+^2 / (1 + exp(-p)) per voxel, p its distance to the geometric centre.

    Eq. 1 prints the sum over the points of an instance where the losses it is derived from have the mean. The mean is taken here
    (power 0), so that the balance with the push does not hang on the voxel size; the printed sum is power 1 times the mean size.

    Args:
        embedding: [N, D]; instance: [N]; means: [C, D] mean embeddings; size: [C].
        distance_m: [N] from the voxel to the geometric centre of its instance, m.
        margin: alpha.
        power: see `instance_average`.
    """
    excess = torch.relu(distance(embedding - means[instance]) - margin)
    return instance_average(torch.sigmoid(distance_m) * excess**2, instance, size, power)


def structure_push_loss(means: Tensor, scene: Tensor, beta: float = 1.5) -> Tensor:
    """Loss_inter (eqs. 4, 5): the mean over pairs of [beta - |mu_i - mu_j|]_+^2: beta is the whole distance, not half of it.

    Args:
        means: [C, D]; scene: [C] scene of each instance.
    """
    return push_loss(means, scene, 0.5 * beta, squared=True)
