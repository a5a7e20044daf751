"""What is compared with what: segmenters of several weights and settings, and the baselines, on the same cases."""

__all__ = ["BaselineEntry", "Entry", "FoldEntry", "Score", "SegmenterEntry", "make_entries", "parse_entry", "segmenter_for"]

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import yaml

from instseg_ros.config import SegmenterConfig
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.baselines import BASELINES, connected_components
from instseg_ros.evaluation.cases import Case
from instseg_ros.evaluation.evaluate import Outcome, evaluate_case
from instseg_ros.evaluation.ground_truth import ORACLES, install_oracles, supply_labels
from instseg_ros.evaluation.hota import TrackSequence
from instseg_ros.evaluation.id_switches import IdConsistency
from instseg_ros.evaluation.instances import Predictions, Scan, default_min_region
from instseg_ros.evaluation.rotation_average import RotationRunner
from instseg_ros.labels import BACKGROUND, IGNORE, NUM_CLASSES
from instseg_ros.models.weights import settings_over_weights
from instseg_ros.segmenter import Segmenter
from instseg_ros.settings import flatten, from_mapping


@dataclass(frozen=True)
class Score:
    """What one entry made of one case; small enough to be kept for all of them."""

    scan: Scan
    seconds: float
    """Time in the segmenter (all updates) or in network and baseline."""
    occupancy_errors: np.ndarray | None = None
    """[C] of `occupancy_errors`, where the network has that head."""
    consistency: IdConsistency | None = None
    """Of online runs, and so is the next."""
    tracks: TrackSequence | None = None

    @classmethod
    def of(cls, outcome: Outcome, online: bool) -> "Score":
        """The part of an outcome that comparisons need."""
        some = (outcome.consistency, outcome.tracks) if online else (None, None)
        return cls(outcome.scan, outcome.seconds, outcome.occupancy_errors, *some)


class Entry(Protocol):
    """One row of a comparison; sent to worker processes."""

    @property
    def name(self) -> str: ...
    def scores(self, case: Case, modes: Sequence[str]) -> dict[str, Score]: ...
    def answer(self, case: Case, background: bool) -> tuple[Predictions, float]:
        """Predictions over the voxels of the final map, in their order, and the seconds that they took.

        Args:
            case: what is looked at; its updates are not.
            background: whether wall and floor have instances too.
        """
        ...


@dataclass(frozen=True)
class SegmenterEntry:
    """The pipeline with some weights and settings.

    Attributes:
        name: in tables and figures.
        config: settings, among them the weights.
        oracles: parts that are replaced by ground truth, see `ORACLES`.
        rotations: headings over which the classes are averaged (SSEN).
    """

    name: str
    config: SegmenterConfig = field(default_factory=SegmenterConfig)
    oracles: tuple[str, ...] = ()
    rotations: int = 1

    def scores(self, case: Case, modes: Sequence[str]) -> dict[str, Score]:
        """A score per mode ("offline", "online"); averaged classes are for finished maps: "offline" alone."""
        modes = ("offline",) if self.rotations > 1 else modes
        segmenter = segmenter_for(self.config, self.oracles, self.rotations)
        install_oracles(segmenter, case.truth, self.oracles)
        result = evaluate_case(segmenter, case, modes)
        segmenter.reset()  # the next entry's segmenter may need the memory
        return {mode: Score.of(outcome, mode == "online") for mode, outcome in result.outcomes.items()}

    def answer(self, case: Case, background: bool) -> tuple[Predictions, float]:
        """See `Entry`. Instances of wall and floor, which no grouper makes, are the connected components of their voxels."""
        segmenter = segmenter_for(self.config, self.oracles, self.rotations)
        install_oracles(segmenter, case.truth, self.oracles)
        supply_labels(segmenter, case.truth)
        segmenter.reset()
        start = time.perf_counter()
        found = [one for one in segmenter.process(case.final).instances if one.voxels]
        cloud = segmenter.cloud(segmenter.map.lookup(case.final.coords))
        ids, classes, scores = (np.array([getattr(one, name) for one in found]) for name in ("id", "class_index", "score"))
        predictions = Predictions.from_map(cloud.instance, ids, classes, scores)
        if background:
            parts = connected_components(case.final.coords, cloud.class_index, cloud.confidence, classes=BACKGROUND)
            large = np.bincount(parts.owner, minlength=len(parts.score)) >= default_min_region(case.final.voxel_size_m)
            predictions = predictions.joined(parts.take(large))
        seconds = time.perf_counter() - start
        segmenter.reset()
        return predictions, seconds


@dataclass(frozen=True)
class BaselineEntry:
    """A baseline, on the classes of a network or on the true ones.

    Attributes:
        name: in tables and figures.
        kind: one of `BASELINES`.
        config: settings of the segmenter whose classes are taken; None = the true classes, with probability 1.
        rotations: headings over which those are averaged.
    """

    name: str
    kind: str
    config: SegmenterConfig | None = None
    rotations: int = 1

    def scores(self, case: Case, modes: Sequence[str]) -> dict[str, Score]:
        """The score of the final map; a baseline has no ids that could last, so there is nothing to run online."""
        del modes
        predictions, seconds = self.answer(case, False)
        return {"offline": Score(Scan(*case.truth.lookup(case.final.coords), predictions), seconds)}

    def answer(self, case: Case, background: bool) -> tuple[Predictions, float]:
        """See `Entry`."""
        coords = case.final.coords
        if self.config is None:
            truth, _ = case.truth.lookup(coords)
            start, classes, probability = time.perf_counter(), truth, (truth != IGNORE).astype(np.float32)
        else:
            segmenter = segmenter_for(self.config, (), self.rotations)
            segmenter.reset()
            start = time.perf_counter()
            segmenter.runner.refresh(segmenter.map, segmenter.map.apply(case.final))
            semantic = segmenter.runner.prediction.semantic[segmenter.map.lookup(coords)]
            classes, probability = semantic.argmax(1).astype(np.uint8), semantic.max(1)
        more = {"classes": range(NUM_CLASSES)} if background else {}
        predictions = BASELINES[self.kind](coords, classes, probability, **more)
        seconds = time.perf_counter() - start
        if self.config is not None:
            segmenter.reset()
        return predictions, seconds


