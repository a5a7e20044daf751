"""Procedural curtains, lamps, plants, screens, bins, boxes, and the clutter that stands on things. The front is +y."""

__all__ = ["CLUTTER", "MAKERS"]

import numpy as np

from instseg_ros.datasets.palette import fabric, metal, plastic, style, wood
from instseg_ros.datasets.shapes import FurnitureModel, ShapeBuilder, rotation

Rng = np.random.Generator


def curtain(rng: Rng, split: str) -> FurnitureModel:
    """A wavy sheet; hung so that it ends near the ceiling."""
    b = ShapeBuilder()
    w, h = rng.uniform(0.5, 1.8), rng.uniform(1.5, 2.35)
    amplitude, waves = rng.uniform(0.02, 0.06), w / rng.uniform(0.1, 0.22)
    u, z = np.meshgrid(np.linspace(0, 1, max(24, int(waves * 8))), np.linspace(0, h, 5), indexing="ij")
    flare = amplitude * (1.3 - 0.5 * z / h)
    b.sheet(np.stack([(u - 0.5) * w, flare * np.sin(2 * np.pi * waves * u + rng.uniform(0, 6)), z], axis=-1), fabric(rng))
    return b.finish("curtain", "curtain", "curtain")


def floor_lamp(rng: Rng, split: str) -> FurnitureModel:
    """A pole with a shade, or an arc."""
    b = ShapeBuilder()
    frame, shade, h = metal(rng), fabric(rng) * 0.4 + 140, rng.uniform(1.3, 1.8)
    b.rod((0, 0, 0), (0, 0, 0.03), rng.uniform(0.11, 0.17), frame, sides=14)
    look = style(rng, ("pole", "pole"), ("tripod",), split, ("arc", "column"))
    if look == "column":
        wide = rng.uniform(0.09, 0.16)
        b.slab((-wide, -wide, 0), (wide, wide, h), shade)
        return b.finish("column lamp", "floor_lamp", "otherfurniture")
    if look == "arc":
        reach = rng.uniform(0.4, 0.9)
        bend = [(0.0, reach * (1 - np.cos(a)), h * np.sin(a)) for a in np.linspace(0, 1.9, 9)]
        for low, high in zip(bend[:-1], bend[1:], strict=True):
            b.rod(low, high, 0.016, frame, sides=6)
        x, y, z = bend[-1]
        b.rod((x, y, z - 0.2), (x, y, z), rng.uniform(0.12, 0.2), shade, 0.06, 16)
        return b.finish("arc lamp", "floor_lamp", "otherfurniture")
    if look == "tripod":
        for k in range(3):
            a = 2 * np.pi * k / 3
            b.rod((0.25 * np.cos(a), 0.25 * np.sin(a), 0), (0, 0, h - 0.2), 0.015, frame, sides=6)
    else:
        b.rod((0, 0, 0), (0, 0, h - 0.1), 0.015, frame, sides=6)
    b.rod((0, 0, h - rng.uniform(0.2, 0.35)), (0, 0, h), rng.uniform(0.15, 0.25), shade, rng.uniform(0.1, 0.2), 16)
    return b.finish(f"{look} lamp", "floor_lamp", "otherfurniture")


def table_lamp(rng: Rng, split: str) -> FurnitureModel:
    """A foot and a shade, 30 to 60 cm high."""
    b = ShapeBuilder()
    h, foot = rng.uniform(0.3, 0.6), metal(rng)
    b.cushion((0, 0, h * 0.25), (h * 0.3, h * 0.3, h * 0.5), foot if rng.uniform() < 0.5 else plastic(rng),
        rng.uniform(0.3, 1.0), steps=10)
    b.rod((0, 0, 0), (0, 0, h * 0.6), 0.012, foot, sides=6)
    b.rod((0, 0, h * 0.5), (0, 0, h), rng.uniform(0.1, 0.18), fabric(rng) * 0.3 + 165, rng.uniform(0.07, 0.14), 14)
    return b.finish("table lamp", "table_lamp", "otherfurniture")


