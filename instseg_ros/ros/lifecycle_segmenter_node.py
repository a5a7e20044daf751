"""The segmenter node as a managed node: configured, activated, deactivated, cleaned up and shut down from outside."""

__all__ = ["LifecycleSegmenterNode", "main"]

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from instseg_ros.errors import InstSegError
from instseg_ros.models.network import InstanceNet
from instseg_ros.ros.run import run_node
from instseg_ros.ros.segmenter_core import SegmenterCore


class LifecycleSegmenterNode(SegmenterCore, LifecycleNode):
    """Waits unconfigured, with every parameter open; the transitions do the rest.

    A transition that cannot be made says why in the log and leaves the node in the state it was in.

    Args:
        net: a network to use instead of the weights the parameters name.
        **node_arguments: handed on to `rclpy.lifecycle.LifecycleNode`.

    Raises:
        ConfigError: a parameter given at start is unknown or refused.
    """

    def __init__(self, net: InstanceNet | None = None, **node_arguments: Any) -> None:
        super().__init__(net, **node_arguments)
        # rclpy of Jazzy raises where a transition does not start at the present state, which would end the process.
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self.get_logger().info("unconfigured: `ros2 lifecycle set` or a lifecycle manager has to configure and activate this node")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the network, resume the saved state."""
        return self._try("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen and segment."""
        return self._try("activate", self.activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening, save the state; the map stays."""
        return self._try("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the network and the map."""
        return self._try("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Save the state and let go of everything, whatever state the node is in."""
        return self._try("shut down", self._end)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an exception nobody expected: begin anew, unconfigured."""
        return self._try("recover", self._end)

    def _end(self) -> None:
        self.close()
        if self.configured:
            self.cleanup()

    def _try(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except InstSegError as error:
            self.monitor.error(str(error))
            self.get_logger().error(f"cannot {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f"cannot {what}: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _on_change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        wanted, allowed = request.transition, self._state_machine.available_transitions
        if not any(wanted.label == label if wanted.label else wanted.id == number for number, label, *_ in allowed):
            now = self._state_machine.current_state[1]
            self.get_logger().error(
                f"transition {wanted.label or wanted.id} cannot be made from {now}: "
                f"allowed are {', '.join(f'{label} ({number})' for number, label, *_ in allowed) or 'none'}"
            )
            response.success = False
            return response
        return self._change_state(request, response)


def main(args: Sequence[str] | None = None) -> int:
    """Run the managed segmenter node until the process is told to stop."""
    return run_node(LifecycleSegmenterNode, args)


if __name__ == "__main__":
    sys.exit(main())
