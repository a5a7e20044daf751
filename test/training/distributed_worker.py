"""What test_distributed.py has each process of torchrun do: python distributed_worker.py FOLDER, with FOLDER/data."""

import json
import os
import sys
from pathlib import Path

import torch

from instseg_ros.config import LossConfig, ModelConfig, TrainingConfig
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.sparse import kernels
from instseg_ros.training.batches import BatchSource
from instseg_ros.training.trainer import Trainer

STEPS = 4


def config(micro_batches: int, **changes) -> TrainingConfig:
    """Settings of a small run. In the first step all heads but one are without a gradient."""
    model = ModelConfig(channels=(8, 16), embedding_dim=4)
    losses = LossConfig(semantic_first_steps=1)
    return TrainingConfig(**{"steps": STEPS, "batch_voxels": 2000, "micro_batches": micro_batches, "validate_every": STEPS, "checkpoint_every": 2,
                             "seed": 3, "model": model, "losses": losses, **changes})


class Stopped(Exception):
    """In place of a kill."""


def train(folder: Path, out: Path, micro_batches: int, stop_at: int = 0) -> dict:
    """A run, stopped after its checkpoint at a step if one is given; returns what can be compared."""
    torch.set_num_threads(1)
    kernels.set_threads(1)
    trainer = Trainer(config(micro_batches), folder / "data", out, "cpu", "rooms")
    steps, do_step, save = [], trainer._step, trainer._save_checkpoint

    def recorded_step(batches):
        voxels = []
        steps.append({"terms": do_step(voxels.append(len(b.features)) or b for b in batches)})
        steps[-1]["voxels"] = voxels
        return steps[-1]["terms"]

    def stopping_save():
        save()
        if trainer.step == stop_at:
            raise Stopped

    trainer._step, trainer._save_checkpoint = recorded_step, stopping_save
    try:
        figures = trainer.run()
    except Stopped:
        figures = {}
    gradients = {name: trainer.optimizer.state[p]["exp_avg_sq"].sqrt() for name, p in trainer.model.named_parameters()}
    return {"steps": steps, "figures": figures, "model": trainer.model.state_dict(), "gradients": gradients}


def bad_loss(folder: Path) -> str:
    """The error of a run in which one micro-batch of the last process is not a number."""
    good = BatchSource.batch

    def batch(self, step, index=0):
        made = good(self, step, index)
        if index == 1:
            made.features[:] = float("nan")
        return made

    BatchSource.batch = batch
    try:
        Trainer(config(2), folder / "data", folder / "bad", "cpu").run()
    except DataError as error:
        return str(error)
    finally:
        BatchSource.batch = good
    return ""


def refused(folder: Path, micro_batches: int, **changes) -> str:
    """The error of a trainer with settings that do not fit."""
    try:
        Trainer(config(micro_batches, **changes), folder / "data", folder / "refused", "cpu")
    except (ConfigError, DataError) as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    """All runs in one start, since starting costs more than training."""
    rank = int(os.environ["RANK"])
    runs = {
        "even": train(folder, folder / "two_even", 2), "stopped": train(folder, folder / "stopped", 2, stop_at=2),
        "uneven": train(folder, folder / "two_uneven", 3),  # the first process has two of them
    }
    errors = {"bad": bad_loss(folder), "few": refused(folder, 1), "unlike": refused(folder, 2, seed=rank)}
    torch.save(runs, folder / f"runs_{rank}.pt")
    (folder / f"errors_{rank}.json").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
