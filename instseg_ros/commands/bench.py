"""Run one of the benchmarks behind the figures of the README."""

__all__ = ["add_arguments", "run"]

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from instseg_ros.benchmarks import BENCHMARKS
from instseg_ros.report import write_report


def add_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Arguments of the command: a subcommand per benchmark.

    Args:
        parser: of the command.
        arguments: given to it: only the benchmark they begin with is imported, so that each needs only its own libraries.
    """
    subparsers = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, summary in BENCHMARKS.items():
        sub = subparsers.add_parser(name, help=summary)
        if name in arguments[:1]:
            module = importlib.import_module(f"instseg_ros.benchmarks.{name.replace('-', '_')}")
            sub.description = module.__doc__
            sub.add_argument("--json", type=Path, help="write figures and rows to this file")
            module.add_arguments(sub)
            sub.set_defaults(run_benchmark=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, print its figures, write the report."""
    figures, rows = args.run_benchmark(args)
    for name, value in figures.items():
        print(f"{name:<44} {format(value, '.4g') if isinstance(value, float) else value}")
    if args.json:
        write_report(args.json, figures, rows)
        print(f"written: {args.json}")
    return 0
