"""HOTA, its detection and association parts, and CLEAR's id switches on voxel overlap, by the TrackEval library."""

__all__ = ["HotaResult", "TrackSequence", "hota"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instseg_ros.errors import InputError, require
from instseg_ros.evaluation.overlap import id_overlaps


class TrackSequence:
    """Objects, ids and their IoU at every update of one run: what trackers are judged on.

    As in `IdConsistency`, an object counts at an update if it has at least `min_voxels` voxels in the map, and every predicted id
    counts.
    """

    def __init__(self, min_voxels: int = 20) -> None:
        """
        Args:
            min_voxels: objects with fewer voxels in the map are not asked for.
        """
        self.min_voxels = min_voxels
        self.steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """Per update: objects [G], predicted ids [P], similarity [G, P] in 0..1."""

    def add(self, gt_instance: np.ndarray, predicted_id: np.ndarray) -> None:
        """Account for the state of the map after one update; arguments as of `IdConsistency.add`."""
        table = id_overlaps(gt_instance, predicted_id)
        similarity = np.zeros((len(table.objects), len(table.ids)))
        similarity[table.pair_object, table.pair_id] = table.pair_iou
        large = table.object_size >= self.min_voxels
        self.add_similarity(table.objects[large], table.ids, similarity[large])

    def add_similarity(self, objects: np.ndarray, ids: np.ndarray, similarity: np.ndarray) -> None:
        """Account for one update whose overlaps are known.

        Args:
            objects: [G] ground-truth objects, each once.
            ids: [P] predicted ids, each once.
            similarity: [G, P] in 0..1.

        Raises:
            InputError: shapes that disagree, or an object or id named twice.
        """
        objects, ids, similarity = np.asarray(objects, np.int64), np.asarray(ids, np.int64), np.asarray(similarity, np.float64)
        if similarity.shape != (len(objects), len(ids)):
            raise InputError(f"similarity is {similarity.shape} for {len(objects)} objects and {len(ids)} ids: it must be [objects, ids]")
        if len(np.unique(objects)) != len(objects) or len(np.unique(ids)) != len(ids):
            raise InputError("an object or id is named twice in one update: give each once")
        self.steps.append((objects, ids, similarity))

    def library_data(self) -> dict[str, Any]:
        """The form in which TrackEval's metrics take a sequence: ids numbered from 0, arrays per update."""
        objects = np.unique(np.concatenate([step[0] for step in self.steps] or [np.zeros(0, np.int64)]))
        ids = np.unique(np.concatenate([step[1] for step in self.steps] or [np.zeros(0, np.int64)]))
        gt_ids = [np.searchsorted(objects, step[0]) for step in self.steps]
        tracker_ids = [np.searchsorted(ids, step[1]) for step in self.steps]
        return {
            "gt_ids": gt_ids, "tracker_ids": tracker_ids, "similarity_scores": [step[2] for step in self.steps],
            "num_gt_dets": sum(map(len, gt_ids)), "num_tracker_dets": sum(map(len, tracker_ids)),
            "num_gt_ids": len(objects), "num_tracker_ids": len(ids), "num_timesteps": len(self.steps),
        }


@dataclass(frozen=True)
class HotaResult:
    """Over IoU thresholds [19] from 0.05 to 0.95, and at IoU 0.5 for the switches."""

    thresholds: np.ndarray
    hota: np.ndarray
    """[19] geometric mean of the next two."""
    detection: np.ndarray
    """[19] DetA = TP / (TP + FN + FP)."""
    association: np.ndarray
    """[19] AssA: mean over the matches of the Jaccard index of the two tracks."""
    id_switches: int
    """CLEAR's IDSW at IoU 0.5: every change of the id matched to an object."""
    matches: int
    """CLEAR's true positives at IoU 0.5."""

    def at(self, threshold: float) -> dict[str, float]:
        """HOTA, DetA and AssA at one of the thresholds."""
        row = int(np.argmin(np.abs(self.thresholds - threshold)))
        return {"hota": float(self.hota[row]), "deta": float(self.detection[row]), "assa": float(self.association[row])}

    def figures(self) -> dict[str, float | int]:
        """The means over all thresholds, as HOTA is reported, AssA at 0.5, and the switches."""
        return {
            "hota": float(self.hota.mean()), "hota_deta": float(self.detection.mean()), "hota_assa": float(self.association.mean()),
            "hota_assa_50": self.at(0.5)["assa"], "clear_id_switches": self.id_switches, "clear_matches": self.matches,
        }


def hota(sequences: Sequence[TrackSequence]) -> HotaResult:
    """HOTA (Luiten et al., IJCV 2021) and CLEAR id switches over several runs, combined as TrackEval combines sequences.

    Raises:
        MissingDependencyError: TrackEval is not installed.
        InputError: there is no sequence.
    """
    if not sequences:
        raise InputError("no sequence to compute HOTA of: run something online first")
    metrics = require("trackeval.metrics", "compute HOTA", "pip install 'instseg_ros[evaluation]' or pip install trackeval")
    data = {str(number): sequence.library_data() for number, sequence in enumerate(sequences)}
    tracks, switches = metrics.HOTA(), metrics.CLEAR({"THRESHOLD": 0.5, "PRINT_CONFIG": False})
    found = tracks.combine_sequences({name: tracks.eval_sequence(one) for name, one in data.items()})
    clear = switches.combine_sequences({name: switches.eval_sequence(one) for name, one in data.items()})
    return HotaResult(
        np.asarray(tracks.array_labels), found["HOTA"], found["DetA"], found["AssA"], int(clear["IDSW"]), int(clear["CLR_TP"]),
    )
