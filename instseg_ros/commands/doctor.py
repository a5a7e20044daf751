"""Check this machine, ROS and a running graph, and say what to fix: each line is ok, note (worth knowing) or problem, with the cure.

Status 1 if there is a problem. Everything but the ROS checks works without ROS.
"""

__all__ = ["add_arguments", "run"]

import argparse
import importlib.util
from collections import Counter
from pathlib import Path

from instseg_ros.diagnosis import environment, ros_graph, ros_setup
from instseg_ros.diagnosis.findings import Finding, guarded
from instseg_ros.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--weights", default="", help="weights that the node is to use (default: the shipped ones)")
    parser.add_argument("--voxel-size", type=float, default=0.05, help="voxel size of the map, m (default: %(default)s)")
    parser.add_argument("--no-graph", action="store_true", help="do not join the ROS graph")
    parser.add_argument("--wait", type=float, default=3.0, help="time for nodes and messages to be seen, s (default: %(default)s)")
    parser.add_argument("--node", default="", help="full name of the running segmenter (default: the one that is found)")
    parser.add_argument(
        "--remap", action="append", default=[], metavar="FROM:=TO",
        help="topic of an input, such as map_points:=/rtabmap/cloud_map, of a segmenter that does not run yet",
    )
    parser.add_argument("--json", type=Path, help="write the findings to this file")


def run(args: argparse.Namespace) -> int:
    """Make all checks, print a line for each finding, and return 1 if there is a problem."""
    remaps = _remaps(args.remap)
    findings: list[Finding] = []

    def tell(found: list[Finding]) -> None:
        findings.extend(found)
        for finding in found:
            print(finding.line(), flush=True)

    tell(guarded("python", environment.check_python))
    tell(guarded("libraries", environment.check_libraries))
    tell(guarded("kernels", environment.check_kernels))
    tell(guarded("threads", environment.check_threads))
    tell(guarded("gpu", environment.check_gpu))
    tell(guarded("weights", lambda: environment.check_weights(args.weights, args.voxel_size)))
    tell(guarded("ros", ros_setup.check_rclpy))
    if importlib.util.find_spec("rclpy") is not None:
        tell(guarded("ros", ros_setup.check_ros_environment))
        tell(guarded("messages", ros_setup.check_messages))
        if not args.no_graph:
            tell(_graph(args.wait, args.node, remaps))
    counts = Counter(finding.level for finding in findings)
    print(f"{counts['ok']} ok, {counts['note']} notes, {counts['problem']} problems")
    if args.json:
        _write(args.json, counts, findings)
    return 1 if counts["problem"] else 0


def _graph(wait_s: float, segmenter: str, remaps: dict[str, str]) -> list[Finding]:
    seen: list[ros_graph.Graph] = []

    def look() -> list[Finding]:
        seen.append(ros_graph.look_around(wait_s, segmenter, remaps))
        return []

    found = guarded("graph", look)
    for check in (ros_graph.check_inputs, ros_graph.check_clock, ros_graph.check_diagnostics, ros_graph.check_frame):
        for graph in seen:
            found += guarded("graph", lambda check=check, graph=graph: check(graph))  # type: ignore[misc]
    return found


def _remaps(texts: list[str]) -> dict[str, str]:
    out = {}
    for text in texts:
        source, found, target = text.partition(":=")
        if source not in ros_graph.INPUTS or not found or not target:
            raise ConfigError(f"--remap {text}: write INPUT:=TOPIC, where the input is one of {', '.join(ros_graph.INPUTS)}")
        out[source] = target
    return out


def _write(path: Path, counts: Counter[str], findings: list[Finding]) -> None:
    try:
        from instseg_ros.report import write_report

        write_report(path, {level: counts[level] for level in ("ok", "note", "problem")}, [finding.row() for finding in findings])
    except ImportError as error:
        print(f"{path} was not written: {error}")
    else:
        print(f"written: {path}")
