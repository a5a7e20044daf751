"""A growing map beside its ground truth: what AP and the lasting of ids are computed from, whoever keeps the map."""

__all__ = ["MapJudge"]

from collections.abc import Sequence

import numpy as np

from instseg_ros.errors import DataError
from instseg_ros.evaluation.ground_truth import GroundTruth
from instseg_ros.evaluation.id_switches import IdConsistency
from instseg_ros.evaluation.instances import EVALUATED_CLASSES, Predictions, Scan, average_precision, default_min_region
from instseg_ros.instance import Instance
from instseg_ros.labels import IGNORE


class MapJudge:
    """Compares the states of one map with the truth.

    Args:
        truth: of the map's voxels; those it does not know count as void.
    """

    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth
        self.consistency = IdConsistency()

    def add(self, coords: np.ndarray, instance: np.ndarray) -> np.ndarray:
        """Take the state after an update: voxels [N, 3] and their ids [N]; returns their true objects [N] int32, -1 = none."""
        objects = self.truth.lookup(coords)[1]
        self.consistency.add(objects, instance)
        return objects

    def scan(self, coords: np.ndarray, instance: np.ndarray, instances: Sequence[Instance]) -> Scan:
        """Truth and predictions over the voxels [N, 3] of a state, with the id [N] of each and the instances behind the ids."""
        class_index, objects = self.truth.lookup(coords)
        ids = np.array([i.id for i in instances], np.int64)
        classes, scores = np.array([i.class_index for i in instances], np.uint8), np.array([i.score for i in instances], np.float64)
        return Scan(class_index, objects, Predictions.from_map(instance, ids, classes, scores))

    def figures(self, coords: np.ndarray, instance: np.ndarray, instances: Sequence[Instance]) -> dict[str, float | int | None]:
        """AP of the final state, and how well ids lasted over all states; None where there is nothing to measure.

        Raises:
            DataError: hardly a voxel of the map is labelled in the truth.
        """
        scan = self.scan(coords, instance, instances)
        known = float(np.mean(scan.class_index != IGNORE)) if len(coords) else 0.0
        if known < 0.1:
            raise DataError(
                f"the truth knows {100 * known:.0f} % of the map's voxels: it must be of the same place, in the map's frame and voxel size"
            )
        ap = average_precision([scan], EVALUATED_CLASSES, default_min_region(self.truth.voxel_size_m))
        ids = self.consistency
        values = {
            "truth_share": known, "ap": ap.ap, "ap50": ap.ap50, "ap25": ap.ap25, "id_switches": ids.switches,
            "instance_updates": ids.instance_updates, "id_switches_per_1000": ids.switches_per_1000, "assa": ids.association_accuracy,
        }
        return {name: None if np.isnan(value) else value for name, value in values.items()}
