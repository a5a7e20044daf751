"""Memory and computing time of a process, as the system counts them."""

__all__ = ["cpu_seconds", "peak_bytes", "resident_bytes"]

import os
import resource
from pathlib import Path


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process; without a /proc, the largest so far of this one."""
    return _status(pid, "VmRSS:")


def peak_bytes(pid: int | str = "self") -> int:
    """Largest resident memory of a process so far; without a /proc, of this one."""
    return _status(pid, "VmHWM:")  # ru_maxrss of a new process begins at what its parent had


def cpu_seconds(pid: int) -> float:
    """Time that all threads of a process have computed; not a number without a /proc."""
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float("nan")


def _status(pid: int | str, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
