"""Segment an RGB-D sequence, a cloud, a mesh or a bag, or many of them, without ROS.

Sequences and bags are fused and segmented while the map grows, as the nodes do it. What is left in the output folder:
map_color.png, map_instances.png, map_classes.png, growth.gif (where the map grew), labelled.ply, labels.npz,
instances.json (figures, and a row per instance). Of several sources each has a folder of its own there, and one that
cannot be read does not stop the others.
"""

__all__ = ["add_arguments", "run"]

import argparse
import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instseg_ros.config import FusionConfig
from instseg_ros.datasets.bag_arguments import add_topic_arguments, topics_from_arguments
from instseg_ros.datasets.bags import BagSequence, BagUpdates, is_bag, open_bag
from instseg_ros.datasets.clouds import open_cloud
from instseg_ros.datasets.rgbd import RgbdSequence, open_sequence
from instseg_ros.datasets.scannet_sens import SensSequence
from instseg_ros.distribute import run_tasks
from instseg_ros.errors import ConfigError, DataError, InstSegError
from instseg_ros.evaluation.rotation_average import RotationRunner
from instseg_ros.instance import Instance
from instseg_ros.labels import CLASS_NAMES, IGNORE, class_to_nyu40
from instseg_ros.mapping.fusion import TsdfFusion
from instseg_ros.mapping.update import MapUpdate, voxel_coords
from instseg_ros.online import OnlineRun, OnlineSettings, load_online, run_online, run_updates
from instseg_ros.report import write_report
from instseg_ros.segmenter import LabelledCloud, SegmentationResult, Segmenter
from instseg_ros.settings import add_setting_arguments
from instseg_ros.visual.pictures import MapPictures, beside, titled, write_gif, write_png
from instseg_ros.visual.ply import write_labelled_ply
from instseg_ros.visual.rerun_recording import RerunRecording
from instseg_ros.visual.view import View, cutaway

MAX_GIF_FRAMES = 40
PICTURE_SIZE, FIGURE_SIZE, GIF_SIZE = (960, 720), (1100, 860), (560, 460)
TABLE_ROWS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `instseg segment`."""
    parser.add_argument(
        "source",
        metavar="SEQUENCE_OR_CLOUD",
        type=Path,
        nargs="+",
        help="RGB-D folder, PLY/PCD/NPZ cloud, mesh (PLY, OBJ, STL, GLB), or a bag",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--update-every", type=int, default=4, metavar="N", help="frames fused per update of the map (default 4)"
    )
    parser.add_argument(
        "--rotations", type=int, default=1, metavar="N",
        help="at the end, segment the finished map once more with classes averaged over N headings (SSEN: 10; default: not)",
    )
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="use every N-th frame")
    parser.add_argument("--max-frames", type=int, default=0, metavar="N", help="stop after N frames; 0 = all")
    parser.add_argument("--no-gif", action="store_true", help="leave the animation out")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="also write one wide picture: colour | instances with names"
    )
    parser.add_argument(
        "--rerun", type=Path, metavar="FILE", help="also record the map while it grows for the rerun viewer (.rrd; needs rerun-sdk)"
    )
    add_topic_arguments(parser)
    parser.add_argument("--jobs", type=int, default=1, help="several sources: processes (default: %(default)s)")
    parser.add_argument("--ray", metavar="ADDRESS", help="several sources: run on a Ray cluster instead: local, auto, or its address")
    add_setting_arguments(parser.add_argument_group("settings of segmenter and fusion"), OnlineSettings)


def run(args: argparse.Namespace) -> int:
    """Segment, write the results, print the instances."""
    _check(args)
    if len(args.source) > 1:
        return _run_many(args)
    segment(args, args.source[0], args.out)
    print(f"results are in {args.out}")
    return 0


def _run_many(args: argparse.Namespace) -> int:
    """A folder per source; 1 if one of them could not be segmented."""
    names = [source.stem or source.resolve().name for source in args.source]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or args.figure or args.rerun:
        for_one = "--figure" if args.figure else "--rerun"
        raise ConfigError(f"several sources are named {', '.join(twice)}: give each name once" if twice else f"{for_one} is for a single source")
    plain = argparse.Namespace(**{name: value for name, value in vars(args).items() if not callable(value)})
    jobs = [SegmentJob(plain, source, args.out / name) for source, name in zip(args.source, names, strict=True)]
    failed = 0
    for name, line in tqdm(run_tasks(segment_job, jobs, args.jobs, args.ray), total=len(jobs), unit="source", desc="segment"):
        failed += line.startswith("error")
        tqdm.write(f"{name}: {line}")
    print(f"results are in {args.out}" + (f"; {failed} of {len(jobs)} could not be segmented" if failed else ""))
    return 1 if failed else 0


@dataclass(frozen=True)
class SegmentJob:
    """One source of several; plain enough to be sent to another process."""

    args: argparse.Namespace
    source: Path
    out: Path


def segment_job(job: SegmentJob) -> tuple[str, str]:
    """Segment one source without a word; returns its name and a line about what came of it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            voxels, instances = segment(job.args, job.source, job.out, quiet=True)
        return job.out.name, f"{voxels} voxels, {instances} instances"
    except InstSegError as error:
        return job.out.name, f"error: {error}"


