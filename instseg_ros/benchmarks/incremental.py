"""The incremental network against full passes: cost by share of the map changed and by size of the map, tolerance, exactness, memory.

Maps are made-up buildings (`surfaces.py`), changes are contiguous: a patch of the map is taken away and seen again ("revealed"), or
gets other colours ("recoloured"). Full pass and refresh run in turns in the same process on the same kernels, and the medians are
compared; the full pass has its tables at hand. With `--device cuda` the same change is made to maps of --voxels and --memory-voxels on the
GPU instead (`incremental_device.py`). Label agreement and AP50 come from sequences of simulated test rooms.
"""

__all__ = ["add_arguments", "run"]

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from instseg_ros.benchmarks import incremental_device
from instseg_ros.benchmarks.building import Building, nearest, random_history
from instseg_ros.benchmarks.resident import peak_bytes
from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M, surface_voxels
from instseg_ros.config import ModelConfig, SegmenterConfig
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet, input_features, resolve_device
from instseg_ros.models.weights import load_weights, settings_over_weights
from instseg_ros.report import write_report
from instseg_ros.settings import add_setting_arguments, settings_from_arguments
from instseg_ros.sparse import kernels
from instseg_ros.sparse.incremental import IncrementalNetwork
from instseg_ros.sparse.runner import FullPassRunner

Rows = list[dict[str, Any]]
Figures = dict[str, Any]

_WIDTHS: tuple[tuple[int, ...], ...] = ((8,), (16, 8), (8, 16, 24), (4, 8, 12, 16))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument("--voxels", type=int, default=300_000, help="voxels of the map whose share is changed (default: %(default)s)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
                        help="shares of it that change (default: 0.1 %% to 100 %%)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[50_000, 100_000, 300_000, 1_000_000, 2_000_000],
                        help="sizes of the maps for the same change in each (default: 50 k to 2 M)")
    parser.add_argument("--tolerances", type=float, nargs="*", default=[0.0, 0.003, 0.01, 0.02, 0.03, 0.1],
                        help="tolerances compared (default: %(default)s)")
    parser.add_argument("--memory-voxels", type=int, default=1_000_000, help="size of the map whose memory is measured (default: %(default)s)")
    parser.add_argument("--budgets-mb", type=int, nargs="*", default=[512], help="budgets for cached outputs tried on it (default: %(default)s)")
    parser.add_argument("--rooms", type=int, default=20, help="simulated test rooms for agreement and AP; 0 = none (default: %(default)s)")
    parser.add_argument("--histories", type=int, help="random histories checked for exactness (default: 200, on a GPU 5)")
    parser.add_argument("--rehearse", action="store_true",
                        help="what --device cuda measures, in plain torch on the CPU: to see that it holds together")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions a median is taken of (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("out/evaluate"), help="folder for rendered and fused rooms (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG of the cost (default: beside --json)")
    add_setting_arguments(parser.add_argument_group("segmenter settings"), SegmenterConfig)


def run(args: argparse.Namespace) -> tuple[Figures, Rows]:
    """Measure; returns the figures and rows of the report."""
    config = settings_over_weights(SegmenterConfig, lambda base: settings_from_arguments(SegmenterConfig, args, base))
    kernels.set_threads(config.threads)
    if config.threads:
        torch.set_num_threads(config.threads)
    net = load_weights(config.weights)
    if config.device == "cuda" or args.rehearse:
        return _on_device(args, net, config.tolerance)
    figures, rows = exactness(200 if args.histories is None else args.histories)
    parts: list[Callable[[], tuple[Figures, Rows]]] = [
        lambda: cost_by_share(net, args.voxels, args.shares, config.tolerance, args.repeats),
        lambda: cost_by_tolerance(net, args.voxels, args.tolerances, args.repeats),
        lambda: cost_of_halves(net, args.voxels, config.tolerance, args.repeats),
        lambda: cost_by_size(net, args.sizes, config.tolerance, args.repeats),
        lambda: memory(config.weights, args.memory_voxels, config.tolerance, args.budgets_mb),
    ]
    if args.rooms:
        parts.append(lambda: agreement(config, net, args.rooms, args.tolerances, args.cache))
    for part in parts:
        more, lines = part()
        figures, rows = {**figures, **more}, rows + lines
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    return figures, rows


