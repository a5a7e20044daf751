"""Average the weights of two runs, one of which started from the other: often better than either on what neither has seen."""

__all__ = ["add_arguments", "run"]

import argparse
from pathlib import Path

from tqdm import tqdm

from instseg_ros.config import TrainingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.models.weights import load_weights, save_weights, weights_metadata
from instseg_ros.presets import preset_file
from instseg_ros.settings import from_mapping, load_yaml, to_mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("first", help="weights file, or the name of a shipped one")
    parser.add_argument("second", help="weights file of the same model")
    parser.add_argument("--share", type=float, default=0.5, help="of the second in the average, 0 to 1 (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors file to write")
    parser.add_argument("--preset", default="rooms", help="whose augmentation the batches have (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path("data/rooms"), help="folder with the train/ scenes that the norms are estimated on (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=40, help="batches for the norms (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Average, estimate the norms, and write the weights with what the second file says of itself."""
    from instseg_ros.training.average import average_networks, estimate_norms
    from instseg_ros.training.batches import BatchSource
    from instseg_ros.training.trainer import scene_files

    if not 0.0 <= args.share <= 1.0 or args.batches < 1:
        raise ConfigError(f"--share {args.share} must be between 0 and 1, --batches {args.batches} at least 1")
    net = average_networks(load_weights(args.first), load_weights(args.second), args.share)
    preset = load_yaml(TrainingConfig, preset_file(args.preset))
    config = from_mapping(TrainingConfig, {"model": to_mapping(net.config)}, preset)
    source = BatchSource(scene_files(args.data / "train"), config)
    estimate_norms(net, tqdm(source.batches(0, args.batches), total=args.batches, desc="norms", unit="batch"))
    metadata = {k: v for k, v in weights_metadata(args.second).items() if k not in ("format", "model", "validation")}
    save_weights(args.out, net, {**metadata, "averaged": {"share": args.share, "batches": args.batches}})
    print(f"weights: {args.out}")
    return 0
