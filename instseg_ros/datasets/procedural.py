"""Furniture made by our own code, every proportion and colour drawn by a seed.

Some styles (certain legs, bases, arms) are drawn for one split alone, so that test and validation rooms show shapes, and
not only sizes and colours, that were never trained on (`palette.style`).
"""

__all__ = ["MAKERS", "make"]

from collections.abc import Callable

import numpy as np

from instseg_ros.datasets import procedural_objects, procedural_seats, procedural_storage, procedural_tables
from instseg_ros.datasets.shapes import FurnitureModel
from instseg_ros.errors import DataError

Maker = Callable[[np.random.Generator, str], FurnitureModel]

MAKERS: dict[str, Maker] = {
    **procedural_seats.MAKERS, **procedural_tables.MAKERS, **procedural_storage.MAKERS, **procedural_objects.MAKERS,
}
"""Kind of furniture -> its maker (rng, split)."""


def make(kind: str, rng: np.random.Generator, split: str = "train") -> FurnitureModel:
    """A new piece of furniture of a kind.

    Raises:
        DataError: the kind is unknown; the message lists the known ones.
    """
    if kind not in MAKERS:
        raise DataError(f"no furniture of kind {kind!r}; there is {', '.join(sorted(MAKERS))}")
    return MAKERS[kind](rng, split)
