"""Python, libraries, the compiled kernels, threads, the GPU and the weights."""

__all__ = ["check_gpu", "check_kernels", "check_libraries", "check_python", "check_threads", "check_weights"]

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from instseg_ros.diagnosis.findings import Finding, note, ok, problem

LIBRARIES = {
    "numpy": "numpy", "scipy": "scipy", "torch": "torch", "hdbscan": "hdbscan", "safetensors": "safetensors", "yaml": "pyyaml",
    "PIL": "pillow", "matplotlib": "matplotlib", "rosbags": "rosbags", "tqdm": "tqdm", "threadpoolctl": "threadpoolctl",
}
"""Modules that are always needed, and the names they are installed by."""

PROBE = """
import numpy as np, torch
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse import conv, kernels
if not kernels.available():
    raise SystemExit("missing")
coords = np.argwhere(np.ones((4, 4, 4))).astype(np.int32)
voxels = VoxelMap(0.05)
voxels.apply(MapUpdate(coords, np.zeros((64, 3), np.uint8), np.ones(64, np.float32), 0.05))
assert sorted(voxels.lookup(coords).tolist()) == list(range(64)), "the map loses voxels"
table = torch.from_numpy(voxels.pyramid.levels[0].neighbors[:64].copy())
x, weight = torch.rand(64, 8), torch.rand(27, 8, 16)
with conv.only_path("compiled"):
    ours = conv.sparse_conv(x, table, weight)
with conv.only_path("torch"):
    assert torch.allclose(ours, conv.sparse_conv(x, table, weight), atol=1e-3), "the convolution is wrong"
"""
"""Run in a process of its own: kernels that were built for another CPU end it."""


def check_python() -> Iterator[Finding]:
    """The version of Python."""
    text = f"Python {platform.python_version()} at {sys.executable}"
    yield ok("python", text) if sys.version_info >= (3, 10) else problem("python", text, "install Python 3.10 or newer")


def check_libraries() -> Iterator[Finding]:
    """The libraries that are always needed."""
    versions = []
    for module, name in {**LIBRARIES, "open3d": "open3d"}.items():
        if importlib.util.find_spec(module) is None:
            yield problem("libraries", f"{name} is not installed", "pip install -e . in the checkout, with this Python")
            continue
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(name)  # installed by another name, as open3d-cpu is
    if versions:
        yield ok("libraries", ", ".join(versions))
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 2):
            yield problem("libraries", f"torch {torch.__version__} is too old", "pip install 'torch>=2.2'")


def check_kernels(timeout_s: float = 120.0) -> Iterator[Finding]:
    """Whether the compiled kernels are there, run on this CPU, and compute what torch computes."""
    build = "pip install -e . in the checkout, with a C++ compiler (INSTSEG_MARCH= before it builds for any CPU of this kind)"
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        yield problem("kernels", f"the compiled kernels did not answer within {timeout_s:g} s", "look at the load of the machine and try again")
        return
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == 0:
        yield ok("kernels", "the compiled kernels are there and agree with torch")
    elif done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        yield problem("kernels", f"the compiled kernels ended the process ({name}): they were built for another CPU", build)
    elif last == "missing":
        yield problem("kernels", "the compiled kernels are missing", build)
    else:
        yield problem("kernels", f"the compiled kernels cannot be used: {last}", build)


def check_threads() -> Iterator[Finding]:
    """The cores that the process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{cores} of {os.cpu_count()} cores may be used; kernels run on {cores} threads (parameter threads)"
    omp = os.environ.get("OMP_NUM_THREADS", "")
    if omp:
        text += f", torch on {omp} (OMP_NUM_THREADS)"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 1.5 * cores:
        yield note("threads", f"{text}; the load is {load:.1f}", "end other programs, or expect longer latencies")
    elif cores == 1:
        yield note("threads", text, "give the node two cores: one for the worker, one for ROS")
    else:
        yield ok("threads", text)


def check_gpu() -> Iterator[Finding]:
    """What there is of CUDA, Triton and CuPy, and what follows."""
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
            yield note(
                "gpu", f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it (it {built}): the network runs on the CPU",
                "install the torch wheel that fits the driver (nvidia-smi shows it); docs/gpu.md",
            )
        else:
            yield ok("gpu", "no CUDA GPU: the network runs on the CPU, which is what the CPU kernels are for")
        return
    free, total = torch.cuda.mem_get_info()
    yield ok("gpu", f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free: device = auto uses it")
    if importlib.util.find_spec("triton") is None:
        yield note("gpu", "Triton is not installed: convolutions on the GPU go through torch, slower", "pip install 'triton>=3.2'")
    else:
        yield ok("gpu", f"Triton {importlib.metadata.version('triton')}: convolutions run as Triton kernels")
    if importlib.util.find_spec("cupy") is None:
        yield note("gpu", "CuPy is not installed: grouping runs on the CPU", "pip install cupy-cuda12x, then grouping.device = cuda")
    else:
        yield ok("gpu", "CuPy is installed: grouping.device = cuda can be used")


def check_weights(weights: str = "", voxel_size_m: float = 0.05) -> Iterator[Finding]:
    """Whether the weights can be read and fit the voxel size."""
    from instseg_ros.errors import WeightsError
    from instseg_ros.models.weights import load_weights, weights_metadata

    try:
        metadata = weights_metadata(weights)
        net = load_weights(weights)
    except WeightsError as error:
        yield problem("weights", str(error), "set parameter weights to a readable file, or leave it empty for the shipped one")
        return
    trained_m = net.config.voxel_size_m
    text = f"{weights or 'the shipped ones'} (preset {metadata.get('preset', 'unknown')}): voxels of {trained_m:g} m"
    text += f", heads {', '.join(net.config.heads)}"
    if abs(trained_m - voxel_size_m) > 1e-4 * voxel_size_m:
        cure = f"set voxel_size_m and the mapper's voxel size to {trained_m:g}"
        yield problem("weights", f"{text}; the map has voxels of {voxel_size_m:g} m", cure)
    else:
        yield ok("weights", text)
