"""Instance average precision by the ScanNet protocol (`evaluate_semantic_instance.py` of ScanNet's BenchmarkScripts)."""

__all__ = [
    "EVALUATED_CLASSES", "OVERLAPS", "SCANNET_MIN_VERTICES", "ApResult", "ClassAp", "Predictions", "Scan", "ScanOverlaps",
    "average_precision", "default_min_region", "scan_overlaps",
]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.labels import BACKGROUND, CLASS_NAMES, IGNORE, NUM_CLASSES

OVERLAPS = tuple(np.append(np.arange(0.5, 0.95, 0.05), 0.25).tolist())
"""IoU thresholds of the benchmark: 0.50, 0.55, ... 0.90, and 0.25, which counts for `ap25` alone. The protocol is quoted as
0.5:0.05:0.95, but the script's `np.arange` stops before 0.95."""
EVALUATED_CLASSES = tuple(c for c in range(NUM_CLASSES) if c not in BACKGROUND)
"""Class indices that have instances: all but wall and floor."""

SCANNET_MIN_VERTICES = 100
"""Smaller instances do not count in the benchmark."""
_SCANNET_VERTEX_SPACING_M = 0.02


def default_min_region(voxel_size_m: float) -> int:
    """Voxels below which an instance is too small to count.

    ScanNet leaves out instances of fewer than 100 vertices, on meshes with one vertex every 2 cm or so. The same surface holds
    100 * (0.02 / voxel size)**2 voxels: 16 at 5 cm.
    """
    return max(1, round(SCANNET_MIN_VERTICES * (_SCANNET_VERTEX_SPACING_M / voxel_size_m) ** 2))


@dataclass(frozen=True)
class Predictions:
    """The predicted instances of one scan, as sets of voxels that may overlap."""

    members: np.ndarray
    """[M] int64: voxel indices of all masks, one after the other, each voxel once per mask."""
    owner: np.ndarray
    """[M] int64: index of the mask each member belongs to."""
    class_index: np.ndarray
    """[P] uint8."""
    score: np.ndarray
    """[P] float64 confidence; only its order matters."""

    @classmethod
    def from_map(cls, instance: np.ndarray, ids: np.ndarray, class_index: np.ndarray, score: np.ndarray) -> "Predictions":
        """Predictions from an instance id per voxel.

        Args:
            instance: [N] integers; ids that are not in `ids` (0, -1, ...) are no instance.
            ids: [P] the ids of the instances, unique.
            class_index, score: [P] of each id.
        """
        ids = np.asarray(ids, np.int64)
        instance = np.asarray(instance, np.int64)
        if len(np.unique(ids)) != len(ids):
            raise InputError("an instance id is listed twice: give each id once, with its class and score")
        order = np.argsort(ids)
        place = np.searchsorted(ids, instance, sorter=order)
        owner = np.full(len(instance), -1, np.int64)
        inside = place < len(ids)
        owner[inside] = order[place[inside]]
        owner[inside] = np.where(ids[owner[inside]] == instance[inside], owner[inside], -1)
        members = np.flatnonzero(owner >= 0)
        return cls(members, owner[members], np.asarray(class_index, np.uint8), np.asarray(score, np.float64))

    @classmethod
    def from_masks(cls, masks: Sequence[np.ndarray], class_index: np.ndarray, score: np.ndarray) -> "Predictions":
        """Predictions from masks [N] bool, which may overlap."""
        indices = [np.flatnonzero(mask) for mask in masks]
        owner = np.repeat(np.arange(len(indices)), [len(i) for i in indices])
        members = np.concatenate(indices) if indices else np.zeros(0, np.int64)
        return cls(members, owner, np.asarray(class_index, np.uint8), np.asarray(score, np.float64))

    def take(self, chosen: np.ndarray) -> "Predictions":
        """The predictions [K] of these indices (or of a mask [P]), in their order."""
        rows = np.arange(len(self.score))[chosen]
        place = np.full(len(self.score), -1, np.int64)
        place[rows] = np.arange(len(rows))
        owner = place[self.owner]
        return Predictions(self.members[owner >= 0], owner[owner >= 0], self.class_index[rows], self.score[rows])

    def joined(self, other: "Predictions") -> "Predictions":
        """These predictions, then those of the other, over the same voxels."""
        return Predictions(
            np.concatenate([self.members, other.members]), np.concatenate([self.owner, other.owner + len(self.score)]),
            np.concatenate([self.class_index, other.class_index]), np.concatenate([self.score, other.score]))


@dataclass(frozen=True)
class Scan:
    """Ground truth and predictions over the same N voxels.

    A ground-truth instance is a pair (class, instance): voxels of one instance id with two classes are two instances.
    """

    class_index: np.ndarray
    """[N] uint8 ground-truth class, `IGNORE` where unknown."""
    instance: np.ndarray
    """[N] int32 ground-truth instance, -1 where there is none (background or unknown)."""
    predictions: Predictions


