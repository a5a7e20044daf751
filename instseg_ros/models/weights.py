"""Weights files: safetensors with the model's configuration inside; never a pickle."""

__all__ = ["SHIPPED_WEIGHTS", "initialize", "load_weights", "save_weights", "settings_over_weights", "weights_metadata"]

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from instseg_ros.config import GroupingConfig, ModelConfig, SegmenterConfig
from instseg_ros.errors import ConfigError, WeightsError
from instseg_ros.models.network import InstanceNet
from instseg_ros.settings import from_mapping, to_mapping

SHIPPED_WEIGHTS = Path(__file__).parent.parent / "weights" / "rooms_5cm.safetensors"
"""What an empty path stands for: the network trained on simulated rooms at 5 cm."""

FORMAT = "instseg_ros 1"

Config = TypeVar("Config", bound=SegmenterConfig)


def save_weights(path: Path | str, net: InstanceNet, metadata: Mapping[str, Any]) -> None:
    """Write a network; weight matrices are kept in half precision, biases and norms in full.

    Args:
        path: file to write (its folder is made).
        net: the network.
        metadata: what else stands in the file, as JSON: `preset`, `classes` (names trained on), `steps`, `seed`, ...
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "model": json.dumps(to_mapping(net.config)), **{k: json.dumps(v) for k, v in metadata.items()}}
    partial = path.with_suffix(".partial")
    tensors = {name: (t.half() if t.ndim > 1 else t).detach().cpu().contiguous() for name, t in net.state_dict().items()}
    save_file(tensors, partial, header)
    partial.replace(path)


def resolve_weights(path: Path | str) -> Path:
    """The file a setting names: a path, the name of a preset whose weights come with the package, or empty for those of `rooms`.

    Raises:
        WeightsError: there is no such file.
    """
    name = str(path)
    found = Path(path).expanduser() if name else SHIPPED_WEIGHTS
    if name.isidentifier() and not found.is_file():
        shipped = {file.stem.rsplit("_", 1)[0]: file for file in SHIPPED_WEIGHTS.parent.glob("*_*cm.safetensors")}
        if name not in shipped:
            raise WeightsError(f"the package has no weights named {name}, only {', '.join(sorted(shipped))}: name the .safetensors file of "
                               f"a run (`instseg train {name}` writes runs/{name}/last.safetensors)")
        found = shipped[name]
    if not found.is_file():
        raise WeightsError(f"no weights at {found}: name a .safetensors file that `instseg train` wrote, or leave it empty for the shipped one")
    return found


def weights_metadata(path: Path | str = "") -> dict[str, Any]:
    """What stands in a weights file beside the tensors, decoded."""
    found = resolve_weights(path)
    try:
        with safe_open(str(found), "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{found} is not a readable safetensors file ({error}): fetch or train it again") from error
    if header.get("format") != FORMAT:
        raise WeightsError(f"{found} was not written by this package (format {header.get('format')!r}, expected {FORMAT!r})")
    return {k: v if k == "format" else json.loads(v) for k, v in header.items()}


def settings_over_weights(cls: type[Config], build: Callable[[Config | None], Config]) -> Config:
    """Segmenter settings over those that their weights file brings with it: the grouping of its preset.

    Args:
        cls: of the settings.
        build: makes the settings over others (None = the defaults), by changing what the user has given.

    Raises:
        WeightsError: the weights file named in the settings is missing or not of this package.
    """
    first = build(None)
    brought = weights_metadata(first.weights).get("grouping")
    if not brought:
        return first
    return build(replace(cls(), grouping=from_mapping(GroupingConfig, brought)))


def load_weights(path: Path | str = "") -> InstanceNet:
    """The network of a weights file, in evaluation mode.

    Raises:
        WeightsError: missing, damaged, of another program, or not matching its own configuration.
    """
    metadata = weights_metadata(path)
    found = resolve_weights(path)
    try:
        net = InstanceNet(from_mapping(ModelConfig, metadata["model"]))
        net.load_state_dict(load_file(found))
    except (KeyError, ConfigError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{found} does not hold a network this version can run: {error}") from error
    return net.eval()


def initialize(net: InstanceNet, path: Path | str) -> list[str]:
    """Start a network from a weights file, which may be of another shape: what has the same name and shape is taken.

    So a network that reads colours can start from one that was trained on true labels (MTML's pretraining): only its first
    layer begins anew.

    Args:
        net: whose parameters are replaced.
        path: weights file; empty = the shipped one.

    Returns:
        Names of the network's tensors that the file does not have.

    Raises:
        WeightsError: the file is not of this package, is for another backbone, voxel size or height input, or has nothing in common with the network.
    """
    donor = load_weights(path)
    found = resolve_weights(path)
    for name in ("voxel_size_m", "height_feature", "backbone"):
        mine, other = getattr(net.config, name), getattr(donor.config, name)
        if mine != other:
            flag = f"--model.{name.replace('_', '-')} {other}"
            raise WeightsError(f"{found} was trained with model.{name} = {other}, this run has {mine}: set {flag}, or leave --init away")
    have, tensors = donor.state_dict(), net.state_dict()
    taken = {k: have[k] for k, v in tensors.items() if k in have and have[k].shape == v.shape}
    if not taken:
        raise WeightsError(f"{found} and this run's network share no layer: its model is {to_mapping(donor.config)}")
    net.load_state_dict({**tensors, **taken})
    return [k for k in tensors if k not in taken]
