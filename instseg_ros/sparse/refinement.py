"""The incremental form of the embedding's refinement (Liang 2019): further cached layers after the heads.

A voxel is due in a layer when one of its nearest voxels, or itself, has moved in the layer before, or when its nearest are others
than before. The rule of the tolerance is that of `incremental.py`. These outputs are a few numbers per voxel, no more than
what is published, so they are kept whatever the budget for the other layers.
"""

__all__ = ["IncrementalRefinement"]

import numpy as np
import torch

from instseg_ros.mapping.voxel_map import MapDelta
from instseg_ros.sparse.level import Level
from instseg_ros.sparse.neighborhood import NearestTable
from instseg_ros.sparse.program import Refinement
from instseg_ros.sparse.statistics import LayerStatistics

_NONE = np.zeros(0, np.int32)


class IncrementalRefinement:
    """Keeps refined embeddings current.

    Args:
        refinement: the layers.
        tolerance: a row counts as moved when one of its columns moves by more than this times the mean magnitude.
    """

    def __init__(self, refinement: Refinement, tolerance: float) -> None:
        self._layers, self._tolerance = refinement, tolerance
        self._nearest = NearestTable(refinement.k)
        width = refinement.layers[0][0].shape[0]
        self._values = [np.zeros((0, width), np.float32) for _ in refinement.layers]
        """Per layer [capacity, F]: what it reads; the last layer's output is what is published."""
        self._scale = [0.0] * len(refinement.layers)

    @property
    def initial(self) -> np.ndarray:
        """[capacity, F] what the head says, to be written before `follow`."""
        return self._values[0]

    def follow(
        self, level: Level, delta: MapDelta | None, rows: np.ndarray, published: np.ndarray
    ) -> tuple[np.ndarray, list[LayerStatistics]]:
        """Refine what a change reaches.

        Args:
            level: the finest.
            delta: what changed; None = everything is new.
            rows: [n] whose initial embeddings (or other outputs) were written, each once.
            published: [capacity, F] refined embeddings, changed in place.

        Returns:
            The rows whose outputs changed, those given among them, ascending, and what each layer did.
        """
        if delta is None:
            self._nearest.load(level)
            added, moved, retabled = level.live_rows(), rows, _NONE
        else:
            added, moved = delta.pyramid.added[0], rows
            retabled = self._nearest.follow(level, delta.pyramid.retabled[0], added, delta.removed_coords)
        fresh = np.zeros(level.capacity, bool)
        fresh[added] = True
        statistics = []
        for i in range(len(self._values)):
            due = added if delta is None else level.reach((None, self._nearest.readers(level, moved)), (None, retabled))
            target = published if i == len(self._values) - 1 else self._values[i + 1]
            x, center = torch.from_numpy(self._values[i]), torch.from_numpy(self._values[i][due])
            new = self._layers.layer(i, x, center, torch.from_numpy(self._nearest.table[due])).numpy()
            replaced = (np.abs(new - target[due]).max(axis=1, initial=0.0) > self._tolerance * self._scale[i]) | fresh[due]
            moved = due[replaced]
            target[moved] = new[replaced]
            if self._scale[i] == 0.0 and len(due):  # of the first rows seen, so that a stopped wave does not depend on later ones
                self._scale[i] = float(np.abs(new).mean())
            statistics.append(LayerStatistics(f"refine.{i}", len(level), len(due), len(moved)))
        return np.sort(level.reach((None, rows), (None, moved))), statistics

    def nbytes(self) -> int:
        """Memory of what is kept, bytes."""
        return sum(a.nbytes for a in (*self._values, self._nearest.table))

    def fit(self, rows: int) -> None:
        """Let the arrays have so many rows."""
        for i, old in enumerate(self._values):
            if len(old) < rows:
                grown = np.zeros((max(rows, len(old) * 9 // 8), old.shape[1]), np.float32)
                grown[: len(old)] = old
                self._values[i] = grown