def bin_(rng: Rng, split: str) -> FurnitureModel:
    """A round or square waste bin."""
    b = ShapeBuilder()
    h, r, color = rng.uniform(0.26, 0.65), rng.uniform(0.11, 0.19), plastic(rng)
    if rng.uniform() < 0.6:
        b.rod((0, 0, 0), (0, 0, h), r * rng.uniform(0.75, 1.0), color, r, 16)
    else:
        b.cushion((0, 0, h / 2), (2 * r, 2 * r * rng.uniform(0.7, 1.0), h), color, 0.12)
    b.rod((0, 0, h), (0, 0, h + 0.015), r * 0.9, color * 0.5, sides=16)
    return b.finish("bin", "bin", "otherfurniture")


def _leaves(b: ShapeBuilder, rng: Rng, low: float, high: float, spread: float, count: int) -> None:
    """Bent leaves that fan out from a stem."""
    for _ in range(count):
        a, green = rng.uniform(0, 2 * np.pi), np.array([rng.uniform(30, 110), rng.uniform(90, 170), rng.uniform(25, 80)])
        reach, start = spread * rng.uniform(0.5, 1.0), np.array([0, 0, low + (high - low) * rng.uniform(0, 0.6)])
        top = min(high, start[2] + rng.uniform(0.1, 0.5) * (high - low))
        t = np.linspace(0, 1, 4)
        along = np.column_stack([reach * t * np.cos(a), reach * t * np.sin(a), start[2] + (top - start[2]) * np.sin(t * 2.2)])
        half = np.array([0.15, 1.0, 0.9, 0.05])[:, None] * rng.uniform(0.03, 0.09) * np.array([-np.sin(a), np.cos(a), 0])
        b.sheet(np.stack([along - half, along + half], axis=1), green)


def plant(rng: Rng, split: str) -> FurnitureModel:
    """A potted plant on the floor: fan of leaves or a little tree."""
    b = ShapeBuilder()
    h, pot = rng.uniform(0.5, 1.6), rng.uniform(0.12, 0.22)
    b.rod((0, 0, 0), (0, 0, pot * 1.6), pot * 0.75, plastic(rng), pot, 14)
    look = style(rng, ("fan", "fan"), ("tree",), split, ("bush", "succulent"))
    if look == "succulent":
        for k in range(rng.integers(2, 6)):
            a, tall = rng.uniform(0, 2 * np.pi), h * rng.uniform(0.4, 1.0)
            spot = np.array([np.cos(a), np.sin(a), 0]) * pot * 0.5 * (k > 0)
            b.cushion(spot + [0, 0, pot * 1.5 + tall / 2], (0.11, 0.11, tall), (60, rng.uniform(90, 140), 60), 0.8, steps=8)
    elif look == "bush":
        for _ in range(9):
            b.cushion(rng.normal(0, 0.08, 3) + [0, 0, pot * 1.6 + 0.2], rng.uniform(0.15, 0.4, 3),
                (rng.uniform(40, 90), rng.uniform(90, 150), 50), 1.0, steps=8)
    elif look == "tree":
        b.rod((0, 0, pot), (0, 0, h * 0.7), 0.02, (95, 70, 45), sides=6)
        for _ in range(7):
            b.cushion(rng.normal(0, 0.1, 3) + [0, 0, h * 0.8], rng.uniform(0.15, 0.35, 3),
                (rng.uniform(40, 90), rng.uniform(100, 150), 50), 1.0, steps=8)
    else:
        _leaves(b, rng, pot * 1.5, h, rng.uniform(0.25, 0.5), int(rng.integers(14, 30)))
    return b.finish(f"{look} plant", "plant", "otherfurniture")


def small_plant(rng: Rng, split: str) -> FurnitureModel:
    """A potted plant for tables and sills."""
    b = ShapeBuilder()
    h, pot = rng.uniform(0.2, 0.45), rng.uniform(0.06, 0.1)
    b.rod((0, 0, 0), (0, 0, pot * 1.6), pot * 0.75, plastic(rng), pot, 10)
    _leaves(b, rng, pot * 1.4, h, rng.uniform(0.1, 0.2), int(rng.integers(8, 16)))
    return b.finish("small plant", "small_plant", "otherfurniture")


