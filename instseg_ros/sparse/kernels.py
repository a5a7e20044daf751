"""The compiled CPU kernels: loading them and running them on several threads.

`kernels.cpp` is a plain C library; ctypes releases the interpreter lock, so the same call runs in a small thread pool
and shares out its blocks of rows.
"""

__all__ = ["available", "conv", "conv_weight_grad", "neighbors", "set_threads"]

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_MIN_ROWS_PER_THREAD = 512
_threads = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def set_threads(count: int) -> None:
    """Threads used by the kernels; 0 = all cores the process may use."""
    global _threads
    _threads = count or len(os.sched_getaffinity(0))
    _pool.cache_clear()


@functools.lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, _threads - 1), thread_name_prefix="instseg-kernel")


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    for path in sorted(Path(__file__).parent.glob("_kernels*.so")):
        library = ctypes.CDLL(str(path))
        pointer, wide, narrow = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        library.instseg_conv.argtypes = [pointer] * 6 + [wide] + [narrow] * 4 + [pointer]
        library.instseg_conv_weight_grad.argtypes = [pointer] * 4 + [wide] + [narrow] * 5
        library.instseg_neighbors.argtypes = [pointer] * 5 + [wide]
        return library
    return None


def available() -> bool:
    """Whether the compiled library was built with the package; without it the same work is done by torch, slower."""
    return _library() is not None


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the compiled kernels are missing: build the package with a C++ compiler (pip install -e . or colcon build)")
    return library


def _workers(rows: int) -> int:
    return min(_threads, 1 + rows // _MIN_ROWS_PER_THREAD)


def _run(call: Callable[[int], None], workers: int) -> None:
    """Run `call(worker)` in as many threads, the last of them this one."""
    futures = [_pool().submit(call, i) for i in range(workers - 1)]
    call(workers - 1)
    for future in futures:
        future.result()


def _padded(cout: int) -> int:
    multiple = _loaded().instseg_channel_multiple()
    return -(-cout // multiple) * multiple


def _pad_last(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-1] == size else torch.nn.functional.pad(x, (0, size - x.shape[-1]))


def conv(
    x: Tensor, table: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """out[n] = bias + sum_k x[table[n, k]] W[k] (+ residual, ReLU), float32 on the CPU.

    Args:
        x: [M, Cin]; table: [N, K] int32 rows of x, -1 = none; weight: [K, Cin, Cout]; bias: [Cout]; residual: [N, Cout].

    Returns:
        [N, Cout] float32.
    """
    library = _loaded()
    rows, taps = table.shape
    cin, cout = weight.shape[1], weight.shape[2]
    width = _padded(cout)
    x, table = x.contiguous(), table.contiguous()
    weight = _pad_last(weight, width).contiguous()
    bias = None if bias is None else _pad_last(bias, width).contiguous()
    residual = None if residual is None else _pad_last(residual, width).contiguous()
    out = torch.empty((rows, width), dtype=torch.float32)
    counter = ctypes.c_int64(0)

    def call(_: int) -> None:
        library.instseg_conv(
            x.data_ptr(), table.data_ptr(), weight.data_ptr(), None if bias is None else bias.data_ptr(),
            None if residual is None else residual.data_ptr(), out.data_ptr(),
            rows, taps, cin, width, int(relu), ctypes.addressof(counter),
        )

    _run(call, _workers(rows))
    return out if width == cout else out[:, :cout].contiguous()


def conv_weight_grad(x: Tensor, table: Tensor, grad: Tensor) -> Tensor:
    """dW[k] = sum_n x[table[n, k]]^T grad[n]: [K, Cin, Cout] for x [M, Cin], table [N, K], grad [N, Cout]."""
    library = _loaded()
    rows, taps = table.shape
    cin, cout = x.shape[1], grad.shape[1]
    width = _padded(cout)
    x, table, grad = x.contiguous(), table.contiguous(), _pad_last(grad, width).contiguous()
    workers = _workers(rows)
    partial = torch.zeros((workers, taps, cin, width), dtype=torch.float32)

    def call(worker: int) -> None:
        library.instseg_conv_weight_grad(
            x.data_ptr(), table.data_ptr(), grad.data_ptr(), partial[worker].data_ptr(), rows, taps, cin, width, worker, workers
        )

    _run(call, workers)
    return partial.sum(0)[..., :cout]


def neighbors(coords: np.ndarray, chunk: np.ndarray, chunk_neighbors: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Neighbour slots [N, 27] int32 of voxels [N, 3] in chunks [N]; see `Level`, whose arrays these are."""
    out = np.empty((len(coords), 27), np.int32)
    arrays = [np.ascontiguousarray(a, np.int32) for a in (coords, chunk, chunk_neighbors)]
    _loaded().instseg_neighbors(*(a.ctypes.data for a in arrays), slots.ctypes.data, out.ctypes.data, len(coords))
    return out
