"""Boxes and texts of the instances for RViz."""

__all__ = ["MarkerBook", "box_edges"]

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from instseg_ros.labels import instance_color
from instseg_ros.ros.conversions import class_name

_CORNERS = list(product((0, 1), repeat=3))
_EDGES = [
    (a, b) for i, a in enumerate(_CORNERS) for b in _CORNERS[i + 1 :] if sum(x != y for x, y in zip(a, b, strict=True)) == 1
]


def box_edges(box_min: Sequence[float], box_max: Sequence[float]) -> list[Point]:
    """The twelve edges of an axis-aligned box as 24 points, two for each."""
    bounds = [[float(v) for v in box_min], [float(v) for v in box_max]]
    return [Point(x=bounds[c[0]][0], y=bounds[c[1]][1], z=bounds[c[2]][2]) for edge in _EDGES for c in edge]


class MarkerBook:
    """Turns the live instances into marker messages that are right for a viewer that has seen the ones before, or none.

    Every message holds all instances. An instance that is gone is deleted by name in the next few messages, so that a
    viewer that missed one does not keep its box.
    """

    REPEAT_DELETE = 5

    def __init__(self) -> None:
        self._built: dict[int, tuple[tuple[Any, ...], Marker, Marker]] = {}
        self._vanished: dict[int, int] = {}

    def array(self, header: Header, instances: Sequence[Any], text_height_m: float) -> MarkerArray:
        """Markers of all instances (`tracking.Instance`), and deletions of those that are gone."""
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
            look = (
                one.class_index,
                round(float(one.score), 2),
                text_height_m,
                *map(float, one.box_min_m),
                *map(float, one.box_max_m),
            )
            if number not in self._built or self._built[number][0] != look:
                self._built[number] = (look, _box(one), _text(one, text_height_m))
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


def _box(one: Any) -> Marker:
    marker = Marker(ns="boxes", id=_marker_id(int(one.id)), type=Marker.LINE_LIST, action=Marker.ADD, color=_color(int(one.id)))
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.015
    marker.points = box_edges(one.box_min_m, one.box_max_m)
    return marker


def _text(one: Any, height_m: float) -> Marker:
    marker = Marker(
        ns="labels", id=_marker_id(int(one.id)), type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, color=_color(int(one.id))
    )
    marker.pose.orientation.w = 1.0
    low, high = np.asarray(one.box_min_m, float), np.asarray(one.box_max_m, float)
    marker.pose.position.x, marker.pose.position.y = (float(v) for v in (low + high)[:2] / 2)
    marker.pose.position.z = float(high[2]) + height_m
    marker.scale.z = float(height_m)
    marker.text = f"{class_name(one.class_index)} #{one.id} {100 * float(one.score):.0f} %"
    return marker