def _screen(rng: Rng, w: float, kind: str) -> FurnitureModel:
    b = ShapeBuilder()
    h, black = w * rng.uniform(0.55, 0.65), np.full(3, rng.uniform(15, 45))
    stand = rng.uniform(0.05, 0.15)
    b.box((0, 0, stand + h / 2), (w, rng.uniform(0.03, 0.06), h), black)
    b.box((0, 0.032, stand + h / 2), (w * 0.95, 0.004, h * 0.92), rng.uniform(5, 60, 3)
        if rng.uniform() < 0.7 else rng.uniform(60, 200, 3))
    b.slab((-0.04, -0.03, 0), (0.04, 0, stand + 0.1), black)
    b.slab((-w * 0.25, -0.11, 0), (w * 0.25, 0.11, 0.015), black)
    return b.finish(kind, kind, "otherfurniture")


def monitor(rng: Rng, split: str) -> FurnitureModel:
    """A computer screen on its foot."""
    return _screen(rng, rng.uniform(0.42, 0.72), "monitor")


def tv(rng: Rng, split: str) -> FurnitureModel:
    """A television on its foot."""
    return _screen(rng, rng.uniform(0.7, 1.4), "tv")


def box(rng: Rng, split: str) -> FurnitureModel:
    """A cardboard box or crate."""
    b = ShapeBuilder()
    size = rng.uniform((0.25, 0.22, 0.16), (0.6, 0.5, 0.5))
    color = np.array([185, 145, 100]) * rng.uniform(0.8, 1.1) if rng.uniform() < 0.6 else plastic(rng)
    b.slab(-size / 2, size / 2, color)
    b.box((0, 0, size[2] / 2), (size[0] * 1.01, 0.05, 0.004), color * 0.8)
    return b.finish("box", "box", "otherfurniture", size[2])


def fan(rng: Rng, split: str) -> FurnitureModel:
    """A fan on a pole."""
    b = ShapeBuilder()
    h, color, r = rng.uniform(0.7, 1.25), plastic(rng), rng.uniform(0.16, 0.24)
    b.rod((0, 0, 0), (0, 0, 0.03), r * 0.9, color, sides=14)
    b.rod((0, 0, 0), (0, 0, h), 0.02, color, sides=6)
    b.rod((0, -0.02, h), (0, 0.1, h), r, color * 0.9, sides=16)
    return b.finish("fan", "fan", "otherfurniture")


def speaker(rng: Rng, split: str) -> FurnitureModel:
    """A loudspeaker on the floor."""
    b = ShapeBuilder()
    w, d, h, color = rng.uniform(0.18, 0.3), rng.uniform(0.2, 0.35), rng.uniform(0.5, 1.05), wood(rng) * 0.6
    b.slab((-w / 2, -d / 2, 0), (w / 2, d / 2, h), color)
    for z in (0.3, 0.7):
        b.rod((0, d / 2, h * z), (0, d / 2 + 0.015, h * z), w * 0.36, (25, 25, 25), sides=14)
    return b.finish("speaker", "speaker", "otherfurniture")


def radiator(rng: Rng, split: str) -> FurnitureModel:
    """A ribbed heater at the wall."""
    b = ShapeBuilder()
    w, h, color = rng.uniform(0.5, 1.5), rng.uniform(0.5, 0.75), np.full(3, rng.uniform(215, 250))
    for x in np.arange(-w / 2, w / 2, 0.08):
        b.cushion((x, 0, h / 2 + 0.08), (0.06, 0.11, h), color, 0.3, steps=8)
    b.slab((-w / 2, -0.03, 0.1), (w / 2, 0.03, h), color)
    for s in (-1, 1):
        b.rod((s * w * 0.45, 0, 0), (s * w * 0.45, 0, 0.12), 0.015, color, sides=6)
    return b.finish("radiator", "radiator", "otherfurniture")