def _on_device(args: argparse.Namespace, net: InstanceNet, tolerance: float) -> tuple[Figures, Rows]:
    device = torch.device("cpu") if args.rehearse else resolve_device("cuda")

    def report(figures: Figures, rows: Rows) -> None:
        if args.json:
            write_report(args.json, figures, rows)

    return incremental_device.measure(
        net, device, args.voxels, args.memory_voxels, tolerance, 5 if args.histories is None else args.histories, args.repeats,
        args.budgets_mb, report)


class Bench:
    """A building in an incremental network and a full-pass runner, both up to date."""

    def __init__(self, net: InstanceNet, building: Building, tolerance: float, dtype: str = "float32") -> None:
        self.building = building
        self.map = VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
        self.network = IncrementalNetwork(net, tolerance, dtype=dtype)
        self.full = FullPassRunner(net)
        self.network.refresh(self.map, self.map.apply(building.update(np.ones(len(building.coords), bool))))

    def full_pass_ms(self) -> float:
        """One pass over the whole map, tables and features at hand."""
        rows = self.map.pyramid.levels[0].high_water
        features = torch.from_numpy(input_features(self.map.colors[:rows], self.map.coords[:rows], self.full.config))
        tables = self.map.pyramid.tables()
        start = time.perf_counter()
        self.full.program.run(features, tables)
        return (time.perf_counter() - start) * 1e3

    def change_ms(self, kind: str, number: int) -> tuple[float, float]:
        """Time of the refresh after one change, and of taking it into the map."""
        building = self.building
        if kind == "revealed":
            self.network.refresh(self.map, self.map.apply(building.removal()))
            update = building.update(building.patch)
        else:
            update = building.update(building.patch, building.colors ^ np.uint8(64 if number % 2 else 0))
        start = time.perf_counter()
        delta = self.map.apply(update)
        middle = time.perf_counter()
        self.network.refresh(self.map, delta)
        return (time.perf_counter() - middle) * 1e3, (middle - start) * 1e3

    def measure(self, kind: str, repeats: int) -> dict[str, Any]:
        """Medians over full passes and refreshes in turns, and what was due."""
        full, refresh, mapping = [], [], []
        self.change_ms(kind, 1)  # caches, threads and memory are warm for both
        self.full_pass_ms()
        for number in range(repeats):
            full.append(self.full_pass_ms())
            cost = self.change_ms(kind, number)
            refresh.append(cost[0])
            mapping.append(cost[1])
        statistics = self.network.statistics[: len(self.network.program.layers)]  # refinements of the embedding come after the layers
        weights = [layer.weight.numel() for layer in self.network.program.layers]
        due = sum(s.due * w for s, w in zip(statistics, weights, strict=True))
        return {
            "kind": kind, "voxels": len(self.map), "changed": int(self.building.patch.sum()), "tolerance": self.network.tolerance,
            "full_ms": float(np.median(full)), "refresh_ms": float(np.median(refresh)), "map_ms": float(np.median(mapping)),
            "speedup": float(np.median(full) / np.median(refresh)),
            "due_share": due / sum(s.rows * w for s, w in zip(statistics, weights, strict=True)),
        }


