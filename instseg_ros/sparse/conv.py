"""Sparse convolution as one function of a table: submanifold, strided and transposed layers are the same call.

    out[n] = bias + sum_k x[table[n, k]] W[k]

The gradient by x is the same convolution over the reverse table with transposed weights, so the CPU kernel serves both
directions; on other devices, and where the kernel was not built, plain torch does the same work.
"""

__all__ = ["apply_conv", "sparse_conv"]

from typing import Any

import torch
from torch import Tensor

from instseg_ros.sparse import kernels

_GATHER_FLOATS = 1 << 24  # rows are gathered in blocks of this many floats (64 MB) by the torch path


def _uses_kernel(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and kernels.available()


def apply_conv(
    x: Tensor, table: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """The convolution without autograd, with residual sum and ReLU at its end; see `sparse_conv`."""
    if _uses_kernel(x):
        return kernels.conv(x, table, weight, bias, residual, relu)
    out = _gather_conv(x, table, weight)
    if bias is not None:
        out += bias
    if residual is not None:
        out += residual
    return out.relu_() if relu else out


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
    total = x.new_zeros(taps * cin, grad.shape[1])
    block = max(1, _GATHER_FLOATS // (taps * cin))
    for begin in range(0, rows, block):
        part = table[begin : begin + block].long()
        total += padded[part].reshape(len(part), taps * cin).T @ grad[begin : begin + block]
    return total.reshape(taps, cin, -1)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, table: Tensor, reverse: Tensor, flip: bool) -> Tensor:
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
            gradient = kernels.conv_weight_grad if _uses_kernel(x) else _gather_weight_grad
            grad_weight = gradient(x, table, grad)
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
        kind = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(kind), weight.to(kind)
    out: Tensor = _SparseConv.apply(x, weight, table, table if reverse is None else reverse, flip)
    return out if bias is None else out + bias
