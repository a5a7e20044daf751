"""One table of several entries on one data set, in Markdown, as figures and rows of a report, and as a picture."""

__all__ = ["comparison_markdown", "save_comparison_plot", "summarise_entries"]

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.evaluation.entries import Score
from instseg_ros.evaluation.hota import hota
from instseg_ros.evaluation.instances import average_precision
from instseg_ros.evaluation.occupancy import OCCUPANCY_ERROR, occupancy_within
from instseg_ros.labels import CLASS_NAMES

MEASURES = {
    "ap": "AP", "ap50": "AP50", "ap25": "AP25", "mprec": "mPrec", "mrec": "mRec",
    "ap50_known": "AP50, classes known", "ap25_known": "AP25, classes known", "mprec_known": "mPrec, classes known",
    "mrec_known": "mRec, classes known", "seconds_per_scene": "s/scene", "assa": "AssA", "id_switches_per_1000": "switches/1000",
    "hota": "HOTA", "occupancy_within": f"occupancy within {OCCUPANCY_ERROR}",
}
"""Keys of an entry's row that tables show, with their titles; a column without any value is left out."""
SCORES = ("ap", "ap50", "ap25", "mprec", "mrec")
"""Those that the plot shows as bars."""
CLASS_SCORES = {"ap50": "AP50", "ap25": "AP25", "precision": "precision"}
"""Of the rows of classes: tables show the first that there is."""
_FORMATS = {"seconds_per_scene": ".3g", "id_switches_per_1000": ".2f"}


def summarise_entries(
    prefix: str, scores: Mapping[str, Sequence[Mapping[str, Score]]], classes: Sequence[int], min_region: int,
    per_class: bool = False, with_hota: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures and rows of a comparison.

    Args:
        prefix: of the figures' names: "rooms", "toy", ...
        scores: by entry, one mapping of mode to score per case; the same cases for all.
        classes: class indices that are evaluated.
        min_region: see `average_precision`.
        per_class: `PREFIX_ap50` lists the AP50 of each class; the means are `PREFIX_mean_ap50` then.
        with_hota: HOTA of online runs too, by the TrackEval library.

    Returns:
        Figures, each {entry: value} (`PREFIX_ap`, `PREFIX_ap50`, ..., `_online` for online runs), and per entry and mode one row
        "entry" and a row "class" for every class.
    """
    figures: dict[str, Any] = {f"{prefix}_scenes": max((len(s) for s in scores.values()), default=0)}
    rows: list[dict[str, Any]] = []
    for mode in ("offline", "online"):
        suffix = "_online" if mode == "online" else ""
        for name, cases in scores.items():
            mine = [case[mode] for case in cases if mode in case]
            if not mine:
                continue
            entry, of_classes = _entry_rows(name, mode, mine, classes, min_region)
            if mode == "online" and with_hota:
                entry |= hota([score.tracks for score in mine if score.tracks is not None]).figures()
            rows += [entry, *of_classes]
            for key in MEASURES:
                if key in entry:
                    tail = f"_{OCCUPANCY_ERROR}" if key == "occupancy_within" else ""
                    stem = f"mean_{key}" if key == "ap50" and per_class else key
                    figures.setdefault(f"{prefix}_{stem}{tail}{suffix}", {})[name] = entry[key]
            if per_class:
                figures.setdefault(f"{prefix}_ap50{suffix}", {})[name] = [row["ap50"] for row in of_classes]
    if per_class:
        figures[f"{prefix}_classes"] = [CLASS_NAMES[c] for c in classes]
    return figures, rows


def _entry_rows(
    name: str, mode: str, scores: Sequence[Score], classes: Sequence[int], min_region: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ap = average_precision([score.scan for score in scores], classes, min_region)
    entry: dict[str, Any] = {
        "row": "entry", "entry": name, "mode": mode, "scenes": len(scores), "ap": _number(ap.ap), "ap50": _number(ap.ap50),
        "ap25": _number(ap.ap25), "seconds_per_scene": float(np.mean([score.seconds for score in scores])),
    }
    known = [score.occupancy_errors for score in scores if score.occupancy_errors is not None]
    if known:
        entry["occupancy_within"] = _number(occupancy_within(np.concatenate(known)))
    ids = [score.consistency for score in scores if score.consistency is not None and score.consistency.instance_updates]
    if ids:
        updates = [one.instance_updates for one in ids]
        entry["assa"] = float(np.average([one.association_accuracy for one in ids], weights=updates))
        entry["id_switches_per_1000"] = 1000.0 * sum(one.switches for one in ids) / sum(updates)
    of_classes = [
        {"row": "class", "entry": name, "mode": mode, "class": label, "ap": _number(one.ap), "ap50": _number(one.ap50),
         "ap25": _number(one.ap25), "instances": one.instances, "predictions": one.predictions}
        for label, one in ap.per_class.items()
    ]
    return entry, of_classes


def comparison_markdown(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables of a comparison: means of every entry, then AP50 (or what the data set has in its place) of every class.

    Args:
        title: a heading.
        rows: of `summarise_entries`, or any like them: rows "entry" with keys of `MEASURES`, rows "class" with one of `CLASS_SCORES`,
            rows "area" with "mprec" and "mrec".
    """
    lines = [f"# {title}", ""]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        entries = [row for row in rows if row["row"] == "entry" and row["mode"] == mode]
        keys = [key for key in MEASURES if any(row.get(key) is not None for row in entries)]
        lines += _table([mode, *(MEASURES[key] for key in keys)],
                        [[row["entry"], *(_cell(row.get(key), _FORMATS.get(key, ".3f")) for key in keys)] for row in entries])
        names = [row["entry"] for row in entries]
        measure, labels, value = _of_classes(rows, mode, names)
        lines += ["", *_table([f"{measure}, {mode}", *names], [[label, *(_cell(value.get((label, n))) for n in names)] for label in labels]), ""]
    areas = [row for row in rows if row["row"] == "area"]
    if areas:
        one = {(row["area"], row["entry"]): f"{_cell(row['mprec'])} / {_cell(row['mrec'])}" for row in areas}
        names, parts = (list(dict.fromkeys(row[key] for row in areas)) for key in ("entry", "area"))
        lines += [*_table(["mPrec / mRec", *names], [[part.replace("_", " "), *(one.get((part, n), "-") for n in names)] for part in parts]), ""]
    return "\n".join(lines)


def _of_classes(
    rows: Sequence[Mapping[str, Any]], mode: str, names: Sequence[str],
) -> tuple[str, list[str], dict[tuple[str, str], float | None]]:
    """What tables show of the classes: the measure's title, classes with a value, and the value by class and entry."""
    of_classes = [row for row in rows if row["row"] == "class" and row["mode"] == mode]
    key = next((key for key in CLASS_SCORES if any(key in row for row in of_classes)), "ap50")
    value = {(row["class"], row["entry"]): row.get(key) for row in of_classes}
    labels = [label for label in dict.fromkeys(label for label, _ in value) if any(value.get((label, n)) is not None for n in names)]
    return CLASS_SCORES[key], labels, value


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in body]


