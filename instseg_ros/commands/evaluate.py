"""How good the instances are: on simulated test rooms, the house, toy scenes or any labelled voxel scenes, by ScanNet's average precision on
voxels; on ScanNet, S3DIS, NYUv2 and SceneNN by each one's own measure on its own points.

With --compare, several weights and settings and the baselines on the same scenes, in one table."""

__all__ = ["add_arguments", "run"]

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.commands.evaluate_scans import add_scan_arguments, evaluate_scans
from instseg_ros.config import SegmenterConfig
from instseg_ros.datasets.simulate import SEEDS_PER_RUN
from instseg_ros.datasets.toy import TOY_CLASSES
from instseg_ros.distribute import run_tasks
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.baselines import BASELINES
from instseg_ros.evaluation.comparison import comparison_markdown, save_comparison_plot, summarise_entries
from instseg_ros.evaluation.entries import Score, SegmenterEntry, make_entries
from instseg_ros.evaluation.evaluate import CaseResult, summarise
from instseg_ros.evaluation.ground_truth import ORACLES
from instseg_ros.evaluation.instances import EVALUATED_CLASSES, Scan, default_min_region
from instseg_ros.evaluation.jobs import ComparisonJob, Job, run_job
from instseg_ros.evaluation.occupancy import save_occupancy_plot
from instseg_ros.evaluation.pictures import save_picture
from instseg_ros.evaluation.protocols import PROTOCOLS
from instseg_ros.evaluation.sources import CaseSource, SceneSource, house_source, room_sources, scene_sources
from instseg_ros.evaluation.table import format_table
from instseg_ros.labels import CLASS_NAMES
from instseg_ros.labels import class_index as class_index_of
from instseg_ros.models.weights import settings_over_weights, weights_metadata
from instseg_ros.report import write_report
from instseg_ros.settings import add_setting_arguments, load_yaml, settings_from_arguments

