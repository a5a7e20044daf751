"""Pictures of a replay: latency, stages, growth of the map, and the life of every id."""

__all__ = ["write_plots"]

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from instseg_ros.labels import CLASS_COLORS, IGNORE
from instseg_ros.replay.history import IdHistory, IdLife, Replay

DPI = 120
MAX_IDS = 120
"""Ids in the timeline; of more, those that lived longest."""
NAMED_IDS = 60
"""Up to so many, each has its name."""
MARKS = {"merged": ("x", "#c02020"), "split": ("^", "#1f5fbf"), "retired": ("|", "#303030")}
STAGE_COLORS = {
    "queue": "#bbbbbb", "convert": "#999999", "fusion": "#8c6bb1", "map": "#74add1", "network": "#4575b4", "grouping": "#f4a259",
    "tracking": "#5b8e7d", "publish": "#bc4b51",
}
TIME = "time in the bag, s"


def write_plots(out: Path, replay: Replay) -> list[Path]:
    """Write latency.png, stages.png, growth.png and ids.png into a folder; returns them."""
    out.mkdir(parents=True, exist_ok=True)
    figures = {"latency": _latency(replay), "stages": _stages(replay), "growth": _growth(replay), "ids": _ids(replay.ids)}
    paths = []
    for name, figure in figures.items():
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def _figure(rows: int = 1, height: float = 4.8) -> tuple[Figure, Any]:
    figure = Figure(figsize=(10, height), layout="constrained")
    ratios = {"height_ratios": [3, 1]} if rows == 2 else None
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(TIME)
    return figure, axes


def _latency(replay: Replay) -> Figure:
    live = replay.mode == "topics"
    figure, axes = _figure(2 if replay.waiting is not None else 1, 5.6 if replay.waiting is not None else 4.8)
    at_s, ms = replay.latency.at_s, replay.latency.values["ms"]
    p50, p95 = np.percentile(ms, (50, 95)) if len(ms) else (np.nan, np.nan)
    axis = axes[0]
    axis.plot(at_s, ms, ".", markersize=4, color="#4575b4", alpha=0.7, label="one update")
    for value, name, style in ((p50, "p50", "--"), (p95, "p95", ":")):
        axis.axhline(value, color="#c02020", linewidth=1.2, linestyle=style, label=f"{name} {value:.0f} ms")
    if len(ms) and ms.max() > 20 * p50 > 0:
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, None)
    if not live and len(at_s) > 1:
        axis.step(at_s[1:], np.diff(at_s) * 1e3, color="#888888", linewidth=1, label="time between updates in the bag")
    axis.set_ylabel("latency, ms" if live else "time per update, ms")
    axis.set_title("From the stamp of an update to the publication of its result" if live else "Time in fusion and segmenter per update", fontsize=11)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    if replay.waiting is not None:
        axes[1].fill_between(replay.waiting.at_s, replay.waiting.values["updates"], step="post", color="#f4a259")
        axes[1].set(ylabel="updates\nwaiting", ylim=(0, max(1.0, *(1.1 * replay.waiting.values["updates"]))))
    return figure