def cost_by_share(net: InstanceNet, voxels: int, shares: list[float], tolerance: float, repeats: int) -> tuple[Figures, Rows]:
    """Refresh against full pass over the share of the map that changed."""
    rows: Rows = []
    figures: Figures = {}
    for share in tqdm(sorted({*shares, 0.01}), desc="share changed"):
        bench = Bench(net, Building.made_up(voxels, share), tolerance)
        for kind in ("revealed", "recoloured"):
            row = {"row": "share", "share": share, **bench.measure(kind, repeats)}
            rows.append(row)
            if share == 0.01:
                suffix = "" if kind == "revealed" else "_recoloured"
                figures |= {f"speedup_1pct_cpu{suffix}": row["speedup"], f"due_share_1pct{suffix}": row["due_share"]}
                rows += [{"row": "layer", "kind": kind, "layer": s.name, "due_share": s.due / max(1, s.rows)} for s in bench.network.statistics]
    return figures, rows


def cost_by_tolerance(net: InstanceNet, voxels: int, tolerances: list[float], repeats: int) -> tuple[Figures, Rows]:
    """Cost and error of the outputs over the tolerance, 1 % of the map revealed."""
    rows: Rows = []
    building = Building.made_up(voxels, 0.01)
    for tolerance in tqdm(tolerances, desc="tolerance"):
        bench = Bench(net, building, tolerance)
        row = {"row": "tolerance", **bench.measure("revealed", repeats)}
        bench.full.refresh(bench.map)
        live = bench.map.live_slots()
        got, want = bench.network.prediction, bench.full.prediction
        row["label_agreement"] = float((got.semantic[live].argmax(1) == want.semantic[live].argmax(1)).mean())
        row["offset_error_m"] = float(np.abs(got.require("offset")[live] - want.require("offset")[live]).max())
        rows.append(row)
    exact = [row["speedup"] for row in rows if row["tolerance"] == 0.0]
    return ({"speedup_1pct_cpu_exact": exact[0]} if exact else {}), rows


def cost_of_halves(net: InstanceNet, voxels: int, tolerance: float, repeats: int) -> tuple[Figures, Rows]:
    """Cached outputs in float16 beside those in float32, 1 % of the map revealed: time, memory, and how far the outputs are off a full pass."""
    building = Building.made_up(voxels, 0.01)
    benches = {dtype: Bench(net, building, tolerance, dtype) for dtype in ("float32", "float16")}
    times: dict[str, list[float]] = {dtype: [] for dtype in benches}
    for number in tqdm(range(repeats + 1), desc="precision"):
        for dtype, bench in benches.items():
            times[dtype].append(bench.change_ms("revealed", number)[0])
    rows: Rows = []
    for dtype, bench in benches.items():
        bench.full.refresh(bench.map)
        live = bench.map.live_slots()
        got, want = bench.network.prediction, bench.full.prediction
        rows.append({
            "row": "precision", "cache_dtype": dtype, "voxels": voxels, "tolerance": tolerance, "refresh_ms": float(np.median(times[dtype][1:])),
            "bytes_cached": bench.network.held_bytes(),
            "label_agreement": float((got.semantic[live].argmax(1) == want.semantic[live].argmax(1)).mean()),
            "probability_error": float(np.abs(got.semantic[live] - want.semantic[live]).max()),
        })
    return {
        "float16_time_ratio": rows[1]["refresh_ms"] / rows[0]["refresh_ms"], "float16_bytes_ratio": rows[1]["bytes_cached"] / rows[0]["bytes_cached"],
        "float16_label_agreement": rows[1]["label_agreement"],
    }, rows


def cost_by_size(net: InstanceNet, sizes: list[int], tolerance: float, repeats: int) -> tuple[Figures, Rows]:
    """The same change of 3,000 voxels in maps of many sizes: the smaller ones are cut out of the largest around it."""
    if not sizes:
        return {}, []
    rows: Rows = []
    figures: Figures = {}
    coords, colors = surface_voxels(max(sizes), 0)
    patch = nearest(coords, 3000)
    for size in tqdm(sorted(sizes), desc="size of the map"):
        inside = nearest(coords, size)
        bench = Bench(net, Building(coords[inside], colors[inside], patch[inside]), tolerance)
        rows.append({"row": "size", **bench.measure("revealed", repeats)})
    cost = {row["voxels"]: row["refresh_ms"] for row in rows}
    if {100_000, 1_000_000} <= set(cost):
        figures["time_ratio_1m_100k"] = cost[1_000_000] / cost[100_000]
    return figures, rows