def save_comparison_plot(path: Path | str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG: AP, AP50 and AP25 (or the data set's measures) of every entry as bars, and below AP50 by class as a coloured table.

    Args:
        path: file to write; folders are made.
        title, rows: as of `comparison_markdown`; offline rows are shown where there are any.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    mode = "offline" if any(row["mode"] == "offline" for row in rows) else "online"
    entries = [row for row in rows if row["row"] == "entry" and row["mode"] == mode]
    names = [row["entry"] for row in entries]
    class_title, labels, value = _of_classes(rows, mode, names)
    figure, (bars, cells) = pyplot.subplots(
        2, 1, figsize=(max(7.0, 1.1 * len(labels) + 2, 1.7 * len(names) + 1), 4.2 + 0.42 * len(names)), height_ratios=(3.2, 0.4 * len(names) + 0.6))
    width, shown = 0.26, [key for key in SCORES if any(key in row for row in entries)]
    for k, key in enumerate(shown):
        heights = [row.get(key) or 0.0 for row in entries]
        drawn = bars.bar(np.arange(len(names)) + (k - (len(shown) - 1) / 2) * width, heights, width, label=MEASURES[key])
        bars.bar_label(drawn, [_cell(row.get(key)) for row in entries], fontsize=7)
    seconds = ["" if row.get("seconds_per_scene") is None else f"\n{row['seconds_per_scene']:.2g} s/scene" for row in entries]
    below = [textwrap.fill(name.replace("_", " "), 16) + time for name, time in zip(names, seconds, strict=True)]
    bars.set_xticks(range(len(names)), below, fontsize=8)
    bars.set(ylim=(0, 1.2), title=title)
    bars.legend(loc="upper center", ncols=3, fontsize=8)
    table = np.array([[np.nan if (v := value.get((label, n))) is None else v for label in labels] for n in names], float)
    table = table.reshape(len(names), len(labels))
    cells.imshow(np.ma.masked_invalid(table), vmin=0, vmax=1, cmap="YlGn", aspect="auto")
    for (i, j), one in np.ndenumerate(table):
        cells.text(j, i, "-" if np.isnan(one) else f"{one:.2f}", ha="center", va="center", fontsize=8, color="white" if one > 0.7 else "black")
    cells.set_xticks(range(len(labels)), labels, fontsize=8, rotation=30, ha="right")
    cells.set_yticks(range(len(names)), names, fontsize=8)
    cells.set_title(f"{class_title} by class, {mode}", fontsize=9)
    figure.tight_layout()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _cell(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _number(value: float) -> float | None:
    """NaN is no JSON."""
    return None if np.isnan(value) else float(value)
