"""Recompute listed rows of a layer's cached output on a device: by the Triton kernel, or in plain torch where there is none."""

__all__ = ["update_rows"]

import torch
from torch import Tensor

from instseg_ros.sparse import conv, triton_kernels

_GATHER_FLOATS = 1 << 24  # rows are gathered in blocks of this many floats (64 MB)
_TILE_ROWS = 16_384  # tiles are chosen as for this many rows


def update_rows(
    x: Tensor, table: Tensor, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool,
    cache: Tensor, threshold: Tensor, fresh: Tensor,
) -> Tensor:
    """Recompute rows of a cache and replace, in place, those that moved; never waits for the device.

    The last rows of x, cache and residual are zero and stand for "none", the index -1.

    Args:
        x: [M, Cin]; table: [N, K] int32 rows of x, -1 = none; weight: [K, Cin, Cout]; bias: [Cout].
        rows: [n] int32, none of them twice; -1 = nothing to do.
        residual: [N, Cout], added to the sum; cache: [N, Cout].
        threshold: [1] float32: a row is replaced if one of its columns moves by more than this,
        fresh: [N] bool: or if it is marked here.

    Returns:
        [n] bool: which rows were replaced.
    """
    if conv._path(x) == "triton":
        # The same tiles whatever the length of the list: a kernel compiled in the middle of a run would stall a live map.
        tiles = triton_kernels.conv_tiles(_TILE_ROWS, weight.shape[1], weight.shape[2], x.dtype, whole_rows=True)
        return triton_kernels.update(
            x, table, rows, weight, bias, residual, relu, cache, threshold, fresh,
            allow_tf32=torch.backends.cuda.matmul.allow_tf32, tiles=tiles)
    return _plain_update(x, table, rows, weight, bias, residual, relu, cache, threshold, fresh)


def _plain_update(
    x: Tensor, table: Tensor, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool,
    cache: Tensor, threshold: Tensor, fresh: Tensor,
) -> Tensor:
    taps, cin, cout = weight.shape
    matrix = weight.reshape(taps * cin, cout).float()
    moved = torch.empty(len(rows), dtype=torch.bool, device=x.device)
    block = max(1, _GATHER_FLOATS // (taps * cin))
    for begin in range(0, len(rows), block):
        part = rows[begin : begin + block].long()
        new = torch.addmm(bias, x[table[part].long()].reshape(len(part), taps * cin).float(), matrix)
        if residual is not None:
            new += residual[part]
        if relu:
            new.relu_()
        value = new.to(cache.dtype)  # what is compared is what would be stored
        replace = (value.float() - cache[part].float()).abs().amax(1) > threshold
        replace |= fresh[part]
        replace &= part >= 0
        cache.index_put_((part.masked_fill(~replace, -1),), value)
        cache[-1].zero_()
        moved[begin : begin + block] = replace
    return moved
