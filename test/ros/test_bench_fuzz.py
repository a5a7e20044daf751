"""`instseg bench fuzz` in short: the node in a process of its own."""

import argparse

from instseg_ros.benchmarks import fuzz
from instseg_ros.benchmarks.hostile_messages import FAULTS


def test_every_class_is_sent_and_judged(ros_context, tmp_path):
    arguments = argparse.Namespace(messages=2 * len(FAULTS), batch=2, seed=1, folder=tmp_path)
    figures, rows = fuzz.run(arguments)
    assert figures["messages"] == 2 * len(FAULTS) and figures["classes"] == len(rows) == len(FAULTS) and figures["voxels"] == 3125
    wanted = dict.fromkeys(("crashes", "map_changes", "silent", "nameless", "resets", "failures"), 0)
    assert {name: figures[name] for name in wanted} == wanted
    assert all(row["messages"] == 2 and (row["error"] or row["counted_as"] != "refused") for row in rows)
