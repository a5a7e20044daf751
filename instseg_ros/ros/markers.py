"""Boxes and texts of the instances for RViz."""

__all__ = ["MarkerBook", "box_edges"]

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from instseg_ros.labels import instance_color
from instseg_ros.oriented_box import OrientedBox
from instseg_ros.ros.conversions import class_name

_CORNERS = list(product((0, 1), repeat=3))
_EDGES = [(a, b) for a, b in combinations(range(8), 2) if sum(x != y for x, y in zip(_CORNERS[a], _CORNERS[b], strict=True)) == 1]
"""Pairs of corners in the order of `OrientedBox.corners_m`."""


def box_edges(box: OrientedBox) -> list[Point]:
    """The twelve edges of a box as 24 points, two for each."""
    corners = box.corners_m().tolist()
    return [Point(x=corners[c][0], y=corners[c][1], z=corners[c][2]) for edge in _EDGES for c in edge]


class MarkerBook:
    """Turns the live instances into marker messages that are right for a viewer that has seen the ones before, or none.

    Every message holds all instances. An instance that is gone is deleted by name in the next few messages, so that a
    viewer that missed one does not keep its box.
    """

    REPEAT_DELETE = 5

    def __init__(self) -> None:
        self._built: dict[int, tuple[tuple[Any, ...], Marker, Marker]] = {}
        self._vanished: dict[int, int] = {}

    def array(self, header: Header, instances: Sequence[Any], boxes: Mapping[int, OrientedBox], text_height_m: float) -> MarkerArray:
        """Markers of all instances (`tracking.Instance`) with their boxes by id, and deletions of those that are gone."""
        live = {int(one.id): one for one in instances}
        for gone in self._built.keys() - live.keys():
            del self._built[gone]
            self._vanished[gone] = self.REPEAT_DELETE
        out = MarkerArray()
        for gone in list(self._vanished):
            if gone not in live:
                out.markers += [
                    Marker(header=header, ns=ns, id=_marker_id(gone), action=Marker.DELETE) for ns in ("boxes", "labels")
                ]
            self._vanished[gone] -= 1
            if self._vanished[gone] == 0 or gone in live:
                del self._vanished[gone]
        for number, one in live.items():
            box = boxes[number]
            look = (one.class_index, round(float(one.score), 2), text_height_m, box.yaw_rad, *box.center_m.tolist(), *box.size_m.tolist())
            if number not in self._built or self._built[number][0] != look:
                self._built[number] = (look, _box(number, box), _text(one, box, text_height_m))
            for marker in self._built[number][1:]:
                marker.header = header
                out.markers.append(marker)
        return out

    def forget(self, header: Header) -> MarkerArray:
        """A message that removes everything."""
        self._built.clear()
        self._vanished.clear()
        return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])


def _marker_id(number: int) -> int:
    """Instance ids are uint32, marker ids int32."""
    return number - 2**32 if number >= 2**31 else number


def _color(number: int) -> ColorRGBA:
    red, green, blue = (float(v) / 255.0 for v in instance_color(np.array([number]))[0])
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)


def _box(number: int, box: OrientedBox) -> Marker:
    marker = Marker(ns="boxes", id=_marker_id(number), type=Marker.LINE_LIST, action=Marker.ADD, color=_color(number))
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.015
    marker.points = box_edges(box)
    return marker


def _text(one: Any, box: OrientedBox, height_m: float) -> Marker:
    marker = Marker(
        ns="labels", id=_marker_id(int(one.id)), type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, color=_color(int(one.id))
    )
    marker.pose.orientation.w = 1.0
    marker.pose.position.x, marker.pose.position.y = box.center_m[:2].tolist()
    marker.pose.position.z = float(box.center_m[2] + box.size_m[2] / 2.0) + height_m
    marker.scale.z = float(height_m)
    marker.text = f"{class_name(one.class_index)} #{one.id} {100 * float(one.score):.0f} %"
    return marker
