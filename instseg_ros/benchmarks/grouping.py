"""Regrouping what an update touches against grouping the whole map, for every grouper, while simulated rooms are mapped.

The rooms lie beside each other and are mapped one after the other, so that the map grows. Predictions come from the ground truth,
with noise, for every head that a grouper may read. After an update each grouper regroups the touched components; now and then a
fresh one groups the whole map, and both must give the same segments, with the same classes and scores.
"""

__all__ = ["add_arguments", "figures_of", "measure", "plot", "row_of_rooms", "run"]

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.benchmarks.oracle_heads import OracleHeads
from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError, InstSegError
from instseg_ros.evaluation.cases import Case
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.grouping.grouper import SPLITTERS, Grouper
from instseg_ros.grouping.segmentation import Segmentation
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.settings import add_setting_arguments, from_mapping, settings_from_arguments, to_mapping

_GAP_VOXELS = 20
"""Between two rooms."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the first room, of the test split (default: %(default)s)")
    parser.add_argument("--rooms", type=int, default=4, help="rooms of the map (default: %(default)s)")
    parser.add_argument("--voxel-size-m", type=float, default=0.05, help="voxel size of the map, m (default: %(default)s)")
    parser.add_argument("--frames-per-update", type=int, default=5, help="frames fused between two updates (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=0, help="only the first so many updates, 0 = all (default: %(default)s)")
    parser.add_argument(
        "--whole-every", type=int, default=1, help="the whole map is grouped at every so many updates, and the last (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=1.0, help="noise of the predictions, 1 = a trained network's (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(SPLITTERS), choices=list(SPLITTERS), help="groupers (default: all)")
    parser.add_argument(
        "--library", default=None, help='furniture of the rooms: a catalogue or "procedural" (default: the installed catalogue, if any)')
    parser.add_argument(
        "--cache", type=Path, default=Path("out/evaluate"), help="folder for rendered and fused rooms (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG of the time over the updates (default: beside --json)")
    add_setting_arguments(parser.add_argument_group("settings of all groupers"), GroupingConfig)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure; returns the figures and rows of the report."""
    from instseg_ros.evaluation.sources import room_sources

    if args.rooms < 1 or args.whole_every < 1 or args.updates < 0 or args.noise < 0.0:
        raise ConfigError("--rooms and --whole-every must be at least 1, --updates and --noise at least 0")
    seeds = range(args.seed, args.seed + args.rooms)
    sources = room_sources(seeds, "test", args.library, args.voxel_size_m, args.frames_per_update, args.cache)
    case = row_of_rooms([source.case() for source in sources])
    config = settings_from_arguments(GroupingConfig, args)
    figures, rows = measure(case, args.methods, config, args.updates, args.whole_every, args.noise, args.seed)
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    return {"grouping_scene": case.name, **figures}, rows


def row_of_rooms(cases: Sequence[Case]) -> Case:
    """One map of several: side by side along x with a gap between, mapped one after the other."""
    updates: list[MapUpdate] = []
    finals, coords, instances = [], [], []
    x = number = 0
    for case in cases:
        step = np.array([x - int(case.truth.coords[:, 0].min()), 0, 0], np.int32)
        for update in case.updates:
            moved = replace(update, coords=update.coords + step, deleted=update.deleted + step, sequence=len(updates))
            updates.append(moved)
        finals.append(replace(case.final, coords=case.final.coords + step))
        coords.append(case.truth.coords + step)
        instances.append(np.where(case.truth.instance >= 0, case.truth.instance + number, -1))
        x += int(np.ptp(case.truth.coords[:, 0])) + _GAP_VOXELS
        number += int(case.truth.instance.max(initial=-1)) + 1
    voxel_size_m = cases[0].final.voxel_size_m
    classes = np.concatenate([case.truth.class_index for case in cases])
    truth = GroundTruth.of(np.concatenate(coords), classes, np.concatenate(instances), voxel_size_m)
    all_coords, colors, weights = (np.concatenate([getattr(final, name) for final in finals]) for name in ("coords", "colors", "weights"))
    final = replace(finals[-1], coords=all_coords, colors=colors, weights=weights)
    return Case(" ".join(case.name for case in cases), updates, final, truth)


