"""The incremental network on a GPU, against full passes there: exactness, 1 % of maps revealed, memory (`bench incremental --device cuda`).

All run in turns in one process, with the same kernels and precision. The full pass (`full_ms`) has features and tables on the device at
hand and leaves its outputs there; the refresh counts everything from the map's change on the host to the changed outputs on the host.
That is what `speedup` divides. `full_from_host_ms` is the full pass that begins and ends where the refresh does, as the segmenter runs it
with `passes: full` (in float32 or TF32). `launched` is how the segmenter runs the refresh, `replayed` the same launches recorded as a
CUDA graph (rows `failed` say why one could not be).
"""

__all__ = ["in_precision", "measure", "tf32"]

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import torch

from instseg_ros.benchmarks.building import Building, random_history
from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M
from instseg_ros.errors import InstSegError
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.sparse.device import DeviceIncrementalNetwork
from instseg_ros.sparse.program import Head, Program, compile_network
from instseg_ros.sparse.runner import FullPassRunner

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16}
EXACT = 1e-4
"""Largest difference to a full pass, relative to the output's largest value, that tolerance 0 may leave in float32."""

EXACT_VOXELS = 50_000
"""Of the map, at most, on which tolerance 0 is checked beside random histories."""

Row = dict[str, Any]


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Torch's own switch, which the Triton path follows."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def in_precision(program: Program, dtype: torch.dtype) -> Program:
    """A compiled network with its weights in a type."""
    layers = [dataclasses.replace(x, weight=x.weight.to(dtype), bias=x.bias.to(dtype)) for x in program.layers]
    heads = {name: Head([w.to(dtype) for w in x.weights], [b.to(dtype) for b in x.biases]) for name, x in program.heads.items()}
    return Program(layers, heads)


def synchronized_ms(call: Callable[[], object], device: torch.device) -> float:
    """Time of a call, all work on the device included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return (time.perf_counter() - start) * 1e3


@functools.lru_cache(maxsize=1)
def building_of(voxels: int) -> Building:
    """A building of which one percent changes."""
    return Building.made_up(voxels, 0.01)


def exactness(net: InstanceNet, device: torch.device, voxels: int, histories: int, replay: bool) -> Iterator[Row]:
    """Tolerance 0 after histories of insertions, recolourings, deletions, and after a patch was revealed, against the CPU."""

    def start() -> tuple[VoxelMap, DeviceIncrementalNetwork]:
        return VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels)), DeviceIncrementalNetwork(net, device, replay=replay)

    def row(voxel_map: VoxelMap, network: DeviceIncrementalNetwork) -> Row:
        full, live = FullPassRunner(net), voxel_map.live_slots()
        full.refresh(voxel_map)
        names = ("semantic", "embedding", "offset")
        pairs = [(getattr(network.prediction, name)[live], getattr(full.prediction, name)[live]) for name in names]
        worst = max(float(np.abs(got - want).max() / np.abs(want).max()) for got, want in pairs)
        return {"row": "exact", "way": network_way(network), "voxels": len(voxel_map), "max_rel_diff": worst}

    for number in range(histories):
        voxel_map, network = start()
        for delta in random_history(np.random.default_rng(number), voxel_map):
            network.refresh(voxel_map, delta)
        yield row(voxel_map, network)
    voxel_map, network = start()
    building = building_of(voxels)
    network.refresh(voxel_map, voxel_map.apply(building.update(np.ones(voxels, bool))))
    for _ in range(3):  # by the third time it is replayed
        network.refresh(voxel_map, voxel_map.apply(building.removal()))
        network.refresh(voxel_map, voxel_map.apply(building.update(building.patch)))
    yield row(voxel_map, network)


def network_way(network: DeviceIncrementalNetwork) -> str:
    """How its last wave ran."""
    return "replayed" if network.recorded else "launched"


class Bench:
    """A building in a network on the device, with what a full pass over it needs."""

    def __init__(self, net: InstanceNet, building: Building, device: torch.device, precision: str, tolerance: float, replay: bool) -> None:
        self.device, self.building, self.precision = device, building, precision
        dtype = DTYPES[precision]
        self.map = VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
        self.network = DeviceIncrementalNetwork(net, device, tolerance, dtype=dtype, replay=replay)
        delta = self.map.apply(building.update(np.ones(len(building.coords), bool)))
        self.first_ms = synchronized_ms(lambda: self.network.refresh(self.map, delta), device)
        self.program = in_precision(compile_network(net).to(device), dtype)
        features = input_features(self.map.colors[: len(self.map)], self.map.coords[: len(self.map)], net.config)
        self.features = torch.from_numpy(features).to(device, dtype)
        self.tables = self.map.pyramid.tables().to(device)  # revealing a patch again leaves as many rows
        self.runner = FullPassRunner(net, device)

    def full_pass_ms(self) -> float:
        """One pass over the whole map."""
        return synchronized_ms(lambda: self.program.run(self.features, self.tables), self.device)

    def full_from_host_ms(self) -> float:
        """The same, with everything sent and read back."""
        return synchronized_ms(lambda: self.runner.refresh(self.map), self.device)

    def reveal(self, timed: Callable[[Callable[[], object]], Any]) -> Any:
        """Take the patch away, and see it again under the clock."""
        self.network.refresh(self.map, self.map.apply(self.building.removal()))
        delta = self.map.apply(self.building.update(self.building.patch))
        return timed(lambda: self.network.refresh(self.map, delta))

    def refresh_ms(self) -> float:
        """The refresh after the patch was revealed."""
        return float(self.reveal(lambda call: synchronized_ms(call, self.device)))

    def measure(self, net: InstanceNet, rounds: int) -> Row:
        """Medians over full passes and refreshes in turns, what was due, and labels against a full pass on the CPU."""
        for _ in range(4):  # compiled, grown and, where asked for, recorded
            self.refresh_ms()
            self.full_pass_ms()
        full, refresh = np.array([(self.full_pass_ms(), self.refresh_ms()) for _ in range(rounds)]).T
        from_host = [self.full_from_host_ms() for _ in range(3)]  # of a large map most of a second
        statistics = self.network.statistics
        cost = [layer.weight.numel() for layer in self.program.layers]
        due = sum(s.due * c for s, c in zip(statistics, cost, strict=True))
        on_cpu = FullPassRunner(net)
        on_cpu.refresh(self.map)
        live = self.map.live_slots()
        got, want = (p.semantic[live].argmax(1) for p in (self.network.prediction, on_cpu.prediction))
        return {
            "row": "revealed", "precision": self.precision, "way": network_way(self.network),
            "voxels": len(self.map), "tolerance": self.network.tolerance, "first_refresh_ms": round(self.first_ms, 1),
            "full_ms": round(float(np.median(full)), 3), "refresh_ms": round(float(np.median(refresh)), 3),
            "refresh_ms_max": round(float(refresh.max()), 3), "full_from_host_ms": round(float(np.median(from_host)), 3),
            "speedup": round(float(np.median(full) / np.median(refresh)), 2),
            "speedup_from_host": round(float(np.median(from_host) / np.median(refresh)), 2),
            "due_share": round(due / sum(s.rows * c for s, c in zip(statistics, cost, strict=True)), 5),
            "label_agreement": float((got == want).mean()), "bytes_cached": self.network.nbytes(),
            "peak_bytes": torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
        }

    def profile(self) -> str:
        """Where the time of one refresh goes, as a table."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]

        def profiled(call: Callable[[], object]) -> str:
            with torch.profiler.profile(activities=activities) as profiler:
                call()
                torch.cuda.synchronize()
            return str(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=60))

        return str(self.reveal(profiled))


