"""nvblox: `nvblox_msgs/VoxelBlockLayer` and `nvblox_msgs/Mesh` as updates of a block map.

Messages are read by their fields alone, so this module needs neither ROS nor nvblox_msgs; nvblox_bytes.py makes them of the bytes that a
topic brings, nvblox_input.py subscribes.
What nvblox_ros 3.2 to 4.3 publishes:

* A VoxelBlockLayer names voxels by their centres and colours; distances and weights are not in it. The mapper has chosen the voxels:
  those at or behind the surface (TSDF <= 0) with enough weight, down to the truncation distance. Their colours are those of the
  colour layer on `~/color_layer`; on `~/tsdf_layer` they are grey and stand for the weight, white = `FULL_WEIGHT` or more.
* A Mesh names triangles with a colour per vertex: the surface itself.
* A block that is named without content has been removed from the map; `clear` empties the map first.

nvblox 3.1 and before has Mesh only, and calls its `block_size_m` `block_size`.
"""

__all__ = ["FULL_WEIGHT", "read_layer", "read_mesh"]

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MAX_VOXELS
from instseg_ros.ros.adapters.blocks import MAX_BLOCKS, BlockUpdate, block_keys

FULL_WEIGHT = 5.0
"""Weight of a TSDF voxel that nvblox shows white."""
GREY = 128
"""Colour of what comes without one."""


def read_layer(msg: Any, voxel_size_m: float, content: str = "color", min_weight: float = 0.0) -> BlockUpdate:
    """The voxels of a `VoxelBlockLayer`.

    Args:
        msg: the message.
        voxel_size_m: voxel size of our map; the mapper's may be finer.
        content: what the colours are: "color", or "tsdf" for weights (the voxels are grey then).
        min_weight: tsdf: voxels of less weight are left out; up to `FULL_WEIGHT`.

    Raises:
        InputError: the message is malformed, or its voxels are coarser than ours.
    """
    block_size_m, size_m = _size(msg, "block_size_m"), _size(msg, "voxel_size_m")
    if size_m > voxel_size_m * (1 + 1e-3):
        raise InputError(
            f"its voxels are {size_m:g} m, ours {voxel_size_m:g} m, and coarse voxels would leave holes: set nvblox's voxel_size to "
            f"{voxel_size_m:g} or less, or take its mesh instead (topic nvblox_mesh)"
        )
    side = round(block_size_m / size_m)
    if not 1 <= side <= 256 or abs(block_size_m / size_m - side) > 0.01:
        raise InputError(f"block_size_m {block_size_m:g} is not a whole number of voxels of {size_m:g} m: the mapper's message is damaged")
    keys, indices = _blocks(msg)
    counts = np.array([len(block.centers) for block in msg.blocks], np.int64)
    if counts.max(initial=0) > side**3:
        raise InputError(f"a block holds {counts.max()} voxels, though only {side**3} fit into it: the mapper's message is damaged")
    _check_total(int(counts.sum()))
    block_of = np.repeat(np.arange(len(counts)), counts)
    points = _points([block.centers for block in msg.blocks], counts)
    _check_inside(points, indices[block_of], block_size_m, size_m)
    rgb = _rgb([block.colors for block in msg.blocks], counts)
    if content == "tsdf":
        heavy = rgb[:, 0] * FULL_WEIGHT >= min_weight - 1e-4
        points, rgb, block_of = points[heavy], np.full((int(heavy.sum()), 3), GREY / 255.0), block_of[heavy]
    return BlockUpdate(*_header(msg), keys, points, _bytes(rgb), block_of, bool(msg.clear))


def read_mesh(msg: Any, voxel_size_m: float) -> BlockUpdate:
    """The surface of a `Mesh`, as points half a voxel apart or closer.

    Args:
        msg: the message.
        voxel_size_m: voxel size of our map; the mapper's may be any.

    Raises:
        InputError: the message is malformed.
    """
    block_size_m = _size(msg, "block_size_m" if hasattr(msg, "block_size_m") else "block_size")
    keys, indices = _blocks(msg)
    counts = np.array([len(block.vertices) for block in msg.blocks], np.int64)
    corners = np.array([len(block.triangles) for block in msg.blocks], np.int64)
    _check_total(int(counts.sum()))
    _check_total(int(corners.sum()))
    if (corners % 3).any():
        raise InputError("the triangles of a block are not three vertices each: the mapper's message is damaged")
    block_of = np.repeat(np.arange(len(counts)), counts)
    points = _points([block.vertices for block in msg.blocks], counts)
    # The triangles at a border of a block reach into the next one.
    _check_inside(points, indices[block_of], block_size_m, 0.5 * block_size_m)
    rgb = _rgb([block.colors for block in msg.blocks], counts)
    local = np.concatenate([np.zeros(0, np.int64), *(np.asarray(block.triangles, np.int64) for block in msg.blocks)])
    owner = np.repeat(np.arange(len(corners)), corners)
    if len(local) and (local.min() < 0 or (local >= counts[owner]).any()):
        raise InputError("a triangle names a vertex that its block does not have: the mapper's message is damaged")
    triangles = (local + (np.cumsum(counts) - counts)[owner]).reshape(-1, 3)
    points, rgb, source = _sample(points, rgb, triangles, 0.5 * voxel_size_m)
    owner = owner[::3][source]
    order = np.argsort(owner, kind="stable")
    return BlockUpdate(*_header(msg), keys, points[order], _bytes(rgb[order]), owner[order], bool(msg.clear))


