"""The training loop: the losses of a preset on augmented scenes."""

__all__ = ["Trainer", "scene_files"]

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instseg_ros.config import TrainingConfig
from instseg_ros.datasets.scenes import load_scene
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.labels import BACKGROUND, CLASS_NAMES, NUM_CLASSES
from instseg_ros.losses.semantic import balance_weights
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import initialize, save_weights
from instseg_ros.settings import to_mapping
from instseg_ros.training.batches import Batch, BatchSource
from instseg_ros.training.checkpoint import load_checkpoint, save_checkpoint
from instseg_ros.training.display import Display
from instseg_ros.training.micro_batches import StepMeans
from instseg_ros.training.objective import Objective, check_objective
from instseg_ros.training.processes import Processes
from instseg_ros.training.validation import validate


def scene_files(folder: Path) -> list[Path]:
    """The scene files of a folder, sorted.

    Raises:
        DataError: there are none.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise DataError(f"no scenes (*.npz) in {folder}: make some, for example `instseg simulate rooms --out {folder.parent} --split {folder.name}`")
    return files


def _optimizer(model: InstanceNet, config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


class Trainer:
    """A run in a folder: checkpoints, TensorBoard events and the weights it ends with.

    Started by torchrun, all processes do the same but for their micro-batches (index = rank, rank + processes, ...) and validation scenes;
    the first one writes the files.

    Args:
        config: settings.
        data: folder with `train/` and `validation/` scenes.
        out: folder of the run; a checkpoint in it is gone on from.
        device: "auto", "cpu" or "cuda".
        preset: name written into the weights.
        fresh: start anew even if there is a checkpoint.
        init: weights file a new run starts from (`models.weights.initialize`).
    """

    def __init__(self, config: TrainingConfig, data: Path, out: Path, device: str = "auto", preset: str = "", fresh: bool = False,
                 init: Path | None = None) -> None:
        check_objective(config)
        self.config, self.out, self.preset = config, out, preset
        self.processes = Processes(device)
        self.device = self.processes.device
        if self.processes.count > config.micro_batches:
            raise ConfigError(f"{self.processes.count} processes share {config.micro_batches} micro-batch(es) a step, and each needs one: "
                              f"--micro-batches {self.processes.count}, or fewer processes")
        self._indices = range(self.processes.rank, config.micro_batches, self.processes.count)
        self.train_files = scene_files(data / "train")
        # partial maps are for training; validation looks at finished ones
        self.validation_files = [f for f in scene_files(data / "validation") if "_part" not in f.stem]
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = InstanceNet(config.model)
        self.new_tensors = initialize(self.model, init) if init is not None else []
        self.model.to(self.device)
        self.optimizer = _optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self._amp)
        self.step, self.best = 0, -1.0
        self.class_counts = self._count_classes()
        self.checkpoint = out / "checkpoint.safetensors"
        if self.checkpoint.is_file() and not fresh:
            state = load_checkpoint(self.checkpoint, self.model, self.optimizer)
            self.step, self.best = int(state["step"]), float(state["best"])
            self._move_optimizer()
        self.processes.check_same(
            settings=to_mapping(config), scenes=[f.name for f in [*self.train_files, *self.validation_files]], checkpoint=self.step)
        class_weights = balance_weights(self.class_counts).to(self.device)
        self._objective = self.processes.wrap(Objective(self.model, config.losses, class_weights, self._amp))

    @property
    def _amp(self) -> bool:
        return self.config.amp and self.device.type == "cuda"

    def run(self) -> dict[str, float]:
        """Train up to `config.steps`; returns the last validation's figures."""
        batches = BatchSource(self.train_files, self.config).batches(self.step, self.config.steps, self._indices)
        figures: dict[str, float] = {}
        with Display(self.out, self.step, self.config.steps, shown=self.processes.rank == 0) as display:
            while self.step < self.config.steps:
                terms = self._step(itertools.islice(batches, len(self._indices)))
                self.step += 1
                display.losses(self.step, terms)
                last = self.step == self.config.steps
                if self.step % self.config.validate_every == 0 or last:
                    figures = self.validate()
                    display.figures(self.step, figures)
                if self.step % self.config.checkpoint_every == 0 or last:
                    self._save_checkpoint()
        return figures or self.validate()

    def validate(self) -> dict[str, float]:
        """AP on the validation scenes; writes `last.safetensors`, and `best.safetensors` if it is the best so far.

        With several processes all of them have to call it.
        """
        self.model.eval()
        figures = validate(self.model, self.validation_files, self.config.grouping, self.processes)
        self.model.train()
        self.save_weights(self.out / "last.safetensors", figures)
        if figures["ap50"] > self.best:
            self.best = figures["ap50"]
            self.save_weights(self.out / "best.safetensors", figures)
        return figures

    def save_weights(self, path: Path, figures: dict[str, float]) -> None:
        """Write the model as a weights file with what it was trained on (the first process alone)."""
        if self.processes.rank:
            return
        classes = [CLASS_NAMES[c] for c in range(NUM_CLASSES) if self.class_counts[c] > 0 and c not in BACKGROUND]
        training = to_mapping(replace(self.config))
        model = self.model.float()
        save_weights(path, model, {
            "preset": self.preset, "classes": classes, "step": self.step, "training": training,
            "scenes": len(self.train_files), "validation": figures, "grouping": to_mapping(self.config.grouping),
        })

    def learning_rate(self, step: int) -> float:
        """One cycle (linear warm-up, then half a cosine down to zero), constant, or decayed by a factor every so many steps."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        if self.config.schedule == "decay":
            return self.config.learning_rate * self.config.decay ** (step // self.config.decay_every)
        warm = max(1.0, self.config.warmup * self.config.steps)
        if step < warm:
            return self.config.learning_rate * (step + 1) / warm
        return self.config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1.0, self.config.steps - warm)))

    def _step(self, batches: Iterable[Batch]) -> dict[str, float]:
        """An optimiser step on this process's micro-batches; returns the terms' means over those of all processes.

        Raises:
            DataError: the loss is not finite; raised in all processes, before the weights change.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        means = StepMeans(self.model, self.processes, self.config.micro_batches)
        share = self.processes.count / self.config.micro_batches  # the mean over processes of what each adds up is the mean over micro-batches
        for number, batch in enumerate(batches, 1):
            with self.processes.kept_apart(self._objective, number < len(self._indices)):
                terms = self._objective(batch.to(self.device), self.step)
                self.scaler.scale(share * torch.stack(list(terms.values())).sum()).backward()
            means.add(terms)
        mean_terms = means.finish()
        if not math.isfinite(total := sum(mean_terms.values())):
            raise DataError(f"the loss is {total} at step {self.step}: lower --learning-rate, or look at the scenes of this step")
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return mean_terms

    def _count_classes(self) -> Tensor:
        counts = np.zeros(256, np.int64)
        for file in self.train_files[: 3 * 64]:  # enough to know the balance of the classes
            counts += np.bincount(load_scene(file).class_index, minlength=256)
        return torch.from_numpy(counts[:NUM_CLASSES])

    def _save_checkpoint(self) -> None:
        if self.processes.rank:
            return
        state: dict[str, Any] = {"step": self.step, "best": self.best, "config": to_mapping(self.config)}
        save_checkpoint(self.checkpoint, self.model, self.optimizer, state)

    def _move_optimizer(self) -> None:
        for values in self.optimizer.state.values():
            for key, value in values.items():
                if isinstance(value, Tensor) and key != "step":
                    values[key] = value.to(self.device)
