"""Refinement of the embedding by attention over the nearest voxels in space (Liang 2019, sections 3.3 and 3.4)."""

__all__ = ["AttentionKnn", "attend"]

import torch
from torch import Tensor, nn


def attend(x: Tensor, center: Tensor, nearest: Tensor, own: Tensor, other: Tensor, bias: Tensor, score: Tensor, update: Tensor) -> Tensor:
    """One layer (Liang 2019, eqs. 7 to 10).

        p_m = score . relu(own x_i + other x_jm + bias),   alpha = softmax over m,   out_i = [x_i, sum_m alpha_m x_jm] update

    The bias of the perceptron's last layer would fall out of the softmax and is left away. A voxel without neighbours has a
    sum of zero.

    Args:
        x: [N, F] embeddings of all voxels.
        center: [n, F] those of the voxels to compute.
        nearest: [n, k] int32, the rows of x that are nearest to these, -1 = none.
        own, other: [F, H]; bias: [H]; score: [H]; update: [2 F, F].

    Returns:
        [n, F].
    """
    there = nearest >= 0
    around = x.index_select(0, nearest.clamp(min=0).view(-1)).view(*nearest.shape, x.shape[1])
    p = torch.relu((center @ own + bias)[:, None] + around @ other) @ score
    alpha = torch.softmax(p.masked_fill(~there, torch.finfo(p.dtype).min), 1) * there
    return torch.cat([center, (alpha[..., None] * around).sum(1)], 1) @ update


class AttentionKnn(nn.Module):
    """A layer of the graph network.

    It begins as the mean of a voxel's embedding and its neighbours' plain mean, so that at the first step it already says what
    the head before it says.

    Args:
        width: dimensions F of the embedding; the perceptron's hidden layer has 2 F.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 2 * width
        self.own = nn.Parameter(torch.randn(width, hidden) * hidden**-0.5)
        self.other = nn.Parameter(torch.randn(width, hidden) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.score = nn.Parameter(torch.randn(hidden) * hidden**-0.5)
        half = 0.5 * torch.eye(width)
        self.update = nn.Parameter(torch.cat([half, half]) + 0.01 * torch.randn(2 * width, width))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `attend` takes after the neighbours."""
        return self.own, self.other, self.bias, self.score, self.update

    def forward(self, x: Tensor, nearest: Tensor) -> Tensor:
        """[N, F], [N, k] -> [N, F]."""
        return attend(x, x, nearest, *self.parts())
