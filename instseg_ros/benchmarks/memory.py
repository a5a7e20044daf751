"""Memory of a segmenter while a robot explores a whole floor, and then comes back to rooms that have changed.

The floor is made up (`surfaces.py`), room after room beside the last one, and each room is seen piece by piece. What the network keeps is limited
by cache_mb or cache_radius_m. Afterwards the robot goes through the building again: in some of its rooms things get other colours, are gone, and
are back, so that what was let go of there has to be computed again.
"""

__all__ = ["add_arguments", "explore", "floor_updates", "plot", "return_updates", "run"]

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instseg_ros.benchmarks.resident import peak_bytes, resident_bytes
from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M
from instseg_ros.benchmarks.surfaces import RoomOfSurfaces as Room
from instseg_ros.config import SegmenterConfig
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.weights import settings_over_weights
from instseg_ros.segmenter import Segmenter
from instseg_ros.settings import add_setting_arguments, settings_from_arguments
from instseg_ros.sparse.incremental import IncrementalNetwork

Rows = list[dict[str, Any]]
_CACHE_MB = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--voxels", type=int, default=5_000_000, help="size of the floor (default: %(default)s)")
    parser.add_argument("--update-voxels", type=int, default=4000, help="voxels seen between two updates (default: %(default)s)")
    parser.add_argument("--returns", type=int, default=20, help="rooms that are come back to in the end (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the building (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG of memory and time over the updates (default: beside --json)")
    group = parser.add_argument_group("segmenter settings", f"cache_mb is {_CACHE_MB} unless it or cache_radius_m is given")
    add_setting_arguments(group, SegmenterConfig)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], Rows]:
    """Measure; returns the figures and rows of the report."""
    config = settings_over_weights(SegmenterConfig, lambda base: settings_from_arguments(SegmenterConfig, args, base))
    if not config.cache_mb and not config.cache_radius_m:
        config = replace(config, cache_mb=_CACHE_MB)
    figures, rows = explore(Segmenter(config), args.voxels, args.update_voxels, args.returns, args.seed)
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows, config.cache_mb)
    return figures, rows


def rooms_along_the_way(voxels: int, seed: int) -> Iterator[Room]:
    """Rooms of a building of so many voxels in an order in which each is beside the one before; the last is half seen."""
    left, shell = voxels, 0
    while True:
        numbers = range(shell * shell, (shell + 1) * (shell + 1))
        for number in numbers if shell % 2 == 0 else reversed(numbers):
            room = Room.made_up(number, seed)
            yield Room(room.coords[:left], room.colors[:left], room.surface[:left])
            left -= len(room.coords)
            if left <= 0:
                return
        shell += 1


def floor_updates(rooms: Iterable[Room], update_voxels: int) -> Iterator[MapUpdate]:
    """The rooms, piece by piece."""
    for room in rooms:
        for start in range(0, len(room.coords), update_voxels):
            piece = slice(start, start + update_voxels)
            yield _update(room.coords[piece], room.colors[piece])


