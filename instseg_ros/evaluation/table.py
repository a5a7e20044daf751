"""The per-class table that `instseg evaluate` prints."""

__all__ = ["format_table"]

from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = (("ap", "AP"), ("ap50", "AP50"), ("ap25", "AP25"), ("iou", "IoU"))


def format_table(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any], prefix: str) -> str:
    """Classes by mode, with the means in the last line of each.

    Args:
        rows, figures, prefix: of `evaluate.summarise`.
    """
    lines: list[str] = []
    for mode in ("offline", "online"):
        classes = [row for row in rows if row["row"] == "class" and row["mode"] == mode]
        if not classes:
            continue
        suffix = "_online" if mode == "online" else ""
        head = f"{mode:<16}" + "".join(f"{title:>8}" for _, title in _COLUMNS) + f"{'truth':>8}{'found':>8}"
        lines += ["", head, "-" * len(head)]
        for row in classes:
            counts = "".join(f"{row[name]:>8}" if name in row else " " * 8 for name in ("instances", "predictions"))
            lines.append(f"{row['class']:<16}" + "".join(_cell(row.get(name)) for name, _ in _COLUMNS) + counts)
        means = [figures.get(f"{prefix}_{name}{suffix}") for name in ("ap", "ap50", "ap25", "miou")]
        lines += ["-" * len(head), f"{'mean':<16}" + "".join(_cell(value) for value in means)]
    return "\n".join(lines[1:])


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.3f'):>8}"