def _stages(replay: Replay) -> Figure:
    live = replay.mode == "topics"
    figure, (axis,) = _figure()
    stages = {name: values for name, values in replay.stages.values.items() if len(values) and np.nanmax(values) > 0}
    if stages:
        median = (lambda values: values[-1]) if live else np.median  # live, the last report has the median over all
        labels = [f"{name}  {median(values):.1f} ms" for name, values in stages.items()]
        colors = [STAGE_COLORS.get(name, "#cccccc") for name in stages]
        axis.stackplot(replay.stages.at_s, list(stages.values()), labels=labels, colors=colors, alpha=0.9, linewidth=0)
        handles, names = axis.get_legend_handles_labels()
        axis.legend(handles[::-1], names[::-1], title="median", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        total = np.sum(list(stages.values()), axis=0)
        axis.set_ylim(0, min(1.05 * total.max(), 3.0 * max(np.percentile(total, 98), 1e-3)))
    axis.set_ylabel("ms")
    axis.set_title("Stages, running medians of the last 300 updates" if live else "Stages of each update", fontsize=11)
    axis.margins(x=0)
    return figure


def _growth(replay: Replay) -> Figure:
    figure, (axis,) = _figure()
    at_s = [state.at_s for state in replay.states]
    axis.fill_between(at_s, [state.voxels for state in replay.states], color="#9ecae1", label="voxels in the map")
    axis.set(ylabel="voxels", ylim=(0, None))
    right = axis.twinx()
    right.spines["top"].set_visible(False)
    right.step(at_s, [state.instances for state in replay.states], where="post", color="#c02020", label="instances in the map")
    births = np.sort([life.spans[0][0] for life in replay.ids.lives.values() if life.spans])
    right.step(at_s, np.searchsorted(births, at_s, side="right"), where="post", color="#c02020", linestyle=":", label="ids given so far")
    right.set(ylabel="instances", ylim=(0, None))
    right.yaxis.get_major_locator().set_params(integer=True)
    handles, labels = (a + b for a, b in zip(axis.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True))
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    axis.margins(x=0)
    return figure


def _ids(history: IdHistory) -> Figure:
    lives = [life for life in history.lives.values() if life.spans]
    shown = sorted(sorted(lives, key=lambda life: -life.seconds)[:MAX_IDS], key=lambda life: (life.spans[0][0], life.id))
    named = len(shown) <= NAMED_IDS
    figure, (axis,) = _figure(1, float(np.clip(1.4 + (0.2 if named else 0.1) * len(shown), 3.0, 16.0)))
    row_of = {life.id: row for row, life in enumerate(shown)}
    for life in shown:
        _draw_life(axis, life, row_of)
    axis.set_yticks(range(len(shown)) if named else range(0, len(shown), 10))
    ticked = [shown[int(row)] for row in axis.get_yticks()]
    axis.set_yticklabels([f"{life.id} {life.name}" for life in ticked], fontsize=8 if named else 7)
    axis.set_ylim(len(shown) - 0.3, -0.7)
    counts = history.counts()
    some = f"the {len(shown)} longest of {len(lives)} ids" if len(shown) < len(lives) else f"{len(lives)} ids"
    axis.set_title(
        f"{some}, each from its birth to its end: {counts['merged']} merged, {counts['split']} split, {counts['retired']} retired", fontsize=11)
    keys = [Line2D([], [], marker="o", markersize=3, color="#303030", linestyle="", label="born")]
    keys += [Line2D([], [], marker=mark, color=color, linestyle="", label=kind) for kind, (mark, color) in MARKS.items()]
    keys += [Line2D([], [], color="#888888", linewidth=0.8, linestyle=":", label="from or into")]
    keys += [Line2D([], [], color="#888888", linewidth=1, linestyle="--", label="asleep")]
    axis.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure


def _draw_life(axis: Any, life: IdLife, row_of: dict[int, int]) -> None:
    """Its spans as bars in the colour of its class, its events as marks, thin lines to the ids it merged into or split from."""
    row = row_of[life.id]
    color = CLASS_COLORS[life.class_index] / 255.0 if life.class_index != IGNORE else (0.6, 0.6, 0.6)
    for start, end in life.spans:
        axis.plot([start, end], [row, row], color=color, linewidth=4, solid_capstyle="butt")
    ends = [mark.at_s for mark in life.marks if mark.kind == "retired"]
    for (_, asleep), awake in zip(life.spans, [*(start for start, _ in life.spans[1:]), *ends[-1:]], strict=False):
        axis.plot([asleep, awake], [row, row], color=color, linewidth=1, linestyle="--")
    axis.plot([life.spans[0][0]], [row], "o", markersize=3, color="#303030")
    for mark in life.marks:
        if mark.kind in MARKS:
            shape, shade = MARKS[mark.kind]
            axis.plot([mark.at_s], [row], shape, markersize=6, color=shade)
            if mark.other in row_of:
                axis.plot([mark.at_s] * 2, [row, row_of[mark.other]], color="#888888", linewidth=0.8, linestyle=":", zorder=0)