def segment(args: argparse.Namespace, path: Path, out: Path, quiet: bool = False) -> tuple[int, int]:
    """Segment one source and write its results; returns the numbers of voxels and instances.

    Raises:
        InstSegError: the source cannot be read, is empty, or does not fit the weights.
    """
    segmenter, fusion_config = load_online(args)
    voxel_size_m = segmenter.config.voxel_size_m
    start = time.perf_counter()
    source = _open(args, path, voxel_size_m)
    growth = Growth(segmenter)
    online = _run_through(args, source, segmenter, fusion_config, growth, quiet)
    cloud, instances = segmenter.cloud(), list(segmenter.tracker.instances.values())
    if not len(cloud.points_m):
        raise DataError(f"{path} gave an empty map: check the depth images, their unit and fusion.max_depth_m")
    instances = sorted((i for i in instances if i.voxels), key=lambda i: -i.voxels)
    print(
        f"{len(cloud.points_m)} voxels, {len(instances)} instances, {len(online.records)} updates "
        f"in {time.perf_counter() - start:.1f} s; drawing"
    )
    out.mkdir(parents=True, exist_ok=True)
    write_labels(out, cloud, instances, online, voxel_size_m, str(path.name), segmenter.map.frame_id)
    write_pictures(out, cloud, instances, voxel_size_m, None if args.no_gif else growth, args.figure)
    print_table(instances)
    return len(cloud.points_m), len(instances)


def _run_through(
    args: argparse.Namespace, source: Any, segmenter: Segmenter, fusion_config: FusionConfig, growth: "Growth", quiet: bool
) -> OnlineRun:
    """Segment all of a source; `growth` and, where one is asked for, a recording see every update."""
    recording = RerunRecording(args.rerun, segmenter) if args.rerun else None

    def take(result: SegmentationResult, update: MapUpdate) -> None:
        growth.take(result, update)
        if recording is not None:
            recording.take(result)

    with contextlib.closing(recording) if recording is not None else contextlib.nullcontext():
        if isinstance(source, (RgbdSequence, SensSequence, BagSequence)):
            online = run_online(segmenter, TsdfFusion(fusion_config), _progress(source, "frame", quiet), args.update_every, take)
        else:
            online = run_updates(segmenter, _progress(source, "update", quiet), take)
        if args.rotations > 1:
            segmenter.runner = RotationRunner(segmenter.runner, args.rotations)  # type: ignore[assignment]
            averaged = segmenter.resegment_all()
            if recording is not None:
                recording.take(averaged)
    return online


def _check(args: argparse.Namespace) -> None:
    for name, low in (("update_every", 1), ("stride", 1), ("max_frames", 0), ("rotations", 1)):
        if getattr(args, name) < low:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be {low} or more")
    for source in args.source:
        if not source.exists():
            raise DataError(f"{source} is missing: give an RGB-D folder, a cloud, a mesh or a bag")


def _open(args: argparse.Namespace, path: Path, voxel_size_m: float) -> RgbdSequence | SensSequence | BagSequence | BagUpdates | list[MapUpdate]:
    """What the path holds."""
    source: RgbdSequence | SensSequence | BagSequence | BagUpdates
    if is_bag(path):
        source = open_bag(path, topics_from_arguments(args), voxel_size_m)
    elif path.is_dir() or path.name == "sequence.json" or path.suffix == ".sens":
        source = open_sequence(path)
        if source.skipped:
            print(f"{source.skipped} frames without a pose or a partner image are left out")
    else:
        return [open_cloud(path, voxel_size_m)]
    return source if isinstance(source, BagUpdates) else source.select(args.stride, args.max_frames)


def _progress(source: Any, unit: str, quiet: bool) -> Iterator[Any]:
    yield from tqdm(source, total=len(source), unit=unit, desc="segment", disable=True if quiet or len(source) <= 1 else None)


@dataclass
class Growth:
    """States of the map while it grows; thinned out as they become many, so that they stay evenly spread."""

    segmenter: Segmenter
    every: int = 1
    updates: int = 0
    states: list[tuple[int, LabelledCloud, list[Instance]]] = field(default_factory=list)

    def take(self, result: SegmentationResult, update: MapUpdate) -> None:
        """Keep the state after an update."""
        self.updates += 1
        if self.updates % self.every:
            return
        # an instance goes on changing after this update: keep it as it is now
        self.states.append((self.updates, self.segmenter.cloud(), [replace(i) for i in result.instances if i.voxels]))
        if len(self.states) > MAX_GIF_FRAMES:
            self.every *= 2
            self.states = [state for state in self.states if state[0] % self.every == 0]