@dataclass(frozen=True)
class FoldEntry:
    """Another entry for every part of a data set: what is asked about a part has not been trained on it.

    Attributes:
        name: in tables and figures.
        folds: entry by part, the beginning of the scans' names ("Area_5").
    """

    name: str
    folds: Mapping[str, Entry]

    def scores(self, case: Case, modes: Sequence[str]) -> dict[str, Score]:
        """Those of the fold's entry."""
        return self._of(case).scores(case, modes)

    def answer(self, case: Case, background: bool) -> tuple[Predictions, float]:
        """That of the fold's entry."""
        return self._of(case).answer(case, background)

    def _of(self, case: Case) -> Entry:
        found = [entry for part, entry in self.folds.items() if case.name.startswith(part + "_")]
        if not found:
            raise ConfigError(f"{self.name} has no weights for {case.name}, only for {', '.join(self.folds)}")
        return found[0]


def make_entries(texts: Sequence[str], baselines: Sequence[str], true_classes: bool, base: SegmenterConfig) -> tuple[Entry, ...]:
    """The rows of a comparison, baselines first, as in the papers' tables.

    Args:
        texts: of `parse_entry`; none = the weights of `base`.
        baselines: names in `BASELINES`; "none" and no others = none.
        true_classes: whether the baselines take the true classes; else those that the first entry predicts.
        base: settings of everything that is not named.

    Raises:
        ConfigError: two have the same name, or as of `parse_entry`.
    """
    segmenters = [parse_entry(text, base) for text in texts or ["instseg_ros="]]
    first = segmenters[0]
    classes: tuple[SegmenterConfig | None, int] = (None, 1) if true_classes else (first.config, first.rotations)
    entries: tuple[Entry, ...] = (*(BaselineEntry(kind, kind, *classes) for kind in baselines if kind != "none"), *segmenters)
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise ConfigError(f"two entries have the same name among {', '.join(names)}: give each its own")
    return entries


def parse_entry(text: str, base: SegmenterConfig) -> SegmenterEntry:
    """An entry from `NAME=WEIGHTS[,SETTING=VALUE...]`.

    Args:
        text: WEIGHTS is a safetensors file, or empty for the weights of `base`; a setting is one of the segmenter's, such as
            `grouping.method=hdbscan`, or `oracle=semantic+grouping`, or `rotations=10`.
        base: settings of everything that is not named; the grouping is that which WEIGHTS bring, where they bring one.

    Raises:
        ConfigError: not of that form, or an unknown setting, value or oracle.
        WeightsError: there are no such weights.
    """
    name, equals, rest = text.partition("=")
    weights, *pairs = rest.split(",")
    settings = dict(pair.partition("=")[::2] for pair in pairs)
    if not equals or not name or not all("=" in pair for pair in pairs):
        raise ConfigError(f"--entry {text!r}: expected NAME=WEIGHTS[,SETTING=VALUE...], like mtml=out/mtml.safetensors,grouping.min_voxels=30")
    oracles = tuple(filter(None, settings.pop("oracle", "").split("+")))
    if unknown := sorted(set(oracles) - set(ORACLES)):
        raise ConfigError(f"--entry {text!r}: no oracle for {', '.join(unknown)}; there is one for {', '.join(ORACLES)}")
    rotations = _rotations(text, settings.pop("rotations", "1"))
    kinds = {key: str if isinstance(value, str) else None for key, value in flatten(base).items()}
    values = {key: value if kinds.get(key) is str else yaml.safe_load(value) for key, value in settings.items()}
    if not weights:
        return SegmenterEntry(name, from_mapping(SegmenterConfig, values, base), oracles, rotations)
    values["weights"] = weights
    config = settings_over_weights(  # other weights bring a grouping of their own
        SegmenterConfig, lambda brought: from_mapping(SegmenterConfig, values, base if brought is None else replace(base, grouping=brought.grouping)))
    return SegmenterEntry(name, config, oracles, rotations)


def _rotations(text: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"--entry {text!r}: rotations={value} must be a whole number, 1 or more (10 in SSEN)")
    return int(value)


_segmenters: dict[str, Segmenter] = {}


def segmenter_for(config: SegmenterConfig, oracles: Sequence[str] = (), rotations: int = 1) -> Segmenter:
    """This process's segmenter with these settings, made and warmed up at first use: scenes share it.

    Segmenters with oracles or rotations are kept apart, since those stay installed.
    """
    key = f"{config!r} {sorted(oracles)} {rotations}"
    if key not in _segmenters:
        segmenter = Segmenter(config)
        supply_labels(segmenter, None)
        segmenter.warm_up()  # so that the first scene's time is not that of threads and tables that are set up lazily
        if rotations > 1:
            segmenter.runner = RotationRunner(segmenter.runner, rotations)  # type: ignore[assignment]
        _segmenters[key] = segmenter
    return _segmenters[key]
