"""What each idea of the four papers is worth: presets trained with and without it, on the same scenes, with several seeds.

Every variant is a run in a folder of its own; what is trained already is not trained again, and a run that was stopped goes on.
"""

__all__ = ["ABLATIONS", "Variant", "add_arguments", "plot", "run"]

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from instseg_ros.commands.evaluate import classes_there
from instseg_ros.config import SegmenterConfig, TrainingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.comparison import summarise_entries
from instseg_ros.evaluation.entries import SegmenterEntry
from instseg_ros.evaluation.instances import default_min_region
from instseg_ros.evaluation.sources import scene_sources
from instseg_ros.presets import preset_file
from instseg_ros.settings import from_mapping, load_yaml


@dataclass(frozen=True)
class Variant:
    """A preset with some settings changed."""

    name: str
    training: dict[str, Any] = field(default_factory=dict)
    """Changes of the training settings."""
    grouping: dict[str, Any] = field(default_factory=dict)
    """Changes of the grouping alone: the weights are those of the variant with the same training settings."""


ABLATIONS: dict[str, tuple[Variant, ...]] = {
    "ssen": (
        Variant("p = 0", {"losses.size_power": 0.0}), Variant("p = 0.5", {"losses.size_power": 0.5}), Variant("p = 1", {"losses.size_power": 1.0}),
        Variant("p = 1, no positions", {"losses.size_power": 1.0, "model.position_scale": 0.0}),
    ),
    "occuseg": (
        Variant("all"), Variant("without feature", grouping={"graph_feature": False}), Variant("without spatial", grouping={"graph_spatial": False}),
        Variant("without occupancy", grouping={"graph_occupancy": False}),
        Variant("r = predicted / clustered", grouping={"occupancy_ratio": "predicted_over_clustered"}),
    ),
    "structure_gcn": (
        Variant("discriminative", {"losses.structure": False, "model.refine_layers": 0}),
        *(Variant("structure" + (f" + {n} GCN" if n else ""), {"model.refine_layers": n}) for n in range(4)),
    ),
    "mtml": (
        Variant("single task", {"model.heads": ["semantic", "embedding"], "losses.direction": 0.0, "grouping.proposal_direction_weight": 0.0}),
        Variant("multi-task"),
    ),
}
"""By preset: what is compared (SSEN's p, and the positions that its embedding starts from; OccuSeg's terms and ratio; Liang's structure
loss and GCN layers; MTML's second task)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, validation/ and test/ scenes, such as toy scenes")
    parser.add_argument("--out", type=Path, default=Path("out/ablations"), help="folder of the runs (default: %(default)s)")
    parser.add_argument("--presets", nargs="+", default=list(ABLATIONS), choices=list(ABLATIONS), help="which (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every variant (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="of every run (default: %(default)s)")
    parser.add_argument("--count", type=int, help="test scenes (default: all)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="training settings of all runs, such as model.label_input=true for toy scenes, model.backbone=unet")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG of the table (default: beside --json)")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train and judge every variant; returns the figures and rows of the report."""
    common = _settings(args.set)
    rows: list[dict[str, Any]] = []
    jobs = [(preset, variant, seed) for preset in args.presets for variant in ABLATIONS[preset] for seed in range(args.seeds)]
    for preset, variant, seed in tqdm(jobs, desc="variants", unit="run"):
        config = _training(preset, variant, {**common, "seed": seed, "steps": args.steps, "validate_every": args.steps})
        weights = _trained(config, preset, args.out, args.data, args.device)
        judged = _judge(weights, config, variant, args.data, args.count)
        rows.append({"row": "run", "preset": preset, "variant": variant.name, "seed": seed, **judged})
    summary = [_summary(preset, variant.name, rows) for preset in args.presets for variant in ABLATIONS[preset]]
    figures: dict[str, Any] = {"ablations": {p: {s["variant"]: s["ap50"] for s in summary if s["preset"] == p} for p in args.presets}}
    figures |= {"seeds": args.seeds, "steps": args.steps, "settings": common}
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    return figures, summary + rows


def _settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE.

    Raises:
        ConfigError: not of that form.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair!r}: expected NAME=VALUE, like model.label_input=true")
        found[name] = yaml.safe_load(value)
    return found


def _training(preset: str, variant: Variant, common: dict[str, Any]) -> TrainingConfig:
    """The settings of a run; a schedule that begins with the classes alone does so for a fifth of a shorter run."""
    config = from_mapping(TrainingConfig, {**common, **variant.training}, load_yaml(TrainingConfig, preset_file(preset)))
    first = min(config.losses.semantic_first_steps, config.steps // 5)
    return replace(config, losses=replace(config.losses, semantic_first_steps=first))


def _trained(config: TrainingConfig, preset: str, out: Path, data: Path, device: str) -> Path:
    """The weights of a run, trained now or before. Runs that differ in nothing but their grouping are one run."""
    from instseg_ros.training.run_name import run_name
    from instseg_ros.training.trainer import Trainer

    folder = out / run_name(preset, config)
    trainer = Trainer(config, data, folder, device, preset)
    if trainer.step < config.steps or not (folder / "last.safetensors").is_file():
        trainer.run()
    return folder / "last.safetensors"


def _judge(weights: Path, config: TrainingConfig, variant: Variant, data: Path, count: int | None) -> dict[str, Any]:
    """AP, AP50 and AP25 on the test scenes."""
    grouping = from_mapping(type(config.grouping), variant.grouping, config.grouping)
    settings = SegmenterConfig(weights=str(weights), grouping=grouping, passes="full", voxel_size_m=config.model.voxel_size_m)
    entry = SegmenterEntry("it", settings)
    scores = [entry.scores(source.case(), ("offline",)) for source in scene_sources(data, count)]
    classes = classes_there([score["offline"].scan for score in scores])
    _, rows = summarise_entries("it", {"it": scores}, classes, default_min_region(settings.voxel_size_m))
    return {key: rows[0][key] for key in ("ap", "ap50", "ap25", "seconds_per_scene")}


def _summary(preset: str, variant: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    mine = [row for row in rows if row["preset"] == preset and row["variant"] == variant]
    summary: dict[str, Any] = {"row": "variant", "preset": preset, "variant": variant, "seeds": len(mine)}
    for key in ("ap", "ap50", "ap25"):
        values = np.array([row[key] for row in mine], float)
        summary |= {key: float(values.mean()), f"{key}_std": float(values.std(ddof=1)) if len(values) > 1 else 0.0}
    return summary


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """AP50 of every run, variants beside each other, a panel per preset."""
    import matplotlib.pyplot as plt

    presets = list(dict.fromkeys(row["preset"] for row in rows))
    figure, axes = plt.subplots(1, len(presets), figsize=(3.2 * len(presets), 3.6), sharey=True, squeeze=False)
    for axis, preset in zip(axes[0], presets, strict=True):
        names = list(dict.fromkeys(row["variant"] for row in rows if row["preset"] == preset))
        for x, name in enumerate(names):
            values = [100 * row["ap50"] for row in rows if row["preset"] == preset and row["variant"] == name]
            axis.plot([x] * len(values), values, "o", color="tab:blue", alpha=0.6)
            axis.plot([x - 0.25, x + 0.25], [np.mean(values)] * 2, color="black")
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
        axis.set_title(preset)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("AP50, %")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
