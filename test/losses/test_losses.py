"""Losses against slow transcriptions of their equations, and their gradients."""

import numpy as np
import pytest
import torch

from instseg_ros.labels import IGNORE
from instseg_ros.losses.discriminative import instance_means, pull_loss, push_loss
from instseg_ros.losses.offset import offset_loss
from instseg_ros.losses.semantic import balance_weights, semantic_loss


def sample(seed: int = 0):
    """Embeddings of six instances in two scenes, float64 so that gradients can be checked."""
    torch.manual_seed(seed)
    instance = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 5, 5, 5])
    scene = torch.tensor([0, 0, 0, 1, 1, 1])
    return torch.randn(len(instance), 4, dtype=torch.float64) * 0.4, instance, scene


def slow_pull(e: np.ndarray, instance: np.ndarray, margin: float, p: float) -> float:
    """Eqs. 3 and 4, without the second normalisation."""
    ids = np.unique(instance)
    norm = sum((instance == j).sum() ** p for j in ids)
    total = 0.0
    for i in ids:
        members = e[instance == i]
        mu = members.mean(0)
        l_i = sum(max(np.linalg.norm(mu - x) - margin, 0.0) for x in members) / len(members)
        total += len(members) ** p / norm * l_i
    return total


def slow_push(e: np.ndarray, instance: np.ndarray, scene: np.ndarray, margin: float) -> float:
    """Eq. 2 in every scene."""
    values = []
    for s in np.unique(scene):
        means = [e[instance == i].mean(0) for i in np.flatnonzero(scene == s)]
        pairs = [max(2 * margin - np.linalg.norm(a - b), 0.0) for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
        values.append(sum(pairs) / len(pairs))
    return float(np.mean(values))


def test_pull_equals_the_paper():
    e, instance, _ = sample()
    for p in (0.0, 0.5, 1.0):
        means, size = instance_means(e, instance, 6)
        assert np.isclose(pull_loss(e, instance, means, size, 0.1, p).item(), slow_pull(e.numpy(), instance.numpy(), 0.1, p))


def test_push_equals_the_paper():
    e, instance, scene = sample()
    means, _ = instance_means(e, instance, 6)
    assert np.isclose(push_loss(means, scene, 0.5).item(), slow_push(e.numpy(), instance.numpy(), scene.numpy(), 0.5))


def test_gradients():
    e, instance, scene = sample(1)
    e.requires_grad_(True)

    def total(x):
        means, size = instance_means(x, instance, 6)
        return pull_loss(x, instance, means, size, 0.1, 1.0) + push_loss(means, scene, 0.5)

    assert torch.autograd.gradcheck(total, (e,), eps=1e-7, atol=1e-5)


def test_coinciding_points_have_a_finite_gradient():
    e = torch.zeros(4, 3, requires_grad=True)
    means, size = instance_means(e, torch.tensor([0, 0, 1, 1]), 2)
    loss = pull_loss(e, torch.tensor([0, 0, 1, 1]), means, size, 0.1, 1.0) + push_loss(means, torch.zeros(2, dtype=torch.long), 0.5)
    loss.backward()
    assert torch.isfinite(e.grad).all()


def test_one_instance_has_nothing_to_push():
    means = torch.randn(1, 3, requires_grad=True)
    push_loss(means, torch.zeros(1, dtype=torch.long), 0.5).backward()
    assert (means.grad == 0).all()


def test_offset_is_the_mean_l1_distance():
    a, b = torch.randn(7, 3), torch.randn(7, 3)
    assert torch.isclose(offset_loss(a, b), torch.tensor(sum(float(abs(x - y).sum()) for x, y in zip(a, b, strict=True)) / 7))
    assert offset_loss(a[:0], b[:0]) == 0


def test_semantics_leave_unlabelled_voxels_out():
    logits, target = torch.randn(5, 20), torch.tensor([1, 2, IGNORE, 3, IGNORE])
    assert torch.isclose(semantic_loss(logits, target), semantic_loss(logits[[0, 1, 3]], target[[0, 1, 3]]))
    assert semantic_loss(logits, torch.full((5,), IGNORE)) == 0


def test_balance_weights_favour_the_rare():
    weights = balance_weights(torch.tensor([0, 100, 1000, 100000]))
    assert weights[0] == 0 and weights[1] > weights[2] > weights[3]


@pytest.mark.parametrize(("calibration", "odds"), [(0.0, 3 * 0.2 / 3.2), (0.5, 3 * (0.2 / 3.2) ** 0.5), (1.0, 3.0)])
def test_calibrated_semantics_learn_how_often_classes_occur(calibration, odds):
    """Where classes cannot be told apart, the least loss is at their frequencies times what is left of their weights."""
    target = torch.tensor([0, 0, 0, 5])
    weights = torch.zeros(20, dtype=torch.float64)
    weights[0], weights[5] = 0.2, 3.2
    logits = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = semantic_loss(logits.expand(4, 20), target, weights, calibration)
        loss.backward()
        return loss

    optimizer.step(closure)
    learnt = torch.softmax(logits.detach(), 0)
    assert float(learnt[0] / learnt[5]) == pytest.approx(odds, rel=1e-3)
    assert learnt[0] + learnt[5] > 0.999  # classes that never occur are learnt to be unlikely
