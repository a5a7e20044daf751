"""Losses of MTML, OccuSeg and Liang 2019 against direct transcriptions of their equations in plain Python, and their gradients."""

import math

import pytest
import torch

from instseg_ros.errors import InputError
from instseg_ros.losses import covariance
from instseg_ros.losses.averages import instance_means
from instseg_ros.losses.covariance import covariance_loss
from instseg_ros.losses.direction import direction_loss
from instseg_ros.losses.discriminative import pull_loss, push_loss, regularization_loss
from instseg_ros.losses.occupancy import occupancy_loss
from instseg_ros.losses.offset import spatial_loss
from instseg_ros.losses.structure import structure_pull_loss, structure_push_loss

INSTANCE = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 5, 5, 5])
SCENE = torch.tensor([0, 0, 0, 1, 1, 1])
SIZE = torch.bincount(INSTANCE).double()
NONE = torch.zeros(0, dtype=torch.long)


def draw(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale


def norm(vector) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in vector))


def members(values: torch.Tensor, c: int) -> list:
    return [values[i] for i in range(len(values)) if int(INSTANCE[i]) == c]


def mean(values: list):
    return sum(values) / len(values)


def gradcheck(function, *inputs: torch.Tensor) -> bool:
    return torch.autograd.gradcheck(function, tuple(x.clone().requires_grad_(True) for x in inputs), eps=1e-7, atol=1e-5)


# discriminative, squared ---------------------------------------------------------------------------------------------

def test_squared_pull_is_mtml_eq_2():
    e = draw(0, 15, 4, scale=0.4)
    expected = mean([mean([max(norm(mean(members(e, c)) - x) - 0.1, 0.0) ** 2 for x in members(e, c)]) for c in range(6)])
    assert pull_loss(e, INSTANCE, *instance_means(e, INSTANCE, 6), 0.1, squared=True).item() == pytest.approx(expected)


def slow_push(means: torch.Tensor, beta: float) -> float:
    scenes = []
    for s in (0, 1):
        total, instances = 0.0, [c for c in range(6) if int(SCENE[c]) == s]
        for a in instances:
            for b in instances:
                if a != b:
                    total += max(beta - norm(means[a] - means[b]), 0.0) ** 2
        scenes.append(total / (len(instances) * (len(instances) - 1)))
    return mean(scenes)


def test_squared_push_is_mtml_eq_3():
    means = draw(1, 6, 4)
    assert push_loss(means, SCENE, 1.5, squared=True).item() == pytest.approx(slow_push(means, 3.0))


def test_regularization_is_mtml_eq_4():
    means = draw(2, 6, 4)
    assert regularization_loss(means).item() == pytest.approx(mean([norm(m) for m in means]))


def test_discriminative_gradients():
    def total(x):
        means, size = instance_means(x, INSTANCE, 6)
        terms = pull_loss(x, INSTANCE, means, size, 0.1, squared=True), push_loss(means, SCENE, 1.5, squared=True)
        return sum(terms) + 0.001 * regularization_loss(means)

    assert gradcheck(total, draw(3, 15, 4))


# structure -----------------------------------------------------------------------------------------------------------

def distances_to_centers(position: torch.Tensor) -> torch.Tensor:
    centers, _ = instance_means(position, INSTANCE, 6)
    return torch.linalg.vector_norm(position - centers[INSTANCE], dim=1)


def slow_structure_sum(e: torch.Tensor, position: torch.Tensor, c: int) -> float:
    """Eq. 1 as printed, with eqs. 2 and 3."""
    total, mu_p, mu_s = 0.0, mean(members(position, c)), mean(members(e, c))
    for s_j, p_j in zip(members(e, c), members(position, c), strict=True):
        p, s = norm(p_j - mu_p), norm(s_j - mu_s)
        total += 1.0 / (1.0 + math.exp(-p)) * max(s - 0.7, 0.0) ** 2
    return total


def test_structure_pull_is_liang_eq_1_with_the_mean():
    e, position = draw(4, 15, 4, scale=2.0), draw(5, 15, 3)
    expected = mean([slow_structure_sum(e, position, c) / float(SIZE[c]) for c in range(6)])
    got = structure_pull_loss(e, INSTANCE, *instance_means(e, INSTANCE, 6), distances_to_centers(position))
    assert expected > 0.1 and got.item() == pytest.approx(expected)


def test_structure_pull_with_power_one_is_the_printed_sum():
    e, position = draw(4, 15, 4, scale=2.0), draw(5, 15, 3)
    printed = mean([slow_structure_sum(e, position, c) for c in range(6)])
    got = structure_pull_loss(e, INSTANCE, *instance_means(e, INSTANCE, 6), distances_to_centers(position), power=1.0)
    assert got.item() * SIZE.mean().item() == pytest.approx(printed)