def work(net: InstanceNet, voxel_map: VoxelMap) -> Row:
    """What a full pass has to do: multiplications and additions, by what the tables name and as launched (all taps), and the fewest bytes.

    Each layer's input, table and residual read once and its output written once, in float32. `taps_of_64` says by level how many of the 27
    taps a block of 64 rows has, which is what leaving out those it lacks would save.
    """
    named = launched = moved = 0
    rows = [len(level) for level in voxel_map.pyramid.levels]
    layers, tables = compile_network(net).layers, voxel_map.pyramid.tables()
    for layer in layers:
        taps, cin, cout = layer.weight.shape
        table = tables.levels[layer.level].read(layer.table, layer.dilation)
        named += 2 * int((table >= 0).sum()) * cin * cout
        launched += 2 * rows[layer.level] * taps * cin * cout
        source = layers[layer.source].level if layer.source >= 0 else 0
        moved += 4 * (rows[source] * cin + rows[layer.level] * (taps + cout * (1 if layer.residual is None else 2)) + layer.weight.numel())
    blocks = [(level.neighbors[: len(level.neighbors) // 64 * 64] >= 0).view(-1, 64, 27).any(1).sum(1).float() for level in tables.levels]
    return {"row": "work", "voxels": rows[0], "full_gflop": named / 1e9, "full_gflop_launched": launched / 1e9, "full_gb": moved / 1e9,
            "taps_of_64": [round(float(block.mean()), 1) if len(block) else None for block in blocks]}


def works(net: InstanceNet, sizes: list[int]) -> Iterator[Row]:
    """`work`, by size."""
    for size in sizes:
        voxel_map = VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
        voxel_map.apply(building_of(size).update(np.ones(size, bool)))
        yield work(net, voxel_map)


def speeds(net: InstanceNet, device: torch.device, sizes: list[int], tolerance: float, rounds: int, replay: bool) -> Iterator[Row]:
    """One percent revealed, by size and precision."""
    for size, precision in product(sizes, DTYPES):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with tf32(precision == "tf32"):
            bench = Bench(net, building_of(size), device, precision, tolerance, replay)
            yield bench.measure(net, rounds)
            if device.type == "cuda" and precision == "float32":
                print(bench.profile(), flush=True)


def budgets(net: InstanceNet, device: torch.device, voxels: int, budgets_mb: list[int], tolerance: float) -> Iterator[Row]:
    """Outputs held, and the time of a refresh after a change, within budgets."""
    for budget_mb in budgets_mb:
        building, voxel_map = building_of(voxels), VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
        network = DeviceIncrementalNetwork(net, device, tolerance, budget_bytes=budget_mb * 1_000_000)
        delta = voxel_map.apply(building.update(np.ones(voxels, bool)))
        first_ms = synchronized_ms(lambda: network.refresh(voxel_map, delta), device)  # noqa: B023
        delta = voxel_map.apply(building.update(building.patch, building.colors ^ np.uint8(64)))
        refresh_ms = synchronized_ms(lambda: network.refresh(voxel_map, delta), device)  # noqa: B023
        yield {"row": "budget", "voxels": voxels, "budget_mb": budget_mb, "bytes_held": network.held_bytes(), "bytes_arrays": network.nbytes(),
               "first_refresh_ms": round(first_ms, 1), "refresh_ms": round(refresh_ms, 3)}


def figures_of(rows: list[Row], device: torch.device, voxels: int, most: int) -> dict[str, Any]:
    """`speedup_1pct_cuda` is the way the segmenter takes, in float32 at `voxels`, `_1m` at `most`; the others' names tell size, precision and way."""
    figures: dict[str, Any] = {}
    where = device.type if device.type != "cpu" else "rehearsal"
    exact = [row["max_rel_diff"] for row in rows if row["row"] == "exact"]
    if exact:
        figures[f"exact_max_rel_diff_{where}"] = max(exact)
    for row in rows:
        if row["row"] == "revealed":
            name = f"{row['voxels'] // 1000}k_{row['precision']}_{row['way']}"
            figures[f"speedup_1pct_{where}_{name}"] = row["speedup"]
            figures[f"speedup_from_host_1pct_{where}_{name}"] = row["speedup_from_host"]
            figures[f"label_agreement_{where}_{name}"] = row["label_agreement"]
            if (row["precision"], row["way"]) == ("float32", "launched"):
                for size, suffix in ((most, "_1m" if most == 1_000_000 else "_most"), (voxels, "")):
                    if row["voxels"] == size:
                        figures[f"speedup_1pct_{where}{suffix}"] = row["speedup"]
    limited = [row for row in rows if row["row"] == "budget"]
    if limited:
        figures[f"budget_held_{where}"] = all(row["bytes_held"] <= 1e6 * row["budget_mb"] for row in limited)
    return figures


def measure(
    net: InstanceNet, device: torch.device, voxels: int, most: int, tolerance: float, histories: int, repeats: int, budgets_mb: list[int],
    report: Callable[[dict[str, Any], list[Row]], None],
) -> tuple[dict[str, Any], list[Row]]:
    """Measure everything.

    Args:
        net: whose passes.
        device: where; on "cpu" in plain torch, to see that it holds together.
        voxels, most: sizes of the maps, the larger one for the budgets.
        tolerance: of the refreshes.
        histories: random ones on which tolerance 0 is checked.
        repeats: that a median is taken of.
        budgets_mb: for the cached outputs.
        report: is given what there is after every row, so that what is done is kept if the time runs out.

    Raises:
        InstSegError: tolerance 0 differs from a full pass, or a wave could not be recorded.
    """
    rows: list[Row] = []

    def take(parts: Iterator[Row]) -> None:
        for row in parts:
            rows.append(row)
            print(row, flush=True)
            report(figures_of(rows, device, voxels, most), rows)
            if row["row"] == "exact" and not row["max_rel_diff"] <= EXACT:
                raise InstSegError(f"the refresh differs from a full pass: {row}")

    sizes = sorted({voxels, most})
    take(works(net, sizes))
    for replay in (False, True) if device.type == "cuda" else (False,):
        try:
            take(exactness(net, device, min(EXACT_VOXELS, voxels), histories, replay))
            take(speeds(net, device, sizes, tolerance, repeats, replay))
            if not replay:
                take(budgets(net, device, most, budgets_mb, tolerance))
        except RuntimeError as error:
            if not replay:
                raise
            take(iter([{"row": "failed", "way": "replayed", "error": str(error)}]))
            raise InstSegError(f"the wave could not be recorded or replayed: {error}") from error
    return figures_of(rows, device, voxels, most), rows
