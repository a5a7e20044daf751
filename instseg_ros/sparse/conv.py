"""Sparse convolution as one function of a table: submanifold, strided and transposed layers are the same call.

    out[n] = bias + sum_k x[table[n, k]] W[k]

The gradient by x is the same convolution over the reverse table with transposed weights, so one kernel serves both
directions: the compiled one on the CPU, the Triton one on CUDA. Where they are not to be had, plain torch does the same work.
"""

__all__ = ["apply_conv", "only_path", "path_on", "sparse_conv"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from instseg_ros.sparse import kernels, triton_kernels

PATHS = ("compiled", "triton", "torch")
_GATHER_FLOATS = 1 << 24  # rows are gathered in blocks of this many floats (64 MB) by the torch path
_forced: str | None = None


@contextmanager
def only_path(path: str) -> Iterator[None]:
    """Within it, all convolutions go one way, whatever the device: `compiled`, `triton` or `torch`. For comparisons.

    It holds for all threads, since autograd runs backward passes on the GPU in a thread of its own.
    """
    global _forced
    if path not in PATHS:
        raise ValueError(f"a path is one of {', '.join(PATHS)}, not {path!r}")
    before, _forced = _forced, path
    try:
        yield
    finally:
        _forced = before


def path_on(device: torch.device, dtype: torch.dtype) -> str:
    """Which of the paths features of a type take on a device."""
    if _forced is not None:
        return _forced
    if device.type == "cpu" and dtype == torch.float32 and kernels.available():
        return "compiled"
    return "triton" if device.type == "cuda" and dtype in triton_kernels.DTYPES and triton_kernels.available() else "torch"


def apply_conv(
    x: Tensor, table: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """The convolution without autograd, with residual sum and ReLU at its end; see `sparse_conv`."""
    path = path_on(x.device, x.dtype)
    if path == "compiled":
        return kernels.conv(x, table, weight, bias, residual, relu)
    if path == "triton":
        return triton_kernels.conv(x, table, weight, bias, residual, relu, allow_tf32=torch.backends.cuda.matmul.allow_tf32)
    out = _gather_conv(x, table, weight)
    if bias is not None:
        out += bias
    if residual is not None:
        out += residual
    return out.relu_() if relu else out


def _weight_grad(x: Tensor, table: Tensor, grad: Tensor) -> Tensor:
    path = path_on(x.device, x.dtype)
    if path == "compiled":
        return kernels.conv_weight_grad(x, table, grad)
    if path == "triton":
        return triton_kernels.weight_grad(x, table, grad, allow_tf32=torch.backends.cuda.matmul.allow_tf32)
    return _gather_weight_grad(x, table, grad)


def _gather_conv(x: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    rows, taps = table.shape
    cin, cout = weight.shape[1], weight.shape[2]
    padded = torch.cat([x, x.new_zeros(1, cin)])  # index -1 reads the zero row
    out = x.new_empty(rows, cout)
    block = max(1, _GATHER_FLOATS // (taps * cin))
    for begin in range(0, rows, block):
        part = table[begin : begin + block].long()
        out[begin : begin + block] = padded[part].reshape(len(part), taps * cin) @ weight.reshape(taps * cin, cout)
    return out


def _gather_weight_grad(x: Tensor, table: Tensor, grad: Tensor) -> Tensor:
    rows, taps = table.shape
    cin = x.shape[1]
    padded = torch.cat([x, x.new_zeros(1, cin)])
    total = torch.zeros(taps * cin, grad.shape[1], device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    block = max(1, _GATHER_FLOATS // (taps * cin))
    for begin in range(0, rows, block):
        part = table[begin : begin + block].long()
        total += padded[part].reshape(len(part), taps * cin).T @ grad[begin : begin + block]
    return total.reshape(taps, cin, -1)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, table: Tensor, reverse: Tensor, flip: bool) -> Tensor:
        weight = weight.to(x.dtype)  # in here, so that under autocast its gradient stays in float32
        ctx.save_for_backward(x, weight, table, reverse)
        ctx.flip = flip
        return apply_conv(x, table, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, table, reverse = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            back = weight.flip(0) if ctx.flip else weight
            grad_x = apply_conv(grad, reverse, back.transpose(1, 2).contiguous())
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_grad(x, table, grad)
        return grad_x, grad_weight, None, None, None


def sparse_conv(x: Tensor, table: Tensor, weight: Tensor, reverse: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Differentiable sparse convolution.

    Args:
        x: [M, Cin] features of the input rows.
        table: [N, K] int32: row of x that tap k of output n reads, -1 = none.
        weight: [K, Cin, Cout].
        reverse: [M, K] int32: row of the output that reads input m with tap k. None for a submanifold layer, whose
            table is its own reverse with the taps in opposite order.
        bias: [Cout].

    Returns:
        [N, Cout].
    """
    flip = reverse is None
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    out: Tensor = _SparseConv.apply(x, weight, table, table if reverse is None else reverse, flip)
    return out if bias is None else out + bias