@dataclass(frozen=True)
class ClassAp:
    """Average precision of one class; NaN where the scans hold no instance of it."""

    ap: float
    ap50: float
    ap25: float
    instances: int
    """Ground-truth instances that count."""
    predictions: int
    """Predicted instances that are large enough, those over void voxels included."""


@dataclass(frozen=True)
class ApResult:
    """Means over the classes that have ground truth (NaN if none has), and each class."""

    ap: float
    ap50: float
    ap25: float
    per_class: dict[str, ClassAp]


@dataclass(frozen=True)
class ScanOverlaps:
    """What the protocol needs of one scan, much smaller than it: instances of the classes evaluated, and who overlaps whom within a class.

    Predictions are in the order given, pairs in the order (ground truth, prediction).
    """

    gt_class: np.ndarray
    gt_counts: np.ndarray
    """[G] bool: large enough to count."""
    class_index: np.ndarray
    score: np.ndarray
    size: np.ndarray
    ignored: np.ndarray
    """[P] members over void voxels or over ground truth of the same class that is too small."""
    pair_gt: np.ndarray
    pair_prediction: np.ndarray
    pair_iou: np.ndarray


def average_precision(
    scans: Iterable[Scan | ScanOverlaps], classes: Sequence[int] = EVALUATED_CLASSES, min_region: int = 16,
    overlaps: Sequence[float] = OVERLAPS,
) -> ApResult:
    """AP, AP50 and AP25 over scans by the rules of ScanNet's instance benchmark.

    * Ground truth of classes outside `classes`, and voxels without class or instance, are void.
    * Predictions and ground truth of fewer than `min_region` voxels do not count.
    * A prediction hits a ground-truth instance of its class where their IoU exceeds the threshold. Per instance one hit counts,
      the one with the highest score; the others are false positives.
    * A prediction without a hit is a false positive, unless a share of it above the threshold lies over void voxels or over
      instances of its class that are too small.
    * Precision and recall are taken at every distinct score; AP is the dot product of precision and the recall steps, convolved
      with [-0.5, 0, 0.5]. Classes without ground truth are NaN and stay out of the means.

    Predictions are taken in the order given, as the script takes those of its file. The order matters only at thresholds below
    0.5, where one prediction can exceed the threshold with two instances: the first instance that nothing has hit yet takes it.
    One thing the script leaves open: where every prediction of a class is ignored it ends with an error; here the class has AP 0.

    Args:
        scans: consumed once, in any order; or what `scan_overlaps` made of them with the same classes and `min_region`.
        classes: class indices that are evaluated.
        min_region: voxels, see `default_min_region`.
        overlaps: IoU thresholds; must contain 0.5 and 0.25, and 0.25 stays out of the mean over thresholds.

    Raises:
        InputError: arrays of different length, members outside of a scan, or a score that is not a number.
    """
    tables = [scan if isinstance(scan, ScanOverlaps) else scan_overlaps(scan, classes, min_region) for scan in scans]
    ap = np.array([_class_aps(tables, classes, threshold) for threshold in overlaps]).reshape(len(overlaps), len(classes))
    is_25, is_50 = np.isclose(overlaps, 0.25), np.isclose(overlaps, 0.5)
    columns = np.stack([ap[~is_25].mean(0), ap[is_50].mean(0), ap[is_25].mean(0)], 1)
    found = columns[~np.isnan(columns[:, 0])]
    means = found.mean(0) if len(found) else np.full(3, np.nan)
    per_class = {}
    for row, c in zip(columns.tolist(), classes, strict=True):
        gt_count = sum(int(np.count_nonzero(t.gt_counts & (t.gt_class == c))) for t in tables)
        predicted = sum(int(np.count_nonzero(t.class_index == c)) for t in tables)
        per_class[CLASS_NAMES[c]] = ClassAp(row[0], row[1], row[2], gt_count, predicted)
    return ApResult(float(means[0]), float(means[1]), float(means[2]), per_class)


