"""Which predicted instance shares how much with which true one: what the protocols without void rules are computed from."""

__all__ = ["InstanceOverlaps", "instance_overlaps"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.errors import InputError
from instseg_ros.evaluation.instances import Scan
from instseg_ros.labels import IGNORE


@dataclass(frozen=True)
class InstanceOverlaps:
    """One scan as instances instead of voxels."""

    gt_class: np.ndarray
    """[G] class of each true instance: the most frequent one of its voxels, the lowest of equally frequent ones."""
    gt_size: np.ndarray
    """[G] voxels."""
    size: np.ndarray
    """[P] voxels of each prediction, in the order given."""
    pair_gt: np.ndarray
    """[K] of every pair that shares a voxel, in the order (ground truth, prediction)."""
    pair_prediction: np.ndarray
    """[K]."""
    pair_iou: np.ndarray
    """[K] intersection over union."""


def instance_overlaps(scan: Scan) -> InstanceOverlaps:
    """Instances of a scan and their overlaps, whatever their classes are.

    A true instance is an instance id >= 0 with at least one voxel of a known class; voxels of other ids belong to nothing, and
    under a prediction they enlarge its union.

    Raises:
        InputError: arrays of different length, or members outside of the scan.
    """
    predictions = scan.predictions
    count = len(scan.class_index)
    if len(scan.instance) != count:
        raise InputError(f"{count} ground-truth classes and {len(scan.instance)} instances: both must have one entry per voxel")
    if len(predictions.members) and not 0 <= predictions.members.min() <= predictions.members.max() < count:
        raise InputError(f"predictions name voxels beyond the scan's {count}: they must be over the voxels of the ground truth")
    known = (np.asarray(scan.instance) >= 0) & (scan.class_index != IGNORE)
    ids = np.unique(np.asarray(scan.instance)[known])
    row = np.full(count, -1, np.int64)
    place = np.minimum(np.searchsorted(ids, scan.instance), max(len(ids) - 1, 0))
    if len(ids):
        row = np.where(ids[place] == scan.instance, place, -1)
    gt_size = np.bincount(row[row >= 0], minlength=len(ids))
    votes = np.zeros((len(ids), 256), np.int64)
    np.add.at(votes, (row[known], np.asarray(scan.class_index, np.int64)[known]), 1)

    many = max(len(predictions.score), 1)
    size = np.bincount(predictions.owner, minlength=len(predictions.score))
    shared_gt = row[predictions.members]
    cells, shared = np.unique(shared_gt[shared_gt >= 0] * many + predictions.owner[shared_gt >= 0], return_counts=True)
    pair_gt, pair_prediction = cells // many, cells % many
    iou = shared / (gt_size[pair_gt] + size[pair_prediction] - shared)
    return InstanceOverlaps(votes.argmax(1).astype(np.uint8), gt_size, size, pair_gt, pair_prediction, iou)
