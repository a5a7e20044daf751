"""Child processes end with whoever started them, and say why they ended early."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from instseg_ros.errors import InstSegError
from instseg_ros.live.processes import STOP_S, NodeProcess, NodeProcesses

NODES = {
    "polite_node": (
        # as rclpy does; a shell starts what it puts into the background with SIGINT ignored, which children inherit
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nprint('up', flush=True)\ntry:\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('bye', flush=True)\n"
    ),
    "deaf_node": (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    ),
    "broken_node": "raise SystemExit('no weights here')\n",
    "echo_node": "import sys\nprint(sys.argv[1:], flush=True)\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, code in NODES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


def wait_for(condition, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_leaving_the_context_stops_even_a_deaf_child(folder, monkeypatch):
    monkeypatch.setattr("instseg_ros.live.processes.STOP_S", (6.0, 0.3))  # the polite one may be slow on a busy machine
    assert len(STOP_S) == 2
    with pytest.raises(ValueError, match="the demo itself failed"), NodeProcesses() as nodes:
        started = [nodes.start(name, {}, {}, folder / f"{name}.log") for name in ("polite_node", "deaf_node")]
        wait_for(lambda: all("up" in node.tail() for node in started))
        nodes.check()
        raise ValueError("the demo itself failed")
    assert "bye" in started[0].tail()
    assert not any(alive(node.pid) for node in started)


def test_a_child_that_ends_early_is_reported_with_its_last_words(folder):
    with NodeProcesses() as nodes:
        node = nodes.start("broken_node", {}, {}, folder / "broken.log")
        wait_for(lambda: not alive(node.pid))
        with pytest.raises(InstSegError, match=r"broken_node ended with status 1[\s\S]*no weights here"):
            nodes.check()


def test_parameters_keep_their_types(folder):
    node = NodeProcess(
        "echo_node", {"text": "0.5", "flag": True, "size": 0.5, "path": "it's"}, {"a": "/b"}, folder / "echo.log"
    )
    wait_for(lambda: not alive(node.pid))
    assert node.stop() == 0
    for argument in ("\"text:='0.5'\"", "'flag:=true'", "'size:=0.5'", "\"path:='it''s'\"", "'a:=/b'"):
        assert argument in node.tail()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
def test_a_killed_parent_takes_its_children_along(folder):
    code = f"""
        import time
        from pathlib import Path
        from instseg_ros.live.processes import NodeProcess
        node = NodeProcess("polite_node", {{}}, {{}}, Path({str(folder / "polite.log")!r}))
        print(node.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: "up" in (folder / "polite.log").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not alive(child))
    parent.stdout.close()
