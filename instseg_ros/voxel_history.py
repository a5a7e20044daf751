"""Which instance every voxel is part of, since when, and which one it was part of for the longest time."""

__all__ = ["VoxelHistory"]

from collections.abc import Callable

import numpy as np

_LONGEST = 20
"""Updates that a home counts for at most, so that a voxel taken over for longer belongs to the new instance."""
_COLUMNS = {"instance_of": np.uint32, "since": np.int64, "home": np.uint32, "tenure": np.int64}


class VoxelHistory:
    """Instances per slot of the map, now and before. Instance 0 is none.

    Attributes:
        instance_of: [capacity] the instance now.
        since: [capacity] number of the update in which it got the slot.
        home: [capacity] the instance that had the slot for the longest time before that.
        tenure: [capacity] for how many updates.
    """

    def __init__(self) -> None:
        self.instance_of = np.zeros(0, np.uint32)
        self.since = np.zeros(0, np.int64)
        self.home = np.zeros(0, np.uint32)
        self.tenure = np.zeros(0, np.int64)

    def fit(self, capacity: int) -> None:
        """Make room for slots; never less than before."""
        for name in _COLUMNS:
            column = getattr(self, name)
            if capacity > len(column):
                setattr(self, name, np.concatenate([column, np.zeros(capacity - len(column), column.dtype)]))

    def replace(self, removed: np.ndarray, added: np.ndarray, heirs: np.ndarray) -> np.ndarray:
        """Forget removed slots and start added ones anew; an heir begins with what was known of the slot it stands for.

        Args:
            removed: [R] slots.
            added: [A] slots; one that was removed in the same update can be among them.
            heirs: [R] the added slot that takes over from each removed one, -1 = none.

        Returns:
            The slots that took something over, ascending. Where two removed slots have one heir, the first is handed on.
        """
        taken, first = np.unique(heirs, return_index=True)
        first, taken = first[taken >= 0], taken[taken >= 0]
        for name in _COLUMNS:
            column = getattr(self, name)
            handed = column[removed[first]]
            column[removed] = 0
            column[added] = 0
            column[taken] = handed
        return taken

    def longest(self, slots: np.ndarray, update: int, exists: Callable[[int], bool]) -> tuple[np.ndarray, np.ndarray]:
        """Which instance had the slots for the longest time up to an update, and for how many updates.

        Args:
            slots: [n].
            update: number of the update.
            exists: which ids count; others are forgotten.
        """
        now, home, tenure = self.instance_of[slots], self.home[slots], self.tenure[slots]
        ids, where = np.unique(home, return_inverse=True)  # never a table of all ids: their number grows with time
        counts = np.array([exists(i) for i in ids.tolist()], bool)[where]
        home, tenure = np.where(counts, home, 0).astype(np.uint32), np.where(counts, tenure, 0)
        run = np.where(now > 0, update - self.since[slots], 0)
        tenure = tenure + np.where(now == home, run, 0)
        longer = run > tenure
        return np.where(longer, now, home), np.minimum(np.where(longer, run, tenure), _LONGEST)

    def label(self, slots: np.ndarray, instance: int, update: int, exists: Callable[[int], bool]) -> None:
        """Slots belong to an instance from an update on; see `longest` for the arguments."""
        other = slots[self.instance_of[slots] != instance]
        self.home[other], self.tenure[other] = self.longest(other, update, exists)
        self.instance_of[other] = instance
        self.since[other] = update

    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return sum(getattr(self, name).nbytes for name in _COLUMNS)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {name: getattr(self, name).copy() for name in _COLUMNS}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> "VoxelHistory":
        """The history that `state` was taken of.

        Raises:
            KeyError, ValueError: arrays are missing, or not of one length.
        """
        history = cls()
        for name, kind in _COLUMNS.items():
            setattr(history, name, state[name].astype(kind))
        if len({len(getattr(history, name)) for name in _COLUMNS}) != 1:
            raise ValueError("columns of different length")
        return history
