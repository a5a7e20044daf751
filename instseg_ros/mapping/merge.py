"""Several map updates as one: what a queue does with updates that arrive while the segmenter is busy."""

__all__ = ["difference", "merge_updates"]

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MapUpdate, coord_keys


def merge_updates(updates: Sequence[MapUpdate]) -> MapUpdate:
    """One update with the effect of applying all of them in order.

    Later values win; a voxel that is deleted and set again is set, one that is set and deleted again is deleted
    (and stays named, because the map may have held it before). Everything before the last full update is void.

    Args:
        updates: valid updates of one map, oldest first; at least one.

    Returns:
        The merged update, with the last sequence and the newest stamp.

    Raises:
        InputError: they disagree in frame or voxel size.
    """
    last = updates[-1]
    for update in updates:
        if update.frame_id != last.frame_id or not np.isclose(update.voxel_size_m, last.voxel_size_m, rtol=3e-4):
            raise InputError(
                f"updates of two maps cannot be merged: frame {update.frame_id!r} with {update.voxel_size_m} m voxels and "
                f"frame {last.frame_id!r} with {last.voxel_size_m} m voxels; let one mapper publish on the topic"
            )
    stamp_ns = max(update.stamp_ns for update in updates)
    first = max((i for i, update in enumerate(updates) if update.full), default=0)
    parts = updates[first:]
    if len(parts) == 1:
        return replace(last, stamp_ns=stamp_ns)

    full = parts[0].full
    coords = np.concatenate([array for u in parts for array in (u.deleted, u.coords)])
    # Within one update no voxel is both deleted and set, so the order of the two does not matter.
    is_set = np.concatenate([flag for u in parts for flag in (np.zeros(len(u.deleted), bool), np.ones(len(u), bool))])
    keep = _last_of_each(coord_keys(coords))
    set_rows = np.cumsum(is_set) - 1  # row in the concatenated colours and weights
    chosen = keep[is_set[keep]]
    return replace(
        last,
        coords=coords[chosen],
        colors=np.concatenate([u.colors for u in parts])[set_rows[chosen]],
        weights=np.concatenate([u.weights for u in parts])[set_rows[chosen]],
        deleted=np.zeros((0, 3), np.int32) if full else coords[keep[~is_set[keep]]],
        full=full,
        stamp_ns=stamp_ns,
    )


def _last_of_each(keys: np.ndarray) -> np.ndarray:
    """Positions [K] of the last occurrence of each distinct key [N], in order of position."""
    _, from_the_end = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - from_the_end)


def difference(full: MapUpdate, coords: np.ndarray, colors: np.ndarray, color_step: int = 0) -> MapUpdate:
    """What a full update changes in a map, as an update that names only that.

    Args:
        full: the whole new map.
        coords: [M, 3] int32, the voxels the map holds now, unique.
        colors: [M, 3] uint8, their colours.
        color_step: a voxel whose colour moved by no more than this in any channel has not changed; weights are not compared.
    """
    old_keys, new_keys = coord_keys(coords), coord_keys(full.coords)
    order = np.argsort(old_keys)
    at = np.searchsorted(old_keys, new_keys, sorter=order)
    row = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(new_keys), np.int64)
    known = old_keys[row] == new_keys if len(order) else np.zeros(len(new_keys), bool)
    moved = np.zeros(len(new_keys), bool)
    step = np.abs(full.colors[known].astype(np.int16) - colors[row[known]].astype(np.int16)).max(axis=1, initial=0)
    moved[known] = step > color_step
    send = ~known | moved
    gone = np.ones(len(old_keys), bool)
    gone[row[known]] = False
    return replace(
        full, coords=full.coords[send], colors=full.colors[send], weights=full.weights[send],
        deleted=np.asarray(coords[gone], np.int32), full=False,
    )
