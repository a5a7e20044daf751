"""Keeping the state file current. No ROS in here."""

__all__ = ["Autosave", "resume"]

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instseg_ros.persistence import State, load_state, previous_file, set_aside, write_state
from instseg_ros.ros.diagnostics import Monitor


def resume(path: Path, restore: Callable[[State], None]) -> tuple[State | None, list[str]]:
    """Go on from a state file, or from the one before it where that cannot be used.

    A file that cannot be used is renamed, so that what is saved from now on neither replaces it nor pushes the good one before it out.

    Args:
        path: the newest file.
        restore: takes a state over, or raises.

    Returns:
        The state that was restored, None if there was none; and why files were refused.
    """
    refused: list[str] = []
    for candidate in (path, previous_file(path)):
        if candidate.exists():
            try:
                state = load_state(candidate)
                restore(state)
                return state, refused
            except Exception as error:  # whatever is wrong with a file, the robot goes on without it
                refused.append(f"{error} (kept as {set_aside(candidate)})")
    return None, refused


class Autosave:
    """Saves now and then, if anything has changed. The worker only takes a copy between two updates; a thread of its own writes it.

    Args:
        path: the state file; None = nothing is saved.
        monitor: counts `state_saves` and `state_save_failures`, and the times `save_copy` and `save_write`.
        on_error: told why a save failed; it is tried again after the period.
    """

    def __init__(self, path: Path | None, monitor: Monitor, on_error: Callable[[str], None]) -> None:
        self.path = path
        self.error = ""
        """Why the last save failed; empty if it did not."""
        self.resumed = ""
        """What was resumed from, for the diagnostics."""
        self._monitor, self._on_error = monitor, on_error
        self._changed = False
        self._begun: float | None = None
        self._saved_at: float | None = None
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()

    def touch(self, at_once: bool = False) -> None:
        """There is something new to save; `at_once`: without waiting for the period to end."""
        self._changed = True
        if at_once:
            self._begun = None

    def due(self, period_s: float, take: Callable[[], State]) -> float | None:
        """Save if it is time to; called by the worker between two updates.

        Returns:
            Seconds until it wants to be called again, None = no need as long as nothing changes.
        """
        if self.path is None or not self._changed:
            return None
        wait_s = 0.0 if self._begun is None else self._begun + period_s - time.monotonic()
        if wait_s > 0.0:
            return wait_s
        if self._thread is not None and self._thread.is_alive():
            return 0.1
        self._changed, self._begun = False, time.monotonic()
        self._thread = threading.Thread(target=self._save, args=(self._copy(take),), name="autosave", daemon=True)
        self._thread.start()
        return period_s  # to try again if it fails

    def finish(self, take: Callable[[], State] | None) -> None:
        """Wait for what is being written, and save what has changed since; None = the worker did not end, so that nothing more can be taken."""
        if self._thread is not None:
            self._thread.join()
        if self.path is not None and self._changed and take is not None:
            self._changed = False
            self._save(self._copy(take))

    def write(self, path: Path, state: State) -> None:
        """Write a state to any file, never two at once."""
        with self._writing:
            write_state(path, state)

    def values(self) -> dict[str, Any]:
        """For the diagnostics; nothing if nothing is saved or loaded."""
        values: dict[str, Any] = {}
        if self.path is not None:
            ago = "never" if self._saved_at is None else f"{time.monotonic() - self._saved_at:.1f}"
            values = {"state_file": self.path, "state_saved_s_ago": ago, "state_error": self.error}
        return {**values, **({"state_resumed": self.resumed} if self.resumed else {})}

    def _copy(self, take: Callable[[], State]) -> State:
        start = time.perf_counter()
        state = take()
        self._monitor.duration("save_copy", (time.perf_counter() - start) * 1e3)
        return state

    def _save(self, state: State) -> None:
        assert self.path is not None
        start = time.perf_counter()
        try:
            self.write(self.path, state)
        except OSError as error:
            self._changed = True
            self.error = f"saving the state to {self.path} failed: {error.strerror or error}"
            self._monitor.count("state_save_failures")
            self._on_error(self.error)
            return
        self.error, self._saved_at = "", time.monotonic()
        self._monitor.count("state_saves")
        self._monitor.duration("save_write", (time.perf_counter() - start) * 1e3)