# -- what is written ---------------------------------------------------------------------------------------------------------


def write_labels(
    out: Path,
    cloud: LabelledCloud,
    instances: list[Instance],
    online: OnlineRun,
    voxel_size_m: float,
    name: str,
    frame_id: str = "map",
) -> None:
    """labelled.ply, labels.npz and instances.json."""
    write_labelled_ply(out / "labelled.ply", cloud.points_m, cloud.class_index, cloud.instance, cloud.confidence, frame_id)
    np.savez_compressed(
        out / "labels.npz",
        coords=voxel_coords(cloud.points_m, voxel_size_m),
        points_m=cloud.points_m,
        colors=cloud.colors,
        class_index=cloud.class_index,
        nyu40=class_to_nyu40(cloud.class_index),
        instance=cloud.instance,
        confidence=cloud.confidence,
        voxel_size_m=np.float64(voxel_size_m),
    )
    figures = {"source": name, "voxel_size_m": voxel_size_m, **online.figures(), "instances": len(instances)}
    write_report(out / "instances.json", figures, [instance_row(i) for i in instances])


def class_name(index: int) -> str:
    """Name of a class, "object" where there is none."""
    return CLASS_NAMES[index] if index != IGNORE else "object"


def instance_row(one: Instance) -> dict[str, Any]:
    """An instance as a row of instances.json; lengths in m, the map's frame."""
    low, high = np.asarray(one.box_min_m, np.float64), np.asarray(one.box_max_m, np.float64)
    return {
        "id": int(one.id),
        "class": class_name(one.class_index),
        "nyu40": int(class_to_nyu40(np.array([one.class_index]))[0]),
        "score": round(float(one.score), 4),
        "voxels": int(one.voxels),
        "center_m": np.round(np.asarray(one.center_m, np.float64), 3),
        "box_min_m": np.round(low, 3),
        "box_max_m": np.round(high, 3),
        "size_m": np.round(high - low, 3),
    }


def write_pictures(
    out: Path, cloud: LabelledCloud, instances: list[Instance], voxel_size_m: float, growth: Growth | None, figure: Path | None
) -> None:
    """map_color.png, map_instances.png, map_classes.png, each from three sides; growth.gif; the figure."""
    main = MapPictures.choose_view(cloud, voxel_size_m)
    views = [main, View(main.azimuth_deg + 180.0, main.elevation_deg), View(-90.0, 90.0)]  # plan: x right, y up
    pictures = [MapPictures(cloud, instances, voxel_size_m, view, PICTURE_SIZE) for view in views]
    write_png(out / "map_color.png", beside([p.color() for p in pictures]))
    write_png(out / "map_instances.png", beside([p.instance() for p in pictures]))
    write_png(out / "map_classes.png", titled(beside([p.classes() for p in pictures]), "", pictures[0].legend()))
    if growth is not None and len(growth.states) > 1:
        write_gif(out / "growth.gif", _growth_frames(growth, cloud, voxel_size_m, main))
    if figure is not None:
        wide = replace(pictures[0], size=FIGURE_SIZE)
        write_png(figure, beside([titled(wide.color(), "fused map"), titled(wide.instance(), f"{len(instances)} instances")]))


def _growth_frames(growth: Growth, final: LabelledCloud, voxel_size_m: float, view: View) -> list[np.ndarray]:
    """Colour and instances side by side after each kept update, all in the frame of the final map."""
    frames = []
    extent_m = final.points_m[cutaway(final.points_m, View(elevation_deg=90.0))]
    for number, cloud, instances in growth.states:
        pictures = MapPictures(cloud, instances, voxel_size_m, view, GIF_SIZE, extent_m)
        frames.append(
            beside(
                [
                    titled(pictures.color(), f"update {number}: {len(cloud.points_m)} voxels"),
                    titled(pictures.instance(), f"{len(instances)} instances"),
                ]
            )
        )
    return frames


def print_table(instances: list[Instance]) -> None:
    """The instances, largest first."""
    print(f"{'id':>5}  {'class':<16}{'score':>6}{'voxels':>8}   {'centre (m)':<24}{'size (m)':<20}")
    for one in instances[:TABLE_ROWS]:
        row = instance_row(one)
        center = " ".join(f"{v:7.2f}" for v in row["center_m"])
        size = " ".join(f"{v:5.2f}" for v in row["size_m"])
        print(f"{row['id']:>5}  {row['class']:<16}{row['score']:>6.2f}{row['voxels']:>8}   {center:<24}{size:<20}")
    if len(instances) > TABLE_ROWS:
        print(f"  ... and {len(instances) - TABLE_ROWS} more in instances.json")
