"""One submanifold layer and the whole U-Net, against other libraries of sparse convolution on the same voxels.

Layers have 32 to 32 and 64 to 64 channels and cached tables; the network is the shipped one, with tables built from nothing at
every pass. Voxels are the surfaces of a made-up building, values are float32. Before anything is timed, the outputs of all are
compared on one thread; then repetitions take turns, so that whatever else the machine does meets all of them alike. It all
happens in a process of its own in which idle OpenMP threads sleep (OMP_WAIT_POLICY=passive, unless the variable is set): torch
and spconv each bring an OpenMP of their own, and where both spin for work they take the cores from each other.
"""

__all__ = ["CASES", "add_arguments", "compare", "figures_of", "plot", "prepare", "run"]

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from instseg_ros.benchmarks.conv_peers import PEERS, Layer, Missing, Peer
from instseg_ros.benchmarks.surfaces import surface_voxels
from instseg_ros.errors import ConfigError, InstSegError
from instseg_ros.models.network import input_features, resolve_device
from instseg_ros.models.weights import load_weights
from instseg_ros.sparse import kernels
from instseg_ros.sparse.program import compile_network

CASES = ("conv32", "conv64", "unet")
SIZES = (20_000, 67_000, 300_000, 1_000_000)
FIGURE_VOXELS = 67_000
"""The size of the ratios among the figures; where it was not run, the nearest that was."""
AGREEMENT = 1e-3
"""Largest difference to ours, relative to the largest value of the output, that counts as equal."""

Call = Callable[[], Mapping[str, Tensor]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark."""
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(SIZES), metavar="VOXELS", help="map sizes (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, help="what is run (default: all)")
    parser.add_argument(
        "--peers", nargs="+", default=list(PEERS), choices=list(PEERS), help="who takes part; ours always does (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of each of them, 0 = all cores (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="repetitions of each of them (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=60.0,
        help="a case at a size is not repeated for longer than this, but at least three times (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the building and of the features (default: %(default)s)")
    parser.add_argument("--weights", default="", help="weights file whose network is run (default: the shipped one)")
    parser.add_argument("--plot", type=Path, help="PNG of the time against the size (default: beside --json)")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure; returns the figures and rows of the report."""
    if min(args.sizes) < 1 or args.threads < 0 or args.rounds < 1:
        raise ConfigError("sizes and rounds must be at least 1, threads at least 0")
    setting = {"OMP_WAIT_POLICY": "passive", **os.environ}["OMP_WAIT_POLICY"]
    names = ["ours", *(name for name in args.peers if name != "ours")]
    threads = args.threads or _cores()
    with _environment("OMP_WAIT_POLICY", setting), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        sizes = sorted(args.sizes)
        work = (names, args.device, sizes, args.cases, args.seed, args.weights, threads, args.rounds, args.seconds)
        rows = pool.submit(_measure, *work).result()
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        plot(picture, rows)
    device = resolve_device(args.device).type
    return {"conv_device": device, "conv_threads": threads, "conv_omp_wait_policy": setting, **figures_of(rows)}, rows


def _measure(
    names: Sequence[str], device: str, sizes: Sequence[int], cases: Sequence[str], seed: int, weights: str, threads: int,
    rounds: int, seconds: float,
) -> list[dict[str, Any]]:
    """All rows of the report; it says how far it is."""
    peers, rows = _peers(names, resolve_device(device))
    for size in sizes:
        for case in cases:
            calls = prepare(case, size, peers, seed, weights)
            measured = compare(case, size, calls, threads, rounds, seconds)
            print("  ".join([f"{case} {size}", *(f"{row['peer']} {row['ms']:.1f} ms" for row in measured)]), flush=True)
            rows += [{**row, "version": peers[row["peer"]].version} for row in measured]
    return rows


def _peers(names: Sequence[str], device: torch.device) -> tuple[dict[str, Peer], list[dict[str, Any]]]:
    """The peers that can run here, and a row for each that cannot."""
    peers, rows = {}, []
    for name in names:
        try:
            peers[name] = PEERS[name](device)
        except Missing as reason:
            print(f"{name} is missing: {reason}")
            rows.append({"peer": name, "missing": str(reason)})
    return peers, rows


def prepare(case: str, size: int, peers: Mapping[str, Peer], seed: int, weights: str) -> dict[str, Call]:
    """A call per peer that does the work to be timed, on the same voxels, features and weights.

    Args:
        case: of `CASES`.
        size: voxels.
        peers: by name.
        seed: of the building, and of the features and weights of a layer.
        weights: file of the network, "" = the shipped one.

    Returns:
        Calls without arguments that return their outputs by name.
    """
    device = next(iter(peers.values())).device
    coords, colors = surface_voxels(size, seed)
    if case == "unet":
        net = load_weights(weights)
        program = compile_network(net).to(device)
        features = torch.from_numpy(input_features(colors, coords, net.config)).to(device)
        networks = {name: peer.network(program) for name, peer in peers.items()}
        return {name: partial(network, coords, features) for name, network in networks.items()}
    channels = int(case.removeprefix("conv"))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, channels, generator=generator).to(device)
    weight = (torch.randn(27, channels, channels, generator=generator) / channels).to(device)
    layers = {name: peer.layer(coords, weight) for name, peer in peers.items()}
    return {name: partial(_one_output, layer, x) for name, layer in layers.items()}


