"""Which predicted instance shares how much with which true one: what all measures but ScanNet's are computed from."""

__all__ = ["IdOverlaps", "InstanceOverlaps", "id_overlaps", "instance_overlaps"]

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
    class_index: np.ndarray
    """[P] class of each prediction."""
    score: np.ndarray
    """[P] float64."""
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
    return InstanceOverlaps(
        votes.argmax(1).astype(np.uint8), gt_size, size, np.asarray(predictions.class_index, np.uint8), np.asarray(predictions.score, np.float64),
        pair_gt, pair_prediction, iou)


@dataclass(frozen=True)
class IdOverlaps:
    """Objects and predicted ids in a map at one moment."""

    objects: np.ndarray
    """[G] ground-truth objects in the map, ascending."""
    object_size: np.ndarray
    """[G] voxels."""
    ids: np.ndarray
    """[P] predicted ids in the map, ascending."""
    id_size: np.ndarray
    """[P] voxels."""
    pair_object: np.ndarray
    """[K] row of `objects` of every pair that shares a voxel, in the order (object, id)."""
    pair_id: np.ndarray
    """[K] row of `ids`."""
    shared: np.ndarray
    """[K] voxels that both have."""

    @property
    def pair_iou(self) -> np.ndarray:
        """[K] intersection over union."""
        return self.shared / (self.object_size[self.pair_object] + self.id_size[self.pair_id] - self.shared)


def id_overlaps(gt_instance: np.ndarray, predicted_id: np.ndarray) -> IdOverlaps:
    """Who shares how many voxels with whom.

    Args:
        gt_instance: [N] ground-truth object of every voxel of the map, -1 where there is none.
        predicted_id: [N] instance id of the same voxels, 0 where there is none.

    Raises:
        InputError: the arrays are not over the same voxels.
    """
    gt, ids = np.asarray(gt_instance, np.int64), np.asarray(predicted_id, np.int64)
    if gt.shape != ids.shape or gt.ndim != 1:
        raise InputError(f"gt_instance is {gt.shape} and predicted_id {ids.shape}: both must be [N] over the same voxels")
    objects, gt_of, gt_size = np.unique(gt[gt >= 0], return_inverse=True, return_counts=True)
    names, id_of, id_size = np.unique(ids[ids > 0], return_inverse=True, return_counts=True)
    gt_row, id_row = np.full(len(gt), -1), np.full(len(ids), -1)
    gt_row[gt >= 0], id_row[ids > 0] = gt_of, id_of
    both = (gt_row >= 0) & (id_row >= 0)
    many = max(len(names), 1)
    cells, shared = np.unique(gt_row[both] * many + id_row[both], return_counts=True)
    return IdOverlaps(objects, gt_size, names, id_size, cells // many, cells % many, shared)
