"""Memory of a process, as the system counts it."""

__all__ = ["peak_bytes", "resident_bytes"]

import resource
from pathlib import Path


def resident_bytes() -> int:
    """Resident memory of this process; where the system has no /proc, the largest so far."""
    return _status("VmRSS:")


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return _status("VmHWM:")  # ru_maxrss of a new process begins at what its parent had


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
