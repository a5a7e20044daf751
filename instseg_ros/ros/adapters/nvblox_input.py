"""The subscriptions to nvblox; importable only where nvblox_msgs is."""

__all__ = ["NvbloxInput"]

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from nvblox_msgs.msg import Mesh, VoxelBlockLayer
from rclpy.node import Node

from instseg_ros.config import InputConfig
from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.ros import qos
from instseg_ros.ros.adapters.blocks import BlockMap, BlockUpdate
from instseg_ros.ros.adapters.nvblox import read_layer, read_mesh
from instseg_ros.ros.adapters.nvblox_bytes import layer_from_bytes, mesh_from_bytes


class NvbloxInput:
    """Subscribes to `nvblox_mesh` and `nvblox_layer` and keeps the map that the messages of one of them add up to.

    Args:
        node: owner of the subscriptions.
        voxel_size_m: of our map.
        config: returns the settings as they are now.
        on_message: called with a topic and a message of it; `read` and `apply` make an update of them.
        goes_on: the segmenter holds a map from before a restart, which the first message does not replace unless it says `clear`.
    """

    def __init__(
        self, node: Node, voxel_size_m: float, config: Callable[[], InputConfig], on_message: Callable[[str, Any], None], goes_on: bool
    ) -> None:
        self._voxel_size_m, self._config = voxel_size_m, config
        self._map = BlockMap(voxel_size_m)
        self._source = ""
        self._may_change = True
        self._goes_on = goes_on
        self._lock = threading.Lock()  # the worker's thread reports losses
        for topic, kind in (("nvblox_mesh", Mesh), ("nvblox_layer", VoxelBlockLayer)):
            options = qos.subscription_options(node, topic)
            node.create_subscription(kind, topic, partial(on_message, topic), qos.own(qos.DELTAS), raw=True, **options)

    def read(self, topic: str, msg: Any) -> BlockUpdate:
        """What a message (its bytes, or an object with its fields) says; nothing changes.

        Raises:
            InputError: it is malformed, or the map already comes from the other topic.
        """
        if topic != self._source and not self._may_change:
            raise InputError(f"the map already comes from {self._source}: remap only one of the two, or call ~/reset to change over")
        if topic == "nvblox_mesh":
            return read_mesh(mesh_from_bytes(msg) if isinstance(msg, bytes) else msg, self._voxel_size_m)
        msg = layer_from_bytes(msg) if isinstance(msg, bytes) else msg
        config = self._config()
        return read_layer(msg, self._voxel_size_m, config.nvblox_layer, config.nvblox_min_weight)

    def apply(self, topic: str, blocks: BlockUpdate) -> MapUpdate:
        """What it changes in the map so far.

        Raises:
            InputError: it cannot be part of this map; nothing has changed then.
        """
        with self._lock:
            into = self._map if topic == self._source else BlockMap(self._voxel_size_m)
            if self._goes_on:
                into.go_on()
            update = into.apply(blocks, self._config().color_step)
            self._map, self._source, self._may_change, self._goes_on = into, topic, False, False
        return update

    def resend(self) -> None:
        """Let the next update be the whole map: the segmenter lost something."""
        with self._lock:
            self._map.resend()

    def reset(self) -> None:
        """The segmenter's map is empty: the next update is the whole map, and may come from the other topic or in another frame."""
        with self._lock:
            self._map.resend()
            self._may_change, self._goes_on = True, False

    def forget(self) -> None:
        """The time or the mapper began anew."""
        with self._lock:
            self._map, self._source, self._may_change, self._goes_on = BlockMap(self._voxel_size_m), "", True, False
