"""Do the ids last? Id switches and association accuracy of the instances over a run."""

__all__ = ["IdConsistency"]

from collections import Counter

import numpy as np

from instseg_ros.evaluation.overlap import id_overlaps


class IdConsistency:
    """Counts id switches over the updates of one run, as MOTA counts them, on voxels instead of boxes.

    At every update, a ground-truth object with at least `min_voxels` voxels in the map is *matched* to the id predicted with
    which its voxel IoU exceeds one half; there is at most one such id per object and one such object per id. Both sets are
    taken over the whole map at that moment, so an object that is half seen is compared with what is seen of it. Voxels without
    ground truth (-1) belong to no object; under a predicted id they enlarge the union.

    * An *instance-update* is an object matched at an update.
    * A *switch* is an instance-update whose id differs from the id of the same object's last instance-update, no matter how
      long ago that was and whether the old id still exists somewhere. There is one exception: where the old id still holds at
      least half of the voxels on this object that it held when it was last matched, the object has come to be in pieces (a
      larger piece was discovered beside the old one), and both ids are the object's for as long as both hold their pieces.

    An object that is in pieces, or in one piece with its neighbour, is an error of the segmentation, which AP measures. What is
    counted here are ids that change on an object that is whole before and after.
    """

    def __init__(self, min_voxels: int = 20) -> None:
        """
        Args:
            min_voxels: objects with fewer voxels in the map are not looked at.
        """
        self.min_voxels = min_voxels
        self.switches = 0
        self.instance_updates = 0
        self.switched: list[tuple[int, int, int, int]] = []
        """(update counted from 0, ground-truth object, id before, id now) of each switch."""
        self._updates = 0
        # object -> its ids -> voxels held when last matched; the id of the last match stands last
        self._ids_of: dict[int, dict[int, int]] = {}
        self._object_updates: Counter[int] = Counter()
        self._id_updates: Counter[int] = Counter()
        self._pair_updates: Counter[tuple[int, int]] = Counter()

    def add(self, gt_instance: np.ndarray, predicted_id: np.ndarray) -> int:
        """Account for the state of the map after one update.

        Args:
            gt_instance: [N] ground-truth object of every voxel of the map, -1 where there is none.
            predicted_id: [N] lasting instance id of the same voxels, 0 where there is none.

        Returns:
            The number of switches in this update.
        """
        table = id_overlaps(gt_instance, predicted_id)
        objects, names, g, p = table.objects, table.ids, table.pair_object, table.pair_id
        large = table.object_size >= self.min_voxels
        matched = (2 * table.shared > table.object_size[g] + table.id_size[p] - table.shared) & large[g]

        self._object_updates.update(objects[large].tolist())
        self._id_updates.update(names.tolist())
        before = self.switches
        held = dict(zip(zip(objects[g].tolist(), names[p].tolist(), strict=True), table.shared.tolist(), strict=True))
        for thing, name in zip(objects[g[matched]].tolist(), names[p[matched]].tolist(), strict=True):
            self._match(thing, name, held)
        self._updates += 1
        return self.switches - before

    def _match(self, thing: int, name: int, held: dict[tuple[int, int], int]) -> None:
        """Account for one instance-update; `held` has the voxels of every overlapping (object, id)."""
        known = self._ids_of.get(thing, {})
        kept = {i: voxels for i, voxels in known.items() if i != name and 2 * held.get((thing, i), 0) >= voxels}
        if known and name not in known and not kept:
            self.switches += 1
            self.switched.append((self._updates, thing, next(reversed(known)), name))
        self._ids_of[thing] = {**kept, name: held[thing, name]}
        self._pair_updates[thing, name] += 1
        self.instance_updates += 1

    @property
    def switches_per_1000(self) -> float:
        """Switches per 1000 instance-updates; NaN before the first one."""
        return 1000.0 * self.switches / self.instance_updates if self.instance_updates else float("nan")

    @property
    def association_accuracy(self) -> float:
        """HOTA's AssA at IoU 0.5, in 0..1: NaN before the first instance-update.

        For an instance-update of object g with id i, A = updates in which g and i are matched / updates in which g (with
        `min_voxels`) or i is in the map; AssA is the mean of A over all instance-updates.
        """
        if not self.instance_updates:
            return float("nan")
        total = sum(
            count * count / (self._object_updates[thing] + self._id_updates[name] - count)
            for (thing, name), count in self._pair_updates.items()
        )
        return total / self.instance_updates
