"""A segmented map while it grows, as a recording for the rerun viewer."""

__all__ = ["RerunRecording"]

from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.errors import require
from instseg_ros.instance import Instance, TrackEvent
from instseg_ros.labels import CLASS_COLORS, CLASS_NAMES, IGNORE, instance_color
from instseg_ros.mapping.update import coord_keys
from instseg_ros.oriented_box import InstanceBoxes
from instseg_ros.segmenter import SegmentationResult, Segmenter

BLOCK_BITS = 5
"""Voxels are logged in blocks with edges of 2**5: only those in which something changed are written again."""


class RerunRecording:
    """Writes what every update changed to an .rrd file; close it when all is taken.

    In the viewer: `map/voxels/...` the labelled voxels in the colours of their instances, `map/instances` their oriented boxes, `events` what
    happened to ids, all on the time lines `update` (1, 2, ...) and, where updates have one, `stamp`.

    Args:
        path: file to write.
        segmenter: whose results are taken.

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
    """

    def __init__(self, path: Path, segmenter: Segmenter) -> None:
        self._rr = require("rerun", "record for the rerun viewer", "pip install 'rerun-sdk>=0.23'")
        self._segmenter, self._boxes, self._updates = segmenter, InstanceBoxes(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out: Any = self._rr.RecordingStream("instseg_ros")
        self._out.save(path)
        self._out.log("map", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        classes = [(i, name, tuple(color)) for i, (name, color) in enumerate(zip(CLASS_NAMES, CLASS_COLORS.tolist(), strict=True))]
        self._out.log("map", self._rr.AnnotationContext([*classes, (IGNORE, "none", (128, 128, 128))]), static=True)

    def take(self, result: SegmentationResult) -> None:
        """Log what an update changed, right after it."""
        self._updates += 1
        self._out.set_time("update", sequence=self._updates)
        if result.stamp_ns:
            self._out.set_time("stamp", timestamp=np.datetime64(result.stamp_ns, "ns"))
        self._log_voxels(result)
        self._log_instances(result.instances)
        for event in result.events:
            if event.kind != "updated":
                self._out.log("events", self._rr.TextLog(_sentence(event), level="INFO"))

    def close(self) -> None:
        """Write what is left and close the file."""
        self._out.disconnect()

    def _log_voxels(self, result: SegmentationResult) -> None:
        """Every block with a voxel that is new, gone or labelled anew is logged as it is now."""
        voxels = self._segmenter.map
        touched = np.concatenate([voxels.coords[result.relabelled], result.delta.removed_coords]) >> BLOCK_BITS
        keys, first = np.unique(coord_keys(touched), return_index=True)
        live = voxels.live_slots()
        live_keys = coord_keys(voxels.coords[live] >> BLOCK_BITS)
        inside = np.isin(live_keys, keys)
        live, live_keys = live[inside], live_keys[inside]
        order = np.argsort(live_keys, kind="stable")
        starts, ends = (np.searchsorted(live_keys[order], keys, side=side) for side in ("left", "right"))
        for block, start, end in zip(touched[first].tolist(), starts, ends, strict=True):
            path = "map/voxels/" + "_".join(map(str, block))
            self._out.log(path, self._points(live[order[start:end]]) if end > start else self._rr.Clear(recursive=False))

    def _points(self, slots: np.ndarray) -> Any:
        cloud = self._segmenter.cloud(slots)
        return self._rr.Points3D(
            cloud.points_m, colors=instance_color(cloud.instance), class_ids=cloud.class_index.astype(np.uint16),
            radii=self._segmenter.map.voxel_size_m / 2.0,
        )

    def _log_instances(self, instances: list[Instance]) -> None:
        if not instances:
            self._out.log("map/instances", self._rr.Clear(recursive=False))
            return
        voxels, tracker = self._segmenter.map, self._segmenter.tracker
        boxes = self._boxes.of(instances, lambda i: voxels.centers_m(tracker.slots_of(i)), voxels.voxel_size_m)
        self._out.log("map/instances", self._rr.Boxes3D(
            centers=np.array([boxes[one.id].center_m for one in instances]),
            half_sizes=np.array([boxes[one.id].size_m / 2.0 for one in instances]),
            quaternions=[self._rr.Quaternion(xyzw=boxes[one.id].quaternion_xyzw()) for one in instances],
            colors=instance_color(np.array([one.id for one in instances])),
            labels=[f"{_name(one.class_index)} #{one.id} {100 * one.score:.0f} %" for one in instances],
            class_ids=[one.class_index for one in instances],
        ))


def _name(class_index: int) -> str:
    return CLASS_NAMES[class_index] if class_index != IGNORE else "object"


def _sentence(event: TrackEvent) -> str:
    link = {"merged": f" into #{event.other}", "split": f" from #{event.other}"}.get(event.kind, "")
    return f"{_name(event.class_index)} #{event.id} {event.kind}{link}"