def measure(
    case: Case, methods: Sequence[str], config: GroupingConfig | None = None, updates: int = 0, whole_every: int = 1, noise: float = 1.0,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Send a case's updates to all groupers.

    Args:
        case: whose updates are sent.
        methods: groupers.
        config: settings of all of them; its method is not looked at.
        updates: only the first so many, 0 = all.
        whole_every: the whole map is grouped at every so many updates, and at the last.
        noise, seed: of the predictions.

    Returns:
        Figures per grouper: percentiles of the time and CPU time per update (ms); over the last tenth of the updates, the median
        of both for the whole map, and the ratio of the CPU time for the whole map to that per update. A row per update and
        grouper; `whole_ms` is None where the whole map was not grouped.

    Raises:
        InstSegError: a grouper's segments are not those of grouping the whole map.
    """
    chosen = case.updates[:updates] if updates else case.updates
    heads = OracleHeads(case.truth, seed, noise)
    voxel_map = VoxelMap(case.final.voxel_size_m)
    configs = {m: from_mapping(GroupingConfig, {**to_mapping(config or GroupingConfig()), "method": m}) for m in methods}
    groupers = {method: Grouper(c) for method, c in configs.items()}
    rows: list[dict[str, Any]] = []
    for number, update in enumerate(chosen):
        delta = voxel_map.apply(update)
        changed = heads.refresh(voxel_map, delta)
        whole = number % whole_every == 0 or number == len(chosen) - 1
        for method, grouper in groupers.items():
            result, ms, cpu_ms = _timed(partial(grouper.regroup, voxel_map, heads.prediction, changed, delta))
            row = {
                "update": number, "voxels": len(voxel_map), "changed": len(changed) + len(delta.removed), "method": method,
                "regrouped_ms": ms, "regrouped_cpu_ms": cpu_ms, "whole_ms": None, "whole_cpu_ms": None, "segments": len(result.segments),
            }
            if whole:
                fresh = partial(Grouper(configs[method]).regroup, voxel_map, heads.prediction, changed, delta)
                expected, row["whole_ms"], row["whole_cpu_ms"] = _timed(fresh)
                _check(method, number, result, expected)
            rows.append(row)
    return figures_of(rows), rows


def _timed(call: Callable[[], Segmentation]) -> tuple[Segmentation, float, float]:
    """What the call gives, its time and its CPU time (which other programs disturb less), ms."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = call()
    return result, (time.perf_counter() - start) * 1e3, (time.process_time() - cpu_start) * 1e3


def _check(method: str, update: int, result: Segmentation, expected: Segmentation) -> None:
    """Refuse segments that differ from those of the whole map."""
    found, wanted = ({s.slots.tobytes(): (s.class_index, s.score) for s in one.segments.values()} for one in (result, expected))
    if found != wanted:
        raise InstSegError(
            f"{method}: after update {update} the regrouped map has {len(found)} segments, {len(wanted)} when grouped anew, "
            f"{len(found.items() & wanted.items())} of them the same: this is a defect, please report it with the seed"
        )


def figures_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Times per update and their ratio to grouping the whole map, per grouper."""
    last = rows[-1]
    figures: dict[str, Any] = {"grouping_updates": last["update"] + 1, "grouping_voxels": last["voxels"], "grouping_equal": True}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        for name in ("ms", "cpu_ms"):
            times = [row[f"regrouped_{name}"] for row in mine]
            figures[f"grouping_{method}_{name}_p50"], figures[f"grouping_{method}_{name}_p95"] = np.percentile(times, [50, 95]).tolist()
        end = [row for row in mine[-max(1, len(mine) // 10) :] if row["whole_ms"] is not None]
        for name in ("ms", "cpu_ms"):
            figures[f"grouping_{method}_whole_{name}"] = float(np.median([row[f"whole_{name}"] for row in end]))
        regrouped = float(np.median([row["regrouped_cpu_ms"] for row in end]))
        figures[f"grouping_{method}_cpu_ratio"] = figures[f"grouping_{method}_whole_cpu_ms"] / regrouped
        figures[f"grouping_{method}_segments"] = mine[-1]["segments"]
    return figures


def plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Time per update of both ways for every grouper, and the size of the map, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = pyplot.subplots(1, len(methods), figsize=(4.0 * len(methods), 3.8), layout="constrained", squeeze=False, sharey=True)
    for axis, method in zip(axes[0], methods, strict=True):
        mine = [row for row in rows if row["method"] == method]
        for name, label in (("whole_ms", "the whole map"), ("regrouped_ms", "touched components")):
            points = [(row["update"], row[name]) for row in mine if row[name] is not None]
            axis.plot(*zip(*points, strict=True), label=label, linewidth=1.4)
        axis.set(title=method, xlabel="update", yscale="log")
        axis.grid(alpha=0.3, which="both")
        right = axis.twinx()
        right.fill_between([row["update"] for row in mine], [row["voxels"] for row in mine], color="black", alpha=0.08, linewidth=0)
        right.set_ylim(0, None)
        if axis is axes[0][-1]:
            right.set_ylabel("voxels in the map")
        else:
            right.set_yticks([])
    axes[0][0].set(ylabel="grouping, ms")
    axes[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
