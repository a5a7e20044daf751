"""What the segmenter node publishes."""

__all__ = ["SegmenterOutputs", "cloud_msg"]

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header, String
from visualization_msgs.msg import MarkerArray

from instseg_ros.config import OutputConfig
from instseg_ros.instance import Instance, TrackEvent
from instseg_ros.labels import CLASS_COLORS, CLASS_NAMES, IGNORE, NYU40_IDS, UNLABELLED_ID, class_to_nyu40, instance_color
from instseg_ros.msg import InstanceArray, InstanceEvent
from instseg_ros.oriented_box import InstanceBoxes, OrientedBox, axis_aligned_box
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import event_to_msg, header, instances_to_msg
from instseg_ros.ros.finished_map import FinishedMap
from instseg_ros.ros.markers import MarkerBook
from instseg_ros.ros.pointcloud import labelled_cloud_to_msg
from instseg_ros.segmenter import LabelledCloud, SegmentationResult, Segmenter
from instseg_ros.selection import selected

try:
    from instseg_ros.ros import detections
except ImportError:  # no vision_msgs
    detections = None  # type: ignore[assignment]

REMOVED_CONFIDENCE = -1.0
"""Confidence of a point of `~/points_delta` whose voxel is gone from the map."""


class SegmenterOutputs:
    """The publishers, and when the throttled ones are due. Used by the worker thread only."""

    def __init__(self, node: Node) -> None:
        def publisher(kind: Any, topic: str, profile: Any) -> Any:
            return node.create_publisher(kind, topic, qos.own(profile), **qos.publisher_options(node, topic))

        self._points = publisher(PointCloud2, "~/points", qos.LATCHED)
        self._delta = publisher(PointCloud2, "~/points_delta", qos.DELTAS)
        self._markers = publisher(MarkerArray, "~/markers", qos.LATCHED)
        self._instances = publisher(InstanceArray, "~/instances", qos.DELTAS)
        self._events = publisher(InstanceEvent, "~/events", qos.EVENTS)
        self._detections = publisher(detections.Detection3DArray, "~/detections", qos.LATCHED) if detections else None
        self._label_info = _publish_label_info(node, publisher)
        self._book = MarkerBook()
        self._oriented = InstanceBoxes()
        self._selection: tuple[Any, ...] = ()
        self._shown: list[Instance] = []
        self._boxes: dict[int, OrientedBox] = {}
        self.finished = FinishedMap()
        self._last: SegmentationResult | None = None
        self._cloud_due = False
        self._next_cloud = 0.0
        self._next_markers = 0.0

    def result(self, result: SegmentationResult, segmenter: Segmenter, config: OutputConfig, whole: bool = False) -> None:
        """Publish what an update changed; the whole cloud follows when it is due.

        Args:
            result: what changed.
            segmenter: after the update.
            config: settings as they are now.
            whole: more may have changed than the result says.
        """
        self._last = result
        self._cloud_due = True
        stamp = (result.stamp_ns, result.frame_id)
        changed = segmenter.cloud(result.relabelled)
        if whole:
            self.finished.replace(result, segmenter)
        else:
            self.finished.follow(result, changed)
        if len(result.relabelled) or len(result.removed_centers_m):
            self._delta.publish(cloud_msg(*stamp, changed, config.colors, result.removed_centers_m))
        self._publish_instances(segmenter, config)
        for event in result.events:
            self._events.publish(event_to_msg(*stamp, event))

    def due(self, segmenter: Segmenter, config: OutputConfig) -> float | None:
        """Publish what is due by now; returns the seconds until something else is, None = nothing is."""
        now = time.monotonic()
        if self._last is None:
            return None
        if self._cloud_due and now >= self._next_cloud:
            self._cloud_due = False
            self._next_cloud = now + config.points_period_s
            self._points.publish(cloud_msg(self._last.stamp_ns, self._last.frame_id, segmenter.cloud(), config.colors))
        if self._selection != _selection(config):
            self._publish_instances(segmenter, config)
        elif now >= self._next_markers:
            self._publish_markers(config)
        return max(0.0, min(self._next_markers, self._next_cloud if self._cloud_due else np.inf) - time.monotonic())

    def restored(self, segmenter: Segmenter, stamp_ns: int, sequence: int, config: OutputConfig) -> None:
        """Publish all of a map that was loaded; the whole cloud is due at once."""
        if not len(segmenter.map):
            return
        live = segmenter.map.live_slots()
        result = SegmentationResult(
            stamp_ns, sequence, segmenter.map.frame_id, segmenter.map.unchanged(), live, np.zeros((0, 3), np.float32),
            list(segmenter.tracker.instances.values()), [], {}, len(live),
        )
        self._next_cloud = 0.0
        self.result(result, segmenter, config, whole=True)

    def repaint(self) -> None:
        """The colours have changed: the cloud is due again."""
        self._cloud_due = True

    def cleared(self, before: LabelledCloud) -> None:
        """The map was reset: tell every kind of listener that nothing is left.

        Args:
            before: the cloud of the map that is gone.
        """
        last = self._last
        if last is None:
            return
        gone = [TrackEvent("retired", one.id, 0, one.class_index) for one in last.instances]
        stamp = (last.stamp_ns, last.frame_id)
        nothing = _part(before, np.zeros(0, np.int64))
        if len(before.points_m):
            self._delta.publish(cloud_msg(*stamp, nothing, "map", before.points_m))
        self._points.publish(cloud_msg(*stamp, nothing, "map"))
        self._shown, self._boxes = [], {}
        self._publish_shown(last)
        for event in gone:
            self._events.publish(event_to_msg(*stamp, event))
        self._markers.publish(self._book.forget(header(*stamp)))
        self._last, self._cloud_due, self._next_cloud = replace(last, instances=[], events=[]), False, 0.0
        self.finished.clear()

    def _publish_instances(self, segmenter: Segmenter, config: OutputConfig) -> None:
        """Select and publish instances, detections and markers."""
        assert self._last is not None
        self._selection = _selection(config)
        self._shown = selected(self._last.instances, config)
        if config.boxes == "oriented":
            self._boxes = self._oriented.of(
                self._shown, lambda i: segmenter.map.centers_m(segmenter.tracker.slots_of(i)), segmenter.map.voxel_size_m
            )
        else:
            self._boxes = {one.id: axis_aligned_box(one.box_min_m, one.box_max_m) for one in self._shown}
        self._publish_shown(self._last)
        self._publish_markers(config)

    def _publish_shown(self, last: SegmentationResult) -> None:
        self._instances.publish(instances_to_msg(last.stamp_ns, last.frame_id, last.sequence, self._shown))
        if self._detections is not None:
            self._detections.publish(detections.detections_to_msg(header(last.stamp_ns, last.frame_id), self._shown, self._boxes))

    def _publish_markers(self, config: OutputConfig) -> None:
        assert self._last is not None
        self._next_markers = time.monotonic() + config.markers_period_s
        stamp = header(self._last.stamp_ns, self._last.frame_id)
        self._markers.publish(self._book.array(stamp, self._shown, self._boxes, config.text_height_m))


