"""The QoS profiles of every topic, in one place."""

__all__ = ["CLOUDS", "DELTAS", "EVENTS", "IMAGES", "LATCHED", "own", "publisher_options", "subscription_options"]

import copy
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions

DELTAS = QoSProfile(depth=50, reliability=QoSReliabilityPolicy.RELIABLE)
"""Map updates and delta clouds: none may be lost, and a burst must fit."""
CLOUDS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
"""Clouds taken in from other mappers."""
EVENTS = QoSProfile(depth=500, reliability=QoSReliabilityPolicy.RELIABLE)
"""Instance events: many small messages at once."""
LATCHED = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
"""State: whoever comes late gets the last message."""
IMAGES = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
"""Images, camera info and poses: matches reliable and best-effort publishers."""


def own(profile: QoSProfile) -> QoSProfile:
    """A copy of a profile for one publisher or subscription: rclpy writes QoS overrides into the profile that it is given."""
    return copy.copy(profile)


def _cure(node: Node, topic: str, entity: str, policy: str) -> str:
    key = f"qos_overrides.{node.resolve_topic_name(topic)}.{entity}.{policy.lower()}"
    value = "best_effort" if policy == "RELIABILITY" else "volatile"
    if entity == "publisher":
        value = "reliable" if policy == "RELIABILITY" else "transient_local"
    return f"--ros-args -p {key}:={value}"


def subscription_options(node: Node, topic: str) -> dict[str, Any]:
    """Arguments for `create_subscription`: QoS overrides allowed, and an incompatible publisher is named with the cure."""

    def incompatible(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).upper()
        node.get_logger().error(
            f"a publisher on {node.resolve_topic_name(topic)} offers {policy} that this subscription does not accept: NOTHING "
            f"will be received from it. Let it publish with the profile in docs/ros.md, or start this node with "
            f"{_cure(node, topic, 'subscription', policy)}"
        )

    return {
        "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
        "event_callbacks": SubscriptionEventCallbacks(incompatible_qos=incompatible),
    }


def publisher_options(node: Node, topic: str) -> dict[str, Any]:
    """Arguments for `create_publisher`: QoS overrides allowed, and an incompatible subscriber is named with the cure."""

    def incompatible(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).upper()
        node.get_logger().error(
            f"a subscriber of {node.resolve_topic_name(topic)} demands {policy} that is not offered: it will receive NOTHING. "
            f"Relax its profile (RViz: the display's Topic, {policy.capitalize()} Policy; ros2 topic echo: "
            f"--qos-{policy.lower()}), or start this node with {_cure(node, topic, 'publisher', policy)}"
        )

    return {
        "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
        "event_callbacks": PublisherEventCallbacks(incompatible_qos=incompatible),
    }
