"""What the benchmarks of the public data sets measure, on their own points or vertices: ScanNet, S3DIS, NYUv2, SceneNN."""

__all__ = ["PROTOCOLS", "Measured", "Overlaps", "Protocol", "area_of", "onto_points"]

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from instseg_ros.datasets.labelled_points import ScanPoints
from instseg_ros.evaluation.instances import (
    EVALUATED_CLASSES,
    SCANNET_MIN_VERTICES,
    Predictions,
    Scan,
    ScanOverlaps,
    average_precision,
    scan_overlaps,
)
from instseg_ros.evaluation.nyuv2 import NYUV2_CLASSES, nyuv2_ap25
from instseg_ros.evaluation.overlap import InstanceOverlaps, instance_overlaps
from instseg_ros.evaluation.s3dis import S3DIS_CLASSES, precision_recall
from instseg_ros.evaluation.scenenn import SCENENN_CLASSES, scenenn_map50
from instseg_ros.evaluation.voc import VocResult
from instseg_ros.labels import CLASS_NAMES, IGNORE

Overlaps = ScanOverlaps | InstanceOverlaps
"""A scan as its measure needs it: small enough to be kept for a whole data set."""


@dataclass(frozen=True)
class Measured:
    """Figures of some scans; NaN where there is nothing to measure."""

    means: dict[str, float]
    """By the names of `comparison.MEASURES`."""
    per_class: dict[str, dict[str, float]]
    """Name of the class -> measures, and `instances`."""


@dataclass(frozen=True)
class Protocol:
    """How the results on one data set are reported."""

    dataset: str
    title: str
    classes: tuple[str, ...]
    """Those of the data set; scans hold indices into this tuple."""
    split: str | None
    """Where results are reported; None = on all scans."""
    background: bool
    """Whether wall and floor have instances."""
    overlaps: Callable[[Scan], Overlaps]
    """What is kept of a scan."""
    measure: Callable[[Iterable[Overlaps]], Measured]
    """The figures of all scans."""
    says: Mapping[str, str] = field(default_factory=dict)
    """Our classes by other names of the data set's; `""` stands for every class that it has not got."""

    def truth(self, points: ScanPoints) -> tuple[np.ndarray, np.ndarray]:
        """Class [P] uint8 and instance [P] int32 of every point."""
        return points.class_of(self.classes), points.instance

    def scan(self, predictions: Predictions, points: ScanPoints, voxels: int) -> Scan:
        """Truth and predictions over the points of a scan.

        Args:
            predictions: over the voxels of its scene, with our classes; those of classes that the data set has not got are left out.
            points: of the same scene.
            voxels: how many it has.
        """
        table = np.full(256, IGNORE, np.uint8)
        for number, name in enumerate(CLASS_NAMES):
            its = name if name in self.classes else self.says.get(name, self.says.get("", ""))
            table[number] = self.classes.index(its) if its else IGNORE
        classes = table[predictions.class_index]
        mapped = Predictions(predictions.members, predictions.owner, classes, predictions.score).take(classes != IGNORE)
        return Scan(*self.truth(points), onto_points(mapped, points.voxel_of_point, voxels))

    def sayable(self) -> tuple[str, ...]:
        """Classes of the data set that any of our 20 classes means, in its order."""
        means = {name if name in self.classes else self.says.get(name, self.says.get("", "")) for name in CLASS_NAMES}
        return tuple(name for name in self.classes if name in means)


def onto_points(predictions: Predictions, voxel_of_point: np.ndarray, voxels: int) -> Predictions:
    """Predictions over voxels as predictions over the points in them.

    Args:
        predictions: masks over the voxels; they may overlap.
        voxel_of_point: [P] row of the voxel of each point.
        voxels: how many there are.
    """
    order = np.argsort(voxel_of_point, kind="stable")
    start = np.searchsorted(np.asarray(voxel_of_point)[order], np.arange(voxels + 1))
    count = np.diff(start)[predictions.members]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    members = order[np.repeat(start[predictions.members], count) + within]
    return Predictions(members, np.repeat(predictions.owner, count), predictions.class_index, predictions.score)


def area_of(scan: str) -> str:
    """The area of an S3DIS room: `Area_5_office_1` -> `Area_5`; "" where the name is of another form."""
    found = re.match(r"Area_\d+(?=_)", scan)
    return found[0] if found else ""


def _scannet_overlaps(scan: Scan) -> ScanOverlaps:
    return scan_overlaps(scan, EVALUATED_CLASSES, SCANNET_MIN_VERTICES)


def _scannet(tables: Iterable[Overlaps]) -> Measured:
    ap = average_precision([t for t in tables if isinstance(t, ScanOverlaps)], EVALUATED_CLASSES, SCANNET_MIN_VERTICES)
    per_class = {name: {"ap": one.ap, "ap50": one.ap50, "ap25": one.ap25, "instances": one.instances} for name, one in ap.per_class.items()}
    return Measured({"ap": ap.ap, "ap50": ap.ap50, "ap25": ap.ap25}, per_class)


def _s3dis(tables: Iterable[Overlaps]) -> Measured:
    found = precision_recall([t for t in tables if isinstance(t, InstanceOverlaps)])
    per_class = {
        name: {"precision": found.precision[name], "recall": found.recall[name], "instances": found.instances[name]} for name in S3DIS_CLASSES}
    known = PROTOCOLS["s3dis"].sayable()
    means = {"mprec": found.mean_precision, "mrec": found.mean_recall}
    return Measured(means | _known(per_class, known, {"mprec_known": "precision", "mrec_known": "recall"}), per_class)


def _nyuv2(tables: Iterable[Overlaps]) -> Measured:
    return _voc(nyuv2_ap25([t for t in tables if isinstance(t, InstanceOverlaps)]), "ap25", PROTOCOLS["nyuv2"].sayable())


def _scenenn(tables: Iterable[Overlaps]) -> Measured:
    return _voc(scenenn_map50([t for t in tables if isinstance(t, InstanceOverlaps)]), "ap50", PROTOCOLS["scenenn"].sayable())


def _voc(result: VocResult, key: str, known: Sequence[str]) -> Measured:
    per_class: dict[str, dict[str, float]] = {name: {key: ap, "instances": result.instances[name]} for name, ap in result.per_class.items()}
    return Measured({key: result.mean} | _known(per_class, known, {f"{key}_known": key}), per_class)


def _known(per_class: Mapping[str, Mapping[str, float]], known: Sequence[str], keys: Mapping[str, str]) -> dict[str, float]:
    """Means over the classes that our networks can say at all."""
    means = {}
    for name, key in keys.items():
        values = np.array([per_class[c][key] for c in known])
        means[name] = float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")
    return means


PROTOCOLS = {
    "scannet": Protocol("scannet", "ScanNet v2", CLASS_NAMES, "validation", False, _scannet_overlaps, _scannet),
    "s3dis": Protocol("s3dis", "S3DIS", S3DIS_CLASSES, None, True, instance_overlaps, _s3dis,
                      {"bookshelf": "bookcase", "desk": "table", "": "clutter"}),
    "nyuv2": Protocol("nyuv2", "NYU Depth V2", NYUV2_CLASSES, "test", False, instance_overlaps, _nyuv2),
    "scenenn": Protocol("scenenn", "SceneNN", SCENENN_CLASSES, None, True, instance_overlaps, _scenenn),
}
"""By the names that `instseg convert` and `instseg evaluate` give the data sets."""
