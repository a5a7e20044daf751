"""Runs a segmenter over evaluation cases, offline and online, and sums up how well it did."""

__all__ = ["CaseResult", "Outcome", "evaluate_case", "run_offline", "run_online", "summarise"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instseg_ros.evaluation.cases import Case
from instseg_ros.evaluation.ground_truth import supply_labels
from instseg_ros.evaluation.hota import TrackSequence, hota
from instseg_ros.evaluation.id_switches import IdConsistency
from instseg_ros.evaluation.instances import ApResult, Scan, average_precision
from instseg_ros.evaluation.map_judge import MapJudge
from instseg_ros.evaluation.occupancy import OCCUPANCY_ERROR, occupancy_errors, occupancy_within
from instseg_ros.evaluation.semantics import SemanticResult, confusion_matrix, semantic_result
from instseg_ros.instance import Instance
from instseg_ros.labels import CLASS_NAMES
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.online import OnlineRun, run_updates
from instseg_ros.segmenter import LabelledCloud, SegmentationResult, Segmenter


@dataclass(frozen=True)
class Outcome:
    """What one run over one case came to."""

    scan: Scan
    """Ground truth and predictions over the voxels of the final map."""
    confusion: np.ndarray
    """[20, 21] of the published classes, see `confusion_matrix`."""
    run: OnlineRun
    """Times and sizes of its updates."""
    consistency: IdConsistency
    cloud: LabelledCloud
    """The final map as published, voxels in the order of `scan`."""
    tracks: TrackSequence
    """Overlaps at every update, for HOTA."""
    occupancy_errors: np.ndarray | None = None
    """[C] relative error of the predicted size of every true instance (OccuSeg eq. 11), where the network has that head."""

    @property
    def update_ms(self) -> list[float]:
        """Time in the segmenter per update."""
        return [record.segment_ms for record in self.run.records]

    @property
    def seconds(self) -> float:
        """Time in the segmenter, all updates together."""
        return sum(self.update_ms) / 1e3


@dataclass(frozen=True)
class CaseResult:
    """A case with its runs: "offline", "online", or both."""

    name: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def run_offline(segmenter: Segmenter, case: Case) -> Outcome:
    """The final map as one full update to a segmenter that knows nothing yet."""
    return _run(segmenter, case, [case.final])


def run_online(segmenter: Segmenter, case: Case) -> Outcome:
    """The map as it grew, update by update; what counts is the result after the last one."""
    return _run(segmenter, case, case.updates)


def _run(segmenter: Segmenter, case: Case, updates: Sequence[MapUpdate]) -> Outcome:
    segmenter.reset()
    judge, tracks = MapJudge(case.truth), TrackSequence()
    instances: list[Instance] = []

    def observe(result: SegmentationResult, _: MapUpdate) -> None:
        instances[:] = result.instances
        ids = segmenter.cloud().instance
        tracks.add(judge.add(_voxels(segmenter), ids), ids)

    run = run_updates(segmenter, updates, observe)
    cloud = segmenter.cloud()
    scan = judge.scan(_voxels(segmenter), cloud.instance, instances)
    occupancy = segmenter.runner.prediction.occupancy
    errors = None if occupancy is None else occupancy_errors(scan.instance, occupancy[segmenter.map.live_slots()])
    return Outcome(scan, confusion_matrix(scan.class_index, cloud.class_index), run, judge.consistency, cloud, tracks, errors)


def _voxels(segmenter: Segmenter) -> np.ndarray:
    return segmenter.map.coords[segmenter.map.live_slots()]


def evaluate_case(segmenter: Segmenter, case: Case, modes: Sequence[str] = ("offline", "online")) -> CaseResult:
    """Run a case in the modes asked for ("offline", "online")."""
    supply_labels(segmenter, case.truth)
    runs: dict[str, Callable[..., Outcome]] = {"offline": run_offline, "online": run_online}
    return CaseResult(case.name, {mode: runs[mode](segmenter, case) for mode in modes})


def summarise(
    prefix: str, results: Sequence[CaseResult], classes: Sequence[int], min_region: int, with_hota: bool = False,
) -> tuple[dict[str, float | int | None], list[dict[str, Any]]]:
    """Figures and rows of a report.

    Args:
        prefix: "rooms" or "house": figures are named `rooms_ap50`, `rooms_ap50_online`, ...
        results: of all cases, with the same modes.
        classes: class indices that are evaluated; ground truth of others is void.
        min_region: see `average_precision`.
        with_hota: HOTA of online runs too, by the TrackEval library.

    Returns:
        Figures by name (None where there is nothing to measure), and one row per class and mode and per scene and mode.
    """
    figures: dict[str, float | int | None] = {f"{prefix}_scenes": len(results)}
    rows: list[dict[str, Any]] = []
    for mode in ("offline", "online"):
        outcomes = [(r.name, r.outcomes[mode]) for r in results if mode in r.outcomes]
        if not outcomes:
            continue
        suffix = "_online" if mode == "online" else ""
        ap = average_precision([o.scan for _, o in outcomes], classes, min_region)
        semantics = semantic_result(np.sum([o.confusion for _, o in outcomes], axis=0))
        figures[f"{prefix}_voxels"] = sum(len(o.scan.class_index) for _, o in outcomes)
        for name, value in (
            ("ap", ap.ap), ("ap50", ap.ap50), ("ap25", ap.ap25), ("miou", semantics.miou), ("accuracy", semantics.accuracy),
            ("seconds_per_scene", float(np.mean([o.seconds for _, o in outcomes]))),
        ):
            figures[f"{prefix}_{name}{suffix}"] = _number(value)
        rows += _class_rows(mode, ap, semantics)
        rows += [_scene_row(mode, name, outcome, classes, min_region) for name, outcome in outcomes]
        if mode == "online":
            figures.update({f"{prefix}_{name}": value for name, value in _consistency([o for _, o in outcomes]).items()})
            if with_hota:
                figures.update({f"{prefix}_{name}": value for name, value in hota([o.tracks for _, o in outcomes]).figures().items()})
        errors = [o.occupancy_errors for _, o in outcomes if o.occupancy_errors is not None]
        if errors:
            figures[f"{prefix}_occupancy_within_{OCCUPANCY_ERROR}{suffix}"] = _number(occupancy_within(np.concatenate(errors)))
    offline, online = figures.get(f"{prefix}_ap50"), figures.get(f"{prefix}_ap50_online")
    if offline is not None and online is not None:
        figures[f"{prefix}_ap50_difference"] = abs(offline - online)
    return figures, rows


def _consistency(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """How well ids lasted over all runs; association accuracy is weighted by instance-updates."""
    updates = np.array([o.consistency.instance_updates for o in outcomes])
    accuracy = np.array([o.consistency.association_accuracy for o in outcomes])
    switches = sum(o.consistency.switches for o in outcomes)
    some = updates > 0
    times = np.concatenate([o.update_ms for o in outcomes])
    return {
        "id_switches": switches,
        "instance_updates": int(updates.sum()),
        "id_switches_per_1000": 1000.0 * switches / int(updates.sum()) if some.any() else None,
        "assa": float(np.average(accuracy[some], weights=updates[some])) if some.any() else None,
        "update_ms_p50": float(np.percentile(times, 50)),
        "update_ms_p95": float(np.percentile(times, 95)),
    }


def _class_rows(mode: str, ap: ApResult, semantics: SemanticResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in CLASS_NAMES:
        one, iou = ap.per_class.get(name), _number(semantics.per_class[name])
        if one is None or (one.instances == 0 and one.predictions == 0):
            if iou is not None:  # background, and classes that are not evaluated
                rows.append({"row": "class", "mode": mode, "class": name, "iou": iou})
            continue
        rows.append({
            "row": "class", "mode": mode, "class": name,
            "ap": _number(one.ap), "ap50": _number(one.ap50), "ap25": _number(one.ap25), "iou": iou,
            "instances": one.instances, "predictions": one.predictions,
        })
    return rows


def _scene_row(mode: str, name: str, outcome: Outcome, classes: Sequence[int], min_region: int) -> dict[str, Any]:
    ap = average_precision([outcome.scan], classes, min_region)
    row = {
        "row": "scene", "mode": mode, "scene": name, "voxels": len(outcome.scan.class_index), "updates": len(outcome.update_ms),
        "ap": _number(ap.ap), "ap50": _number(ap.ap50), "ap25": _number(ap.ap25),
        "instances": sum(c.instances for c in ap.per_class.values()),
        "predictions": sum(c.predictions for c in ap.per_class.values()), "seconds": outcome.seconds,
    }
    if mode == "online":
        row |= {"id_switches": outcome.consistency.switches, "instance_updates": outcome.consistency.instance_updates}
    return row


def _number(value: float) -> float | None:
    """NaN is no JSON."""
    return None if np.isnan(value) else float(value)
