"""Entries on the scans of a public data set, measured as its benchmark does it."""

__all__ = ["ScanJob", "ScanScore", "summarise_scans"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.evaluation.entries import Entry
from instseg_ros.evaluation.protocols import PROTOCOLS, Overlaps, area_of
from instseg_ros.evaluation.scan_sources import ScanSource
from instseg_ros.evaluation.scannet_export import write_submission
from instseg_ros.evaluation.sources import scene_case


@dataclass(frozen=True)
class ScanScore:
    """What one entry made of one scan; small enough to be kept for all of them."""

    scan: str
    overlaps: Overlaps
    points: int
    seconds: float
    """In network, grouping and baseline."""


@dataclass(frozen=True)
class ScanJob:
    """One scan to read and to run with every entry; plain enough to be sent to another process.

    Attributes:
        source: of the scan.
        dataset: one of `PROTOCOLS`.
        entries: what runs on it.
        export: folder for ScanNet's submission by the name of the entry; entries that are not named leave none.
    """

    source: ScanSource
    dataset: str
    entries: tuple[Entry, ...]
    export: Mapping[str, Path]

    def run(self) -> dict[str, ScanScore]:
        """The score of each entry."""
        protocol = PROTOCOLS[self.dataset]
        scene, points = self.source.read()
        case = scene_case(self.source.name, scene)
        scores = {}
        for entry in self.entries:
            predictions, seconds = entry.answer(case, protocol.background)
            scan = protocol.scan(predictions, points, len(scene))
            if entry.name in self.export:
                write_submission(self.export[entry.name], self.source.name, scan.predictions, len(points.label))
            scores[entry.name] = ScanScore(self.source.name, protocol.overlaps(scan), len(points.label), seconds)
        return scores


def summarise_scans(
    dataset: str, scores: Mapping[str, Sequence[ScanScore]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures and rows of a data set.

    Args:
        dataset: one of `PROTOCOLS`.
        scores: by entry, one per scan; the same scans for all.

    Returns:
        Figures, `DATASET_MEASURE` as {entry: value}, and rows: per entry one "entry", one "class" for every class, and for S3DIS
        one "area" for every area. NaN is None.
    """
    protocol = PROTOCOLS[dataset]
    first = next(iter(scores.values()))
    figures: dict[str, Any] = {f"{dataset}_scenes": len(first), f"{dataset}_points": sum(s.points for s in first)}
    rows: list[dict[str, Any]] = []
    for name, mine in scores.items():
        measured = protocol.measure([s.overlaps for s in mine])
        means = _numbers(measured.means) | {"seconds_per_scene": float(np.mean([s.seconds for s in mine]))}
        common = {"entry": name, "mode": "offline"}
        rows.append({"row": "entry", **common, "scenes": len(mine), **means})
        rows += [{"row": "class", **common, "class": label, **_numbers(one)} for label, one in measured.per_class.items()]
        for area, part in _by_area(mine).items() if dataset == "s3dis" else ():
            of_area = _numbers(protocol.measure([s.overlaps for s in part]).means)
            rows.append({"row": "area", **common, "area": area, "scenes": len(part), **of_area})
            means |= {f"{key}_{area.lower()}": of_area[key] for key in ("mprec", "mrec")}
        for key, value in means.items():
            figures.setdefault(f"{dataset}_{key}", {})[name] = value
    return figures, rows


def _by_area(scores: Sequence[ScanScore]) -> dict[str, list[ScanScore]]:
    areas = sorted({area_of(s.scan) for s in scores})
    return {area or "elsewhere": [s for s in scores if area_of(s.scan) == area] for area in areas}


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """NaN is no JSON."""
    return {key: None if np.isnan(value) else value for key, value in values.items()}
