"""Times of the Triton convolution against gather and matrix product in torch, on surface voxels; outputs are compared first.

    python benchmarks/gpu_kernels.py OUT.json                 # on a GPU

Without one, to see that it holds together:

    TRITON_INTERPRET=1 python benchmarks/gpu_kernels.py OUT.json --device cpu --sizes 60 --sweep-size 60 --rounds 1 \\
        --channels 8 12

Rows of OUT.json: `case` (conv, down, weight_grad, update, unet, train_step, tiles), voxels, channels, precision, and ms by
path; `difference` is the largest one between the paths, relative to the largest value (of an update: absolute).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instseg_ros.benchmarks.incremental_device import in_precision, tf32
from instseg_ros.benchmarks.surfaces import surface_voxels
from instseg_ros.config import ModelConfig
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.report import write_report
from instseg_ros.sparse import triton_kernels, triton_updates
from instseg_ros.sparse.conv import apply_conv, only_path, sparse_conv
from instseg_ros.sparse.program import Program, compile_network
from instseg_ros.sparse.pyramid import Tables, build_tables
from instseg_ros.sparse.triton_kernels import Tiles

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AGREEMENT = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference between the paths, relative to the largest value, that counts as equal."""
LARGEST_TRAINING = 300_000
DUE = 0.01
"""Part of the rows that an update recomputes."""

Row = dict[str, Any]


class Scene:
    """Voxels, tables and random features of one map size on the device."""

    def __init__(self, voxels: int, config: ModelConfig, device: torch.device) -> None:
        self.device, self.config = device, config
        self.coords, self.colors = surface_voxels(voxels, seed=0)
        self.tables: Tables = build_tables(self.coords, len(config.channels)).to(device)
        self.neighbors = self.tables.levels[0].neighbors

    def random(self, *shape: int, precision: str = "float32") -> Tensor:
        """The same values for the same shape."""
        generator = torch.Generator().manual_seed(sum(shape))
        return torch.randn(shape, generator=generator).to(self.device, DTYPES[precision])


