"""What a node made for a time: publishers, subscriptions, services, clients and timers that are destroyed together."""

__all__ = ["Entities"]

from typing import Any

from rclpy.node import Node


class Entities:
    """Notes what a node makes within `with` blocks, so that it can be destroyed whoever made it.

        with entities:
            node.create_publisher(...)
        entities.destroy()
    """

    _KINDS = ("subscription", "timer", "client", "service", "publisher")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before: dict[str, set[Any]] = {}
        self._made: dict[str, set[Any]] = {kind: set() for kind in self._KINDS}

    def __enter__(self) -> "Entities":
        self._before = {kind: self._there(kind) for kind in self._KINDS}
        return self

    def __exit__(self, *_: object) -> None:
        for kind in self._KINDS:
            self._made[kind] |= self._there(kind) - self._before.pop(kind)

    def destroy(self) -> None:
        """Destroy what was made; nothing if that was done already."""
        for kind, made in self._made.items():
            while made:
                getattr(self._node, f"destroy_{kind}")(made.pop())

    def _there(self, kind: str) -> set[Any]:
        return set(getattr(self._node, f"{kind}s"))