def _one_output(layer: Layer, x: Tensor) -> dict[str, Tensor]:
    return {"out": layer(x)}


def compare(case: str, size: int, calls: Mapping[str, Call], threads: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Check that all calls give the same, then time them in turns.

    Args:
        case, size: for the rows.
        calls: of `prepare`; the others are held against the first of them.
        threads: of each of them.
        rounds: repetitions at most.
        seconds: no further round begins after this long, but three are made.

    Returns:
        A row per call: median and least time in ms, `cpu_ms` (median of the CPU time of all threads together, which other
        programs disturb less), rounds, and `rows_off`, the voxels whose output on this many threads is not what it is on one.

    Raises:
        InstSegError: they do not give the same on one thread.
    """
    with torch.inference_mode():
        off = _rows_off(case, size, calls, threads)
        with _threads(threads):
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
            start = time.perf_counter()
            for i in range(rounds):
                if i >= 3 and time.perf_counter() - start > seconds:
                    break
                for name, call in calls.items():
                    times[name].append(_milliseconds(call))
    rows = []
    for name, pairs in times.items():
        ms, cpu_ms = np.transpose(pairs)
        rows.append({
            "case": case, "voxels": size, "peer": name, "ms": float(np.median(ms)), "ms_min": float(ms.min()),
            "cpu_ms": float(np.median(cpu_ms)), "rounds": len(ms), "threads": threads, "rows_off": off[name],
        })
    return rows


def _rows_off(case: str, size: int, calls: Mapping[str, Call], threads: int) -> dict[str, int]:
    """All on one thread must give the same; how many rows differ on more of them, which warms them up as well."""
    first = next(iter(calls))
    with _threads(1):
        want = calls[first]()
        for name, call in calls.items():
            wrong = _differing(call(), want)
            if wrong:
                raise InstSegError(
                    f"{name} computes something else than {first} in {case} at {size} voxels ({wrong} rows differ by more than"
                    f" {AGREEMENT} of the largest value), so their times cannot be compared: leave it out with --peers")
    with _threads(threads):
        return {name: _differing(call(), want) for name, call in calls.items()}


def _differing(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> int:
    """Rows of which any output is not finite or further off than `AGREEMENT`."""
    off = torch.zeros(len(next(iter(want.values()))), dtype=torch.bool)
    for name, value in want.items():
        off |= ~((got[name] - value).abs().amax(dim=1) <= AGREEMENT * value.abs().max()).cpu()
    return int(off.sum())


def _milliseconds(call: Call) -> tuple[float, float]:
    """Time and CPU time of a call."""
    start, cpu_start = time.perf_counter(), time.process_time()
    out = call()
    if next(iter(out.values())).is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3, (time.process_time() - cpu_start) * 1e3


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable for the processes started within."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads for torch, our kernels and the OpenMP and BLAS of the other libraries, which are loaded already."""
    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        kernels.set_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            kernels.set_threads(0)


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Time of ours and its ratio to each peer's (of CPU time too) per case, at the size nearest to 67 k voxels."""
    measured = [row for row in rows if "missing" not in row]
    size = min({row["voxels"] for row in measured}, key=lambda n: abs(np.log(n / FIGURE_VOXELS)))
    figures: dict[str, Any] = {"conv_voxels": size}
    for case in CASES:
        peers = {row["peer"]: row for row in measured if row["case"] == case and row["voxels"] == size}
        ours = peers.pop("ours", None)
        if ours:
            figures[f"{case}_ms"] = ours["ms"]
            for name, row in peers.items():
                figures[f"{case}_vs_{name}"] = ours["ms"] / row["ms"]
                figures[f"{case}_cpu_vs_{name}"] = ours["cpu_ms"] / row["cpu_ms"]
    figures["conv_missing"] = ", ".join(row["peer"] for row in rows if "missing" in row) or "nobody"
    return figures


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Time against voxels per case and peer, both logarithmic, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = [row for row in rows if "missing" not in row]
    cases = [case for case in CASES if any(row["case"] == case for row in measured)]
    figure, axes = pyplot.subplots(1, len(cases), figsize=(4.5 * len(cases), 4.2), layout="constrained", squeeze=False)
    for axis, case in zip(axes[0], cases, strict=True):
        for peer in PEERS:
            points = sorted((row["voxels"], row["ms"]) for row in measured if row["case"] == case and row["peer"] == peer)
            if points:
                axis.plot(*zip(*points, strict=True), "o-", label=peer, linewidth=2.2 if peer == "ours" else 1.2)
        axis.set(title=case, xlabel="surface voxels", ylabel="time, ms", xscale="log", yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
