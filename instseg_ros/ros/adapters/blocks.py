"""Maps that are published block by block: each message replaces the blocks it names. No ROS in here."""

__all__ = ["MAX_BLOCKS", "BlockMap", "BlockUpdate", "block_keys"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MAX_ABS_COORD, MapUpdate, coord_keys

MAX_BLOCKS = 1_000_000
"""More blocks in one message than this are refused before memory is taken for them."""


@dataclass(frozen=True)
class BlockUpdate:
    """What one message of a block mapper says."""

    frame_id: str
    stamp_ns: int
    blocks: np.ndarray
    """[B] int64, keys of the blocks that are named (`block_keys`), unique. A block without points is empty from now on."""
    points_m: np.ndarray
    """[N, 3] float64, points on the surface in the frame `frame_id`."""
    colors: np.ndarray
    """[N, 3] uint8."""
    block_of: np.ndarray
    """[N] row in `blocks`, ascending: the block that a point belongs to."""
    clear: bool = False
    """Everything that is not in this message is gone."""

    def __len__(self) -> int:
        return len(self.points_m)


def block_keys(indices: np.ndarray) -> np.ndarray:
    """One int64 for each block index [B, 3].

    Raises:
        InputError: an index is absurd, or a block is named twice.
    """
    if len(indices) and np.abs(indices.astype(np.int64)).max() > MAX_ABS_COORD:
        raise InputError(f"block indices reach beyond +-{MAX_ABS_COORD}: check the mapper's units and frame")
    keys = coord_keys(indices)
    if len(np.unique(keys)) < len(keys):
        raise InputError("a block is named more than once: send each block once")
    return keys


class BlockMap:
    """The map that the messages of a block mapper add up to, in voxels of our size; says what each of them changes.

    A voxel has the mean colour of the points in it, of whichever blocks, and weighs as many as they are. So the mapper's voxels and
    blocks need not line up with ours, and a voxel goes when the last block with a point in it lets go of it.
    """

    def __init__(self, voxel_size_m: float) -> None:
        self.voxel_size_m = voxel_size_m
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next update is the whole map, made of the next message alone."""
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._keys = np.zeros(0, np.int64)  # of the voxels, ascending
        self._sums = np.zeros((0, 4), np.int64)  # red, green, blue and number of the points in each
        self._sent = np.zeros((0, 3), np.uint8)  # the colour that an update last named
        self._frame_id = ""
        self._resend = True

    def resend(self) -> None:
        """Let the next update be the whole map, for a receiver that lost something or began anew."""
        self._resend = True

    def go_on(self) -> None:
        """Let the first update name only what its message names: the receiver holds the mapper's map from before a restart."""
        self._resend = False

    def __len__(self) -> int:
        return len(self._keys)

    def apply(self, update: BlockUpdate, color_step: int = 0) -> MapUpdate:
        """Take over a message.

        Args:
            update: the message.
            color_step: a voxel whose colour moved by no more than this in any channel since it was last named is not named again.

        Returns:
            What changed; the whole map at first and after `clear`, `resend` and `forget`.

        Raises:
            InputError: points absurdly far out, or another frame than before (after `resend` and `forget` it begins a new map).
                Nothing has changed then.
        """
        another = bool(self._frame_id) and update.frame_id != self._frame_id
        if another and not self._resend:
            raise InputError(f"it is in frame {update.frame_id!r}, the blocks before it in {self._frame_id!r}: publish in one fixed frame")
        parts = self._sums_per_block(update)
        if update.clear or another:
            self.forget()
        gone = [part for key in update.blocks.tolist() if (part := self._blocks.pop(key, None)) is not None]
        self._blocks.update(parts)
        full, self._resend, self._frame_id = self._resend, False, update.frame_id
        named = [np.zeros(0, np.int64), *(keys for keys, _ in parts.values()), *(keys for keys, _ in gone)]
        change = [np.zeros((0, 4), np.int64), *(sums for _, sums in parts.values()), *(-sums for _, sums in gone)]
        keys, inverse = np.unique(np.concatenate(named), return_inverse=True)
        delta = np.zeros((len(keys), 4), np.int64)
        np.add.at(delta, inverse.reshape(-1), np.concatenate(change))
        fresh, deleted = self._add(keys, delta)
        rows = np.arange(len(self._keys)) if full else np.searchsorted(self._keys, np.setdiff1d(keys, deleted, assume_unique=True))
        colors = np.rint(self._sums[rows, :3] / self._sums[rows, 3:]).astype(np.uint8)
        if not full:
            moved = np.abs(colors.astype(np.int16) - self._sent[rows]).max(axis=1, initial=0) > color_step
            moved |= np.isin(self._keys[rows], fresh)
            rows, colors = rows[moved], colors[moved]
        self._sent[rows] = colors
        return MapUpdate(
            coords=_coords(self._keys[rows]), colors=colors, weights=self._sums[rows, 3].astype(np.float32),
            voxel_size_m=self.voxel_size_m, frame_id=update.frame_id, stamp_ns=update.stamp_ns, full=full,
            deleted=_coords(deleted if not full else deleted[:0]),
        )

    def _sums_per_block(self, update: BlockUpdate) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Voxel keys [n] and sums [n, 4] of each block that holds points."""
        scaled = np.floor(update.points_m / self.voxel_size_m)
        if len(scaled) and not np.abs(scaled).max() <= MAX_ABS_COORD:
            reach_m = MAX_ABS_COORD * self.voxel_size_m
            raise InputError(f"points reach beyond {reach_m:.0f} m from the origin, or are not finite: check units and frame")
        keys = coord_keys(scaled)
        order = np.lexsort((keys, update.block_of))
        keys, owner = keys[order], np.asarray(update.block_of)[order]
        new = np.ones(len(keys), bool)
        new[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
        first = np.flatnonzero(new)
        values = np.concatenate([update.colors[order].astype(np.int64), np.ones((len(keys), 1), np.int64)], axis=1)
        sums = np.add.reduceat(values, first, axis=0) if len(first) else np.zeros((0, 4), np.int64)
        keys, owner = keys[first], owner[first]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        ends = np.append(starts[1:], len(owner))[: len(starts)]
        names = update.blocks.tolist()
        # Copies, so that a block that stays does not keep the arrays of its whole message.
        return {names[owner[a]]: (keys[a:b].copy(), sums[a:b].copy()) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)}

    def _add(self, keys: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add to the sums of voxels (ascending keys); returns the keys of those that are new and of those that are gone."""
        at = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = at < len(self._keys)
        known[inside] = self._keys[at[inside]] == keys[inside]
        self._sums[at[known]] += delta[known]
        emptied = at[known][self._sums[at[known], 3] == 0]
        deleted = self._keys[emptied]
        fresh = ~known & (delta[:, 3] > 0)
        if len(emptied):
            self._keys = np.delete(self._keys, emptied)
            self._sums = np.delete(self._sums, emptied, axis=0)
            self._sent = np.delete(self._sent, emptied, axis=0)
        if fresh.any():
            to = np.searchsorted(self._keys, keys[fresh])
            self._keys = np.insert(self._keys, to, keys[fresh])
            self._sums = np.insert(self._sums, to, delta[fresh], axis=0)
            self._sent = np.insert(self._sent, to, np.zeros(3, np.uint8), axis=0)
        return keys[fresh], deleted


def _coords(keys: np.ndarray) -> np.ndarray:
    """Voxel indices [N, 3] int32 of keys made by `coord_keys`."""
    mask = (1 << 21) - 1
    return (np.stack([keys >> 42, (keys >> 21) & mask, keys & mask], axis=1) - (1 << 20)).astype(np.int32)
