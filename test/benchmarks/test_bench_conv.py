"""The voxels of the benchmarks, and that what the convolution benchmark times is the same work for all."""

import argparse

import numpy as np
import pytest
import torch

from instseg_ros.benchmarks import conv
from instseg_ros.benchmarks.conv_peers import PEERS, Missing
from instseg_ros.benchmarks.surfaces import surface_voxels
from instseg_ros.errors import ConfigError, InstSegError
from instseg_ros.sparse.pyramid import build_tables

CPU = torch.device("cpu")


def arguments(*given):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=lambda x: x)
    conv.add_arguments(parser)
    return parser.parse_args(given)


def installed(*names):
    peers = {}
    for name in names:
        try:
            peers[name] = PEERS[name](CPU)
        except Missing:
            pass
    return peers


@pytest.mark.parametrize("count", [1, 5000, 60_000])
def test_surfaces_are_unique_thin_and_begin_alike(count):
    coords, colors = surface_voxels(count, seed=3)
    assert coords.shape == colors.shape == (count, 3) and coords.dtype == np.int32 and colors.dtype == np.uint8
    assert len(np.unique(coords, axis=0)) == count and coords[:, 2].min() >= 0
    again, more = surface_voxels(count, seed=3), surface_voxels(count + 1000, seed=3)
    for one, same, longer in zip((coords, colors), again, more, strict=True):
        assert np.array_equal(one, same) and np.array_equal(one, longer[:count])
    if count > 1000:
        assert not np.array_equal(coords, surface_voxels(count, seed=4)[0])
        assert len(np.unique(colors // 32, axis=0)) > 4
        around = (build_tables(coords, 1).levels[0].neighbors >= 0).sum(1)
        assert 9 <= around.float().mean() <= 13  # a plane has 9 of 27, itself among them; a filled volume 27
        assert (around <= 1).float().mean() < 0.01


def test_no_voxels():
    assert [len(a) for a in surface_voxels(0, 0)] == [0, 0]


@pytest.mark.parametrize("case", conv.CASES)
def test_peers_compute_the_same_and_become_rows(case):
    peers = installed("ours", "spconv", "torch", "minkowski")
    rows = conv.compare(case, 700, conv.prepare(case, 700, peers, 1, ""), threads=1, rounds=2, seconds=5)
    assert [row["peer"] for row in rows] == list(peers) and {"ours", "torch"} <= set(peers)
    for row in rows:
        assert row["case"] == case and row["voxels"] == 700 and row["rounds"] == 2 and row["rows_off"] == 0
        assert 0 < row["ms_min"] <= row["ms"] and row["cpu_ms"] > 0 and isinstance(peers[row["peer"]].version, str)


def test_unequal_work_is_not_timed():
    out = torch.ones(10, 3)
    wrong = out.clone()
    wrong[4, 1] += 0.01
    with pytest.raises(InstSegError, match=r"other computes something else than ours in conv32 at 10 voxels \(1 rows"):
        conv.compare("conv32", 10, {"ours": lambda: {"out": out}, "other": lambda: {"out": wrong}}, 1, 1, 1.0)
    missing = torch.full_like(out, torch.nan)
    with pytest.raises(InstSegError, match="10 rows"):
        conv.compare("conv32", 10, {"ours": lambda: {"out": out}, "other": lambda: {"out": missing}}, 1, 1, 1.0)


def test_repetitions_take_turns_and_end_in_time():
    order: list[str] = []

    def call(name):
        order.append(name)
        return {"out": torch.ones(2, 1)}

    rows = conv.compare("conv32", 2, {"a": lambda: call("a"), "b": lambda: call("b")}, threads=1, rounds=50, seconds=0.0)
    assert [row["rounds"] for row in rows] == [3, 3] and order[-6:] == ["a", "b"] * 3


def test_figures_are_ratios_at_the_size_nearest_to_67_k():
    def row(case, voxels, peer, ms):
        return {"case": case, "voxels": voxels, "peer": peer, "ms": ms, "cpu_ms": 2 * ms if peer == "ours" else ms}

    rows = [
        {"peer": "minkowski", "missing": "not installed"},
        row("conv32", 20_000, "ours", 1.0), row("conv32", 20_000, "spconv", 1.0),
        row("conv32", 70_000, "ours", 3.0), row("conv32", 70_000, "spconv", 6.0), row("unet", 70_000, "ours", 5.0),
    ]
    assert conv.figures_of(rows) == {
        "conv_voxels": 70_000, "conv32_ms": 3.0, "conv32_vs_spconv": 0.5, "conv32_cpu_vs_spconv": 1.0, "unet_ms": 5.0,
        "conv_missing": "minkowski"}


def test_missing_peers_are_named(monkeypatch, capsys):
    class Nowhere(PEERS["ours"]):
        def __init__(self, device):
            raise Missing("it was never installed")

    monkeypatch.setitem(PEERS, "spconv", Nowhere)
    peers, rows = conv._peers(["ours", "spconv"], CPU)
    assert list(peers) == ["ours"] and rows == [{"peer": "spconv", "missing": "it was never installed"}]
    assert "spconv is missing: it was never installed" in capsys.readouterr().out


def test_the_whole_benchmark_at_a_small_size(tmp_path):
    given = ("--sizes", "300", "--cases", "conv32", "--peers", "torch", "--threads", "1", "--rounds", "3")
    figures, rows = conv.run(arguments(*given, "--plot", str(tmp_path / "conv.png")))
    assert [row["peer"] for row in rows] == ["ours", "torch"] and figures["conv_voxels"] == 300
    assert figures["conv32_vs_torch"] == pytest.approx(rows[0]["ms"] / rows[1]["ms"])
    assert (tmp_path / "conv.png").stat().st_size > 5000


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        conv.run(arguments("--sizes", "0"))
