"""The soak of the segmenter node, short enough for a test."""

import pytest

from instseg_ros.benchmarks.soak import ChangingRoom, SoakRun, figures_of, plot
from instseg_ros.errors import DataError

PARAMETERS = {"threads": 1, "device": "cpu", "grouping.method": "connected_components", "output.diagnostics_period_s": 0.1}


def test_a_short_soak_loses_nothing_and_ends_well(ros_context, tmp_path):
    room = ChangingRoom(0, 300)
    with SoakRun(tmp_path, PARAMETERS) as soak:
        rows = soak.all(room, 32)
    assert [row["update"] for row in rows] == list(range(32)) and rows[-1]["explored"] and not rows[0]["explored"]
    figures = figures_of(rows, soak.exit_code)
    assert figures["soak_exit_code"] == 0 and figures["soak_map_equal"] and figures["soak_updates_applied"] == 32
    assert not any(figures["soak_lost_or_dropped"].values())
    assert figures["soak_events"] > 0 and rows[-1]["instances"] > 0
    assert figures["soak_resident_bytes_last"] > 50e6 and figures["soak_latency_p95_ratio"] > 0
    plot(tmp_path / "soak.png", rows)
    assert (tmp_path / "soak.png").stat().st_size > 5000


def test_a_node_that_ends_is_told(ros_context, tmp_path):
    with SoakRun(tmp_path, {**PARAMETERS, "weights": "no_such_preset"}) as soak, pytest.raises(DataError, match="ended by itself"):
        soak.all(ChangingRoom(0, 300), 1)
    assert "no_such_preset" in (tmp_path / "node.log").read_text()
