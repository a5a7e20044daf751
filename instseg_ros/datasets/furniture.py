"""Where rooms get their furniture from: catalogue models and procedural ones, apart by split."""

__all__ = ["FurnitureSource", "furniture_source"]

import numpy as np

from instseg_ros.datasets.procedural import make
from instseg_ros.datasets.shapes import FurnitureModel


class FurnitureSource:
    """Draws models of a kind for one split."""

    def __init__(self, split: str) -> None:
        self.split = split

    def draw(self, kind: str, rng: np.random.Generator) -> FurnitureModel:
        """A model of a kind."""
        return make(kind, rng, self.split)


def furniture_source(library: str, split: str) -> FurnitureSource:
    """The source of a split; so far all furniture is procedural."""
    return FurnitureSource(split)
