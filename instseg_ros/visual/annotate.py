"""Boxes and names drawn on top of pictures."""

__all__ = ["Label", "draw_labels", "font"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from instseg_ros.visual.view import Projection


@dataclass(frozen=True)
class Label:
    """A box in the map with a name."""

    text: str
    box_min_m: np.ndarray
    box_max_m: np.ndarray
    color: tuple[int, int, int]


BOX_EDGES = np.array([[a, a ^ bit] for a in range(8) for bit in (1, 2, 4) if not a & bit])


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def draw_labels(image: Image.Image, labels: Sequence[Label], frame: Projection) -> None:
    """Draw wireframe boxes, then names, moved apart where they would cover each other."""
    draw = ImageDraw.Draw(image, "RGBA")
    text_font = font(max(11, image.height // 52))
    taken: list[tuple[float, float, float, float]] = []
    anchors = []
    for label in labels:
        corners = np.array(
            [[(label.box_max_m if index >> axis & 1 else label.box_min_m)[axis] for axis in range(3)] for index in range(8)]
        )
        pixels = frame.project(corners)
        for a, b in BOX_EDGES:
            draw.line([tuple(pixels[a, :2]), tuple(pixels[b, :2])], fill=(*label.color, 200), width=max(1, image.height // 600))
        top = pixels[4:, :2].mean(axis=0)
        anchors.append((float(top[0]), float(top[1]), label))
    for x, y, label in sorted(anchors, key=lambda a: a[1]):
        left, up, right, down = draw.textbbox((0, 0), label.text, font=text_font)
        width, height = right - left + 10, down - up + 7
        x0 = min(max(x - width / 2, 2), image.width - width - 2)
        y0 = min(max(y - height / 2, 2), image.height - height - 2)
        for shift in (0, 1, -1, 2, -2, 3, -3, 4, 5, 6):
            place = (x0, y0 + shift * (height + 2), x0 + width, y0 + shift * (height + 2) + height)
            free = all(place[2] < t[0] or place[0] > t[2] or place[3] < t[1] or place[1] > t[3] for t in taken)
            if free and place[1] >= 0 and place[3] <= image.height:
                break
        taken.append(place)
        dark = tuple(int(c * 0.55) for c in label.color)
        draw.rounded_rectangle(place, radius=4, fill=(255, 255, 255, 225), outline=(*label.color, 255), width=1)
        draw.text((place[0] + 5 - left, place[1] + 3 - up), label.text, font=text_font, fill=(*dark, 255))
