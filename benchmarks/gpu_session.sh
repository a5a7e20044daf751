#!/usr/bin/env bash
# What has to be seen on a machine with an NVIDIA GPU:  bash benchmarks/gpu_session.sh OUT
# PYTHON names an interpreter with torch (CUDA) and the package's dependencies; ROS is not needed. Takes about five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-out/gpu}" && cd "${1:-out/gpu}" && pwd)
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec > >(tee "$out/log.txt") 2>&1

"$PYTHON" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU: install a CUDA build of it (docs/gpu.md)"'
"$PYTHON" setup.py -q build_ext --inplace

echo "== network on CPU and GPU"
"$PYTHON" - "$out/gpu.json" <<'PY'
import sys
import time

import numpy as np
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet
from instseg_ros.report import write_report
from instseg_ros.sparse.runner import FullPassRunner

# A room of 6 x 5 x 2.6 m: floor, walls and boxes, in 5 cm voxels.
i, j, k = np.meshgrid(np.arange(120), np.arange(100), np.arange(52), indexing="ij")
surface = (k == 0) | (i == 0) | (j == 0) | (i == 119) | ((i % 30 > 12) & (j % 25 > 9) & (k < 16) & ((k == 15) | (i % 30 == 13) | (j % 25 == 10)))
coords = np.stack([i[surface], j[surface], k[surface]], 1).astype(np.int32)
rng = np.random.default_rng(0)
update = MapUpdate(coords, rng.integers(0, 256, (len(coords), 3)).astype(np.uint8), np.ones(len(coords), np.float32), 0.05, full=True)
torch.manual_seed(0)
net = InstanceNet(ModelConfig()).eval()
figures, outputs = {"voxels": len(coords)}, {}
for device in ("cpu", "cuda"):
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    delta = voxels.apply(update)
    runner, times = FullPassRunner(net, device), []
    for _ in range(6):
        start = time.perf_counter()
        runner.refresh(voxels, delta)
        times.append((time.perf_counter() - start) * 1e3)
    figures[f"full_pass_ms_{device}"] = round(float(np.median(times[1:])), 2)
    outputs[device] = {name: getattr(runner.prediction, name)[voxels.live_slots()].copy() for name in ("semantic", "embedding", "offset")}
for name, values in outputs["cpu"].items():
    figures[f"max_difference_{name}"] = float(np.abs(values - outputs["cuda"][name]).max())
    assert figures[f"max_difference_{name}"] < 1e-2, f"CPU and GPU disagree in {name}: {figures}"
write_report(sys.argv[1], figures)
print(figures)
PY

echo "== training in mixed precision"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
"$PYTHON" -m instseg_ros.cli simulate rooms --count 8 --split train --jobs 4 --out "$data"
"$PYTHON" -m instseg_ros.cli simulate rooms --count 2 --split validation --jobs 2 --out "$data"
"$PYTHON" -m instseg_ros.cli train rooms --data "$data" --out "$data/run" --device cuda --steps 200 --validate-every 100 --checkpoint-every 100
echo "== done: $out"
