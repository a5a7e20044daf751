"""Scans of the public data sets to be evaluated, each with the way back to its points: as they were unpacked, or as `instseg convert` wrote them."""

__all__ = ["ConvertedScan", "RawScan", "ScanSource", "scan_sources"]

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol as Interface

from instseg_ros.datasets.import_scans import POINTS_FOLDER, SPLITS, ConvertOptions, Task, find_tasks, read_task
from instseg_ros.datasets.labelled_points import ScanPoints, load_scan_points, to_scene
from instseg_ros.datasets.scenes import VoxelScene, load_scene
from instseg_ros.errors import DataError
from instseg_ros.evaluation.protocols import Protocol


class ScanSource(Interface):
    """Reads one scan."""

    @property
    def name(self) -> str: ...
    @property
    def voxel_size_m(self) -> float: ...
    def read(self) -> tuple[VoxelScene, ScanPoints]: ...


@dataclass(frozen=True)
class RawScan:
    """A scan in the files of its data set, put into voxels when it is read.

    Attributes:
        task: says where it is and how it is read; voxel_size_m: of the scene that is made of it.
    """

    task: Task
    voxel_size_m: float

    @property
    def name(self) -> str:
        """As the data set names it."""
        return self.task.name

    def read(self) -> tuple[VoxelScene, ScanPoints]:
        """Its voxels, and its points.

        Raises:
            DataError: a file is missing or damaged, or holds no points.
        """
        scene, points = to_scene(read_task(self.task), self.voxel_size_m)
        if not len(scene):
            raise DataError(f"{self.task.path} ({self.name}) holds no points: download it again")
        return scene, points


@dataclass(frozen=True)
class ConvertedScan:
    """A scan that `instseg convert` wrote.

    Attributes:
        path: of the scene; points: of the points; dataset: that both are of; voxel_size_m: that all scenes have.
    """

    path: Path
    points: Path
    dataset: str
    voxel_size_m: float

    @property
    def name(self) -> str:
        """As the data set names it."""
        return self.path.stem

    def read(self) -> tuple[VoxelScene, ScanPoints]:
        """Its voxels, and its points.

        Raises:
            DataError: a file is missing or damaged, or of another data set, voxel size or scan.
        """
        scene, points = load_scene(self.path), load_scan_points(self.points)
        if scene.metadata.get("dataset") != self.dataset:
            raise DataError(f"{self.path} is of {scene.metadata.get('dataset', 'no public data set')}, not of {self.dataset}: "
                            "name the data set that was converted, or evaluate it as `scenes`")
        if abs(scene.voxel_size_m - self.voxel_size_m) > 1e-6:
            raise DataError(f"{self.path} has voxels of {scene.voxel_size_m} m, the first scene of {self.voxel_size_m} m: one folder per size")
        if not len(scene) or (len(points.voxel_of_point) and points.voxel_of_point.max() >= len(scene)):
            raise DataError(f"{self.points} does not belong to {self.path}: write both again with `instseg convert`")
        return scene, points


def scan_sources(
    protocol: Protocol, folder: Path, options: ConvertOptions, split: str | None = None, names: Collection[str] | None = None,
) -> list[ScanSource]:
    """The scans on which a data set's results are reported, in the order of their names.

    Args:
        protocol: of the data set.
        folder: the data set as it was unpacked (what `instseg convert` takes), or a folder that `instseg convert` wrote.
        options: how it is read, and its voxel size; a converted one has its own.
        split: train, validation or test; None = that of the protocol.
        names: of the scans to take; None = all of the split.

    Raises:
        DataError: there are none, or the folder holds something else.
    """
    sources: Sequence[ScanSource]
    if (folder / POINTS_FOLDER).is_dir():
        sources = _converted(protocol, folder, split)
    else:
        tasks = find_tasks(protocol.dataset, folder, replace(options, held_out_area=0), split or protocol.split or "test")
        wanted = split or protocol.split
        sources = [RawScan(task, options.voxel_size_m) for task in tasks if wanted is None or task.split == wanted]
        if not sources:
            raise DataError(f"{folder} has no scan in the split {wanted}, but {_count([t.split for t in tasks])}: name one of these with --split")
    if names is not None:
        sources = [source for source in sources if source.name in names]
        if not sources:
            raise DataError(f"no scan of {folder} is named by the list: one name a line, like scene0011_00, Area_5_office_1, 016 or nyuv2_0007")
    return sorted(sources, key=lambda source: source.name)


def _converted(protocol: Protocol, folder: Path, split: str | None) -> list[ScanSource]:
    wanted = split or protocol.split
    found = {name: sorted((folder / name).glob("*.npz")) for name in SPLITS}
    files = [(name, path) for name, paths in found.items() for path in paths if wanted in (None, name)]
    if not files:
        there = _count([name for name, paths in found.items() for _ in paths])
        raise DataError(f"{folder} has no scene in the split {wanted or 'train, validation or test'}, but {there}: name one of these with --split")
    size = load_scene(files[0][1]).voxel_size_m
    return [ConvertedScan(path, folder / POINTS_FOLDER / name / path.name, protocol.dataset, size) for name, path in files]


def _count(splits: Sequence[str]) -> str:
    return ", ".join(f"{splits.count(name)} in {name}" for name in SPLITS if name in splits) or "none at all"
