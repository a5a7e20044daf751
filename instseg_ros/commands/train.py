"""Train a preset on labelled voxel scenes; a run that was stopped goes on where it was."""

__all__ = ["add_arguments", "main", "run"]

import argparse
import sys
from pathlib import Path

from instseg_ros.config import TrainingConfig
from instseg_ros.presets import preset_file
from instseg_ros.settings import add_setting_arguments, load_yaml, settings_from_arguments
from instseg_ros.sparse import kernels
from instseg_ros.training.processes import cores_each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("preset", help="name of a preset (config/presets/NAME.yaml) or a YAML file of training settings")
    parser.add_argument("--data", type=Path, default=Path("data/rooms"), help="folder with train/ and validation/ scenes (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/PRESET); a checkpoint in it is gone on from")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 = all (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="start anew even if the run's folder has a checkpoint")
    parser.add_argument("--init", type=Path, help="weights file to start from, for example the shipped one; its network may be deeper or shallower")
    add_setting_arguments(parser.add_argument_group("training settings (over those of the preset)"), TrainingConfig)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the weights are."""
    from instseg_ros.training.trainer import Trainer

    config = settings_from_arguments(TrainingConfig, args, load_yaml(TrainingConfig, preset_file(args.preset)))
    name = Path(args.preset).stem
    out = args.out or Path("runs") / name
    if threads := args.threads or cores_each():
        import torch

        torch.set_num_threads(threads)
        kernels.set_threads(threads)
    trainer = Trainer(config, args.data, out, args.device, name, args.fresh, args.init)
    say = print if trainer.processes.rank == 0 else lambda text: None
    if trainer.step:
        say(f"going on from step {trainer.step} of {out}")
    elif args.init:
        say(f"starting from {args.init}" + (f"; not in it: {', '.join(trainer.new_tensors)}" if trainer.new_tensors else ""))
    count = trainer.processes.count
    say(f"{trainer.model.parameter_count():,} parameters, {len(trainer.train_files)} training scenes, "
        + (f"{count} processes on {trainer.device.type}" if count > 1 else f"on {trainer.device}"))
    figures = trainer.run()
    say("  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    say(f"weights: {out / 'last.safetensors'}, best validation AP50: {out / 'best.safetensors'}")
    trainer.processes.close()
    return 0


def main() -> int:
    """`ros2 run instseg_ros train`: the same as `instseg train`."""
    from instseg_ros.cli import main as instseg

    return instseg(["train", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
