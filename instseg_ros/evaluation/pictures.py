"""Pictures of an outcome: what was measured, what is true, what was predicted."""

__all__ = ["save_picture"]

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from instseg_ros.evaluation.evaluate import Outcome
from instseg_ros.labels import BACKGROUND, CLASS_COLORS, NUM_CLASSES, class_index, instance_color
from instseg_ros.visual.render import render_points
from instseg_ros.visual.view import View, cutaway

_PANEL = (760, 600)
_CAPTION = 22
_STRUCTURE = [class_index(name) for name in ("wall", "door", "window", "picture", "curtain")]


def save_picture(path: Path | str, outcome: Outcome, voxel_size_m: float) -> None:
    """Write a PNG of four panels: colour, predicted classes; below, true and predicted instances.

    Predicted instances have the colour of the true instance they share most voxels with, so that panels can be compared; a
    second prediction on the same instance has a colour of its own.
    """
    cloud, scan = outcome.cloud, outcome.scan
    view = View()
    structure = np.isin(scan.class_index, _STRUCTURE)
    shown = cutaway(cloud.points_m, view, structure, scan.class_index == class_index("floor"))
    truth = np.where(scan.instance >= 0, scan.instance.astype(np.int64) + 1, 0)
    predicted = _matched_names(truth, cloud.instance.astype(np.int64))
    class_colors = np.concatenate([CLASS_COLORS, np.full((256 - NUM_CLASSES, 3), 90, np.uint8)])
    panels = (
        ("measured", cloud.colors, None), ("predicted classes", class_colors[cloud.class_index], None),
        ("true instances", _colors(truth, scan.class_index, class_colors), truth),
        ("predicted instances", _colors(predicted, cloud.class_index, class_colors), predicted),
    )
    image = Image.new("RGB", (2 * _PANEL[0], 2 * (_PANEL[1] + _CAPTION)), "white")
    draw = ImageDraw.Draw(image)
    for k, (title, colors, outline) in enumerate(panels):
        x, y = k % 2 * _PANEL[0], k // 2 * (_PANEL[1] + _CAPTION)
        lines = None if outline is None else outline[shown]
        picture = render_points(cloud.points_m[shown], colors[shown], voxel_size_m, view, _PANEL, outline=lines)
        image.paste(Image.fromarray(picture), (x, y + _CAPTION))
        draw.text((x + 8, y + 5), title, fill="black")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _colors(instance: np.ndarray, classes: np.ndarray, class_colors: np.ndarray) -> np.ndarray:
    """Instances in their colours, background in pale class colours, the rest grey."""
    colors = instance_color(instance)
    background = (instance == 0) & np.isin(classes, BACKGROUND)
    colors[background] = class_colors[classes[background]] // 2 + 110
    return colors


def _matched_names(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Predicted ids [N] renamed to the true instance of the largest overlap, larger overlaps first; others get new numbers."""
    both = (truth > 0) & (predicted > 0)
    pairs, shared = np.unique(np.stack([predicted[both], truth[both]]), axis=1, return_counts=True)
    names: dict[int, int] = {}
    for i in np.argsort(-shared, kind="stable").tolist():
        found, name = int(pairs[0, i]), int(pairs[1, i])
        if found not in names and name not in names.values():
            names[found] = name
    ids, inverse = np.unique(predicted, return_inverse=True)
    free = int(truth.max(initial=0)) + 1
    renamed = [0 if i == 0 else names.get(int(i), free + k) for k, i in enumerate(ids.tolist())]
    return np.array(renamed, np.int64)[inverse]
