"""Composed pictures of a segmented map: colour, instances and classes side by side, growth strips, animations."""

__all__ = ["MapPictures", "beside", "growth_strip", "titled", "write_gif", "write_png"]

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from instseg_ros.instance import Instance
from instseg_ros.labels import BACKGROUND, CLASS_COLORS, CLASS_NAMES, IGNORE, class_index, instance_color
from instseg_ros.segmenter import LabelledCloud
from instseg_ros.visual.annotate import Label, font
from instseg_ros.visual.render import best_azimuth, render_points
from instseg_ros.visual.view import View, cutaway

STRUCTURE = [class_index(name) for name in ("wall", "door", "window", "picture", "curtain")]
FLOOR = class_index("floor")
FADE = 0.62
"""How far the colours of what is no instance are drawn towards white."""
UNKNOWN_COLOR = (205, 205, 205)
MIN_DRAWN = 0.25
"""An instance of which less than this share is drawn gets no box and name."""


@dataclass
class MapPictures:
    """Pictures of one segmented map from one side."""

    cloud: LabelledCloud
    instances: Sequence[Instance]
    voxel_size_m: float
    view: View = field(default_factory=View)
    size: tuple[int, int] = (960, 720)
    extent_m: np.ndarray | None = None
    """[M, 3] points that must fit (the final map, where pictures of a growing one are compared)."""
    supersample: int = 2

    @staticmethod
    def choose_view(cloud: LabelledCloud, voxel_size_m: float, elevation_deg: float = 42.0) -> View:
        """The side from which most of the objects are seen."""
        objects = ~np.isin(cloud.class_index, BACKGROUND)
        if not objects.any():
            objects[:] = True
        keep = cutaway(cloud.points_m, View(elevation_deg=90.0))
        return View(best_azimuth(cloud.points_m[keep], objects[keep], voxel_size_m, elevation_deg), elevation_deg)

    def _keep(self) -> np.ndarray:
        """Voxels that are drawn [N] bool."""
        classes = self.cloud.class_index
        return cutaway(self.cloud.points_m, self.view, np.isin(classes, STRUCTURE), classes == FLOOR)

    def _draw(self, colors: np.ndarray, labels: bool = False, outline: np.ndarray | None = None) -> np.ndarray:
        keep = self._keep()
        return render_points(
            self.cloud.points_m[keep],
            colors[keep],
            self.voxel_size_m,
            self.view,
            self.size,
            labels=self._labels(keep) if labels else (),
            outline=None if outline is None else outline[keep],
            extent_m=self.extent_m,
            supersample=self.supersample,
        )

    def color(self) -> np.ndarray:
        """The map in its own colours [H, W, 3] uint8."""
        return self._draw(self.cloud.colors)

    def instance(self, labels: bool = True) -> np.ndarray:
        """Instances in their lasting colours, everything else faded [H, W, 3] uint8."""
        cloud = self.cloud
        grey = cloud.colors.mean(axis=1, keepdims=True)
        faded = (0.5 * cloud.colors + 0.5 * grey) * (1.0 - FADE) + 255.0 * FADE
        is_object = cloud.instance > 0
        colors = np.where(is_object[:, None], instance_color(cloud.instance), faded.astype(np.uint8))
        return self._draw(colors, labels, cloud.instance.astype(np.int32))

    def classes(self) -> np.ndarray:
        """The map in ScanNet's class colours [H, W, 3] uint8."""
        palette = np.full((256, 3), UNKNOWN_COLOR, np.uint8)
        palette[: len(CLASS_COLORS)] = CLASS_COLORS
        return self._draw(palette[self.cloud.class_index], outline=self.cloud.class_index.astype(np.int32))

    def _labels(self, keep: np.ndarray) -> list[Label]:
        """Boxes and names of the instances that are not cut away."""
        ids, counts = np.unique(self.cloud.instance[keep], return_counts=True)
        drawn = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        found = []
        for one in self.instances:
            if drawn.get(one.id, 0) < MIN_DRAWN * one.voxels:
                continue
            red, green, blue = instance_color(np.array([one.id]))[0].tolist()
            name = CLASS_NAMES[one.class_index] if one.class_index != IGNORE else "object"
            found.append(Label(f"{name} {one.id}", np.asarray(one.box_min_m), np.asarray(one.box_max_m), (red, green, blue)))
        return found

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Names and colours of the classes in the map, most voxels first."""
        classes, counts = np.unique(self.cloud.class_index[self.cloud.class_index != IGNORE], return_counts=True)
        rows = [(CLASS_NAMES[c], tuple(int(v) for v in CLASS_COLORS[c])) for c in classes[np.argsort(-counts)]]
        return [(name, (rgb[0], rgb[1], rgb[2])) for name, rgb in rows]


def titled(image: np.ndarray, title: str, legend: Sequence[tuple[str, tuple[int, int, int]]] = ()) -> np.ndarray:
    """The picture with a title above and a legend of colour swatches below."""
    text_font, small = font(max(14, image.shape[0] // 34)), font(max(11, image.shape[0] // 52))
    head = int(text_font.size) + 16 if title else 0  # type: ignore[union-attr]
    step = int(small.size * 1.7)  # type: ignore[union-attr]
    places, x, y = [], 12, 0
    for name, rgb in legend:
        width = int(small.getlength(name)) + step + 16
        if x + width > image.shape[1] - 8 and x > 12:
            x, y = 12, y + step
        places.append((x, y, name, rgb))
        x += width
    foot = y + step + 8 if places else 0
    canvas = Image.new("RGB", (image.shape[1], head + image.shape[0] + foot), "white")
    canvas.paste(Image.fromarray(image), (0, head))
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((canvas.width / 2, head / 2), title, font=text_font, fill=(50, 50, 55), anchor="mm")
    for x, y, name, rgb in places:
        top = head + image.shape[0] + y
        draw.rounded_rectangle(
            (x, top + step * 0.15, x + step * 0.7, top + step * 0.85), radius=3, fill=rgb, outline=(90, 90, 95)
        )
        draw.text((x + step * 0.95, top + step / 2), name, font=small, fill=(50, 50, 55), anchor="lm")
    return np.array(canvas)


def beside(images: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """Pictures in one row, aligned at the top, white between them."""
    height = max(image.shape[0] for image in images)
    canvas = np.full((height, sum(i.shape[1] for i in images) + gap * (len(images) - 1), 3), 255, np.uint8)
    x = 0
    for image in images:
        canvas[: image.shape[0], x : x + image.shape[1]] = image
        x += image.shape[1] + gap
    return canvas


def growth_strip(images: Sequence[np.ndarray], titles: Sequence[str], count: int = 4) -> np.ndarray:
    """Up to `count` of the pictures, evenly spread over time and with the last one, in one row."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    return beside([titled(images[i], titles[i]) for i in chosen])


