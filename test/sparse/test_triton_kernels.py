"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for real cards. With one: on larger sizes."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from instseg_ros.errors import MissingDependencyError
from instseg_ros.sparse import conv, triton_kernels, triton_updates
from instseg_ros.sparse.conv import apply_conv, only_path, sparse_conv

CHECKS = Path(__file__).with_name("triton_checks.py")
INTERPRETED = triton_kernels.interpreted()

needs_triton = pytest.mark.skipif(not triton_kernels.installed(), reason="Triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="no CUDA device")


def run_checks(**environment: str) -> None:
    """The checks in a process of their own: what Triton is told about its interpreter holds for a whole process."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CHECKS)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, cwd=CHECKS.parents[2], capture_output=True, text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout), result.stdout
    assert "skipped" not in result.stdout, result.stdout


@needs_triton
def test_checks_under_the_interpreter():
    run_checks(TRITON_INTERPRET="1")


@needs_triton
@needs_gpu
def test_checks_on_the_gpu():
    run_checks(TRITON_INTERPRET="0")


def test_without_triton_the_torch_path_does_the_work(monkeypatch):
    monkeypatch.setattr(triton_kernels, "installed", lambda: False)
    assert not triton_kernels.available()
    table = torch.tensor([[0, -1], [1, 0]], dtype=torch.int32)
    weight = torch.ones(2, 1, 1)
    with only_path("torch"):
        assert apply_conv(torch.tensor([[1.0], [2.0]]), table, weight).tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize(("version", "usable"), [("3.0.0", False), ("3.2.0", True), ("3.10.1+git1234", True), ("4.0", True)])
def test_a_triton_too_old_is_not_used(version, usable, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert triton_kernels.installed.__wrapped__() == usable


def test_a_missing_triton_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingDependencyError, match="pip install"), only_path("triton"):
        apply_conv(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, 1, 1))


def test_a_forced_path_is_left_again():
    with pytest.raises(ValueError, match="compiled, triton, torch"), only_path("spconv"):
        pass
    x = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(KeyError), only_path("compiled"):
        assert conv.path_on(x.device, x.dtype) == "compiled"
        raise KeyError
    assert conv.path_on(x.device, x.dtype) == "torch"


def compiled(program, tensors: dict[str, str], constants: dict[str, object], arch: int, warps: int, stages: int = 3):
    """A Triton program for a card of the given compute capability; this machine needs none."""
    triton = pytest.importorskip("triton", minversion="3.4", reason="this release of Triton is given its source otherwise")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {**tensors, **dict.fromkeys(constants, "constexpr")}
    names = program.arg_names
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in tensors.items() if kind.startswith("*")}  # as torch's are
    source = ASTSource(program, signature={name: signature[name] for name in names}, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps, "num_stages": stages})


TRITON_NAME = {torch.float32: "fp32", torch.float16: "fp16"}
LISTED = {name: "*i32" for reader in "ab" for name in (f"table_{reader}", f"stamp_{reader}", f"due_{reader}", f"count_{reader}")}


def sources(dtype: torch.dtype, precision: str, cin: int, cout: int):
    """The programs that multiply, as a layer of these channels needs them: program, tensors, constants, warps."""
    from instseg_ros.sparse import device_jit, triton_jit

    kind, shape = "*" + TRITON_NAME[dtype], {"TAPS": 27, "CIN": cin, "COUT": cout, "PRECISION": precision, "WIDEN": False}
    tiles = triton_kernels.conv_tiles(300_000, cin, cout, dtype, whole_rows=True)
    blocks = {"BLOCK_M": tiles.block_m, "BLOCK_N": tiles.block_n, "BLOCK_K": tiles.block_k}
    flags = dict.fromkeys(("HAS_TABLE", "HAS_ROWS", "HAS_BIAS", "HAS_RESIDUAL", "RELU"), True)
    reads = {"x": kind, "table": "*i32", "rows": "*i32", "weight": kind, "bias": "*fp32", "residual": kind}
    yield triton_jit.conv_program, {**reads, "out": kind, "n": "i32"}, {**shape, **flags, **blocks}, tiles.warps
    written = {"cache": kind, "moved": "*u8", "replaced": "*i32", "fresh": "*u8", "threshold": "*fp32", "n": "i32", "epoch": "*i32"}
    lengths = {"length_a": "i32", "length_b": "i32"}
    written |= {"place_in": "*i32", "place_out": "*i32"}
    told = {"HAS_FRESH": True, "THRESHOLD_IN_MEMORY": True, "HAS_REPLACED": True, "TAPS_A": 27, "PADDED_A": 32, "TAPS_B": 1, "PADDED_B": 1}
    for limited in (False, True):
        places = {"HAS_PLACE_IN": limited, "HAS_PLACE_OUT": limited}
        yield device_jit.update_program, {**reads, **written, **LISTED, **lengths}, {**shape, **flags, **told, **places, **blocks}, tiles.warps
    gradient = {"x": kind, "table": "*i32", "grad": kind, "partial": "*fp32", "n": "i32"}
    yield triton_jit.weight_grad_program, gradient, {**shape, "STEPS": 16, "BLOCK_R": 32, "BLOCK_I": min(cin, 64), "BLOCK_O": 64}, 4


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter does not compile")
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("channels", [(32, 64), (96, 96)])
@pytest.mark.parametrize(("dtype", "tf32"), [(torch.float32, False), (torch.float32, True), (torch.float16, False)])
def test_programs_compile_for_tensor_cores(arch, dtype, tf32, channels, tmp_path, monkeypatch):
    """What the machine code must have: products on the tensor cores, loads that run ahead of them, and nothing spilled."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for program, tensors, constants, warps in sources(dtype, "tf32" if tf32 else "ieee", *channels):
        code = compiled(program, tensors, constants, arch, warps)
        ptx = code.asm["ptx"]
        on_tensor_cores = re.search(r"\bw?g?mma\.\S*(sync|async)", ptx) is not None
        assert on_tensor_cores == (dtype != torch.float32 or tf32)  # float32 in full is left to the ordinary units
        assert "cp.async.c" in ptx and "cp.async.wait" in ptx
        assert ".local" not in ptx and code.metadata.shared <= 48 << 10
        assert code.asm["cubin"]


def surface(side: int) -> torch.Tensor:
    """Neighbour table [side**2, 27] of a flat floor of voxels, as far as it goes."""
    i, j = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    table = torch.full((side * side, 27), -1, dtype=torch.int32)
    for tap in range(27):
        di, dj, dk = tap // 9 - 1, tap // 3 % 3 - 1, tap % 3 - 1
        inside = (i + di >= 0) & (i + di < side) & (j + dj >= 0) & (j + dj < side) & (dk == 0)
        table[inside.ravel(), tap] = ((i + di) * side + j + dj)[inside].int()
    return table


@needs_triton
@needs_gpu
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float16, 3e-3)])
@pytest.mark.parametrize(("cin", "cout"), [(6, 32), (32, 32), (64, 128), (128, 20)])
def test_large_layers_are_those_of_the_cpu(dtype, relative, cin, cout):
    torch.manual_seed(0)
    table = surface(150)
    x, weight = torch.randn(len(table), cin), torch.randn(27, cin, cout) / (9 * cin) ** 0.5
    upstream = torch.randn(len(table), cout)
    results = []
    for device, kind in (("cpu", torch.float32), ("cuda", dtype)):
        leaves = [x.to(dtype).to(device, kind).requires_grad_(), weight.to(dtype).to(device, kind).requires_grad_()]
        out = sparse_conv(leaves[0], table.to(device), leaves[1])
        out.backward(upstream.to(dtype).to(device, kind))
        results.append([out.detach(), leaves[0].grad, leaves[1].grad])
    for want, got in zip(*results, strict=True):
        assert (got.float().cpu() - want).abs().max() <= relative * want.abs().max()


@needs_triton
@needs_gpu
def test_updates_on_the_gpu_follow_a_full_pass():
    torch.manual_seed(0)
    table = surface(300).cuda()
    count = len(table)
    x, weight, bias = torch.randn(count, 32).cuda(), torch.randn(27, 32, 32).cuda() / 17, torch.randn(32).cuda()
    cache, fresh = torch.empty(count, 32).cuda(), torch.ones(count, dtype=torch.bool).cuda()
    assert triton_updates.update(x, table, None, weight, bias, None, True, cache, 0.0, fresh).all()
    for _ in range(5):
        changed = torch.randint(0, count, (count // 100,)).cuda()
        x[changed] = torch.randn(len(changed), 32).cuda()
        rows = table[changed].unique()
        rows = rows[rows >= 0]
        moved = triton_updates.update(x, table, rows, weight, bias, None, True, cache, 0.0)
        assert moved.any()
        full = apply_conv(x, table, weight, bias, relu=True)
        assert (cache - full).abs().max() <= 1e-5 * full.abs().max()