def _selection(config: OutputConfig) -> tuple[Any, ...]:
    """The settings that decide which instances are published, and with which boxes."""
    return config.classes, config.min_confidence, config.min_voxels, config.boxes


def _part(cloud: LabelledCloud, rows: np.ndarray) -> LabelledCloud:
    return LabelledCloud(
        cloud.points_m[rows], cloud.colors[rows], cloud.class_index[rows], cloud.instance[rows], cloud.confidence[rows]
    )


def _shown_colors(cloud: LabelledCloud, colors: str) -> np.ndarray:
    if colors == "map":
        return cloud.colors
    if colors == "instances":
        return instance_color(cloud.instance) if len(cloud.instance) else np.zeros((0, 3), np.uint8)
    table = np.full((256, 3), 128, np.uint8)
    table[: len(CLASS_COLORS)] = CLASS_COLORS
    return table[cloud.class_index]


def cloud_msg(
    stamp_ns: int, frame_id: str, cloud: LabelledCloud, colors: str, removed_m: np.ndarray | None = None
) -> PointCloud2:
    """A labelled cloud as a message, followed by the centres [R, 3] of voxels that are gone."""
    gone = np.zeros((0, 3), np.float32) if removed_m is None else removed_m
    none = len(gone)
    return labelled_cloud_to_msg(
        header(stamp_ns, frame_id),
        np.concatenate([cloud.points_m, gone]),
        np.concatenate([_shown_colors(cloud, colors), np.zeros((none, 3), np.uint8)]),
        class_to_nyu40(np.concatenate([cloud.class_index, np.full(none, IGNORE, np.uint8)])),
        np.concatenate([cloud.instance, np.zeros(none, np.uint32)]),
        np.concatenate([cloud.confidence, np.full(none, REMOVED_CONFIDENCE, np.float32)]),
    )


def _publish_label_info(node: Node, publisher: Any) -> Any:
    """The table of label ids and names, once: vision_msgs/LabelInfo where that is installed, else JSON in a String."""
    table = {**dict(zip(NYU40_IDS, CLASS_NAMES, strict=True)), UNLABELLED_ID: "unlabelled"}
    if detections is None:
        out = publisher(String, "~/label_info", qos.LATCHED)
        out.publish(String(data=json.dumps(table)))
        return out
    out = publisher(detections.LabelInfo, "~/label_info", qos.LATCHED)
    out.publish(detections.label_info_msg(Header(stamp=node.get_clock().now().to_msg()), table))
    return out
