"""Counts, rates and times of a node, and how they become diagnostic_msgs."""

__all__ = ["Monitor", "shortened", "status"]

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

_LEVELS = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


def shortened(text: str, most: int = 600) -> str:
    """The text, without its middle if it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


class Monitor:
    """Counts by cause, event rates, and the last few hundred durations per stage. Threads may share one."""

    WINDOW_S = 10.0

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last_error = ""
        self.last_error_time = 0.0
        self._lock = threading.Lock()
        self._durations_ms: dict[str, deque[float]] = {}
        self._moments: dict[str, deque[float]] = {}

    def count(self, name: str, by: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self.counts[name] += by

    def tick(self, name: str) -> None:
        """Something with a rate happened."""
        with self._lock:
            self._moments.setdefault(name, deque(maxlen=1000)).append(time.monotonic())

    def duration(self, stage: str, ms: float) -> None:
        """A stage took this long."""
        with self._lock:
            self._durations_ms.setdefault(stage, deque(maxlen=300)).append(ms)

    def error(self, text: str) -> None:
        """Remember the last error, of a length that fits every viewer: parts of it can be what a stranger wrote."""
        with self._lock:
            self.last_error, self.last_error_time = shortened(text), time.monotonic()

    def recent_error(self, within_s: float = 10.0) -> bool:
        """Whether there was an error a moment ago."""
        return bool(self.last_error) and time.monotonic() - self.last_error_time < within_s

    def rates(self) -> dict[str, str]:
        """`rate_NAME_hz` over the last ten seconds."""
        now = time.monotonic()
        with self._lock:
            return {
                f"rate_{name}_hz": f"{sum(now - t < self.WINDOW_S for t in moments) / self.WINDOW_S:.2f}"
                for name, moments in self._moments.items()
            }

    def times(self) -> dict[str, str]:
        """`STAGE_ms_p50` and `STAGE_ms_p95` of the last durations."""
        with self._lock:
            durations = {name: np.array(values) for name, values in self._durations_ms.items()}
        return {f"{name}_ms_p{q}": f"{np.percentile(values, q):.1f}" for name, values in durations.items() for q in (50, 95)}

    def totals(self) -> dict[str, str]:
        """All counts."""
        with self._lock:
            return {name: str(value) for name, value in sorted(self.counts.items())}


def status(name: str, level: str, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """One status; `level` is ok, warn or error."""
    return DiagnosticStatus(
        name=name,
        level=_LEVELS[level],
        message=message,
        hardware_id="",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
