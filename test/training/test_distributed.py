"""Two processes of torchrun on the CPU train as one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_worker import STEPS, train
from test_training import boxes_scene

from instseg_ros.datasets.scenes import save_scene
from instseg_ros.errors import ConfigError, MissingDependencyError
from instseg_ros.sparse import kernels
from instseg_ros.training.processes import Processes, cores_each

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("accelerate", reason="training with several processes needs accelerate: pip install accelerate")
    folder = tmp_path_factory.mktemp("distributed")
    for split, count in (("train", 4), ("validation", 3)):
        (folder / "data" / split).mkdir(parents=True)
        for i in range(count):
            save_scene(folder / "data" / split / f"room_{i:04d}.npz", boxes_scene(i))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER), str(folder)]
    path = os.pathsep.join(p for p in [str(Path.cwd()), os.environ.get("PYTHONPATH", "")] if p)
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def two(folder):
    return [torch.load(folder / f"runs_{rank}.pt") for rank in range(2)]


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name in want:
        assert torch.equal(got[name], want[name]), (name, (got[name] - want[name]).abs().max())


@pytest.fixture(scope="module")
def one(folder):
    threads = torch.get_num_threads()
    try:
        yield {"even": train(folder, folder / "one_even", 2), "uneven": train(folder, folder / "one_uneven", 3)}
    finally:
        torch.set_num_threads(threads)
        kernels.set_threads(0)


@pytest.mark.parametrize(("run", "order"), [("even", [(0, 0), (1, 0)]), ("uneven", [(0, 0), (1, 0), (0, 1)])])
def test_data_come_in_the_same_order(one, two, run, order):
    for step in range(STEPS):
        shares = [runs[run]["steps"][step]["voxels"] for runs in two]
        assert [shares[rank][i] for rank, i in order] == one[run]["steps"][step]["voxels"]
        assert sum(map(len, shares)) == len(order)


@pytest.mark.parametrize("run", ["even", "uneven"])
def test_losses_are_the_same_step_by_step(one, two, run):
    for step in range(STEPS):
        want = one[run]["steps"][step]["terms"]
        assert set(want) == {"semantic"} | ({"pull", "push", "offset"} if step else set())
        for runs in two:
            assert runs[run]["steps"][step]["terms"] == pytest.approx(want, rel=1e-5)


def test_two_micro_batches_leave_the_same_weights_to_the_last_bit(one, two):
    # halving is exact and a sum of two does not depend on their order, so nothing is rounded differently
    assert_same(two[0]["even"]["model"], one["even"]["model"])
    assert one["even"]["model"]["backbone.stem.norm.num_batches_tracked"] == STEPS


def test_three_micro_batches_leave_the_same_weights_but_for_rounding(one, two):
    got, want, gradients = two[0]["uneven"]["model"], one["uneven"]["model"], one["uneven"]["gradients"]
    compared = 0
    for name, gradient in gradients.items():
        # Adam divides by the gradient's size: where the loss does not depend on a weight, it makes whole steps of rounding errors
        matters = gradient > 1e-5
        assert torch.allclose(got[name][matters], want[name][matters], rtol=1e-3, atol=1e-4), (name, (got[name] - want[name])[matters].abs().max())
        compared += int(matters.sum())
    assert compared > 0.9 * sum(g.numel() for g in gradients.values())


@pytest.mark.parametrize("run", ["even", "stopped", "uneven"])
def test_processes_have_the_same_weights_and_statistics(two, run):
    assert_same(two[0][run]["model"], two[1][run]["model"])


def test_validation_is_the_same_and_every_file_is_written_once(folder, one, two):
    for runs in two:
        assert runs["even"]["figures"] == one["even"]["figures"]
    assert one["even"]["figures"]["accuracy"] > 0.0
    assert len(list((folder / "two_even").glob("events.out.tfevents*"))) == 1
    assert {p.name for p in (folder / "two_even").iterdir()} >= {"last.safetensors", "best.safetensors", "checkpoint.safetensors"}


def test_one_process_goes_on_with_what_two_began(folder, one, two):
    assert len(two[0]["stopped"]["steps"]) == 2
    rest = train(folder, folder / "stopped", 2)
    assert len(rest["steps"]) == STEPS - 2
    assert_same(rest["model"], one["even"]["model"])
    assert rest["steps"] == one["even"]["steps"][2:]


def test_all_processes_raise_what_one_has_met(folder):
    for rank in range(2):
        errors = json.loads((folder / f"errors_{rank}.json").read_text())
        assert "the loss is nan at step 0" in errors["bad"]
        assert "--micro-batches 2" in errors["few"]
        assert "do not have the same settings:" in errors["unlike"]


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR.*torchrun"):
        Processes("cpu")


def test_a_missing_library_is_named(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        Processes("cpu")


def test_processes_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cores_each() == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert cores_each() == 2