def oven(rng: Rng, split: str) -> FurnitureModel:
    """A free-standing oven or a washing machine."""
    b = ShapeBuilder()
    w, d, h, color = rng.uniform(0.5, 0.65), rng.uniform(0.5, 0.62), rng.uniform(0.8, 0.92), metal(rng)
    b.slab((-w / 2, -d / 2, 0), (w / 2, d / 2, h), color)
    if rng.uniform() < 0.5:
        b.slab((-w * 0.42, d / 2, h * 0.15), (w * 0.42, d / 2 + 0.02, h * 0.7), (25, 25, 28))
        b.slab((-w * 0.4, d / 2 + 0.03, h * 0.74), (w * 0.4, d / 2 + 0.05, h * 0.76), (160, 160, 165))
        b.slab((-w * 0.47, -d * 0.45, h), (w * 0.47, d * 0.45, h + 0.01), (30, 30, 30))
    else:
        b.rod((0, d / 2, h * 0.5), (0, d / 2 + 0.03, h * 0.5), w * 0.33, (60, 60, 70), sides=18)
        b.slab((-w * 0.45, d / 2, h * 0.86), (w * 0.45, d / 2 + 0.01, h * 0.97), color * 0.8)
    return b.finish("oven", "oven", "otherfurniture", h)


def clutter(rng: Rng, split: str) -> FurnitureModel:
    """Small things on tables and shelves, without a class of the benchmark."""
    b = ShapeBuilder()
    look = CLUTTER[rng.integers(len(CLUTTER))]
    if look == "books":
        z = 0.0
        for _ in range(rng.integers(1, 5)):
            thick = rng.uniform(0.015, 0.045)
            b.box((0, 0, z + thick / 2), (rng.uniform(0.12, 0.22), rng.uniform(0.17, 0.3), thick), fabric(rng),
                rotation(rng.uniform(-0.3, 0.3)))
            z += thick
    elif look == "cup":
        b.rod((0, 0, 0), (0, 0, rng.uniform(0.07, 0.12)), 0.035, plastic(rng), 0.045, 10)
    elif look == "bottle":
        h, color = rng.uniform(0.18, 0.32), plastic(rng)
        b.rod((0, 0, 0), (0, 0, h * 0.65), 0.04, color, sides=10)
        b.rod((0, 0, h * 0.65), (0, 0, h), 0.04, color, 0.015, 10)
    elif look == "keyboard":
        b.slab((-0.21, -0.07, 0), (0.21, 0.07, 0.025), plastic(rng))
    elif look == "laptop":
        color = np.full(3, rng.uniform(40, 190))
        b.slab((-0.17, -0.12, 0), (0.17, 0.12, 0.02), color)
        b.box((0, -0.16, 0.12), (0.34, 0.012, 0.22), color, rotation(roll=0.3))
    elif look == "bowl":
        b.rod((0, 0, 0), (0, 0, rng.uniform(0.06, 0.11)), 0.06, plastic(rng), rng.uniform(0.1, 0.16), 14)
    elif look == "paper":
        b.box((0, 0, 0.005), (0.21, 0.297, rng.uniform(0.005, 0.02)), (235, 235, 230))
    else:
        b.slab((-0.09, -0.06, 0), (0.09, 0.06, rng.uniform(0.05, 0.12)), plastic(rng))
    return b.finish(look, "clutter", "")


CLUTTER = ("books", "cup", "bottle", "keyboard", "laptop", "bowl", "paper", "case")
"""The small things `clutter` draws from."""

MAKERS = {
    "curtain": curtain, "floor_lamp": floor_lamp, "table_lamp": table_lamp, "bin": bin_, "plant": plant,
    "small_plant": small_plant,
    "monitor": monitor, "tv": tv, "box": box, "fan": fan, "speaker": speaker, "radiator": radiator, "oven": oven,
    "clutter": clutter,
}
"""Kind of furniture -> its maker (rng, split)."""
