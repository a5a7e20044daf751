"""Public data sets to labelled voxel scenes: which scans there are, which split each is in, and the files of each."""

__all__ = ["DATASETS", "POINTS_FOLDER", "SPLITS", "ConvertOptions", "Task", "convert_scans", "convert_task", "find_tasks", "read_lists", "read_task"]

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instseg_ros.datasets.labelled_points import LabelledPoints, save_scan_points, to_scene
from instseg_ros.datasets.nyu40 import read_label_map
from instseg_ros.datasets.nyuv2 import Nyuv2
from instseg_ros.datasets.raw_files import check_file
from instseg_ros.datasets.s3dis import find_s3dis, read_s3dis
from instseg_ros.datasets.scannet import find_scannet, read_scannet, read_split
from instseg_ros.datasets.scenenn import find_scenenn, read_scenenn
from instseg_ros.datasets.scenes import save_scene
from instseg_ros.errors import DataError

DATASETS = ("scannet", "s3dis", "scenenn", "nyuv2")
SPLITS = ("train", "validation", "test")
SCANNET_LISTS = {"train": "scannetv2_train.txt", "validation": "scannetv2_val.txt", "test": "scannetv2_test.txt"}
POINTS_FOLDER = "points"
LABEL_TABLE = "scannetv2-labels.combined.tsv"


@dataclass(frozen=True)
class ConvertOptions:
    """How a data set is read."""

    voxel_size_m: float = 0.05
    labels: Path | None = None
    """ScanNet: its table of labels; None = looked for beside the scans, else the labels come from `_vh_clean_2.labels.ply`."""
    align: bool = True
    """ScanNet: turn scans by their axisAlignment."""
    held_out_area: int = 5
    """S3DIS: the area whose rooms are for validation; 0 = none."""
    up: str = "y"
    """SceneNN: axis that points up where no floor is labelled."""
    mapping: Path | None = None
    """NYUv2: classMapping40.mat."""
    splits: Path | None = None
    """NYUv2: splits.mat of the toolbox (trainNdxs, testNdxs)."""


@dataclass(frozen=True)
class Task:
    """One scan to convert."""

    dataset: str
    name: str
    split: str
    path: Path
    index: int = 0
    """NYUv2: number of the frame."""
    options: ConvertOptions = field(default_factory=ConvertOptions)


def read_lists(entries: Iterable[str]) -> dict[str, str]:
    """Split of each scan, from entries SPLIT=FILE; the files name one scan a line.

    Raises:
        DataError: an entry of another form, an unknown split, a missing file.
    """
    split_of: dict[str, str] = {}
    for entry in entries:
        split, _, file = entry.partition("=")
        if split not in SPLITS or not file:
            raise DataError(f"--list {entry}: give SPLIT=FILE, where SPLIT is {', '.join(SPLITS)}")
        names = check_file(Path(file), "name a file with one scan a line").read_text(errors="replace").split()
        split_of.update(dict.fromkeys(names, split))
    return split_of


def find_tasks(
    dataset: str, source: Path, options: ConvertOptions, split: str = "train", lists: dict[str, str] | None = None
) -> list[Task]:
    """The scans of a data set and their splits.

    Args:
        dataset: one of `DATASETS`.
        source: its folder or file.
        options: how it is read.
        split: of all scans, where nothing else says.
        lists: split of each scan by name; scans that they do not name are left out. Default: ScanNet's lists where they lie in
            `source`, S3DIS by area, NYUv2 by splits.mat.

    Raises:
        DataError: nothing is found, or a list is damaged.
    """
    if dataset not in DATASETS or split not in SPLITS:
        raise DataError(f"data set {dataset}, split {split}: known are {', '.join(DATASETS)} and {', '.join(SPLITS)}")
    if not source.exists():
        raise DataError(f"{source} is missing: name the folder or file of the data set")
    if dataset == "scannet":
        table = _label_table(source, options)
        options = ConvertOptions(**{**vars(options), "labels": table})
        tasks = [Task(dataset, p.name, split, p, options=options) for p in find_scannet(source)]
        lists = lists or {n: s for s, file in SCANNET_LISTS.items() if (source / file).is_file() for n in read_split(source / file)}
    elif dataset == "s3dis":
        rooms = [(p, p.resolve().parent.name) for p in find_s3dis(source)]
        held_out = f"Area_{options.held_out_area}"
        tasks = [
            Task(dataset, f"{area}_{p.resolve().name}", "validation" if area == held_out else split, p, options=options) for p, area in rooms
        ]
    elif dataset == "scenenn":
        tasks = [Task(dataset, p.stem, split, p, options=options) for p in find_scenenn(source)]
    else:
        frames = Nyuv2(source, options.mapping)
        split_of = _nyuv2_splits(options.splits, len(frames)) if options.splits else [split] * len(frames)
        tasks = [Task(dataset, f"nyuv2_{k:04d}", split_of[k], source, k, options) for k in range(len(frames)) if split_of[k]]
        frames.close()
    if lists:
        tasks = [Task(t.dataset, t.name, lists[t.name], t.path, t.index, t.options) for t in tasks if t.name in lists]
    if not tasks:
        raise DataError(f"no scan in {source} is named by the lists: check that the lists belong to this data set")
    return tasks


