"""The tables of a pyramid built on a device, by sorting and searching keys of voxels: what a full pass on a GPU needs of a map.

`pyramid.py` keeps the same tables up to date on the host while the map changes.
"""

__all__ = ["build_tables_on"]

import torch
from torch import Tensor

from instseg_ros.sparse.level import NEIGHBOR_OFFSETS, SELF
from instseg_ros.sparse.pyramid import LevelTables, Tables

_BITS = 21  # of a coordinate in a key, as in `level.py`
_MIDDLE = 1 << (_BITS - 1)


def build_tables_on(coords: Tensor, depth: int, alive: Tensor | None = None) -> Tables:
    """Tables for voxels [N, 3] int32, where they are; row i of the finest level is voxel i, coarser rows are in the order of their keys.

    Args:
        coords: on any device; those alive are unique, and within 2^20 of zero.
        depth: levels.
        alive: [N] bool: which of them there are; the others read nothing and are read by nobody. None = all.

    Returns:
        Tables without what is asked of few (neighbours at a distance, the k nearest).
    """
    levels: list[LevelTables] = []
    rows = torch.arange(len(coords), device=coords.device) if alive is None else alive.nonzero()[:, 0]
    count, children = len(coords), None
    voxels = coords[rows].long()
    for level in range(depth):
        neighbors = _neighbors(voxels, rows, count)
        up = None
        if level < depth - 1:
            keys, owner = torch.unique(_keys(voxels >> 1), return_inverse=True)
            low = voxels & 1
            octant = (low[:, 0] << 2) | (low[:, 1] << 1) | low[:, 2]
            up = _nothing(count, 8, coords)
            up[rows, octant] = owner.int()
            below = _nothing(len(keys), 8, coords)
            below[owner, octant] = rows.int()
        levels.append(LevelTables(neighbors, children, up))
        if up is not None:
            voxels, count, children = _voxels(keys), len(keys), below
            rows = torch.arange(count, device=coords.device)
    return Tables(levels)


def _neighbors(voxels: Tensor, rows: Tensor, count: int) -> Tensor:
    """[count, 27] int32 for voxels [n, 3] in rows [n]; half of it is searched, the other half is its reverse."""
    keys = _keys(voxels)
    table = _nothing(count + 1, 27, voxels)  # the last row takes what is found nowhere
    table[rows, SELF] = rows.int()
    if len(rows):
        ordered, order = keys.sort()
        for column in range(SELF):
            dx, dy, dz = NEIGHBOR_OFFSETS[column].tolist()
            wanted = keys + (dx * (1 << 2 * _BITS) + dy * (1 << _BITS) + dz)
            place = torch.searchsorted(ordered, wanted).clamp_(max=len(ordered) - 1)
            there = ordered[place] == wanted
            found = rows[order[place]]
            table[rows, column] = found.int().masked_fill(~there, -1)
            table[found.masked_fill(~there, count), 26 - column] = rows.int()
    return table[:count]


def _keys(voxels: Tensor) -> Tensor:
    """[n] int64, one number for each voxel, in the order of x, then y, then z."""
    x, y, z = (voxels + _MIDDLE).unbind(1)
    return (x << 2 * _BITS) | (y << _BITS) | z


def _voxels(keys: Tensor) -> Tensor:
    """[n, 3] int64, of keys."""
    low = (1 << _BITS) - 1
    return torch.stack([keys >> 2 * _BITS, (keys >> _BITS) & low, keys & low], 1) - _MIDDLE


def _nothing(rows: int, columns: int, like: Tensor) -> Tensor:
    return torch.full((rows, columns), -1, dtype=torch.int32, device=like.device)
