"""`~/list_instances` and `~/get_instance`: answered from the last finished update, without waiting for the worker."""

__all__ = ["InstanceServices"]

from collections.abc import Callable

from rclpy.node import Node

from instseg_ros.event_log import LoggedEvent
from instseg_ros.ros.conversions import event_to_msg, instances_to_msg
from instseg_ros.ros.finished_map import FinishedMap
from instseg_ros.ros.segmenter_outputs import cloud_msg
from instseg_ros.srv import GetInstance, ListInstances


class InstanceServices:
    """The two services.

    Args:
        node: owner of the services.
        finished: what they answer from.
        events_of: the events known of an id, oldest first.
        colors: what the colours of clouds show now (`output.colors`).
    """

    def __init__(
        self, node: Node, finished: FinishedMap, events_of: Callable[[int], tuple[LoggedEvent, ...]], colors: Callable[[], str]
    ) -> None:
        self._finished, self._events_of, self._colors = finished, events_of, colors
        node.create_service(ListInstances, "~/list_instances", self._list)
        node.create_service(GetInstance, "~/get_instance", self._get)

    def _list(self, _request: ListInstances.Request, response: ListInstances.Response) -> ListInstances.Response:
        last = self._finished.last
        if last is not None:
            response.instances = instances_to_msg(last.stamp_ns, last.frame_id, last.sequence, last.instances)
        return response

    def _get(self, request: GetInstance.Request, response: GetInstance.Response) -> GetInstance.Response:
        found, events, last = self._finished.find(request.id), self._events_of(request.id), self._finished.last
        frame_id = last.frame_id if last is not None else ""
        response.events = [event_to_msg(one.stamp_ns, frame_id, one.event) for one in events]
        if found is None:
            response.message = _why_not(request.id, events)
            return response
        result, instance, cloud = found
        response.found = True
        response.instance = instances_to_msg(result.stamp_ns, result.frame_id, result.sequence, [instance]).instances[0]
        response.cloud = cloud_msg(result.stamp_ns, result.frame_id, cloud, self._colors())
        return response


def _why_not(i: int, events: tuple[LoggedEvent, ...]) -> str:
    if not events:
        return f"no instance {i} is known: ~/list_instances tells which there are"
    last = events[-1].event
    if last.kind == "merged":
        return f"instance {i} was merged into {last.other}"
    if last.kind == "retired":
        return f"instance {i} is retired: its voxels are gone, or in other instances"
    return f"instance {i} has no voxels now; it comes back under its id if they do soon"