def _label_table(source: Path, options: ConvertOptions) -> Path | None:
    places = [options.labels] if options.labels else [folder / LABEL_TABLE for folder in (source, source.parent, source.parent.parent)]
    found = [p for p in places if p is not None and (p.is_file() or options.labels)]
    if found:
        read_label_map(found[0])  # an error now, not after an hour
    return found[0] if found else None


def _nyuv2_splits(path: Path, count: int) -> list[str]:
    """Split of each frame, "" = none, from the toolbox's splits.mat, which counts from 1."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    check_file(path, "splits.mat is on the page of the data set; leave it out to put all frames into one split")
    split_of = [""] * count
    try:
        data = loadmat(path)
        for key, split in (("trainNdxs", "train"), ("testNdxs", "test")):
            for number in np.asarray(data[key]).reshape(-1).astype(int).tolist():
                split_of[number - 1] = split
    except (KeyError, ValueError, TypeError, IndexError, OSError, NotImplementedError, MatReadError) as error:
        raise DataError(f"{path} is not the splits.mat of these {count} frames ({type(error).__name__} {error})") from error
    return split_of


def read_task(task: Task) -> LabelledPoints:
    """The scan of a task, from the files of its data set.

    Raises:
        DataError: a file is missing or damaged.
    """
    options = task.options
    if task.dataset == "scannet":
        return read_scannet(task.path, read_label_map(options.labels) if options.labels else None, options.align)
    if task.dataset == "s3dis":
        return read_s3dis(task.path)
    if task.dataset == "scenenn":
        return read_scenenn(task.path, options.up)
    frames = Nyuv2(task.path, options.mapping)
    try:
        return frames.read(task.index)
    finally:
        frames.close()


def convert_task(out: Path, task: Task) -> dict[str, Any]:
    """Write the scene of one scan to `out/<split>/<name>.npz`, and its points to `out/points/<split>/<name>.npz`.

    Returns:
        What there is to say of it: name, split, points, voxels, instances, and its damaged lines.

    Raises:
        DataError, InputError: the scan cannot be read; nothing is written then.
    """
    scan = read_task(task)
    scene, points = to_scene(scan, task.options.voxel_size_m)
    if not len(scene):
        raise DataError(f"{task.path} ({task.name}) holds no points: download it again")
    save_scan_points(out / POINTS_FOLDER / task.split / f"{task.name}.npz", points)
    save_scene(out / task.split / f"{task.name}.npz", scene)
    return {
        "name": task.name, "split": task.split, "points": len(points.label), "voxels": len(scene),
        "instances": len(np.unique(scene.instance[scene.instance >= 0])), "damaged_lines": scan.metadata.get("damaged_lines", []),
    }


def convert_scans(out: Path | str, tasks: list[Task], jobs: int = 1, keep_going: bool = False, progress: bool = True) -> list[dict[str, Any]]:
    """Convert scans, `jobs` at a time.

    Args:
        out: folder of the data set to write.
        tasks: from `find_tasks`.
        jobs: processes.
        keep_going: leave out scans that cannot be read; their result is {"name", "split", "error"}.
        progress: show a progress bar.

    Raises:
        DataError: a scan cannot be read, and `keep_going` is not set.
    """
    if jobs < 1:
        raise DataError(f"jobs {jobs}: must be 1 or more")
    bar = tqdm(total=len(tasks), unit="scan", desc="convert", disable=not progress)
    results = []
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) if jobs > 1 else None
    try:
        futures = [pool.submit(convert_task, Path(out), task) for task in tasks] if pool else None
        for number, task in enumerate(tasks):
            try:
                results.append(futures[number].result() if futures else convert_task(Path(out), task))
            except ValueError as error:  # DataError and InputError
                if not keep_going:
                    raise
                results.append({"name": task.name, "split": task.split, "error": str(error)})
            bar.update()
    finally:
        bar.close()
        if pool:
            pool.shutdown(cancel_futures=True)
    return results
