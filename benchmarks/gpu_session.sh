#!/usr/bin/env bash
# What has to be seen on a machine with an NVIDIA GPU:  bash benchmarks/gpu_session.sh OUT
# PYTHON names an interpreter with torch (CUDA), Triton and the package's dependencies; ROS is not needed. Some twenty minutes
# (a guess: it has not run on one). What is done is in OUT as soon as it is; what matters most comes first.
# PARTS="incremental training" runs some of: tests network incremental training peers kernels presets (presets alone takes another ten).
# DEVICE=cpu runs the same on a few voxels and steps, the kernels under Triton's interpreter: does the script hold together?
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-out/gpu}" && cd "${1:-out/gpu}" && pwd)
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DEVICE=${DEVICE:-cuda}
PARTS=${PARTS:-tests network incremental training peers kernels presets}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
exec > >(tee "$out/log.txt") 2>&1

if [ "$DEVICE" = cuda ]; then
    "$PYTHON" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU: install a CUDA build of it (docs/gpu.md)"'
    "$PYTHON" -c 'from instseg_ros.sparse import triton_kernels as t; assert t.available(), "Triton >= 3.2 is missing (docs/gpu.md)"'
    "$PYTHON" setup.py -q build_ext --inplace
    kernel_options=() incremental_options=(--device cuda --repeats 15) peer_options=(--sizes 20000 67000 300000) steps=200 interpret=0
else
    kernel_options=(--sizes 60 --sweep-size 60 --rounds 1 --channels 8 12) steps=2 interpret=1
    incremental_options=(--rehearse --voxels 3000 --memory-voxels 4000 --budgets-mb 5 --histories 1 --repeats 1)
    peer_options=(--sizes 300 --rounds 1)
fi

tests() {
    if ! "$PYTHON" -c 'import pytest' 2> /dev/null; then
        echo "pytest is not installed: the benchmarks still compare every kernel to torch, and a refresh to a full pass on the CPU"
        return 0
    fi
    "$PYTHON" -m pytest -q -p no:cacheprovider test/sparse/test_triton_kernels.py || return 1
    "$PYTHON" -m pytest -q -p no:cacheprovider test/grouping/test_arrays.py || return 1  # CuPy against NumPy
    INSTSEG_TEST_DEVICE=$DEVICE "$PYTHON" -m pytest -q -p no:cacheprovider test/sparse/test_device.py test/sparse/test_device_pyramid.py \
        test/sparse/test_incremental_backbones.py
}

network() {  # on CPU and GPU
    "$PYTHON" - "$out/gpu.json" "$DEVICE" <<'PY'
import sys
import time

import numpy as np
import torch

from instseg_ros.benchmarks.surfaces import surface_voxels
from instseg_ros.config import ModelConfig
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.models.network import InstanceNet
from instseg_ros.report import write_report
from instseg_ros.sparse.runner import FullPassRunner

path, device = sys.argv[1:]
coords, colors = surface_voxels(20_000 if device == "cuda" else 2_000, seed=0)
update = MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05, full=True)
torch.manual_seed(0)
net = InstanceNet(ModelConfig()).eval()
figures, outputs = {"voxels": len(coords)}, []
for where in ("cpu", device):
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    delta = voxels.apply(update)
    runner, times = FullPassRunner(net, where), []
    for _ in range(6):
        start = time.perf_counter()
        runner.refresh(voxels, delta)
        times.append((time.perf_counter() - start) * 1e3)
    figures[f"full_pass_ms_{where}"] = round(float(np.median(times[1:])), 2)
    outputs.append({name: getattr(runner.prediction, name)[voxels.live_slots()].copy() for name in ("semantic", "embedding", "offset")})
for name, values in outputs[0].items():
    figures[f"max_difference_{name}"] = float(np.abs(values - outputs[1][name]).max())
    assert figures[f"max_difference_{name}"] < 1e-2, f"CPU and GPU disagree in {name}: {figures}"
write_report(path, figures)
print(figures)
PY
}

incremental() {  # refresh against full pass, 1 % of a map revealed
    "$PYTHON" -m instseg_ros.cli bench incremental --json "$out/gpu_incremental.json" "${incremental_options[@]}"
}

data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
training() {  # in mixed precision
    "$PYTHON" -m instseg_ros.cli simulate rooms --count "$([ "$DEVICE" = cuda ] && echo 8 || echo 1)" --split train --jobs 4 --out "$data" &&
        "$PYTHON" -m instseg_ros.cli simulate rooms --count 1 --split validation --jobs 2 --out "$data" &&
        "$PYTHON" -m instseg_ros.cli train rooms --data "$data" --out "$data/run" --device "$DEVICE" --steps "$steps" \
            --validate-every "$((steps / 2))" --checkpoint-every "$((steps / 2))"
}

peers() {  # times against spconv-triton and spconv, those of them that are installed
    "$PYTHON" -m instseg_ros.cli bench conv --device "$DEVICE" --peers spconv_triton spconv torch "${peer_options[@]}" --json "$out/gpu_conv.json"
}

kernels() {  # times against torch, and tiles
    TRITON_INTERPRET=$interpret "$PYTHON" benchmarks/gpu_kernels.py "$out/gpu_kernels.json" --device "$DEVICE" "${kernel_options[@]}"
}

presets() {  # every preset, trained on rooms of made-up furniture, and the toy benchmark; weights and tables are left in OUT
    local rooms=$data/rooms toy=$data/toy count=600 budget=4000 test_rooms=20 toys=()
    if [ "$DEVICE" != cuda ]; then count=2 budget=2 test_rooms=1 toys=(--count 3 --validation 1 --test 2); fi
    "$PYTHON" -m instseg_ros.cli simulate rooms --count "$count" --split train --seed 7 --jobs 16 --out "$rooms" || return 1
    "$PYTHON" -m instseg_ros.cli simulate rooms --count "$test_rooms" --split validation --seed 8 --jobs 16 --out "$rooms" || return 1
    local entries=()
    for preset in mtml occuseg ssen structure_gcn; do
        "$PYTHON" -m instseg_ros.cli train "$preset" --data "$rooms" --out "$out/$preset" --device "$DEVICE" --steps "$budget" \
            --validate-every "$budget" --model.backbone unet --model.channels 32 48 64 96 || return 1
        entries+=(--entry "$preset=$out/$preset/last.safetensors")
    done
    "$PYTHON" -m instseg_ros.cli evaluate rooms --offline --compare "${entries[@]}" --count "$test_rooms" --out "$out/compare_rooms" || return 1
    "$PYTHON" -m instseg_ros.cli simulate toy --out "$toy" "${toys[@]}" || return 1
    "$PYTHON" -m instseg_ros.cli bench ablations --data "$toy" --presets mtml --seeds 3 --steps "$budget" --device "$DEVICE" --out "$out/toy_runs" \
        --set model.label_input=true --json "$out/toy_ablations.json"
}

failed=()
for part in $PARTS; do
    echo "== $part"
    "$part" || failed+=("$part")  # the others are worth having all the same
done
echo "== done: $out; failed: ${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ]