def milliseconds(call: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median time of a call; the first one, which compiles, is not counted."""
    call()
    times = []
    for _ in range(rounds):
        if device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


def difference(got: Tensor, want: Tensor) -> float:
    """Largest, relative to the largest value."""
    return float((got.float() - want.float()).abs().max() / want.float().abs().max().clamp(min=1e-12))


def compare(call: Callable[[], Tensor], precision: str, scene: Scene, rounds: int, **facts: Any) -> Row:
    """One row: the call on both paths, which must agree."""
    outputs, row = {}, {**facts, "precision": precision, "voxels": len(scene.coords)}
    for path in ("torch", "triton"):
        with only_path(path), tf32(precision == "tf32"):
            outputs[path] = call().clone()
            row[f"ms_{path}"] = round(milliseconds(call, scene.device, rounds), 4)
    row["difference"] = difference(outputs["triton"], outputs["torch"])
    row["speedup"] = round(row["ms_torch"] / row["ms_triton"], 2)
    print(row, flush=True)
    if not row["difference"] <= AGREEMENT[precision]:
        raise SystemExit(f"the paths disagree: {row}")
    return row


def layers(scene: Scene, rounds: int) -> Iterator[Row]:
    """One submanifold layer, one strided one, and the weight gradient."""
    count = len(scene.coords)
    for channels, precision in product((32, 64), DTYPES):
        x = scene.random(count, channels, precision=precision)
        weight = scene.random(27, channels, channels, precision=precision) / (10 * channels) ** 0.5
        table, facts = scene.neighbors, {"channels": channels}

        def conv(x: Tensor = x, table: Tensor = table, weight: Tensor = weight) -> Tensor:
            return apply_conv(x, table, weight, relu=True)

        def gradient(x: Tensor = x, table: Tensor = table, weight: Tensor = weight) -> Tensor:
            leaf = weight.to(torch.float32, copy=True).requires_grad_()
            sparse_conv(x, table, leaf).backward(x)
            assert leaf.grad is not None
            return leaf.grad

        yield compare(conv, precision, scene, rounds, case="conv", **facts)
        children, halves = scene.tables.levels[1].children, weight[:8].contiguous()
        assert children is not None

        def down(x: Tensor = x, table: Tensor = children, weight: Tensor = halves) -> Tensor:
            return apply_conv(x, table, weight)

        yield compare(down, precision, scene, rounds, case="down", **facts)
        yield compare(gradient, precision, scene, rounds, case="weight_grad", **facts)  # with the forward pass


def updates(scene: Scene, rounds: int) -> Iterator[Row]:
    """Recompute one percent of the rows of a layer and replace those that moved: one launch, or six steps in torch."""
    count = len(scene.coords)
    table, due = scene.neighbors, torch.arange(max(1, int(count * DUE)), device=scene.device)
    for channels, precision in product((32, 64), ("float32", "tf32", "float16")):
        x, start = (scene.random(count, channels, precision=precision) for _ in range(2))
        weight = scene.random(27, channels, channels, precision=precision) / (10 * channels) ** 0.5
        by_torch, by_triton = start.clone(), start.clone()

        def torch_update(x: Tensor = x, weight: Tensor = weight, cache: Tensor = by_torch) -> None:
            with only_path("torch"):
                new = apply_conv(x, table[due], weight, relu=True)
            moved = (new - cache[due]).abs().amax(1) > 0.01
            cache[due[moved]] = new[moved]

        def triton_update(
            x: Tensor = x, weight: Tensor = weight, cache: Tensor = by_triton, allow: bool = precision == "tf32"
        ) -> None:
            triton_updates.update(x, table, due, weight, None, None, True, cache, 0.01, allow_tf32=allow)

        with tf32(precision == "tf32"):
            times = {f"ms_{name}": round(milliseconds(call, scene.device, rounds), 4)
                     for name, call in (("torch", torch_update), ("triton", triton_update))}
        row: Row = {"case": "update", "channels": channels, "precision": precision, "voxels": count, "rows": len(due), **times,
               "difference": float((by_triton.float() - by_torch.float()).abs().max()),
               "speedup": round(times["ms_torch"] / times["ms_triton"], 2)}
        print(row, flush=True)
        # a row that moved by just about the threshold may be replaced by one path and kept by the other
        if not row["difference"] <= 0.01 + 4 * AGREEMENT[precision]:
            raise SystemExit(f"the paths disagree: {row}")
        yield row


def networks(scene: Scene, rounds: int) -> Iterator[Row]:
    """The whole U-Net: a full pass of the compiled network, and one step of training in mixed precision."""
    torch.manual_seed(0)
    net = InstanceNet(scene.config).to(scene.device)
    features = torch.from_numpy(input_features(scene.colors, scene.coords, scene.config)).to(scene.device)
    for precision, dtype in DTYPES.items():
        converted, inputs = in_precision(compile_network(net.eval()).to(scene.device), dtype), features.to(dtype)

        def full_pass(program: Program = converted, x: Tensor = inputs) -> Tensor:
            return program.run(x, scene.tables)["embedding"]

        yield compare(full_pass, precision, scene, rounds, case="unet")
    if len(scene.coords) > LARGEST_TRAINING:
        return
    net.train()
    half = torch.float16 if scene.device.type == "cuda" else torch.bfloat16

    def step() -> Tensor:
        net.zero_grad()
        with torch.autocast(scene.device.type, dtype=half):
            outputs = net(features, scene.tables)
        sum(value.square().mean() for value in outputs.values()).backward()
        grad = net.backbone.stem.weight.grad
        assert grad is not None
        return grad.norm()[None]  # single entries of a sum through so many half-precision layers differ

    yield compare(step, "bfloat16", scene, rounds, case="train_step")


def sweep(scene: Scene, rounds: int) -> Iterator[Row]:
    """Every tile for a layer on all rows and on one percent of them: what `conv_tiles` should choose, and what it does."""
    count = len(scene.coords)
    for channels, precision, part in product((32, 64), ("float32", "tf32", "float16"), (1.0, DUE)):
        x = scene.random(count, channels, precision=precision)
        weight = scene.random(27, channels, channels, precision=precision)
        table = scene.neighbors[: max(1, int(count * part))].contiguous()
        chosen = triton_kernels.conv_tiles(len(table), channels, channels, x.dtype)
        options = product((16, 32, 64, 128), (32, 64), (2, 4, 8), (2, 3, 4))
        tried = [Tiles(block_m, channels, min(block_k, channels), warps, stages) for block_m, block_k, warps, stages in options]
        times = {}
        for tiles in dict.fromkeys([chosen, *(tried if scene.device.type == "cuda" else tried[:1])]):

            def call(tiles: Tiles = tiles) -> Tensor:
                return triton_kernels.conv(x, table, weight, relu=True, allow_tf32=precision == "tf32", tiles=tiles)  # noqa: B023

            times[tiles] = milliseconds(call, scene.device, rounds)
        best = min(times, key=lambda t: times[t])
        row: Row = {"case": "tiles", "channels": channels, "precision": precision, "voxels": count, "rows": len(table),
               "chosen": list(chosen), "ms_triton": round(times[chosen], 4),
               "best": list(best), "ms_best": round(times[best], 4)}
        print(row, flush=True)
        yield row


def main() -> None:
    """Run everything that was asked for and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000, 300_000, 1_000_000], metavar="VOXELS")
    parser.add_argument("--sweep-size", type=int, default=300_000, metavar="VOXELS", help="tiles are tried at this one of them")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--channels", type=int, nargs="+", default=list(ModelConfig().channels), help="of the U-Net")
    args = parser.parse_args()
    if not triton_kernels.available():
        raise SystemExit("Triton cannot run here: install it and use a GPU, or set TRITON_INTERPRET=1 (on few voxels)")
    config, device = ModelConfig(channels=tuple(args.channels)), torch.device(args.device)
    rows: list[Row] = []
    for size in args.sizes:
        scene = Scene(size, config, device)
        parts = [layers, updates, networks, *([sweep] if size == args.sweep_size else [])]
        for part in parts:
            for row in part(scene, args.rounds):
                rows.append(row)
                write_report(args.json, figures_of(rows), rows)  # what is done is kept if the time runs out


def figures_of(rows: list[Row]) -> dict[str, float]:
    """Speedups over the torch path by case, channels, precision and size."""
    names = ("case", "channels", "precision", "voxels")
    return {"speedup_" + "_".join(str(row[n]) for n in names if n in row): row["speedup"] for row in rows if "speedup" in row}


if __name__ == "__main__":
    main()
