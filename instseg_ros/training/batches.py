"""Batches of scenes: several scenes side by side in one voxel grid, with the targets of all losses."""

__all__ = ["Batch", "BatchSource", "make_batch"]

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from instseg_ros.config import TrainingConfig
from instseg_ros.datasets.augmentation import augment
from instseg_ros.datasets.scenes import VoxelScene, load_scene
from instseg_ros.models.network import input_features
from instseg_ros.sparse.pyramid import Tables, build_tables

_APART = 512
"""Scenes of a batch stand at least this many voxels apart, beyond the reach of any layer and a multiple of every stride."""

_MIN_INSTANCE = 10
"""Instances of fewer voxels (cut off by a crop) teach nothing about their shape and are left out."""


@dataclass(frozen=True)
class Batch:
    """What one step needs."""

    features: Tensor
    """[N, Cin] float32."""
    tables: Tables
    class_index: Tensor
    """[N] int64, 255 = ignore."""
    members: Tensor
    """[M] int64: voxels that belong to an instance."""
    instance: Tensor
    """[M] int64: their instance, 0..C-1."""
    offset: Tensor
    """[M, 3] float32: from their centre to the centre of their instance, m."""
    scene_of_instance: Tensor
    """[C] int64."""
    points: Tensor
    """[N, 3] float32: voxel centres, m."""
    scene_of_voxel: Tensor
    """[N] int64."""

    def instance_of_voxel(self) -> Tensor:
        """[N] int64: instance of every voxel, -1 = none."""
        instance = torch.full_like(self.scene_of_voxel, -1)
        instance[self.members] = self.instance
        return instance

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device."""
        return Batch(
            self.features.to(device), self.tables.to(device), self.class_index.to(device), self.members.to(device),
            self.instance.to(device), self.offset.to(device), self.scene_of_instance.to(device),
            self.points.to(device), self.scene_of_voxel.to(device),
        )


def make_batch(scenes: Sequence[VoxelScene], config: TrainingConfig, floors_z_m: Sequence[float | None] | None = None) -> Batch:
    """Put scenes side by side and derive the targets.

    Args:
        scenes: to put together.
        config: settings.
        floors_z_m: what the network is told of each scene's floor, m (None = nothing); default 0 for all.
    """
    coords, instances, scene_of, count, begin = [], [], [], 0, 0
    for i, scene in enumerate(scenes):
        base = scene.coords.min(0) // _APART * _APART  # keeps the phase of every stride
        coords.append(scene.coords - np.array([base[0] - begin, base[1], 0], np.int32))
        begin = (int(coords[-1][:, 0].max(initial=0)) // _APART + 2) * _APART
        ids, number, size = np.unique(scene.instance, return_inverse=True, return_counts=True)
        good = (ids >= 0) & (size >= _MIN_INSTANCE)
        renumbered = np.where(good, np.cumsum(good) - 1 + count, -1)
        instances.append(renumbered[number])
        count += int(good.sum())
        scene_of += [i] * int(good.sum())
    coords_all, instance = np.concatenate(coords), np.concatenate(instances)
    members = np.flatnonzero(instance >= 0)
    member_instance = instance[members]
    points = coords_all[members].astype(np.float64)
    size = np.maximum(np.bincount(member_instance, minlength=count), 1)
    centers = np.stack([np.bincount(member_instance, points[:, k], count) for k in range(3)], 1) / size[:, None]
    offset = (centers[member_instance] - points) * config.model.voxel_size_m
    floors = [0.0] * len(scenes) if floors_z_m is None else floors_z_m
    features = [input_features(s.colors, s.coords, config.model, z, s.class_index) for s, z in zip(scenes, floors, strict=True)]
    return Batch(
        torch.from_numpy(np.concatenate(features)),
        build_tables(coords_all.astype(np.int32), len(config.model.channels)),
        torch.from_numpy(np.concatenate([s.class_index for s in scenes]).astype(np.int64)),
        torch.from_numpy(members), torch.from_numpy(member_instance.astype(np.int64)),
        torch.from_numpy(offset.astype(np.float32)), torch.tensor(scene_of, dtype=torch.long),
        torch.from_numpy(((coords_all + 0.5) * config.model.voxel_size_m).astype(np.float32)),
        torch.from_numpy(np.repeat(np.arange(len(scenes)), [len(s.coords) for s in scenes])),
    )


class BatchSource:
    """Augmented batches, the same for the same seed, step and index within the step, made ahead in a thread.

    Args:
        files: scene files.
        config: settings.
    """

    def __init__(self, files: Sequence[Path], config: TrainingConfig) -> None:
        self._finished = [f for f in files if "_part" not in f.stem]
        self._parts = [f for f in files if "_part" in f.stem]
        self.config = config

    def batch(self, step: int, index: int = 0) -> Batch:
        """A micro-batch of a step."""
        rng = np.random.default_rng([self.config.seed, step, index])  # index 0: the same numbers as from [seed, step]
        scenes: list[VoxelScene] = []
        while sum(len(s.coords) for s in scenes) < self.config.batch_voxels or len(scenes) < self.config.batch_scenes:
            scene = augment(load_scene(self._choose(rng)), self.config.augmentation, rng)
            if len(scene.coords):
                scenes.append(scene)
        floors = [
            None if rng.random() < self.config.augmentation.height_drop else float(rng.uniform(-1.0, 1.0)) * self.config.augmentation.height_jitter_m
            for _ in scenes
        ]
        return make_batch(scenes, self.config, floors)

    def _choose(self, rng: np.random.Generator) -> Path:
        """A finished map as often as an unfinished one ("_part" in its name), whatever their numbers."""
        pools = [p for p in (self._finished, self._parts) if p]
        pool = pools[int(rng.integers(len(pools)))]
        return pool[int(rng.integers(len(pool)))]

    def batches(self, first: int, last: int, indices: Sequence[int] = (0,)) -> Iterator[Batch]:
        """The micro-batches with these indices of steps first..last-1, step by step."""
        ready: queue.Queue[Batch | Exception | None] = queue.Queue(maxsize=2)
        stop = threading.Event()

        def put(item: Batch | Exception | None) -> None:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return
                except queue.Full:
                    continue

        def produce() -> None:
            try:
                for step, index in itertools.product(range(first, last), indices):
                    if stop.is_set():
                        return
                    put(self.batch(step, index))
                put(None)
            except Exception as error:  # handed to the consumer, which raises it
                put(error)

        threading.Thread(target=produce, daemon=True, name="instseg-batches").start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.set()