def scan_overlaps(scan: Scan, classes: Sequence[int] = EVALUATED_CLASSES, min_region: int = 16) -> ScanOverlaps:
    """One scan as `average_precision` needs it; arguments and errors as there."""
    wanted = np.asarray(classes, np.uint8)
    count, predictions = len(scan.class_index), scan.predictions
    if len(scan.instance) != count:
        raise InputError(f"{count} ground-truth classes and {len(scan.instance)} instances: both must have one entry per voxel")
    if len(predictions.members) and not 0 <= predictions.members.min() <= predictions.members.max() < count:
        raise InputError(f"predictions name voxels beyond the scan's {count}: they must be over the voxels of the ground truth")
    if len(predictions.class_index) != len(predictions.score):
        raise InputError(f"{len(predictions.class_index)} classes and {len(predictions.score)} scores: the lengths must agree")
    if np.isnan(predictions.score).any():
        raise InputError("a score is not a number: scores order the predictions, give every one a finite score")

    valid = np.isin(scan.class_index, wanted) & (scan.class_index != IGNORE) & (np.asarray(scan.instance) >= 0)
    key = (np.asarray(scan.class_index, np.int64) << 32) | np.where(valid, scan.instance, 0).astype(np.int64)
    gt_key, gt_of_valid, gt_size = np.unique(key[valid], return_inverse=True, return_counts=True)
    gt = np.full(count, len(gt_key), np.int64)  # the last column stands for void
    gt[valid] = gt_of_valid
    gt_class = (gt_key >> 32).astype(np.uint8)

    size = np.bincount(predictions.owner, minlength=len(predictions.score))
    kept = np.flatnonzero((size >= max(min_region, 1)) & np.isin(predictions.class_index, wanted))
    row = np.full(len(size), -1, np.int64)
    row[kept] = np.arange(len(kept))
    owner = row[predictions.owner]
    columns = len(gt_key) + 1
    cells, shared = np.unique(gt[predictions.members[owner >= 0]] * len(kept) + owner[owner >= 0], return_counts=True)
    pair_gt, pair_prediction = cells // max(len(kept), 1), cells % max(len(kept), 1)

    class_index, size = predictions.class_index[kept], size[kept]
    small = np.append(gt_size < min_region, True)  # void counts as too small to be asked for
    same_class = np.append(gt_class, IGNORE)[pair_gt] == class_index[pair_prediction]
    void = pair_gt == columns - 1
    to_ignore = void | (same_class & small[pair_gt])
    ignored = np.bincount(pair_prediction[to_ignore], shared[to_ignore], len(kept))
    pairs = same_class & ~void
    pair_gt, pair_prediction, shared = pair_gt[pairs], pair_prediction[pairs], shared[pairs]
    iou = shared / (gt_size[pair_gt] + size[pair_prediction] - shared)
    return ScanOverlaps(gt_class, ~small[:-1], class_index, predictions.score[kept], size, ignored, pair_gt, pair_prediction, iou)


def _class_aps(tables: list[ScanOverlaps], classes: Sequence[int], threshold: float) -> list[float]:
    """AP of each class at one IoU threshold."""
    parts = [_hits(table, threshold) for table in tables]
    found_class, is_true, score = (np.concatenate([part[i] for part in parts] or [np.zeros(0)]) for i in range(3))
    result = []
    for c in classes:
        gt_count = sum(int(np.count_nonzero(t.gt_counts & (t.gt_class == c))) for t in tables)
        of_class = found_class == c
        result.append(_integrate(is_true[of_class], score[of_class], gt_count) if gt_count else float("nan"))
    return result


def _hits(table: ScanOverlaps, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The true and false positives of one scan: class, whether it is true, score."""
    over = table.pair_iou > threshold
    best: dict[int, int] = {}  # ground truth -> its prediction of the highest score so far
    used: set[int] = set()
    false_rows = []
    for g, p in zip(table.pair_gt[over].tolist(), table.pair_prediction[over].tolist(), strict=True):
        if p in used or not table.gt_counts[g]:
            continue
        if g not in best:
            best[g] = p
            used.add(p)  # a later hit of the same instance stays free, even where it has the higher score
        else:
            loser, best[g] = (best[g], p) if table.score[p] > table.score[best[g]] else (p, best[g])
            false_rows.append(loser)
    without_hit = np.bincount(table.pair_prediction[over], minlength=len(table.score)) == 0
    wrong = np.flatnonzero(without_hit & (table.ignored / np.maximum(table.size, 1) <= threshold))
    rows = np.concatenate([np.array(list(best.values()), np.int64), np.array(false_rows, np.int64), wrong])
    return table.class_index[rows], np.arange(len(rows)) < len(best), table.score[rows]


def _integrate(is_true: np.ndarray, score: np.ndarray, gt_count: int) -> float:
    """Area under the precision-recall curve of one class."""
    if not len(score):
        return 0.0
    order = np.argsort(score)
    positives = np.append(0, np.cumsum(is_true[order]))  # true positives below each place
    _, first = np.unique(score[order], return_index=True)
    true_positives = positives[-1] - positives[first]
    precision = np.append(true_positives / (len(score) - first), 1.0)
    recall = np.append(true_positives / gt_count, 0.0)  # the last point of the curve is artificial
    steps = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0.0, 0.5], "valid")
    return float(np.dot(precision, steps))
