"""`instseg evaluate scannet|s3dis|nyuv2|scenenn`: the public data sets by their own measures, on their own points."""

__all__ = ["add_scan_arguments", "evaluate_scans"]

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instseg_ros.config import SegmenterConfig
from instseg_ros.datasets.import_scans import ConvertOptions
from instseg_ros.datasets.raw_files import check_file
from instseg_ros.distribute import run_tasks
from instseg_ros.errors import ConfigError, DataError
from instseg_ros.evaluation.baselines import BASELINES
from instseg_ros.evaluation.comparison import comparison_markdown, save_comparison_plot
from instseg_ros.evaluation.entries import BaselineEntry, Entry, FoldEntry, SegmenterEntry, make_entries
from instseg_ros.evaluation.jobs import run_job
from instseg_ros.evaluation.protocols import PROTOCOLS, area_of
from instseg_ros.evaluation.s3dis import AREAS
from instseg_ros.evaluation.scan_jobs import ScanJob, ScanScore, summarise_scans
from instseg_ros.evaluation.scan_sources import RawScan, ScanSource, scan_sources
from instseg_ros.models.weights import weights_metadata
from instseg_ros.report import write_report

AREA = "{area}"
"""Stands for the number of a room's area in names of weights: one network per fold of S3DIS."""
_NOT_HERE = {"online": "--online", "plots": "--plots", "hota": "--hota", "min_region": "--min-region", "classes": "--classes"}

Configure = Callable[[argparse.Namespace], SegmenterConfig]


def add_scan_arguments(parser: argparse._ArgumentGroup) -> None:
    """The flags of the public data sets."""
    parser.add_argument("--list", type=Path, metavar="FILE", help="evaluate the scans named in this file, one a line")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="scannet: write the predictions in the benchmark's submission format to this folder")
    parser.add_argument(
        "--labels", type=Path, help="scannet: scannetv2-labels.combined.tsv (default: looked for beside the scans, else the labels.ply of each scan)")
    parser.add_argument("--no-align", action="store_true", help="scannet: do not turn scans by their axisAlignment")
    parser.add_argument("--up", default="y", help="scenenn: axis upwards where no floor is labelled: x, y, z, -x, -y, -z (default: %(default)s)")
    parser.add_argument("--mapping", type=Path, help="nyuv2: classMapping40.mat: the 40 classes of the 894 names")
    parser.add_argument("--splits", type=Path, help="nyuv2: splits.mat, which frames train and test (default: all frames are evaluated)")


def evaluate_scans(args: argparse.Namespace, configure: Configure, progress: Callable[..., Iterator[Any]]) -> int:
    """Evaluate a data set, print its table, write report, comparison and submission.

    Args:
        args: of the command.
        configure: settings of the segmenter from its arguments.
        progress: shows how far an iterator of results is, given their number and a title.

    Raises:
        ConfigError: arguments that mean nothing here. DataError: no scans, no labels, or files that cannot be read.
    """
    _check(args)
    options = ConvertOptions(labels=args.labels, align=not args.no_align, up=args.up, mapping=args.mapping, splits=args.splits)
    names = None if args.list is None else check_file(args.list, "name a file with one scan a line").read_text(errors="replace").split()
    sources = scan_sources(PROTOCOLS[args.what], args.data, options, args.split, names)[: args.count]
    entries, sources = _with_entries(args, configure, sources)
    export = {}
    if args.export:
        export = {e.name: args.export / e.name if args.compare else args.export for e in entries if not isinstance(e, BaselineEntry)}
    jobs = [ScanJob(source, args.what, entries, export) for source in sources]
    found: list[dict[str, ScanScore]] = []
    found += progress(run_tasks(run_job, jobs, args.jobs, args.ray), len(jobs), args.what)
    found.sort(key=lambda one: next(iter(one.values())).scan)
    if export:
        print(f"submission written: {', '.join(map(str, export.values()))}")
    scores = {entry.name: [one[entry.name] for one in found] for entry in entries}
    figures, rows = summarise_scans(args.what, scores)
    if not any(row.get("instances") for row in rows):
        if export:
            print("these scans have no labels: nothing is measured")
            return 0
        raise DataError("the scans have no ground-truth instances: name a split with labels (test scans have none), or --export them")
    title = f"{PROTOCOLS[args.what].title}: {len(found)} scans, {100 * sources[0].voxel_size_m:g} cm voxels, measured on points"
    _report(args, title, figures, rows)
    return 0