DEFAULT_HOUSE = Path("../shared/data/aws_small_house")
DEFAULT_ROOMS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "what", choices=("rooms", "house", "toy", "scenes", *PROTOCOLS),
        help="simulated rooms with held-out furniture, the house, toy scenes, any folder of labelled voxel scenes; or a public data set by its own "
        "measure: scannet (AP, AP50, AP25 on vertices), s3dis (mPrec and mRec at 0.5, by area and over six folds), nyuv2 (AP25), scenenn (mAP50)")
    parser.add_argument(
        "data", nargs="?", type=Path,
        help=f"house: its folder or file (default: {DEFAULT_HOUSE}); rooms: furniture catalogue (default: the installed one); toy, "
        "scenes: folder of .npz scenes, or one with a folder `test` of them; data sets: as they were unpacked, or what `instseg convert` wrote")
    parser.add_argument("--json", type=Path, help="write figures and rows to this file")
    parser.add_argument("--count", type=int, help=f"scenes to evaluate (default: {DEFAULT_ROOMS} rooms; all toy scenes and scenes)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the rooms, or of the walk through the house (default: %(default)s)")
    parser.add_argument(
        "--split", choices=("train", "validation", "test"),
        help="whose furniture the rooms hold (default: test), or which scans of a data set (default: scannet validation, nyuv2 test, the others all)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--offline", action="store_true", help="only the final map as one full update")
    modes.add_argument("--online", action="store_true", help="only the growing map, update by update")
    parser.add_argument(
        "--frames-per-update", type=int, default=5, help="frames fused between two updates (default: %(default)s)")
    parser.add_argument(
        "--oracle", action="append", default=[], choices=ORACLES,
        help="replace this part by ground truth, to find what limits the result (can be given more than once)")
    parser.add_argument(
        "--rotations", type=int, default=1,
        help="average the classes over this many headings of the final map before they are grouped; offline only (SSEN: 10; default: %(default)s)")
    parser.add_argument(
        "--classes", help="class names to evaluate, with commas (default: those the weights were trained on; toy: its five; scenes: those there)")
    parser.add_argument(
        "--min-region", type=int, help="smallest instance that counts, voxels (default: 16 at 5 cm, see docs/evaluation.md)")
    parser.add_argument("--hota", action="store_true", help="online runs: HOTA too, by the TrackEval library")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/evaluate"), help="folder for rendered and fused scenes (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--ray", metavar="ADDRESS", help="run scenes on a Ray cluster instead: local, auto, or its address")
    parser.add_argument("--plots", type=Path, help="write pictures of scenes to this folder")
    parser.add_argument("--pictures", type=int, default=4, help="scenes to picture with --plots (default: %(default)s)")
    _add_comparison_arguments(parser.add_argument_group("comparison"))
    add_scan_arguments(parser.add_argument_group("scannet, s3dis, nyuv2, scenenn"))
    parser.add_argument("--config", type=Path, help="YAML file of segmenter settings")
    add_setting_arguments(parser.add_argument_group("segmenter settings (over those of --config)"), SegmenterConfig)


def _add_comparison_arguments(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument("--compare", action="store_true", help="several entries and the baselines in one table")
    parser.add_argument(
        "--entry", action="append", default=[], metavar="NAME=WEIGHTS[,SETTING=VALUE...]",
        help="weights with settings of the segmenter, like mtml=out/mtml.safetensors,grouping.min_voxels=30; oracle=semantic+offset "
        "replaces parts by ground truth, rotations=10 averages classes (can be given more than once; default: the weights of the settings)")
    parser.add_argument(
        "--baseline", action="append", choices=(*BASELINES, "none"),
        help="baselines to compare with (can be given more than once; default: all)")
    parser.add_argument(
        "--baseline-classes", choices=("true", "predicted"),
        help="what the baselines take as classes: the ground truth, or what the first entry predicts (default: true for toy)")
    parser.add_argument("--out", type=Path, help="folder for comparison.md, .json and .png (default: out/compare/WHAT)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write the report and the pictures."""
    if args.jobs < 1 or args.frames_per_update < 1 or args.rotations < 1 or (args.count is not None and args.count < 1):
        raise ConfigError("--jobs, --count, --rotations and --frames-per-update must be at least 1")
    if args.rotations > 1 and (args.online or args.compare):
        raise ConfigError("--rotations is for one segmenter, offline: with --compare, write --entry NAME=WEIGHTS,rotations=N; leave --online out")
    if not args.compare and (args.entry or args.baseline or args.baseline_classes or args.out):
        raise ConfigError("--entry, --baseline, --baseline-classes and --out belong to --compare: give it too")
    if args.what in PROTOCOLS:
        return evaluate_scans(args, _config, _progress)
    config = _config(args)
    sources = _sources(args, config)
    if isinstance(sources[0], SceneSource):
        config = replace(config, voxel_size_m=sources[0].voxel_size_m)
    (_compare if args.compare else _evaluate)(args, config, sources)
    return 0


def _config(args: argparse.Namespace) -> SegmenterConfig:
    """The flags over --config over what the weights bring."""
    return settings_over_weights(
        SegmenterConfig,
        lambda base: settings_from_arguments(SegmenterConfig, args, load_yaml(SegmenterConfig, args.config, base) if args.config else base))


def _sources(args: argparse.Namespace, config: SegmenterConfig) -> Sequence[CaseSource]:
    if args.what == "rooms":
        first = args.seed * SEEDS_PER_RUN  # as `instseg simulate rooms` counts them
        seeds = range(first, first + (args.count or DEFAULT_ROOMS))
        return room_sources(seeds, args.split or "test", args.data, config.voxel_size_m, args.frames_per_update, args.cache)
    if args.what == "house":
        return [house_source(args.data or DEFAULT_HOUSE, args.seed, config.voxel_size_m, args.frames_per_update, args.cache)]
    if args.data is None:
        raise ConfigError(f"which scenes? instseg evaluate {args.what} FOLDER (toy scenes: instseg simulate toy --out FOLDER)")
    return scene_sources(args.data, args.count)


def _modes(args: argparse.Namespace) -> tuple[str, ...]:
    if args.what in ("toy", "scenes"):
        if args.online:
            raise ConfigError(f"--online needs a trajectory, {args.what} have none: leave it out, or evaluate rooms or house")
        return ("offline",)
    return ("offline",) if args.offline or args.rotations > 1 else ("online",) if args.online else ("offline", "online")


def _classes(args: argparse.Namespace, weights: str) -> tuple[int, ...] | None:
    """Classes to evaluate; None = those that the scenes turn out to have."""
    if args.what == "toy" and not args.classes:
        return TOY_CLASSES
    return None if args.what == "scenes" and not args.classes else evaluated_classes(args.classes, weights)


def _evaluate(args: argparse.Namespace, config: SegmenterConfig, sources: Sequence[CaseSource]) -> None:
    classes = _classes(args, config.weights)
    jobs = [Job(source, config, _modes(args), tuple(args.oracle), args.rotations) for source in sources]
    results: list[CaseResult] = []
    for result in _progress(run_tasks(run_job, jobs, args.jobs, args.ray), len(jobs), args.what):
        results.append(result)
        if args.plots and len(results) <= args.pictures:
            for mode, outcome in result.outcomes.items():
                save_picture(args.plots / f"{result.name}_{mode}.png", outcome, config.voxel_size_m)
    results.sort(key=lambda result: result.name)
    classes = classes or classes_there([outcome.scan for result in results for outcome in result.outcomes.values()])
    min_region = args.min_region or default_min_region(config.voxel_size_m)
    figures, rows = summarise(args.what, results, classes, min_region, args.hota)
    print(format_table(rows, figures, args.what))
    for name, value in figures.items():
        print(f"{name:<36}{format(value, '.4g') if isinstance(value, float) else value}")
    if args.json:
        write_report(args.json, {**figures, "oracles": ",".join(args.oracle)} if args.oracle else figures, rows)
        print(f"written: {args.json}")


def _compare(args: argparse.Namespace, config: SegmenterConfig, sources: Sequence[CaseSource]) -> None:
    if args.oracle or args.plots:
        raise ConfigError("--oracle and --plots are for one segmenter: with --compare, write --entry NAME=WEIGHTS,oracle=PART, and see --out")
    true_classes = (args.baseline_classes or ("true" if args.what == "toy" else "predicted")) == "true"
    entries = make_entries(args.entry, args.baseline or tuple(BASELINES), true_classes, config)
    classes = _classes(args, next(e.config for e in entries if isinstance(e, SegmenterEntry)).weights)
    jobs = [ComparisonJob(source, entries, _modes(args)) for source in sources]
    found: list[tuple[str, dict[str, dict[str, Score]]]] = []
    found += _progress(run_tasks(run_job, jobs, args.jobs, args.ray), len(jobs), args.what)
    found.sort(key=lambda one: one[0])
    scores = {entry.name: [by_entry[entry.name] for _, by_entry in found] for entry in entries}
    classes = classes or classes_there([s.scan for by_mode in next(iter(scores.values())) for s in by_mode.values()])
    min_region = args.min_region or default_min_region(config.voxel_size_m)
    figures, rows = summarise_entries(args.what, scores, classes, min_region, args.what == "toy", args.hota)
    out = args.out or Path("out/compare") / args.what
    title = f"{args.what}: {len(found)} scenes of {100 * config.voxel_size_m:g} cm voxels"
    text = comparison_markdown(title, rows)
    print(text)
    for path in {out / "comparison.json", args.json or out / "comparison.json"}:
        write_report(path, figures, rows)
    (out / "comparison.md").write_text(text)
    save_comparison_plot(out / "comparison.png", title, rows)
    errors = {name: [e for case in cases for s in case.values() if (e := s.occupancy_errors) is not None] for name, cases in scores.items()}
    if any(errors.values()):
        save_occupancy_plot(out / "occupancy.png", {name: np.concatenate(one) for name, one in errors.items() if one})
    print(f"written: {out}/comparison.md, .json, .png")


def classes_there(scans: Sequence[Scan]) -> tuple[int, ...]:
    """Indices of the classes that have ground-truth instances.

    Raises:
        ConfigError: there are none.
    """
    there = {int(c) for scan in scans for c in np.unique(scan.class_index[scan.instance >= 0])}
    found = tuple(c for c in EVALUATED_CLASSES if c in there)
    if not found:
        raise ConfigError("the scenes have no ground-truth instances: evaluate scenes with labels (a benchmark's test scans have none)")
    return found


def evaluated_classes(names: str | None, weights: str) -> tuple[int, ...]:
    """Indices of the classes to evaluate: those named, or those the weights were trained on that have instances.

    Raises:
        ConfigError: a name is unknown, is background, or none is left.
    """
    if names is None:
        trained = weights_metadata(weights).get("classes") or CLASS_NAMES
        found = tuple(c for c in sorted(class_index_of(name) for name in trained) if c in EVALUATED_CLASSES)
    else:
        found = tuple(class_index_of(name.strip()) for name in names.split(","))
    if not found or not set(found) <= set(EVALUATED_CLASSES):
        allowed = ", ".join(CLASS_NAMES[c] for c in EVALUATED_CLASSES)
        raise ConfigError(f"nothing to evaluate in {names or 'the classes of the weights'!r}: name some of {allowed}")
    return found


def _progress(results: Iterator[Any], total: int, title: str) -> Iterator[Any]:
    from tqdm import tqdm

    bar: Any = tqdm(results, total=total, desc=title, unit="scene")
    yield from bar
