"""Refresh against full pass on a GPU, one percent of a map revealed; outputs are compared with a full pass on the CPU first.

    python benchmarks/gpu_incremental.py OUT.json                 # on a GPU

Without one, to see that it holds together:

    python benchmarks/gpu_incremental.py OUT.json --device cpu --sizes 3000 --exact-voxels 1500 --rounds 1

All run in turns in one process, with the same kernels and precision. The full pass (`full_ms`) has features and tables on the device at
hand and leaves its outputs there; the refresh counts everything from the map's change on the host to the changed outputs on the host.
That is what `speedup` divides. `full_from_host_ms` is the full pass that begins and ends where the refresh does, as the segmenter runs it
with `passes: full` (in float32 or TF32). `launched` is how the segmenter runs the refresh, `replayed` the same launches recorded as a
CUDA graph (rows `failed` say why one could not be).
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_kernels import in_precision, tf32

from instseg_ros.benchmarks.incremental import Building, random_history
from instseg_ros.benchmarks.surfaces import VOXEL_SIZE_M
from instseg_ros.config import SegmenterConfig
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.models.weights import load_weights
from instseg_ros.report import write_report
from instseg_ros.sparse.device import DeviceIncrementalNetwork
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.runner import FullPassRunner

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16}
EXACT = 1e-4
"""Largest difference to a full pass, relative to the output's largest value, that tolerance 0 may leave in float32."""

Row = dict[str, Any]


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

    def __init__(self, net: InstanceNet, building: Building, device: torch.device, precision: str, replay: bool) -> None:
        self.device, self.building, self.precision = device, building, precision
        dtype = DTYPES[precision]
        self.map = VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
        self.network = DeviceIncrementalNetwork(net, device, SegmenterConfig().tolerance, dtype=dtype, replay=replay)
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

    Each layer's input, table and residual read once and its output written once, in float32.
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
    return {"row": "work", "voxels": rows[0], "full_gflop": named / 1e9, "full_gflop_launched": launched / 1e9, "full_gb": moved / 1e9}


def speeds(net: InstanceNet, device: torch.device, sizes: list[int], rounds: int, replay: bool) -> Iterator[Row]:
    """One percent revealed, by size and precision."""
    for size in sizes:
        voxel_map = VoxelMap(VOXEL_SIZE_M, depth=len(net.config.channels))
        voxel_map.apply(building_of(size).update(np.ones(size, bool)))
        yield work(net, voxel_map)
    for size, precision in product(sizes, DTYPES):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with tf32(precision == "tf32"):
            bench = Bench(net, building_of(size), device, precision, replay)
            yield bench.measure(net, rounds)
            if device.type == "cuda" and precision == "float32":
                print(bench.profile(), flush=True)


def figures_of(rows: list[Row], device: torch.device) -> dict[str, float]:
    """`speedup_1pct_cuda` is the way the segmenter takes at 300 k voxels; the others' names tell size, precision and way."""
    figures: dict[str, float] = {}
    exact = [row["max_rel_diff"] for row in rows if row["row"] == "exact"]
    if exact:
        figures["device_exact_max_rel_diff"] = max(exact)
    for row in rows:
        if row["row"] == "revealed":
            name = f"{row['voxels'] // 1000}k_{row['precision']}_{row['way']}"
            figures[f"speedup_1pct_{device.type}_{name}"] = row["speedup"]
            figures[f"speedup_from_host_1pct_{device.type}_{name}"] = row["speedup_from_host"]
            figures[f"label_agreement_{name}"] = row["label_agreement"]
            if (row["precision"], row["way"], device.type) == ("float32", "launched", "cuda"):
                for size, suffix in ((300_000, ""), (1_000_000, "_1m")):
                    if row["voxels"] == size:
                        figures[f"speedup_1pct_cuda{suffix}"] = row["speedup"]
    return figures


def main() -> None:
    """Measure and write; a difference that is too large ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", default="", help="safetensors file; empty = the weights shipped with the package")
    parser.add_argument("--sizes", type=int, nargs="+", default=[300_000, 1_000_000], metavar="VOXELS")
    parser.add_argument("--exact-voxels", type=int, default=50_000, help="of the map that tolerance 0 is checked on")
    parser.add_argument("--histories", type=int, default=5, help="random ones that tolerance 0 is checked on")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    device, net = torch.device(args.device), load_weights(args.weights)
    rows: list[Row] = []

    def take(parts: Iterator[Row]) -> None:
        for row in parts:
            rows.append(row)
            print(row, flush=True)
            write_report(args.json, figures_of(rows, device), rows)  # what is done is kept if the time runs out
            if row["row"] == "exact" and not row["max_rel_diff"] <= EXACT:
                raise SystemExit(f"the refresh differs from a full pass: {row}")

    for replay in (False, True) if device.type == "cuda" else (False,):
        try:
            take(exactness(net, device, args.exact_voxels, args.histories, replay))
            take(speeds(net, device, args.sizes, args.rounds, replay))
        except RuntimeError as error:
            if not replay:
                raise
            take(iter([{"row": "failed", "way": "replayed", "error": str(error)}]))
            raise SystemExit(f"the wave could not be recorded or replayed: {error}") from error


if __name__ == "__main__":
    main()
