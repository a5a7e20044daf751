"""The compiled CPU kernels: `kernels.cpp` is a plain C library, called through ctypes, which releases the interpreter lock."""

__all__ = [
    "Reads", "Step", "available", "connect", "conv", "conv_weight_grad", "find_chunks", "graph_segments", "heads", "insert",
    "lookup", "number_absent", "pad_channels", "reach", "remove", "set_threads", "spanning_tree", "wave",
]

import ctypes
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_MOST_PARTS = 16  # parts of a sum over rows; more threads than that would need too many copies of the weights


def _cores() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_threads = _cores()


def set_threads(count: int) -> None:
    """Threads used by the kernels; 0 = all cores the process may use."""
    global _threads
    _threads = count or _cores()


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    for path in sorted(Path(__file__).parent.glob("_kernels*.so")):
        library = ctypes.CDLL(str(path))
        p, wide, i = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        library.instseg_conv.argtypes = [p, p, p, p, p, p, wide, i, i, i, i, i, i]
        library.instseg_heads.argtypes = [p, wide, i, p, p, wide, p, wide, i]
        library.instseg_wave.argtypes = [p, wide, p, i]
        library.instseg_conv_weight_grad.argtypes = [p, p, p, p, wide, i, i, i, i]
        library.instseg_reach.argtypes = [p, i, p, wide, p, i, p, wide, i]
        library.instseg_find_chunks.argtypes = [p, wide, p, p, wide, p, p]
        library.instseg_lookup.argtypes = [p, p, wide, p, p]
        library.instseg_number_absent.argtypes = [p, p, wide, p, p, p]
        library.instseg_insert.argtypes = [p, p, p, wide, p, p, p, i]
        library.instseg_remove.argtypes = [p, p, p, wide, p, p]
        library.instseg_spanning_tree.argtypes = [p, p, wide, ctypes.c_double, p]
        library.instseg_connect.argtypes = [p, wide, wide, i, p]
        library.instseg_graph_segments.argtypes = [p, p, p, wide, wide, ctypes.c_double, wide, p]
        for name in ("connect", "reach", "find_chunks", "number_absent"):
            getattr(library, f"instseg_{name}").restype = wide
        return library
    return None


def available() -> bool:
    """Whether the compiled library was built with the package; the voxel map needs it, convolutions can do without."""
    return _library() is not None


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the compiled kernels are missing: build the package with a C++ compiler (pip install -e . or colcon build)")
    return library


# -- convolution


