"""What keeps the network's outputs current while the map changes."""

__all__ = ["FullPassRunner", "Prediction"]

from dataclasses import dataclass

import numpy as np
import torch

from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.sparse import kernels
from instseg_ros.sparse.program import compile_network


@dataclass(frozen=True)
class Prediction:
    """The network's outputs per slot of the map (rows of dead slots mean nothing)."""

    semantic: np.ndarray
    """[capacity, 20] float32 class probabilities."""
    embedding: np.ndarray
    """[capacity, D] float32."""
    offset: np.ndarray
    """[capacity, 3] float32: from the voxel's centre to the centre of its instance, m."""


class FullPassRunner:
    """Runs the whole network on the whole map at every refresh.

    Args:
        net: a network in evaluation mode.
        device: where it runs.
        threads: CPU threads, 0 = all.
        floor_z_m: height of the floor in the map's frame, m; None = unknown.
    """

    def __init__(
        self, net: InstanceNet, device: torch.device | str = "cpu", threads: int = 0, floor_z_m: float | None = 0.0
    ) -> None:
        self.config, self.floor_z_m = net.config, floor_z_m
        self.device = torch.device(device)
        self.program = compile_network(net).to(self.device)
        self.prediction = self._empty(0)
        if threads:
            kernels.set_threads(threads)

    def refresh(self, voxels: VoxelMap, delta: MapDelta | None = None) -> np.ndarray:
        """Bring the outputs up to date with the map.

        Returns:
            Slots [n] int32 whose outputs differ from those before, new voxels included.
        """
        live = voxels.live_slots()
        rows = voxels.pyramid.levels[0].high_water
        features = torch.from_numpy(input_features(voxels.colors[:rows], voxels.coords[:rows], self.config, self.floor_z_m)).to(self.device)
        outputs = self.program.run(features, voxels.pyramid.tables().to(self.device))
        before, self.prediction = self.prediction, self._empty(voxels.capacity)
        self.prediction.semantic[:rows] = outputs["semantic"].cpu().numpy()
        self.prediction.embedding[:rows] = outputs["embedding"].cpu().numpy()
        self.prediction.offset[:rows] = outputs["offset"].cpu().numpy()
        return live[self._differs(before, live, delta)]

    def reset(self) -> None:
        """Forget all outputs."""
        self.prediction = self._empty(0)

    def _empty(self, capacity: int) -> Prediction:
        def rows(width: int) -> np.ndarray:
            return np.zeros((capacity, width), np.float32)

        return Prediction(rows(NUM_CLASSES), rows(self.config.embedding_dim), rows(3))

    def _differs(self, before: Prediction, live: np.ndarray, delta: MapDelta | None) -> np.ndarray:
        old = live[live < len(before.semantic)]  # slots ascend, so these come first
        same = np.zeros(len(live), bool)
        same[: len(old)] = True
        for name in ("semantic", "embedding", "offset"):
            now, then = getattr(self.prediction, name), getattr(before, name)
            same[: len(old)] &= (now[old] == then[old]).all(axis=1)
        differs = ~same
        if delta is not None:  # a reused slot holds another voxel, whatever its outputs
            differs |= np.isin(live, delta.added)
        return differs
