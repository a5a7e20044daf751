"""Instance average precision by the ScanNet protocol: simulated test rooms, or the house, offline and online."""

__all__ = ["add_arguments", "run"]

import argparse
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instseg_ros.config import SegmenterConfig, add_setting_arguments, load_yaml, settings_from_arguments
from instseg_ros.datasets.simulate import SEEDS_PER_RUN
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.evaluate import CaseResult, evaluate_case, summarise
from instseg_ros.evaluation.ground_truth import ORACLES, install_oracles
from instseg_ros.evaluation.instances import EVALUATED_CLASSES, default_min_region
from instseg_ros.evaluation.pictures import save_picture
from instseg_ros.evaluation.sources import CaseSource, house_source, room_sources
from instseg_ros.evaluation.table import format_table
from instseg_ros.labels import CLASS_NAMES
from instseg_ros.labels import class_index as class_index_of
from instseg_ros.models.weights import weights_metadata
from instseg_ros.report import write_report
from instseg_ros.segmenter import Segmenter

DEFAULT_HOUSE = Path("../shared/data/aws_small_house")


@dataclass(frozen=True)
class Job:
    """One case to make and to run; plain enough to be sent to another process."""

    source: CaseSource
    config: SegmenterConfig
    modes: tuple[str, ...]
    oracles: tuple[str, ...]

    def run(self, segmenter: Segmenter | None = None) -> CaseResult:
        """Make the case (or read it from the cache) and run it."""
        case = self.source.case()
        segmenter = segmenter or Segmenter(self.config)
        install_oracles(segmenter, case.truth, self.oracles)
        return evaluate_case(segmenter, case, self.modes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("what", choices=("rooms", "house"), help="simulated rooms with held-out furniture, or the house")
    parser.add_argument(
        "data", nargs="?", type=Path,
        help=f"house: its folder or file (default: {DEFAULT_HOUSE}); rooms: furniture catalogue (default: the installed one)")
    parser.add_argument("--json", type=Path, help="write figures and rows to this file")
    parser.add_argument("--count", type=int, default=20, help="rooms to evaluate (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the rooms, or of the walk through the house (default: %(default)s)")
    parser.add_argument(
        "--split", default="test", choices=("train", "validation", "test"),
        help="whose furniture the rooms hold (default: %(default)s)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--offline", action="store_true", help="only the final map as one full update")
    modes.add_argument("--online", action="store_true", help="only the growing map, update by update")
    parser.add_argument(
        "--frames-per-update", type=int, default=5, help="frames fused between two updates (default: %(default)s)")
    parser.add_argument(
        "--oracle", action="append", default=[], choices=ORACLES,
        help="replace this part by ground truth, to find what limits the result (can be given more than once)")
    parser.add_argument("--classes", help="class names to evaluate, with commas (default: those the weights were trained on)")
    parser.add_argument(
        "--min-region", type=int, help="smallest instance that counts, voxels (default: 16 at 5 cm, see docs/evaluation.md)")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/evaluate"), help="folder for rendered and fused scenes (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--plots", type=Path, help="write pictures of scenes to this folder")
    parser.add_argument("--pictures", type=int, default=4, help="scenes to picture with --plots (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="YAML file of segmenter settings")
    add_setting_arguments(parser.add_argument_group("segmenter settings (over those of --config)"), SegmenterConfig)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write the report and the pictures."""
    config = settings_from_arguments(SegmenterConfig, args, load_yaml(SegmenterConfig, args.config) if args.config else None)
    if args.jobs < 1 or args.count < 1 or args.frames_per_update < 1:
        raise ConfigError("--jobs, --count and --frames-per-update must be at least 1")
    classes = evaluated_classes(args.classes, config.weights)
    if args.what == "rooms":
        first = args.seed * SEEDS_PER_RUN  # as `instseg simulate rooms` counts them
        seeds = range(first, first + args.count)
        sources: Sequence[CaseSource] = room_sources(
            seeds, args.split, args.data, config.voxel_size_m, args.frames_per_update, args.cache)
    else:
        sources = [house_source(args.data or DEFAULT_HOUSE, args.seed, config.voxel_size_m, args.frames_per_update, args.cache)]
    modes = ("offline",) if args.offline else ("online",) if args.online else ("offline", "online")
    jobs = [Job(source, config, modes, tuple(args.oracle)) for source in sources]
    results = []
    for result in _progress(run_jobs(jobs, args.jobs), len(jobs), args.what):
        results.append(result)
        if args.plots and len(results) <= args.pictures:
            for mode, outcome in result.outcomes.items():
                save_picture(args.plots / f"{result.name}_{mode}.png", outcome, config.voxel_size_m)
    results.sort(key=lambda result: result.name)
    figures, rows = summarise(args.what, results, classes, args.min_region or default_min_region(config.voxel_size_m))
    print(format_table(rows, figures, args.what))
    for name, value in figures.items():
        print(f"{name:<36}{format(value, '.4g') if isinstance(value, float) else value}")
    if args.json:
        write_report(args.json, {**figures, "oracles": ",".join(args.oracle)} if args.oracle else figures, rows)
        print(f"written: {args.json}")
    return 0


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


def run_jobs(jobs: Sequence[Job], processes: int) -> Iterator[CaseResult]:
    """Results as they come; with one process in order and with one segmenter for all."""
    if processes == 1:
        segmenter = Segmenter(jobs[0].config)
        for job in jobs:
            yield job.run(segmenter)
        return
    # forked children would inherit the state of torch's thread pools
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        for future in as_completed([pool.submit(job.run) for job in jobs]):
            yield future.result()


def _progress(results: Iterator[CaseResult], total: int, title: str) -> Iterator[CaseResult]:
    from tqdm import tqdm

    bar: Any = tqdm(results, total=total, desc=title, unit="scene")
    yield from bar