def pad_channels(weight: Tensor) -> Tensor:
    """Weights [..., Cout] with as many zero columns more as the kernels' vectors need."""
    multiple = _loaded().instseg_channel_multiple()
    width = -(-weight.shape[-1] // multiple) * multiple
    if width != weight.shape[-1]:
        weight = torch.nn.functional.pad(weight, (0, width - weight.shape[-1]))
    return weight.contiguous()


def conv(
    x: Tensor, table: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """out[n] = bias + sum_k x[table[n, k]] W[k] (+ residual, ReLU), float32 on the CPU.

    Args:
        x: [M, Cin]; table: [N, K] int32 rows of x, -1 = none; weight: [K, Cin, Cout]; bias: [Cout]; residual: [N, Cout].

    Returns:
        [N, Cout] float32.
    """
    taps, cin, cout = weight.shape
    out = torch.empty((len(table), cout), dtype=torch.float32)
    x, table, weight = x.contiguous(), table.contiguous(), pad_channels(weight)
    bias = None if bias is None else pad_channels(bias)
    residual = None if residual is None else residual.contiguous()
    _loaded().instseg_conv(
        x.data_ptr(), table.data_ptr(), weight.data_ptr(), _pointer(bias), _pointer(residual), out.data_ptr(), len(table), taps, cin, cout,
        weight.shape[2], int(relu), _threads)
    return out


Reads = list[tuple[np.ndarray | None, np.ndarray | int]]
"""Pairs of a table [*, K] int32 (None: the rows themselves) and the rows of it to look at [n] int32, or the number of the step that moves
them. -1 is no row."""


@dataclass(frozen=True)
class Step:
    """One layer of a wave: the convolution at some rows, written over earlier outputs where it differs from them."""

    x: np.ndarray
    """[M, Cin] float32 or float16, contiguous as all arrays here."""
    table: np.ndarray | None
    """[N, K] int32; None = every row reads itself, by one tap."""
    weight: Tensor
    """[K, Cin, padded Cout] from `pad_channels`."""
    bias: Tensor
    """[padded Cout]."""
    residual: np.ndarray | None
    """[N, Cout], of the type of `out`."""
    relu: bool
    out: np.ndarray
    """[N, Cout] float32 or float16, changed in place."""
    threshold: float
    """A row is replaced if one of its columns moves by more than this,"""
    fresh: np.ndarray
    """[N] uint8: or if it is marked here. Below 0, all are."""
    place_in: np.ndarray | None
    """[M] int32: which row of `x` holds an input, -1 = none does; None = the row of its own number."""
    place_out: np.ndarray | None
    """The same for `out` and `residual`."""
    reads: Reads
    """Three at most; the rows they name are due."""
    stamp: np.ndarray
    """[capacity] int32 scratch that holds no `epoch` yet."""
    epoch: int


_READS = np.dtype([(name, np.int64) for name in ("table", "taps", "rows", "count")])
_STEP = np.dtype(
    [(name, np.int64) for name in ("x", "x_half", "table", "weight", "bias", "residual", "out", "out_half", "place_in", "place_out",
                                   "taps", "cin", "cout", "width", "relu")]
    + [("threshold", np.float64), ("fresh", np.int64), ("stamp", np.int64), ("epoch", np.int64), ("most", np.int64), ("reads", _READS, 3),
       ("due", np.int64), ("moved", np.int64)])
"""`Step` of kernels.cpp."""


def wave(steps: Sequence[Step]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Finds the rows due in each step, recomputes them, and goes on with those that moved.

    Returns:
        The rows [n] int32 that moved in the last step, in no order, and how many were due and moved in each.
    """
    packed = np.zeros(len(steps), _STEP)
    keep = []  # alive while their addresses are in use
    for i, step in enumerate(steps):
        taps, cin, width = step.weight.shape
        reads = []
        for table, rows in step.reads:
            where = (_address(table) or 0, 1 if table is None else table.shape[1])
            if isinstance(rows, int):
                reads.append((*where, 0, rows))
            elif len(rows):
                keep.append(np.ascontiguousarray(rows, np.int32))
                reads.append((*where, keep[-1].ctypes.data, len(rows)))
        nothing = (0, 1, 0, -1)
        packed[i] = (
            step.x.ctypes.data, _half(step.x), _address(step.table) or 0, step.weight.data_ptr(), step.bias.data_ptr(),
            _address(step.residual) or 0, step.out.ctypes.data, _half(step.out), _address(step.place_in) or 0, _address(step.place_out) or 0,
            taps, cin, step.out.shape[1], width, step.relu, step.threshold, step.fresh.ctypes.data, step.stamp.ctypes.data, step.epoch,
            len(step.stamp), [*reads, nothing, nothing, nothing][:3], 0, 0)
    last = np.empty(len(steps[-1].stamp), np.int32)
    _loaded().instseg_wave(packed.ctypes.data, len(packed), last.ctypes.data, _threads)
    return last[: packed["moved"][-1]], list(zip(packed["due"].tolist(), packed["moved"].tolist(), strict=True))


_HEAD = np.dtype([(name, np.int64) for name in ("w1", "b1", "w2", "b2", "hidden", "hidden_width", "cout", "width", "form", "out")])
"""`Head` of kernels.cpp."""
_FORM = {"semantic": 1, "direction": 2, "covariance": 3}
"""`Form` of kernels.cpp, of the heads that are not plain."""


def heads(
    x: np.ndarray, rows: np.ndarray, place: np.ndarray | None, parts: Sequence[tuple[str, Tensor, Tensor, Tensor, Tensor, np.ndarray]]
) -> None:
    """Perceptrons of two layers with a ReLU between them, each in its published form (`models.heads.published`).

    Args:
        x: [M, Cin] float32 or float16; rows: [n] int32.
        place: [*] int32: row i is computed of x[place[i]]; None = of x[i].
        parts: name of each head, weights and bias of its two layers from `pad_channels`, and its output [*, C] float32, of which
            the rows are overwritten.
    """
    packed = np.zeros(len(parts), _HEAD)
    for i, (name, w1, b1, w2, b2, out) in enumerate(parts):
        packed[i] = (w1.data_ptr(), b1.data_ptr(), w2.data_ptr(), b2.data_ptr(), len(w2), w1.shape[1], out.shape[1], w2.shape[1],
                     _FORM.get(name, 0), out.ctypes.data)
    _loaded().instseg_heads(
        x.ctypes.data, x.shape[1], _half(x), rows.ctypes.data, _address(place), len(rows), packed.ctypes.data, len(packed), _threads)


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _address(x: np.ndarray | None) -> int | None:
    return None if x is None else x.ctypes.data


def _half(x: np.ndarray) -> int:
    return int(x.dtype == np.float16)


def conv_weight_grad(x: Tensor, table: Tensor, grad: Tensor) -> Tensor:
    """dW[k] = sum_n x[table[n, k]]^T grad[n]: [K, Cin, Cout] for x [M, Cin], table [N, K], grad [N, Cout]."""
    rows, taps = table.shape
    cin, cout = x.shape[1], grad.shape[1]
    x, table, grad = x.contiguous(), table.contiguous(), pad_channels(grad)
    parts = max(1, min(_threads, _MOST_PARTS, rows // 512))
    partial = torch.zeros((parts, taps, cin, grad.shape[1]), dtype=torch.float32)
    _loaded().instseg_conv_weight_grad(
        x.data_ptr(), table.data_ptr(), grad.data_ptr(), partial.data_ptr(), rows, taps, cin, grad.shape[1], parts)
    return partial.sum(0)[..., :cout]


# -- tables of a level (see `Level`, whose arrays these are)


def reach(parts: Sequence[tuple[np.ndarray | None, np.ndarray]], stamp: np.ndarray, epoch: int) -> np.ndarray:
    """Rows named by any of the parts, each once.

    Args:
        parts: pairs of a table [*, K] int32 (None: the rows themselves) and the rows of it to look at; -1 is no row.
        stamp: [capacity] int32 scratch that holds no `epoch` yet.

    Returns:
        [n] int32, in no order.
    """
    most = sum(len(rows) * (1 if table is None else table.shape[1]) for table, rows in parts)
    out = np.empty(min(most, len(stamp)), np.int32)
    if not len(out):
        return out
    have = 0
    for table, rows in parts:
        rows = np.ascontiguousarray(rows, np.int32)
        have = _loaded().instseg_reach(
            _address(table), 1 if table is None else table.shape[1], rows.ctypes.data, len(rows), stamp.ctypes.data, epoch,
            out.ctypes.data, have, _threads)
    return out[:have]


def find_chunks(coords: np.ndarray, keys: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chunk [n] of each voxel [n, 3] int32, -1 = none, and the keys of those missing (with repetitions)."""
    chunk, missing = np.empty(len(coords), np.int32), np.empty(len(coords), np.int64)
    absent = _loaded().instseg_find_chunks(
        coords.ctypes.data, len(coords), keys.ctypes.data, number.ctypes.data, len(keys), chunk.ctypes.data, missing.ctypes.data)
    return chunk, missing[:absent]


def lookup(coords: np.ndarray, chunk: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Row [n] of each voxel [n, 3] in its chunk [n], -1 = none."""
    rows = np.empty(len(coords), np.int32)
    _loaded().instseg_lookup(coords.ctypes.data, chunk.ctypes.data, len(coords), slots.ctypes.data, rows.ctypes.data)
    return rows


def number_absent(coords: np.ndarray, chunk: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row [n] of each voxel [n, 3], -2 - j for the j-th absent one, and the absent ones [m, 3]; they must be inserted next."""
    rows, fresh = np.empty(len(coords), np.int32), np.empty_like(coords)
    absent = _loaded().instseg_number_absent(
        coords.ctypes.data, chunk.ctypes.data, len(coords), slots.ctypes.data, rows.ctypes.data, fresh.ctypes.data)
    return rows, fresh[:absent]


def insert(
    coords: np.ndarray, chunk: np.ndarray, rows: np.ndarray, chunk_neighbors: np.ndarray, slots: np.ndarray, neighbors: np.ndarray
) -> None:
    """Put voxels [n, 3] with their chunks and rows [n] int32 into `slots` and, both ways, `neighbors`."""
    _loaded().instseg_insert(
        coords.ctypes.data, chunk.ctypes.data, rows.ctypes.data, len(rows), chunk_neighbors.ctypes.data, slots.ctypes.data,
        neighbors.ctypes.data, _threads)


def remove(coords: np.ndarray, chunk: np.ndarray, rows: np.ndarray, slots: np.ndarray, neighbors: np.ndarray) -> None:
    """Take voxels out of `slots` and, both ways, `neighbors`."""
    _loaded().instseg_remove(
        coords.ctypes.data, chunk.ctypes.data, rows.ctypes.data, len(rows), slots.ctypes.data, neighbors.ctypes.data)


# -- grouping


def spanning_tree(squares: np.ndarray, core: np.ndarray, floor: float) -> np.ndarray:
    """Minimum spanning tree of mutual reachability by Prim's method.

    Args:
        squares: [m, m] squared distances of the items.
        core: [m] core distances.
        floor: least distance of two items.

    Returns:
        [m - 1, 3] float64: from, to, length, in the order in which they are found.
    """
    squares, core = np.ascontiguousarray(squares, np.float64), np.ascontiguousarray(core, np.float64)
    edges = np.empty((max(0, len(core) - 1), 3))
    _loaded().instseg_spanning_tree(squares.ctypes.data, core.ctypes.data, len(core), floor, edges.ctypes.data)
    return edges


def connect(keys: np.ndarray, base: int, reach: int) -> np.ndarray:
    """Connected components of voxels, two being linked within Chebyshev distance `reach`.

    Args:
        keys: [n] int64 (x base + y) base + z of the voxels, ascending.
        base: wider than the range of a coordinate by more than 2 reach.
        reach: largest distance of linked voxels.

    Returns:
        [n] int32 component per voxel, numbered from 0 in the order of their first voxels.
    """
    keys, label = np.ascontiguousarray(keys, np.int64), np.empty(len(keys), np.int32)
    _loaded().instseg_connect(keys.ctypes.data, len(keys), base, reach, label.ctypes.data)
    return label


def graph_segments(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, count: int, scale: float, min_size: int
) -> np.ndarray:
    """Graph-based segmentation (Felzenszwalb, Huttenlocher: "Efficient Graph-Based Image Segmentation", IJCV 2004).

    Args:
        source, target: [E] nodes of the edges.
        weight: [E] how unlike the two are, ascending.
        count: nodes.
        scale: their k: larger segments for larger values.
        min_size: a segment of fewer nodes joins a neighbour, across the lightest edge.

    Returns:
        [count] int32: the first node of every node's segment.
    """
    source, target = np.ascontiguousarray(source, np.int32), np.ascontiguousarray(target, np.int32)
    weight, segment = np.ascontiguousarray(weight, np.float64), np.empty(count, np.int32)
    _loaded().instseg_graph_segments(
        source.ctypes.data, target.ctypes.data, weight.ctypes.data, len(weight), count, scale, min_size, segment.ctypes.data)
    return segment
