"""What a training run minimises: the losses of a preset, weighted."""

__all__ = ["TERMS", "Objective", "check_objective", "objective"]

import torch
from torch import Tensor, nn

from instseg_ros.config import LossConfig, TrainingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.losses.averages import instance_means
from instseg_ros.losses.covariance import covariance_loss
from instseg_ros.losses.direction import direction_loss
from instseg_ros.losses.discriminative import pull_loss, push_loss, regularization_loss
from instseg_ros.losses.occupancy import occupancy_loss
from instseg_ros.losses.offset import offset_loss, spatial_loss
from instseg_ros.losses.semantic import semantic_loss
from instseg_ros.losses.structure import structure_pull_loss
from instseg_ros.training.batches import Batch

_HEADS_READ = {
    "semantic": ("semantic",), "pull": ("embedding",), "push": ("embedding",), "regularization": ("embedding",), "offset": ("offset",),
    "direction": ("direction",), "covariance": ("covariance", "embedding", "offset"), "occupancy": ("occupancy",),
}
"""Loss -> heads it reads."""

TERMS = tuple(_HEADS_READ)
"""Names of all terms."""


def check_objective(config: TrainingConfig) -> None:
    """Whether every loss has its heads and every head has a loss.

    Raises:
        ConfigError: one has not; the message says what to set.
    """
    used = {loss: heads for loss, heads in _HEADS_READ.items() if getattr(config.losses, loss) > 0.0}
    for loss, heads in used.items():
        for head in heads:
            if head not in config.model.heads:
                raise ConfigError(f"losses.{loss} > 0 needs the head {head}: add it to model.heads, or set losses.{loss} to 0")
    for head in config.model.heads:
        if not any(head in heads for heads in used.values()):
            wanted = [loss for loss, heads in _HEADS_READ.items() if heads[0] == head]
            raise ConfigError(f"model.heads has {head}, which no loss trains: set losses.{wanted[0]} above 0, or take it out")


def objective(outputs: dict[str, Tensor], batch: Batch, config: LossConfig, class_weights: Tensor, step: int = 1 << 60) -> dict[str, Tensor]:
    """The weighted terms by name; their sum is what is minimised.

    Args:
        outputs: of the network. Where a graph network refines the embedding, the one before it is `embedding_initial`; pull and
            push are applied to both and added up (Liang et al. 2019).
        batch: what the outputs are for.
        config: weights and forms of the losses.
        class_weights: [20].
        step: of the run, for what is learnt first.
    """
    semantic = semantic_loss(outputs["semantic"], batch.class_index, class_weights, config.semantic_calibration)
    terms = {"semantic": config.semantic * semantic}
    if step < config.semantic_first_steps:
        return terms
    member_outputs = {name: values[batch.members] for name, values in outputs.items()}
    count = len(batch.scene_of_instance)
    size = torch.bincount(batch.instance, minlength=count).to(batch.offset.dtype)
    for name in ("embedding", "embedding_initial"):
        if name in outputs and count:
            for term, value in _metric_learning(member_outputs[name], size, batch, config).items():
                terms[term] = terms[term] + value if term in terms else value
    if config.offset > 0.0:
        l2 = config.offset_norm == "l2"
        offset = member_outputs["offset"]
        loss = spatial_loss(offset, batch.offset, batch.instance, size) if l2 else offset_loss(offset, batch.offset)
        terms["offset"] = config.offset * loss
    if config.direction > 0.0:
        terms["direction"] = config.direction * direction_loss(member_outputs["direction"], batch.offset, batch.instance, count)
    if config.occupancy > 0.0:
        terms["occupancy"] = config.occupancy * occupancy_loss(member_outputs["occupancy"], batch.instance, size)
    if config.covariance > 0.0:
        center = batch.points + outputs["offset"]
        terms["covariance"] = config.covariance * covariance_loss(
            outputs["embedding"], center, outputs["covariance"], batch.instance_of_voxel(), batch.scene_of_instance, batch.scene_of_voxel)
    return terms


class Objective(nn.Module):
    """A network with what it is trained for, as one module, so that DistributedDataParallel sees what parameters the terms depend on.

    Args:
        model: network; its outputs are as `objective` reads them.
        config: weights and forms of the losses.
        class_weights: [20].
        amp: whether the network runs in mixed precision.
    """

    class_weights: Tensor

    def __init__(self, model: nn.Module, config: LossConfig, class_weights: Tensor, amp: bool) -> None:
        super().__init__()
        self.model, self.config, self.amp = model, config, amp
        self.register_buffer("class_weights", class_weights)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted terms of a batch at a step of the run."""
        with torch.autocast(batch.features.device.type, dtype=torch.float16, enabled=self.amp):
            outputs = self.model(batch.features, batch.tables)
        return objective(outputs, batch, self.config, self.class_weights, step)


def _metric_learning(embedding: Tensor, size: Tensor, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """Pull, push and regularisation of one embedding [M, D] of the voxels that have an instance."""
    means, _ = instance_means(embedding, batch.instance, len(size))
    terms = {}
    if config.pull > 0.0:
        if config.structure:
            distance_m = torch.linalg.vector_norm(batch.offset, dim=1)
            pull = structure_pull_loss(embedding, batch.instance, means, size, distance_m, config.pull_margin, config.size_power)
        else:
            pull = pull_loss(embedding, batch.instance, means, size, config.pull_margin, config.size_power, config.squared)
        terms["pull"] = config.pull * pull
    if config.push > 0.0:
        terms["push"] = config.push * push_loss(means, batch.scene_of_instance, config.push_margin, config.squared)
    if config.regularization > 0.0:
        terms["regularization"] = config.regularization * regularization_loss(means)
    return terms
