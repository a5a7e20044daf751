"""What a network with every head might say of a map whose ground truth is known: the truth, with noise that stays with a voxel."""

__all__ = ["OracleHeads"]

import numpy as np

from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.labels import IGNORE, NUM_CLASSES
from instseg_ros.mapping.update import coord_keys, voxel_centers
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.prediction import Prediction

_DIM = 8
_APART = 1.5  # of the embeddings of two instances, at least about this
_WIDTHS = {"semantic": NUM_CLASSES, "embedding": _DIM, "offset": 3, "direction": 3, "covariance": 2, "occupancy": 1}


class OracleHeads:
    """Predictions by slot, kept current as a map changes. A voxel's prediction depends on the voxel alone.

    Args:
        truth: ground truth of every voxel that will be seen.
        seed: of embeddings and noise.
        noise: 1 = about what a trained network makes of a simulated room, 0 = the truth itself.
    """

    def __init__(self, truth: GroundTruth, seed: int = 0, noise: float = 1.0) -> None:
        self._keys = coord_keys(truth.coords)
        self._values = _values(truth, np.random.default_rng(seed), noise)
        self.prediction = Prediction.empty(_WIDTHS)

    def refresh(self, voxel_map: VoxelMap, delta: MapDelta) -> np.ndarray:
        """Bring `prediction` up to date; returns the slots where it changed."""
        if len(self.prediction.semantic) < voxel_map.capacity:
            self.prediction = self.prediction.grown(voxel_map.capacity)
        rows = np.searchsorted(self._keys, coord_keys(voxel_map.coords[delta.added]))
        for name, values in self.prediction.items():
            values[delta.added] = getattr(self._values, name)[rows]
        return delta.added


def _values(truth: GroundTruth, rng: np.random.Generator, noise: float) -> Prediction:
    """Predictions by row of the ground truth; where a voxel has no instance, it is taken for a part of the background."""
    count = len(truth.coords)
    class_index = np.where((truth.class_index == IGNORE) | (truth.instance < 0), np.minimum(truth.class_index, 1), truth.class_index)
    wrong = rng.random(count) < 0.03 * noise
    class_index = np.where(wrong, rng.integers(0, NUM_CLASSES, count), class_index)
    semantic = rng.dirichlet(np.full(NUM_CLASSES, 0.2), count) * 0.4
    semantic[np.arange(count), class_index] += 0.6

    numbers = int(truth.instance.max(initial=-1)) + 2
    owner = truth.instance % numbers  # -1 = the last
    codes = rng.normal(0.0, 1.0, (numbers, _DIM))
    embedding = codes * _APART / np.sqrt(2.0)
    points = voxel_centers(truth.coords, truth.voxel_size_m).astype(np.float64)
    size = np.maximum(np.bincount(owner, minlength=numbers), 1)
    center = np.stack([np.bincount(owner, column, numbers) for column in points.T], axis=1) / size[:, None]
    offset = center[owner] - points + rng.normal(0.0, 0.06 * noise, (count, 3))
    direction = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-9)
    covariance = np.array([0.6, 0.25]) * np.exp(rng.normal(0.0, 0.1 * noise, (count, 2)))
    occupancy = np.log(size[owner])[:, None] + rng.normal(0.0, 0.2 * noise, (count, 1))
    arrays = (semantic, embedding[owner] + rng.normal(0.0, 0.12 * noise, (count, _DIM)), offset, direction, covariance, occupancy)
    return Prediction(*(a.astype(np.float32) for a in arrays))
