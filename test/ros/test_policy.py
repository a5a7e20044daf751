"""config/sros2_policy.xml allows what the nodes have, and no more than docs/ros.md says."""

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.ros.lifecycle_segmenter_node import LifecycleSegmenterNode

ROOT = Path(__file__).parents[2]
EVERY_NODE = {"/clock", "/rosout", "/parameter_events"}
WITH_TF = {"/tf", "/tf_static"}
STATES = ("change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph", "transition_event")
MANAGED = {f"/segmenter/{name}" for name in STATES}
ELSEWHERE = {
    "segmenter": {"subscribe": {"/clock", "/nvblox_mesh", "/nvblox_layer"}, "publish": {"/segmenter/detections"}},
    "fusion": {"subscribe": {"/clock", *WITH_TF}},
}
"""What a node has only with use_sim_time, TF, nvblox_msgs or vision_msgs."""


def allowed(name: str) -> dict[str, set[str]]:
    """publish, subscribe, reply, request: full names that the policy allows in an enclave."""
    names = defaultdict(set)
    profile = ElementTree.parse(ROOT / "config" / "sros2_policy.xml").find(f".//enclave[@path='/instseg_ros/{name}']/profiles/profile")
    assert profile is not None and (profile.get("ns"), profile.get("node")) == ("/", name)
    for group in profile:
        for right in group.attrib:
            names[right] |= {f"/{name}{one.text[1:]}" if one.text.startswith("~") else f"/{one.text.lstrip('/')}" for one in group}
    return names


def used(node) -> dict[str, set[str]]:
    """What a running node has, as its middleware knows it."""
    who = node.get_name(), node.get_namespace()
    return {
        "publish": {name for name, _ in node.get_publisher_names_and_types_by_node(*who)},
        "subscribe": {name for name, _ in node.get_subscriber_names_and_types_by_node(*who)},
        "reply": {name for name, _ in node.get_service_names_and_types_by_node(*who)},
        "request": {name for name, _ in node.get_client_names_and_types_by_node(*who)},
    }


def unseen(node, wanted: dict[str, set[str]]) -> dict[str, set[str]]:
    """What the graph lacks of what a node should have."""
    return {right: wanted[right] - names for right, names in used(node).items() if wanted[right] - names}


def start(bench, kind: str):
    """A running node and its name; `managed` is the segmenter as a lifecycle node, active."""
    if kind != "managed":
        return getattr(bench, kind)(), kind
    node = bench._start(lambda **arguments: LifecycleSegmenterNode(chair_net(), **arguments), None, {})
    node.trigger_configure()
    node.trigger_activate()
    return node, "segmenter"


@pytest.mark.parametrize("kind", ["segmenter", "managed", "fusion"])
def test_the_policy_allows_what_a_node_has_and_nothing_else(bench, kind):
    """What it lacks is waited for; a second node is looked at if the first's is not complete in time: the graph has once stayed short of a name."""
    for patience_s in (30.0, 90.0):
        node, name = start(bench, kind)
        rights = allowed(name)
        wanted = {right: rights[right] - ELSEWHERE[name].get(right, set()) for right in ("publish", "subscribe", "reply", "request")}
        if kind == "segmenter":
            wanted = {right: names - MANAGED for right, names in wanted.items()}
        try:
            bench.until(lambda: not unseen(node, wanted), lambda: f"the graph has no {unseen(node, wanted)}", patience_s)  # noqa: B023
            break
        except AssertionError:
            if patience_s == 90.0:
                raise
            bench.end(node)
    assert {right: names - rights[right] for right, names in used(node).items() if names - rights[right]} == {}


@pytest.mark.parametrize("name", ["segmenter", "fusion"])
def test_what_the_policy_allows_is_documented(name):
    page = (ROOT / "docs" / "ros.md").read_text()
    ours = {one for names in allowed(name).values() for one in names if "parameter" not in one and not one.endswith("/get_type_description")}
    for one in sorted(ours - EVERY_NODE - WITH_TF - MANAGED):
        written = one.replace(f"/{name}/", "~/") if one.startswith(f"/{name}/") else one
        assert f"`{written}`" in page or f"`{written.lstrip('/')}`" in page, f"{one} is not in docs/ros.md"


def test_the_operator_may_see_and_ask_what_the_nodes_offer():
    operator, nodes = allowed("operator"), [allowed("segmenter"), allowed("fusion")]
    offered = {right: {one for node in nodes for one in node[right] if one.startswith(("/segmenter/", "/fusion/"))} for right in ("publish", "reply")}
    assert operator["subscribe"] == offered["publish"] | EVERY_NODE | {"/diagnostics"}
    plain = {one for one in offered["reply"] if "parameter" not in one and not one.endswith("/get_type_description")}
    assert operator["request"] == plain
    assert operator["publish"] <= EVERY_NODE
