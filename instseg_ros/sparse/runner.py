"""What keeps the network's outputs current while the map changes."""

__all__ = ["FullPassRunner", "LabelsOf", "map_features"]

from collections.abc import Callable

import numpy as np
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.heads import head_widths
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.prediction import Prediction
from instseg_ros.sparse import kernels
from instseg_ros.sparse.device_pyramid import build_tables_on
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import Tables

LabelsOf = Callable[[np.ndarray], np.ndarray]
"""Voxels [n, 3] int32 -> their true classes [n], 255 = none: what a network with `label_input` reads."""


def map_features(
    voxels: VoxelMap, rows: np.ndarray | slice, config: ModelConfig, floor_z_m: float | None, labels_of: LabelsOf | None
) -> np.ndarray:
    """`input_features` of rows of a map."""
    coords = voxels.coords[rows]
    labels = labels_of(coords) if config.label_input and labels_of is not None else None
    return input_features(voxels.colors[rows], coords, config, floor_z_m, labels)


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
        self.labels_of: LabelsOf | None = None  # set where the true classes are known, for a network with label_input
        self.program = compile_network(net).to(self.device)
        plain = self.program.refinement is None and not self.program.position_step and all(x.dilation == 1 for x in self.program.layers)
        self._builds_tables = plain and self.device.type == "cuda"  # there that is quicker than sending them
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
        features = map_features(voxels, slice(rows), self.config, self.floor_z_m, self.labels_of)
        outputs = self.program.run(torch.from_numpy(features).to(self.device), self._tables(voxels, rows))
        before, self.prediction = self.prediction, self._empty(voxels.capacity)
        for name, values in self.prediction.items():
            values[:rows] = outputs[name].cpu().numpy()
        return live[self._differs(before, live, delta)]

    def reset(self) -> None:
        """Forget all outputs."""
        self.prediction = self._empty(0)

    def _tables(self, voxels: VoxelMap, rows: int) -> Tables:
        """The tables of a map with so many rows, on the device."""
        if not self._builds_tables:
            return voxels.pyramid.tables().to(self.device)
        finest = voxels.pyramid.levels[0]
        coords, alive = (torch.from_numpy(part[:rows]).to(self.device) for part in (finest.coords, finest.alive))
        return build_tables_on(coords, voxels.pyramid.depth, alive)

    def _empty(self, capacity: int) -> Prediction:
        return Prediction.empty(head_widths(self.config), capacity)

    def _differs(self, before: Prediction, live: np.ndarray, delta: MapDelta | None) -> np.ndarray:
        old = live[live < len(before.semantic)]  # slots ascend, so these come first
        same = np.zeros(len(live), bool)
        same[: len(old)] = True
        for name, now in self.prediction.items():
            then = getattr(before, name)
            same[: len(old)] &= (now[old] == then[old]).all(axis=1)
        differs = ~same
        if delta is not None:  # a reused slot holds another voxel, whatever its outputs
            differs |= np.isin(live, delta.added)
        return differs