def write_png(path: Path | str, image: np.ndarray) -> None:
    """Write [H, W, 3] uint8; folders are made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_gif(
    path: Path | str, images: Sequence[np.ndarray], frame_ms: int = 250, last_ms: int = 2500, max_bytes: int = 5_000_000
) -> None:
    """An endless animation from pictures of one size [H, W, 3] uint8, made smaller until it is below `max_bytes`."""
    scale, chosen = 1.0, list(images)
    while True:
        content = _gif(chosen, scale, frame_ms, last_ms)
        if len(content) <= max_bytes or (scale < 0.3 and len(chosen) <= 2):
            break
        if scale > 0.6:
            scale *= 0.8
        elif len(chosen) > 2:
            chosen = chosen[len(chosen) % 2 == 0 :: 2]  # every second one, the last among them
        else:
            scale *= 0.8
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def _gif(images: Sequence[np.ndarray], scale: float, frame_ms: int, last_ms: int) -> bytes:
    """One palette for all frames (from the last, fullest one), so that unchanged parts stay unchanged."""
    size = (max(1, round(images[0].shape[1] * scale)), max(1, round(images[0].shape[0] * scale)))
    pictures = [
        Image.fromarray(i) if scale == 1.0 else Image.fromarray(i).resize(size, Image.Resampling.LANCZOS) for i in images
    ]
    palette = pictures[-1].quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    frames = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    stream = io.BytesIO()
    durations = [frame_ms] * (len(frames) - 1) + [last_ms]
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False, disposal=1
    )
    return stream.getvalue()