def _sample(points: np.ndarray, rgb: np.ndarray, triangles: np.ndarray, step_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and colours on triangles [T, 3], in a grid along their edges no wider than `step_m`, and the triangle of each."""
    corners, colors = points[triangles], rgb[triangles]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1, initial=0.0)
    parts = np.maximum(np.ceil(longest / step_m), 1).astype(np.int64)
    _check_total(int(((parts + 1) * (parts + 2) // 2).sum()))
    out: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for n in np.unique(parts).tolist():
        chosen = np.flatnonzero(parts == n)
        i, j = np.nonzero(np.tri(n + 1, dtype=bool)[::-1])  # i + j <= n
        weights = np.stack([i, j, n - i - j], axis=1) / n
        out.append((
            np.einsum("wc,tcx->twx", weights, corners[chosen]).reshape(-1, 3),
            np.einsum("wc,tcx->twx", weights, colors[chosen]).reshape(-1, 3), np.repeat(chosen, len(weights)),
        ))
    if not out:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64)
    return np.concatenate([o[0] for o in out]), np.concatenate([o[1] for o in out]), np.concatenate([o[2] for o in out])


def _header(msg: Any) -> tuple[str, int]:
    if not msg.header.frame_id:
        raise InputError("frame_id is empty: the mapper must fill header.frame_id with the map's fixed frame")
    return str(msg.header.frame_id), int(msg.header.stamp.sec) * 1_000_000_000 + int(msg.header.stamp.nanosec)


def _size(msg: Any, name: str) -> float:
    value = float(str(np.float32(getattr(msg, name))))  # the shortest decimal that is this float32
    if not 1e-4 <= value <= 1e4:
        raise InputError(f"{name} is {value}: the mapper must send its size in metres")
    return value


def _blocks(msg: Any) -> tuple[np.ndarray, np.ndarray]:
    """Keys [B] and indices [B, 3] of the blocks that are named."""
    count = len(msg.block_indices)
    if count != len(msg.blocks):
        raise InputError(f"{count} block_indices and {len(msg.blocks)} blocks: the lengths must agree")
    if count > MAX_BLOCKS:
        raise InputError(f"{count} blocks in one message, more than {MAX_BLOCKS}: send the map in parts")
    indices = np.rint(_numbers([msg.block_indices], "xyz", count)).astype(np.int64)
    return block_keys(indices), indices


def _check_total(count: int) -> None:
    if count > MAX_VOXELS:
        raise InputError(f"{count} points in one message, more than {MAX_VOXELS}: send the map in parts")


def _points(parts: Sequence[Any], counts: np.ndarray) -> np.ndarray:
    """All points [N, 3] of lists of points with x, y and z."""
    points = _numbers(parts, "xyz", int(counts.sum()))
    if not np.isfinite(points).all():
        raise InputError(f"{int((~np.isfinite(points)).any(axis=1).sum())} points are not finite: the mapper must leave them out")
    return points


def _rgb(parts: Sequence[Any], counts: np.ndarray) -> np.ndarray:
    """All colours [N, 3], 0 to 1; grey for blocks that have none."""
    given = np.array([len(part) for part in parts], np.int64)
    wrong = (given != counts) & (given != 0)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise InputError(f"block {at} has {counts[at]} points and {given[at]} colors: one for each, or none at all")
    rgb = np.full((int(counts.sum()), 3), GREY / 255.0)
    rgb[np.repeat(given > 0, counts)] = _numbers(parts, "rgb", int(given.sum()))
    if not np.isfinite(rgb).all():
        raise InputError("colors are not finite: the mapper must send 0 to 1")
    return rgb


def _numbers(parts: Sequence[Any], names: str, count: int) -> np.ndarray:
    """Three attributes [count, 3] of all objects in lists, or the first three columns of arrays in their place."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.zeros((0, 3)), *(part[:, :3] for part in parts)]).astype(np.float64)
    three = operator.attrgetter(*names)
    return np.fromiter((value for part in parts for one in part for value in three(one)), np.float64, 3 * count).reshape(-1, 3)


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(rgb, 0.0, 1.0) * 255.0).astype(np.uint8)


def _check_inside(points: np.ndarray, indices: np.ndarray, block_size_m: float, margin_m: float) -> None:
    """Refuse points that do not lie where their block does (up to a margin): sizes, indices or units are wrong then."""
    off = np.abs(points - (indices + 0.5) * block_size_m).max(axis=1, initial=0.0) > 0.5 * block_size_m + margin_m
    if off.any():
        at = int(np.flatnonzero(off)[0])
        raise InputError(
            f"{int(off.sum())} points lie outside of their blocks, such as {points[at].round(3).tolist()} in block {indices[at].tolist()} "
            f"of {block_size_m:g} m: the mapper's message is damaged"
        )