def return_updates(rooms: list[Room], update_voxels: int) -> Iterator[MapUpdate]:
    """In every room a piece from its middle gets other colours, is gone, and is back as it was."""
    nothing = np.zeros((0, 3), np.int32)
    for room in rooms:
        half = min(update_voxels, len(room.coords)) // 2
        piece = slice(len(room.coords) // 2 - half // 2, len(room.coords) // 2 - half // 2 + half)
        coords, colors = room.coords[piece], room.colors[piece]
        yield _update(coords, colors ^ np.uint8(64))
        yield replace(_update(nothing, nothing.astype(np.uint8)), deleted=coords)
        yield _update(coords, colors)


def _update(coords: np.ndarray, colors: np.ndarray) -> MapUpdate:
    return MapUpdate(coords, colors, np.ones(len(coords), np.float32), VOXEL_SIZE_M)


def explore(segmenter: Segmenter, voxels: int, update_voxels: int, returns: int, seed: int) -> tuple[dict[str, Any], Rows]:
    """Send a floor through a segmenter that knows nothing yet.

    Args:
        segmenter: with incremental passes on the CPU.
        voxels: size of the floor.
        update_voxels: voxels per update.
        returns: rooms that are come back to.
        seed: of the building.

    Returns:
        Figures, and a row per update: phase ("explore" or "return"), voxels, memory, time per stage.
    """
    segmenter.warm_up()
    before = resident_bytes()
    rows: Rows = []
    rooms: list[Room] = []

    def remembered() -> Iterator[Room]:
        for room in rooms_along_the_way(voxels, seed):
            rooms.append(room)
            yield room

    with tqdm(total=voxels, desc="explore", unit="voxel", unit_scale=True) as bar:
        for update in floor_updates(remembered(), update_voxels):
            rows.append(_row(segmenter, "explore", update))
            bar.update(len(update))
    for update in tqdm(list(return_updates(_spread(rooms, returns), update_voxels)), desc="return"):
        rows.append(_row(segmenter, "return", update))
    input_bytes = sum(room.coords.nbytes + room.colors.nbytes + room.surface.nbytes for room in rooms)
    return _figures(segmenter, rows, before + input_bytes), rows


def _spread(rooms: list[Room], count: int) -> list[Room]:
    """So many of the rooms, evenly, the first one among them."""
    return [rooms[k] for k in np.unique(np.linspace(0, len(rooms) - 1, min(count, len(rooms))).astype(int))]


def _row(segmenter: Segmenter, phase: str, update: MapUpdate) -> dict[str, Any]:
    start = time.process_time()
    result = segmenter.process(update)
    cpu_ms = (time.process_time() - start) * 1e3
    network = segmenter.runner
    assert isinstance(network, IncrementalNetwork)
    return {
        "phase": phase, "voxels": result.voxels, "changed": len(update) + len(update.deleted), "instances": len(result.instances),
        "held_bytes": network.held_bytes(), "network_bytes": network.nbytes(), "resident_bytes": resident_bytes(),
        **{f"{stage}_ms": ms for stage, ms in result.stage_ms.items()}, "cpu_ms": cpu_ms,
    }


def _figures(segmenter: Segmenter, rows: Rows, before: int) -> dict[str, Any]:
    explored = [row for row in rows if row["phase"] == "explore"]
    back = [row for row in rows if row["phase"] == "return"]
    tenth = max(1, len(explored) // 10)
    voxels, budget = rows[-1]["voxels"], segmenter.config.cache_mb * 1_000_000
    figures: dict[str, Any] = {
        "memory_voxels": voxels, "memory_updates": len(rows), "memory_instances": rows[-1]["instances"], "cache_mb": segmenter.config.cache_mb,
        "cache_radius_m": segmenter.config.cache_radius_m, "held_bytes_max": max(row["held_bytes"] for row in rows),
        "budget_held": not budget or all(row["held_bytes"] <= budget for row in rows),
        "resident_bytes_end": rows[-1]["resident_bytes"], "resident_bytes_peak": peak_bytes(), "resident_bytes_before": before,
        "resident_bytes_per_voxel": (rows[-1]["resident_bytes"] - before) / voxels,
        **{f"bytes_per_voxel_{name}": size / voxels for name, size in segmenter.nbytes().items()},
    }
    for phase, part in (("explore_early", explored[tenth : 2 * tenth]), ("explore_late", explored[-tenth:]), ("return", back)):
        for kind in ("total", "cpu") if part else ():
            times = [row[f"{kind}_ms"] for row in part]
            p50, p95 = np.percentile(times, [50, 95]).tolist()
            figures |= {f"{phase}_{kind}_ms_p50": p50, f"{phase}_{kind}_ms_p95": p95, f"{phase}_{kind}_ms_max": max(times)}
    return figures


def plot(path: Path, rows: Rows, cache_mb: int) -> None:
    """Memory and time per update over the updates, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(8, 7), layout="constrained", sharex=True)
    numbers = np.arange(len(rows))
    upper.plot(numbers, [row["resident_bytes"] / 1e6 for row in rows], label="resident memory of the process")
    upper.plot(numbers, [row["held_bytes"] / 1e6 for row in rows], label="outputs of the layers held between updates")
    if cache_mb:
        upper.axhline(cache_mb, color="grey", linestyle="--", linewidth=0.8, label="cache_mb")
    upper.set(ylabel="MB", ylim=(0, None))
    right = upper.twinx()
    right.plot(numbers, [row["voxels"] / 1e6 for row in rows], color="black", linewidth=0.8, label="voxels")
    right.set(ylabel="million voxels", ylim=(0, None))
    handles, labels = (a + b for a, b in zip(upper.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True))
    upper.legend(handles, labels, loc="upper left", frameon=False)
    for stage in ("total", "network", "grouping"):
        lower.plot(numbers, [row[f"{stage}_ms"] for row in rows], linewidth=0.6, label=stage)
    lower.set(xlabel="update", ylabel="ms per update", yscale="log")
    lower.legend(loc="upper left", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
