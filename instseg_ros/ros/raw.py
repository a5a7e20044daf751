"""Subscriptions that get the bytes, so that what is no message at all is told of: rclpy drops it without a word."""

__all__ = ["decoded"]

from collections.abc import Callable
from typing import Any

from rclpy.serialization import deserialize_message

from instseg_ros.errors import InputError


def decoded(kind: Any, on_message: Callable[[Any], None], on_broken: Callable[[InputError], None]) -> Callable[[bytes], None]:
    """The callback of a subscription made with `raw=True`.

    Args:
        kind: message type.
        on_message: given the message.
        on_broken: told why the bytes are none: cut short, or lengths in them that lead beyond their end.
    """
    module, name = kind.__module__.partition(".")[0], kind.__name__

    def receive(data: bytes) -> None:
        try:
            msg = deserialize_message(data, kind)
        except Exception as error:  # which one is the middleware's choice
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            on_broken(InputError(f"{len(data)} bytes are no {module}/{name}: cut short, or the sender has another definition of it ({reason})"))
            return
        on_message(msg)

    return receive
