"""The segmenter node: map updates in, labelled clouds, markers, instances and events out."""

__all__ = ["SegmenterNode", "main"]

import sys
from collections.abc import Sequence
from typing import Any

from instseg_ros.models.network import InstanceNet
from instseg_ros.ros.run import run_node
from instseg_ros.ros.segmenter_core import SegmenterCore


class SegmenterNode(SegmenterCore):
    """Runs from the start.

    Args:
        net: a network to use instead of the weights the parameters name.
        **node_arguments: handed on to `rclpy.node.Node`.

    Raises:
        ConfigError: a parameter is unknown or refused.
        WeightsError: the weights cannot be used.
    """

    def __init__(self, net: InstanceNet | None = None, **node_arguments: Any) -> None:
        super().__init__(net, **node_arguments)
        self.configure()
        self.activate()


def main(args: Sequence[str] | None = None) -> int:
    """Run the segmenter node until it is told to stop."""
    return run_node(SegmenterNode, args)


if __name__ == "__main__":
    sys.exit(main())
