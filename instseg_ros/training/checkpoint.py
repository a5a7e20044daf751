"""Checkpoints of a training run: model and optimiser as safetensors, never a pickle."""

__all__ = ["load_checkpoint", "save_checkpoint"]

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from instseg_ros.errors import DataError


def save_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write everything a run needs to go on.

    Args:
        path: file, replaced atomically.
        model, optimizer: what is trained.
        state: JSON values (step, best score, configuration).
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()})
    partial = path.with_suffix(".partial")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial, {"state": json.dumps(state)})
    partial.replace(path)


def load_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's values into a model and its optimiser; returns the JSON state.

    Raises:
        DataError: damaged, or of another model.
    """
    try:
        with safe_open(str(path), "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
        tensors = load_file(path)
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"cannot go on from {path}: {error}. Use the settings it was started with, another --out, or --fresh") from error
    saved: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            saved.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    return state
