"""The JSON files that hold figures: one form for all of them."""

__all__ = ["machine", "write_report"]

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written to a report")


def write_report(path: Path | str, figures: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write `{"machine": ..., "figures": ..., "rows": ...}` as JSON; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "figures": dict(figures), "rows": [dict(row) for row in rows]}
    path.write_text(json.dumps(report, indent=1, default=_plain) + "\n")