def memory(weights: str, voxels: int, tolerance: float, budgets_mb: list[int]) -> tuple[Figures, Rows]:
    """What a map of so many voxels takes, without a budget for the cached outputs and with some; each in a process of its own."""
    rows: Rows = []
    building = Building.made_up(voxels, 3000 / voxels)
    for budget_mb in tqdm([0, *budgets_mb], desc="memory"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows.append({"row": "memory", **pool.submit(_memory, weights, building, tolerance, budget_mb).result()})
    full = rows[0]
    figures = {
        "memory_voxels": voxels, "bytes_per_voxel": (full["bytes_cached"] + full["bytes_tables"]) / voxels,
        "peak_bytes": full["peak_bytes"], "budget_held": all(r["bytes_cached"] <= 1e6 * r["budget_mb"] for r in rows[1:]),
    }
    return figures | ({"peak_bytes_1m": full["peak_bytes"]} if voxels == 1_000_000 else {}), rows


def _memory(weights: str, building: Building, tolerance: float, budget_mb: int) -> dict[str, Any]:
    net = load_weights(weights)
    building_map = VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
    network = IncrementalNetwork(net, tolerance, budget_bytes=budget_mb * 1_000_000)
    delta = building_map.apply(building.update(np.ones(len(building.coords), bool)))
    before = peak_bytes()
    start = time.perf_counter()
    network.refresh(building_map, delta)
    first_ms = (time.perf_counter() - start) * 1e3
    delta = building_map.apply(building.update(building.patch, building.colors ^ np.uint8(64)))
    start = time.perf_counter()
    network.refresh(building_map, delta)  # with a budget, the outputs near the change may have to be computed anew
    return {
        "voxels": len(building_map), "budget_mb": budget_mb, "bytes_cached": network.held_bytes(), "bytes_tables": building_map.pyramid.nbytes(),
        "peak_bytes": peak_bytes(), "peak_bytes_of_network": peak_bytes() - before, "first_pass_ms": first_ms,
        "refresh_ms": (time.perf_counter() - start) * 1e3,
    }


def agreement(config: SegmenterConfig, net: InstanceNet, rooms: int, tolerances: list[float], cache: Path) -> tuple[Figures, Rows]:
    """Labels and AP50 after sequences of test rooms, incremental against full passes at every update."""
    from instseg_ros.evaluation.evaluate import run_online
    from instseg_ros.evaluation.instances import average_precision, default_min_region
    from instseg_ros.evaluation.sources import room_sources
    from instseg_ros.segmenter import Segmenter

    sources = room_sources(list(range(rooms)), "test", None, config.voxel_size_m, 5, cache)

    def outcome(changed: SegmenterConfig) -> tuple[list[np.ndarray], list[np.ndarray], float]:
        segmenter, labels, published, scans = Segmenter(changed, net), [], [], []
        for source in sources:
            result = run_online(segmenter, source.case())
            labels.append(segmenter.runner.prediction.semantic[segmenter.map.live_slots()].argmax(1))
            published.append(result.cloud.class_index)
            scans.append(result.scan)
        return labels, published, average_precision(scans, min_region=default_min_region(config.voxel_size_m)).ap50

    labels, published, ap50 = outcome(replace(config, passes="full"))
    rows: Rows = []
    figures: Figures = {}
    for tolerance in tqdm(sorted({*tolerances, config.tolerance}), desc="rooms"):
        own, shown, own_ap50 = outcome(replace(config, passes="incremental", tolerance=tolerance))
        row = {
            "row": "rooms", "tolerance": tolerance, "rooms": rooms, "ap50": own_ap50, "ap50_full": ap50,
            "label_agreement": float((np.concatenate(own) == np.concatenate(labels)).mean()),
            "published_agreement": float((np.concatenate(shown) == np.concatenate(published)).mean()),
        }
        rows.append(row)
        if tolerance == config.tolerance:
            figures = {"label_agreement": row["label_agreement"], "ap50_drop": ap50 - own_ap50}
    return figures, rows


def exactness(histories: int, seed: int = 0) -> tuple[Figures, Rows]:
    """Tolerance 0 after random histories of insertions, changes and deletions against a full pass over the same map.

    Every second history has room for a part of the outputs only, so that they are evicted and computed anew.
    """
    worst: dict[tuple[int, ...], float] = {}
    for number in tqdm(range(histories), desc="histories"):
        rng = np.random.default_rng([seed, number])
        widths = _WIDTHS[number % len(_WIDTHS)]
        net = random_net(number, widths)
        voxels = VoxelMap(VOXEL_SIZE_M, depth=len(widths))
        network = IncrementalNetwork(net, budget_bytes=0 if number % 8 < 4 else int(rng.integers(1, 400_000)))
        for update in random_history(rng, voxels):
            network.refresh(voxels, update)
        worst[widths] = max(worst.get(widths, 0.0), relative_difference(net, voxels, network))
    rows = [{"row": "exact", "channels": list(widths), "max_rel_diff": diff} for widths, diff in worst.items()]
    return {"exact_histories": histories, "exact_max_rel_diff": max(worst.values(), default=0.0)}, rows


def random_net(seed: int, channels: tuple[int, ...]) -> InstanceNet:
    """An untrained network with batch norm statistics as training would leave them."""
    torch.manual_seed(seed)
    net = InstanceNet(ModelConfig(channels=channels, embedding_dim=4))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return net.eval()


def relative_difference(net: InstanceNet, voxels: VoxelMap, network: IncrementalNetwork) -> float:
    """Largest difference of any output to a full pass, relative to the largest magnitude of that output."""
    full = FullPassRunner(net)
    full.refresh(voxels)
    live = voxels.live_slots()
    pairs = [(getattr(full.prediction, n)[live], getattr(network.prediction, n)[live]) for n in ("semantic", "embedding", "offset")]
    return max(float(np.abs(a - b).max(initial=0.0) / (np.abs(a).max(initial=0.0) + 1e-9)) for a, b in pairs)


def plot(path: Path, rows: Rows) -> None:
    """Cost over share, map size and tolerance, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for kind in ("revealed", "recoloured"):
        part = [r for r in rows if r["row"] == "share" and r["kind"] == kind]
        axes[0].loglog([100 * r["share"] for r in part], [r["speedup"] for r in part], "o-", label=kind)
    axes[0].axhline(1.0, color="grey", linewidth=0.8)
    axes[0].set(xlabel="share of the map changed, %", ylabel="full pass / refresh")
    part = [r for r in rows if r["row"] == "size"]
    axes[1].loglog([r["voxels"] for r in part], [r["full_ms"] for r in part], "o-", label="full pass")
    axes[1].loglog([r["voxels"] for r in part], [r["refresh_ms"] for r in part], "o-", label="refresh, 3,000 voxels revealed")
    axes[1].set(xlabel="voxels in the map", ylabel="ms")
    part = [r for r in rows if r["row"] == "tolerance"]
    axes[2].plot([r["tolerance"] for r in part], [r["speedup"] for r in part], "o-", label="full pass / refresh")
    axes[2].plot([r["tolerance"] for r in part], [1 / r["due_share"] for r in part], "o--", label="multiplications saved, times")
    axes[2].set(xlabel="tolerance", ylabel="1 % revealed")
    axes[2].set_xscale("symlog", linthresh=0.003)
    for axis in axes:
        axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