def test_far_voxels_are_pulled_harder():
    e = torch.tensor([[-2.0], [2.0], [-2.0], [2.0]], requires_grad=True)
    instance = torch.zeros(4, dtype=torch.long)
    structure_pull_loss(e, instance, torch.zeros(1, 1), torch.tensor([4.0]), torch.tensor([0.1, 0.1, 3.0, 3.0])).backward()
    assert e.grad[3] > 1.5 * e.grad[1] > 0


def test_structure_push_is_liang_eq_4_where_beta_is_not_doubled():
    means = draw(6, 6, 4, scale=0.5)
    assert structure_push_loss(means, SCENE).item() == pytest.approx(slow_push(means, 1.5))


def test_structure_gradients():
    away = distances_to_centers(draw(5, 15, 3))

    def total(x):
        means, size = instance_means(x, INSTANCE, 6)
        return structure_pull_loss(x, INSTANCE, means, size, away) + structure_push_loss(means, SCENE)

    assert gradcheck(total, draw(7, 15, 4, scale=1.3))


# direction -----------------------------------------------------------------------------------------------------------

def test_direction_is_mtml_eq_5_towards_the_centre():
    v, offset = draw(8, 15, 3), draw(9, 15, 3)
    expected = -mean([
        mean([float(x @ o) / (norm(x) * norm(o)) for x, o in zip(members(v, c), members(offset, c), strict=True)]) for c in range(6)
    ])
    assert direction_loss(v, offset, INSTANCE, 6).item() == pytest.approx(expected)
    assert direction_loss(3.0 * offset, offset, INSTANCE, 6).item() == pytest.approx(-1.0)
    assert direction_loss(-offset, offset, INSTANCE, 6).item() == pytest.approx(1.0)


def test_a_voxel_at_the_centre_has_no_direction():
    v, offset = draw(8, 15, 3), draw(9, 15, 3)
    offset[1] = 0.0  # one of instance 0
    offset[9] = 0.0  # all of instance 3
    keep = torch.tensor([i not in (1, 9) for i in range(15)])
    without = torch.where(INSTANCE[keep] > 3, INSTANCE[keep] - 1, INSTANCE[keep])  # instance 3 is gone, 4 and 5 move up
    assert torch.isclose(direction_loss(v, offset, INSTANCE, 6), direction_loss(v[keep], offset[keep], without, 5))
    v.requires_grad_(True)
    direction_loss(v, torch.zeros_like(offset), INSTANCE, 6).backward()
    assert (v.grad == 0).all()


def test_direction_gradients_are_right_and_finite_at_zero():
    offset = draw(9, 15, 3)
    assert gradcheck(lambda v: direction_loss(v, offset, INSTANCE, 6), draw(8, 15, 3))
    v = torch.zeros(15, 3, dtype=torch.float64, requires_grad=True)
    direction_loss(v, offset, INSTANCE, 6).backward()
    assert torch.isfinite(v.grad).all()


# spatial, occupancy --------------------------------------------------------------------------------------------------

def test_spatial_is_occuseg_eq_3():
    d, position = draw(10, 15, 3), draw(11, 15, 3)
    expected = mean([
        mean([norm(x + p - mean(members(position, c))) for x, p in zip(members(d, c), members(position, c), strict=True)]) for c in range(6)
    ])
    centers, size = instance_means(position, INSTANCE, 6)
    assert spatial_loss(d, centers[INSTANCE] - position, INSTANCE, size).item() == pytest.approx(expected)
    assert gradcheck(lambda x: spatial_loss(x, centers[INSTANCE] - position, INSTANCE, size), d)


def test_occupancy_is_occuseg_eq_10():
    o = draw(12, 15, 1)
    expected = mean([mean([abs(float(x) - math.log(float(SIZE[c]))) for x in members(o, c)]) for c in range(6)])
    assert occupancy_loss(o, INSTANCE, SIZE).item() == pytest.approx(expected)
    assert occupancy_loss(torch.log(SIZE)[INSTANCE], INSTANCE, SIZE).item() == 0.0
    assert occupancy_loss(torch.log(3.0 * SIZE)[INSTANCE], INSTANCE, SIZE, 3.0 * SIZE).item() == 0.0
    assert gradcheck(lambda x: occupancy_loss(x, INSTANCE, SIZE), o)


# covariance ----------------------------------------------------------------------------------------------------------

