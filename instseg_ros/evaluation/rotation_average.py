"""Classes averaged over several headings of the same map (SSEN, Zhang et al. 2020, Table II: "10 rotations")."""

__all__ = ["RotationRunner", "average_semantics"]

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from instseg_ros.config import ModelConfig
from instseg_ros.datasets.rotation import Turn, resample
from instseg_ros.errors import ConfigError, InputError
from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.models.network import input_features
from instseg_ros.prediction import Prediction
from instseg_ros.sparse.program import Program
from instseg_ros.sparse.pyramid import build_tables


def average_semantics(
    program: Program, config: ModelConfig, coords: np.ndarray, colors: np.ndarray, rotations: int = 10, floor_z_m: float | None = 0.0,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Class probabilities of a finished map, the mean of what the network says of it at equally spaced headings.

    The voxels are turned about the vertical by k * 360 / rotations degrees and put into the grid again (exactly at quarter turns),
    the network runs on them, and each voxel takes over the probabilities of the turned voxel nearest to where it went.

    Args:
        program: of `compile_network`, on `device`.
        config: of the network.
        coords: [N, 3] int32, unique; colors: [N, 3] uint8.
        rotations: how many headings, the given one first; 1 is a plain pass.
        floor_z_m: height of the floor, m; None = unknown.
        device: where the program is.

    Returns:
        [N, 20] float32, rows sum to 1.

    Raises:
        InputError: fewer than one rotation.
    """
    if rotations < 1:
        raise InputError(f"rotations is {rotations}: average over at least 1 (10 in the paper)")
    total = np.zeros((len(coords), NUM_CLASSES), np.float32)
    if len(coords) == 0:
        return total
    depth = 1 + max(layer.level for layer in program.layers)
    passes = 0
    for k in range(rotations):
        turned = resample(coords, Turn(2.0 * np.pi * k / rotations))
        if len(turned.coords) == 0:  # a map of a few specks, which no other heading keeps
            continue
        features = torch.from_numpy(input_features(colors[turned.source], turned.coords, config, floor_z_m))
        semantic = program.run(features.to(device), build_tables(turned.coords, depth).to(device))["semantic"].cpu().numpy()
        nearest = cKDTree(turned.coords + 0.5).query(turned.points)[1]
        total += semantic[nearest]
        passes += 1
    return total / passes


class RotationRunner:
    """A runner whose classes are averaged over headings: for finished maps, since every refresh runs over all of the map.

    Args:
        inner: the runner that it asks for everything else; one of `sparse`.
        rotations: how many headings, see `average_semantics`.

    Raises:
        ConfigError: the network reads true classes, so there is nothing to average.
    """

    def __init__(self, inner: Any, rotations: int) -> None:
        if inner.config.label_input:
            raise ConfigError("these weights read the true class of every voxel (model.label_input): leave rotations out")
        self.inner, self.rotations = inner, rotations
        self.prediction: Prediction = inner.prediction

    def refresh(self, voxels: VoxelMap, delta: MapDelta) -> np.ndarray:
        """As the inner runner's; every voxel of the map counts as changed."""
        self.inner.refresh(voxels, delta)
        found = dict(self.inner.prediction.items())
        live, semantic = voxels.live_slots(), found["semantic"].copy()
        semantic[live] = average_semantics(
            self.inner.program, self.inner.config, voxels.coords[live], voxels.colors[live], self.rotations, self.inner.floor_z_m,
            getattr(self.inner, "device", "cpu"))
        self.prediction = Prediction(**{**found, "semantic": semantic})
        return live

    def reset(self) -> None:
        """As the inner runner's."""
        self.inner.reset()
        self.prediction = self.inner.prediction
