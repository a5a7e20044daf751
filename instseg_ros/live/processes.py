"""Nodes as child processes that never outlive their parent's interest in them."""

__all__ = ["NodeProcess", "NodeProcesses"]

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from instseg_ros.errors import InstSegError

STOP_S = (10.0, 5.0)
"""Seconds given to SIGINT, then to SIGTERM, before SIGKILL."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """In the child: be interrupted when the parent is gone, even if that was killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class NodeProcess:
    """One of our nodes in a process of its own.

    Args:
        module: its module, such as `instseg_ros.ros.segmenter_node`.
        parameters: ROS parameters by name.
        remappings: topics and services by the name the node uses.
        log: file for everything it prints.
    """

    def __init__(self, module: str, parameters: Mapping[str, Any], remappings: Mapping[str, str], log: Path) -> None:
        self.name = module.rsplit(".", 1)[-1]
        self.log = log
        arguments = [f"-p {name}:={_ros_text(value)}".split(" ", 1) for name, value in parameters.items()]
        arguments += [["-r", f"{old}:={new}"] for old, new in remappings.items()]
        command = [sys.executable, "-m", module, "--ros-args", *(part for pair in arguments for part in pair)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            file.write(" ".join(command) + "\n")
            file.flush()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def check(self) -> None:
        """Raises:
        InstSegError: the process has ended; the message shows the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise InstSegError(f"{self.name} ended with status {code}; the end of {self.log}:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """The last lines it printed."""
        return "\n".join(f"    {line}" for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    def interrupt(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def stop(self) -> int:
        """End it, by force if it does not listen; returns its exit status."""
        for number, patience_s in zip((signal.SIGINT, signal.SIGTERM), STOP_S, strict=True):
            if self._process.poll() is None:
                self._process.send_signal(number)
            try:
                return self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        self._process.kill()
        return self._process.wait()


class NodeProcesses:
    """Several nodes; leaving the context stops them all, whatever happened."""

    def __init__(self) -> None:
        self.running: list[NodeProcess] = []

    def start(self, *arguments: Any) -> NodeProcess:
        """Start a `NodeProcess`."""
        node = NodeProcess(*arguments)
        self.running.append(node)
        return node

    def check(self) -> None:
        """Raises:
        InstSegError: one of them has ended.
        """
        for node in self.running:
            node.check()

    def __enter__(self) -> "NodeProcesses":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for node in self.running:
            node.interrupt()  # all of them at once, then wait
        for node in self.running:
            node.stop()


def _ros_text(value: Any) -> str:
    """A value as the YAML that ROS reads; strings are quoted, so that no path or name becomes a number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
