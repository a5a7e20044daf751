"""The map as the last finished update left it, for questions asked while the worker computes the next one. No ROS in here."""

__all__ = ["FinishedMap"]

import threading

import numpy as np

from instseg_ros.instance import Instance
from instseg_ros.segmenter import LabelledCloud, SegmentationResult, Segmenter

_COLUMNS = ("points_m", "colors", "class_index", "instance", "confidence")


class FinishedMap:
    """A copy of what is published per voxel, brought up to date by what every update changed. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """There is no map."""
        with self._lock:
            self.last: SegmentationResult | None = None
            self._columns = LabelledCloud(
                np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.float32)
            )

    def follow(self, result: SegmentationResult, changed: LabelledCloud) -> None:
        """An update is finished; `changed` is the cloud of `result.relabelled`."""
        with self._lock:
            self._fit(int(max(result.relabelled.max(initial=-1), result.delta.removed.max(initial=-1))) + 1)
            self._columns.instance[result.delta.removed] = 0
            self._set(result.relabelled, changed)
            self.last = result

    def replace(self, result: SegmentationResult, segmenter: Segmenter) -> None:
        """Take the whole map anew."""
        slots = segmenter.map.live_slots()
        cloud = segmenter.cloud(slots)
        with self._lock:
            self._fit(int(slots.max(initial=-1)) + 1)
            self._columns.instance[:] = 0
            self._set(slots, cloud)
            self.last = result

    def find(self, i: int) -> tuple[SegmentationResult, Instance, LabelledCloud] | None:
        """A live instance, its voxels, and the result it is part of; None if there is none of this id."""
        with self._lock:
            last = self.last
            instance = next((one for one in last.instances if one.id == i), None) if last is not None else None
            if last is None or instance is None:
                return None
            slots = np.flatnonzero(self._columns.instance == i)
            return last, instance, LabelledCloud(*(getattr(self._columns, name)[slots] for name in _COLUMNS))

    def _set(self, slots: np.ndarray, cloud: LabelledCloud) -> None:
        for name in _COLUMNS:
            getattr(self._columns, name)[slots] = getattr(cloud, name)

    def _fit(self, slots: int) -> None:
        have = len(self._columns.instance)
        if have < slots:
            size = max(slots, 1024, have * 5 // 4)
            grown = []
            for name in _COLUMNS:
                old = getattr(self._columns, name)
                column = np.zeros((size, *old.shape[1:]), old.dtype)
                column[:have] = old
                grown.append(column)
            self._columns = LabelledCloud(*grown)
