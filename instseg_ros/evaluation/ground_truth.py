"""Ground truth per voxel, and parts of the pipeline replaced by it: which part limits the average precision?"""

__all__ = ["ORACLES", "GroundTruth", "OracleGrouper", "OracleRunner", "install_oracles", "supply_labels"]

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.grouping.segmentation import Segment, Segmentation
from instseg_ros.labels import BACKGROUND, IGNORE, NUM_CLASSES
from instseg_ros.mapping.update import coord_keys, voxel_centers
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.prediction import Prediction

if TYPE_CHECKING:
    from instseg_ros.segmenter import Segmenter

ORACLES = ("semantic", "offset", "embedding", "direction", "occupancy", "grouping")
"""Parts that can be replaced by ground truth: outputs of the network (where it has that head), the partition into instances."""

_CODE_STEP = 2.0
"""Distance between the embeddings of two ground-truth instances: twice what the push loss asks for at its default margin."""


@dataclass(frozen=True)
class GroundTruth:
    """Class and instance of voxels, found by their coordinates."""

    coords: np.ndarray
    """[N, 3] int32, unique, in the order of `coord_keys`."""
    class_index: np.ndarray
    """[N] uint8, `IGNORE` where unknown."""
    instance: np.ndarray
    """[N] int32, -1 where there is none."""
    voxel_size_m: float

    @classmethod
    def of(cls, coords: np.ndarray, class_index: np.ndarray, instance: np.ndarray, voxel_size_m: float) -> "GroundTruth":
        """Ground truth from voxels in any order."""
        order = np.argsort(coord_keys(coords))
        return cls(
            coords[order].astype(np.int32), class_index[order].astype(np.uint8), instance[order].astype(np.int32), voxel_size_m,
        )

    def lookup(self, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class [M] uint8 and instance [M] int32 of voxels [M, 3]; `IGNORE` and -1 for voxels that are not known."""
        class_index = np.full(len(coords), IGNORE, np.uint8)
        instance = np.full(len(coords), -1, np.int32)
        if len(self.coords):
            keys, wanted = coord_keys(self.coords), coord_keys(coords)
            row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = keys[row] == wanted
            class_index[known], instance[known] = self.class_index[row[known]], self.instance[row[known]]
        return class_index, instance

    def centers_m(self) -> np.ndarray:
        """Mean voxel centre [max instance + 1, 3] float64 of each instance, as the offsets are trained; NaN where unused."""
        mine = self.instance >= 0
        instance = self.instance[mine]
        points = voxel_centers(self.coords[mine], self.voxel_size_m).astype(np.float64)
        count = np.bincount(instance).astype(np.float64)
        count[count == 0] = np.nan
        return np.stack([np.bincount(instance, points[:, axis], len(count)) / count for axis in range(3)], axis=1)


def instance_codes(instance: np.ndarray, width: int) -> np.ndarray:
    """Embeddings [N, width] float32 that tell instances [N] >= 0 apart: the digits of their number, at least 2 apart."""
    base = 2
    while base**width <= int(instance.max(initial=0)):
        base += 1
    digits = instance[:, None].astype(np.int64) // base ** np.arange(width, dtype=np.int64) % base
    return (_CODE_STEP * digits).astype(np.float32)


class Runner(Protocol):
    """What a runner does for a segmenter."""

    @property
    def prediction(self) -> Prediction: ...
    def refresh(self, voxels: VoxelMap, delta: MapDelta, /) -> np.ndarray: ...
    def reset(self) -> None: ...


class OracleRunner:
    """A runner whose outputs are replaced by ground truth wherever there is some.

    Args:
        inner: the runner that it asks for everything else.
        truth: ground truth of all voxels that will be seen.
        parts: among `ORACLES`, without "grouping".
    """

    def __init__(self, inner: Runner, truth: GroundTruth, parts: Collection[str]) -> None:
        self.inner = inner
        self.truth = truth
        self.parts = frozenset(parts)
        self.prediction: Prediction = inner.prediction

    def refresh(self, voxels: VoxelMap, delta: MapDelta) -> np.ndarray:
        """As the inner runner's."""
        changed = self.inner.refresh(voxels, delta)
        found = self.inner.prediction
        outputs = {name: values.copy() for name, values in found.items()}
        live = voxels.live_slots()
        class_index, instance = self.truth.lookup(voxels.coords[live])
        if "semantic" in self.parts:
            known = class_index != IGNORE
            outputs["semantic"][live[known]] = np.eye(NUM_CLASSES, dtype=np.float32)[class_index[known]]
        mine, instance = live[instance >= 0], instance[instance >= 0]
        if "offset" in self.parts and "offset" in outputs and len(mine):
            outputs["offset"][mine] = self.truth.centers_m()[instance] - voxels.centers_m(mine)
        if "embedding" in self.parts and "embedding" in outputs:
            outputs["embedding"][mine] = instance_codes(instance, outputs["embedding"].shape[1])
        if "direction" in self.parts and "direction" in outputs and len(mine):
            to_center = self.truth.centers_m()[instance] - voxels.centers_m(mine)
            outputs["direction"][mine] = to_center / np.maximum(np.linalg.norm(to_center, axis=1, keepdims=True), 1e-6)
        if "occupancy" in self.parts and "occupancy" in outputs and len(mine):
            outputs["occupancy"][mine, 0] = np.log(np.bincount(instance))[instance]
        self.prediction = Prediction(**outputs)
        return changed

    def reset(self) -> None:
        """As the inner runner's."""
        self.inner.reset()
        self.prediction = self.inner.prediction


class OracleGrouper:
    """The true partition into instances, with predicted classes.

    A segment's class is the one of highest mean probability over its voxels; where that is a background class, or the segment
    is smaller or less certain than the settings ask for, the instance is missed, as it would be by any grouper behind these
    classes.
    """

    def __init__(self, config: GroupingConfig, truth: GroundTruth) -> None:
        self.config = config
        self.truth = truth
        self._next = 0
        self._ids: set[int] = set()

    def regroup(self, voxels: VoxelMap, prediction: Prediction, changed: np.ndarray, delta: MapDelta) -> Segmentation:
        """As `Grouper.regroup`; every segment is a new one at every call."""
        live = voxels.live_slots()
        _, instance = self.truth.lookup(voxels.coords[live])
        segment = np.full(voxels.capacity, -1, np.int32)
        segments: dict[int, Segment] = {}
        order = np.lexsort((coord_keys(voxels.coords[live]), instance))
        ids, starts = np.unique(instance[order], return_index=True)
        for number, slots in zip(ids.tolist(), np.split(live[order], starts[1:]), strict=True):
            if number < 0 or len(slots) < self.config.min_voxels:
                continue
            mean = prediction.semantic[slots].mean(0)
            best = int(mean.argmax())
            if best in BACKGROUND or mean[best] < self.config.min_score:
                continue
            segment[slots] = self._next
            segments[self._next] = Segment(slots.astype(np.int32), best, float(mean[best]))
            self._next += 1
        gone, self._ids = self._ids, set(segments)
        return Segmentation(segment, segments, set(segments), gone)

    def reset(self) -> None:
        """Nothing to forget: every call groups anew."""


def supply_labels(segmenter: "Segmenter", truth: GroundTruth | None) -> None:
    """Give a network that reads true classes (`ModelConfig.label_input`) those of the ground truth; None: no class is known."""
    runner: Any = segmenter.runner.inner if isinstance(segmenter.runner, OracleRunner) else segmenter.runner
    unknown = GroundTruth(np.zeros((0, 3), np.int32), np.zeros(0, np.uint8), np.zeros(0, np.int32), segmenter.config.voxel_size_m)
    known = truth or unknown
    runner.labels_of = lambda coords: known.lookup(coords)[0]


def install_oracles(segmenter: "Segmenter", truth: GroundTruth, parts: Collection[str]) -> None:
    """Replace parts of a segmenter by ground truth; `Segmenter.reset` keeps them.

    Raises:
        ConfigError: a part is not in `ORACLES`.
    """
    unknown = sorted(set(parts) - set(ORACLES))
    if unknown:
        raise ConfigError(f"no oracle for {', '.join(unknown)}: there is one for {', '.join(ORACLES)}")
    predicted = set(parts) - {"grouping"}
    if predicted:
        inner = segmenter.runner.inner if isinstance(segmenter.runner, OracleRunner) else segmenter.runner
        segmenter.runner = OracleRunner(inner, truth, predicted)  # type: ignore[assignment]
    if "grouping" in parts:
        segmenter.grouper = OracleGrouper(segmenter.config.grouping, truth)  # type: ignore[assignment]