def _check(args: argparse.Namespace) -> None:
    wrong = [flag for name, flag in _NOT_HERE.items() if getattr(args, name)]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: {args.what} is measured offline, by its own rules and classes; leave this out")
    if args.export and args.what != "scannet":
        raise ConfigError(f"--export writes ScanNet's submission format, {args.what} has none: leave it out")
    if args.data is None:
        raise ConfigError(f"where is it? instseg evaluate {args.what} FOLDER (as it was unpacked, or what `instseg convert` wrote)")
    if args.oracle and args.compare:
        raise ConfigError("--oracle is for one segmenter: with --compare, write --entry NAME=WEIGHTS,oracle=PART")


def _with_entries(
    args: argparse.Namespace, configure: Configure, sources: Sequence[ScanSource],
) -> tuple[tuple[Entry, ...], list[ScanSource]]:
    """What runs, by area where the weights are; and the scans with voxels of the weights' size."""
    given = vars(args).get("setting:weights", "")
    folds = [text for text in (given, *args.entry) if AREA in text]
    areas = sorted({area_of(source.name) for source in sources}) if args.what == "s3dis" else []
    if folds and not all(areas or [""]):
        raise ConfigError(f"{folds[0]}: {AREA} stands for the number of an S3DIS area: the scans are of {args.what}, or of other names")
    if args.what == "s3dis":
        _warn(areas, bool(folds))
    sized = list(sources)
    by_area: dict[str, tuple[Entry, ...]] = {}
    for area in areas if folds else [""]:
        local = argparse.Namespace(**{**vars(args), "entry": [text.replace(AREA, area.removeprefix("Area_")) for text in args.entry]})
        if AREA in given:
            setattr(local, "setting:weights", given.replace(AREA, area.removeprefix("Area_")))
        config = configure(local)
        if not by_area:
            sized = _sized(args, config, local.entry, sources)
        by_area[area] = _entries(local, replace(config, voxel_size_m=sized[0].voxel_size_m))
    first = next(iter(by_area.values()))
    if not folds:
        return first, sized
    return tuple(FoldEntry(entry.name, {area: of[k] for area, of in by_area.items()}) for k, entry in enumerate(first)), sized


def _warn(areas: Sequence[str], folds: bool) -> None:
    if len(areas) > 1 and not folds:
        print(f"note: the same weights are asked about all areas. Of six folds, each area is asked of a network that was trained on the others: "
              f"name them with {AREA}, like --weights runs/s3dis_{AREA}/last.safetensors", file=sys.stderr)
    if set(areas) != set(AREAS):
        print(f"note: only {', '.join(areas)}: the figure of the papers counts the rooms of all six areas", file=sys.stderr)


def _sized(args: argparse.Namespace, config: SegmenterConfig, entries: Sequence[str], sources: Sequence[ScanSource]) -> list[ScanSource]:
    """Raw scans are put into voxels of the size given, or else of that of the first weights; converted ones have theirs."""
    if "setting:voxel_size_m" in vars(args) or args.config:
        size = config.voxel_size_m
    else:
        named = entries[0].partition("=")[2].split(",")[0] if args.compare and entries else ""
        size = float(weights_metadata(named or config.weights)["model"]["voxel_size_m"])
    return [replace(source, voxel_size_m=size) if isinstance(source, RawScan) else source for source in sources]


def _entries(args: argparse.Namespace, config: SegmenterConfig) -> tuple[Entry, ...]:
    if args.compare:
        return make_entries(args.entry, args.baseline or tuple(BASELINES), args.baseline_classes == "true", config)
    return (SegmenterEntry("instseg_ros", config, tuple(args.oracle), args.rotations),)


def _report(args: argparse.Namespace, title: str, figures: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    text = comparison_markdown(title, rows)
    print(text)
    if not args.compare:
        figures = {name: next(iter(value.values())) if isinstance(value, dict) else value for name, value in figures.items()}
        if args.json:
            write_report(args.json, {**figures, "oracles": ",".join(args.oracle)} if args.oracle else figures, rows)
            print(f"written: {args.json}")
        return
    out = args.out or Path("out/compare") / args.what
    for path in {out / "comparison.json", args.json or out / "comparison.json"}:
        write_report(path, figures, rows)
    (out / "comparison.md").write_text(text)
    save_comparison_plot(out / "comparison.png", title, rows)
    print(f"written: {out}/comparison.md, .json, .png")
