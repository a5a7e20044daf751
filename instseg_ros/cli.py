"""The command `instseg`: a subcommand for every job, each in its own module of `instseg_ros.commands`."""

__all__ = ["main"]

import argparse
import importlib
import sys
from collections.abc import Sequence

from instseg_ros.errors import InstSegError

COMMANDS = {
    "demo": "the main job end to end: fusion and segmenter nodes over a furnished room, with pictures, a bag and a summary",
    "simulate": "labelled training scenes: furnished rooms, rendered and fused, or toy cuboids",
    "convert": "read ScanNet, S3DIS, SceneNN or NYUv2 and write labelled voxel scenes",
    "segment": "segment an RGB-D sequence, a cloud, a mesh or a bag, without ROS",
    "replay": "replay a bag in this process or through topics: accuracy, throughput, latency, pictures",
    "train": "train a preset",
    "average": "average the weights of two runs",
    "evaluate": "instance average precision of a model on a data set, offline and online",
    "doctor": "check this machine, ROS and a running graph, and say what to fix",
    "bench": "the benchmarks behind the figures of the README",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; errors of the package are printed as one line.

    Returns:
        The exit status: 0, or 2 after an error that the message explains.
    """
    parser = argparse.ArgumentParser(prog="instseg", description="Live 3D instance segmentation of the maps robots build.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary)
        if name in arguments[:1]:  # only the command in use is imported, so that each needs only its own libraries
            module = importlib.import_module(f"instseg_ros.commands.{name}")
            module.add_arguments(sub, *([arguments[1:]] if name == "bench" else []))  # which does the same with its benchmarks
            sub.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except InstSegError as error:
        print(f"instseg {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