def slow_covariance(s, center, sigma, instance, scene_of_instance, scene_of_voxel) -> float:
    """Eqs. 8 and 9, scene by scene."""
    costs = []
    for c in range(len(scene_of_instance)):
        own = [i for i in range(len(s)) if int(instance[i]) == c]
        u, e, b = (mean([values[i] for i in own]) for values in (s, center, sigma))
        everyone = [i for i in range(len(s)) if int(scene_of_voxel[i]) == int(scene_of_instance[c])]
        total = 0.0
        for i in everyone:
            p = math.exp(-((norm(s[i] - u) / float(b[0])) ** 2) - (norm(center[i] - e) / float(b[1])) ** 2)
            total += math.log(p) if i in own else math.log(1.0 - p)
        costs.append(-total / len(everyone))
    return mean(costs)


def covariance_sample():
    instance = torch.cat([INSTANCE, torch.tensor([-1, -1, -1])])  # and three voxels of the background
    scene_of_voxel = torch.cat([SCENE[INSTANCE], torch.tensor([0, 1, 1])])
    return draw(14, 18, 4, scale=0.6), draw(15, 18, 3, scale=0.6), draw(16, 18, 2).abs() + 0.5, instance, scene_of_voxel


@pytest.mark.parametrize("pairs", [1 << 20, 7])
def test_covariance_is_occuseg_eq_9(pairs, monkeypatch):
    monkeypatch.setattr(covariance, "_PAIRS", pairs)  # 7: in parts of two voxels
    s, center, sigma, instance, scene_of_voxel = covariance_sample()
    expected = slow_covariance(s, center, sigma, instance, SCENE, scene_of_voxel)
    assert covariance_loss(s, center, sigma, instance, SCENE, scene_of_voxel).item() == pytest.approx(expected)
    assert gradcheck(lambda a, b, c: covariance_loss(a, b, c, instance, SCENE, scene_of_voxel), s, center, sigma)


def test_covariance_without_background_knows_the_scenes():
    s, center, sigma, _, _ = covariance_sample()
    s, center, sigma = s[:15], center[:15], sigma[:15]
    given = covariance_loss(s, center, sigma, INSTANCE, SCENE, SCENE[INSTANCE])
    assert covariance_loss(s, center, sigma, INSTANCE, SCENE) == given
    with pytest.raises(InputError, match="scene_of_voxel"):
        covariance_loss(s, center, sigma, torch.where(INSTANCE == 3, -1, INSTANCE), SCENE)


def test_covariance_bears_extremes():
    """Voxels of different instances on one spot, and others infinitely many sigmas away."""
    s = torch.tensor([[0.0], [0.0], [0.0], [1e4]], requires_grad=True)
    center = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [400.0, 0, 0]], requires_grad=True)
    sigma = torch.full((4, 2), 0.01, requires_grad=True)
    loss = covariance_loss(s, center, sigma, torch.tensor([0, 0, 1, 2]), torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(x.grad).all() for x in (s, center, sigma))


# nothing to learn from -----------------------------------------------------------------------------------------------

def all_losses(e, v, sigma, o, instance, scene):
    means, size = instance_means(e, instance, len(scene))
    return {
        "pull": pull_loss(e, instance, means, size, 0.1, squared=True), "push": push_loss(means, scene, 1.5, squared=True),
        "regularization": regularization_loss(means), "structure_pull": structure_pull_loss(e, instance, means, size, v.detach().norm(dim=1)),
        "structure_push": structure_push_loss(means, scene), "direction": direction_loss(v, v.detach() + 1.0, instance, len(scene)),
        "spatial": spatial_loss(v, v.detach() + 1.0, instance, size), "occupancy": occupancy_loss(o, instance, size),
        "covariance": covariance_loss(e, v, sigma, instance, scene),
    }


def test_an_empty_scene_costs_nothing_and_has_a_gradient():
    inputs = [torch.zeros(0, n, requires_grad=True) for n in (4, 3, 2, 1)]
    for name, loss in all_losses(*inputs, NONE, NONE).items():
        assert loss.item() == 0.0, name
        loss.backward(retain_graph=True)
    assert all(x.grad is not None and x.grad.shape == x.shape for x in inputs)


def test_one_instance_of_one_voxel_is_finite_throughout():
    inputs = [torch.rand(1, n, requires_grad=True) for n in (4, 3, 2, 1)]
    zero = torch.zeros(1, dtype=torch.long)
    terms = all_losses(*inputs, zero, zero)
    assert all(terms[name].item() == 0.0 for name in ("pull", "push", "structure_pull", "structure_push"))
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


def test_an_instance_without_voxels_does_not_count():
    e, v, sigma, o = draw(17, 15, 4), draw(18, 15, 3), draw(19, 15, 2).abs() + 0.2, draw(20, 15, 1)
    with_it = all_losses(e, v, sigma, o, INSTANCE, torch.cat([SCENE, torch.tensor([1])]))
    without = all_losses(e, v, sigma, o, INSTANCE, SCENE)
    for name in ("pull", "structure_pull", "direction", "spatial", "occupancy", "covariance"):
        assert torch.isclose(with_it[name], without[name]), name
