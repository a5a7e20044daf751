"""Procedural cabinets, bookshelves, nightstands, kitchens and bathrooms. The front is +y."""

__all__ = ["MAKERS"]

import numpy as np

from instseg_ros.datasets.palette import fabric, metal, plastic, style, wood
from instseg_ros.datasets.shapes import FurnitureModel, ShapeBuilder

Rng = np.random.Generator


def _fronts(b: ShapeBuilder, rng: Rng, w: float, d: float, low: float, high: float, color: np.ndarray, columns: int,
        rows: int) -> None:
    """Doors or drawers on the front face (y = d / 2), each with a handle."""
    handle, look = metal(rng), rng.integers(3)
    cell_w, cell_h = w / columns, (high - low) / rows
    for i in range(columns):
        for j in range(rows):
            x, z = -w / 2 + (i + 0.5) * cell_w, low + (j + 0.5) * cell_h
            b.box((x, d / 2 + 0.008, z), (cell_w - 0.012, 0.018, cell_h - 0.012), color * rng.uniform(0.97, 1.03))
            side = x + (cell_w / 2 - 0.05) * (-1 if i % 2 else 1)
            if look == 0:
                b.cushion((x if rows > 1 else side, d / 2 + 0.03, z), (0.035, 0.035, 0.035), handle, 1.0, steps=8)
            elif look == 1:
                upright = rows == 1
                b.box((side if upright else x, d / 2 + 0.03, z), (0.015, 0.02, 0.16)
                    if upright else (min(0.16, cell_w / 2), 0.02, 0.015), handle)


def _cabinet(rng: Rng, split: str, kind: str, w: float, d: float, h: float, columns: int, rows: int,
        class_name: str = "cabinet") -> FurnitureModel:
    """A closed body with fronts on a plinth, on legs or straight on the floor."""
    b = ShapeBuilder()
    body = wood(rng)
    front = body * rng.uniform(0.9, 1.1) if rng.uniform() < 0.7 else wood(rng)
    look = style(rng, ("plinth", "floor", "legs"), ("frame",), split, ("niche", "bow", "feet"))
    base = {"plinth": 0.08, "legs": rng.uniform(0.08, 0.18), "frame": 0.2, "feet": 0.06}.get(look, 0.0) * (1.0 if h > 0.5 else 0.6)
    if look == "niche":  # an open bay above or below the fronts
        return _niche_cabinet(b, rng, kind, (w, d, h), (columns, rows), (body, front), class_name)
    b.slab((-w / 2, -d / 2, base), (w / 2, d / 2, h), body)
    if look == "bow":
        b.cushion((0, d / 2, (base + h) / 2), (w * 0.98, rng.uniform(0.08, 0.2), h - base - 0.04), front, 0.6)
    if look == "feet":
        for s in (-1, 1):
            b.slab((s * w * 0.42 - 0.06, -d / 2 + 0.02, 0), (s * w * 0.42 + 0.06, d / 2 - 0.02, base), body * 0.8)
    if look == "plinth":
        b.slab((-w / 2 + 0.02, -d / 2, 0), (w / 2 - 0.02, d / 2 - 0.04, base), body * 0.7)
    elif look in ("legs", "frame"):
        legs = metal(rng)
        for s in (-1, 1):
            for t in (-1, 1):
                b.rod((s * (w / 2 - 0.04), t * (d / 2 - 0.04), 0), (s * (w / 2 - 0.04), t * (d / 2 - 0.04), base), 0.02, legs,
                    sides=6)
            if look == "frame":
                b.slab((s * (w / 2 - 0.04) - 0.015, -d / 2 + 0.04, 0), (s * (w / 2 - 0.04) + 0.015, d / 2 - 0.04, 0.03), legs)
    _fronts(b, rng, w - 0.02, d, base + 0.02, h - 0.03, front, columns, rows)
    if rng.uniform() < 0.5:
        b.slab((-w / 2 - 0.01, -d / 2, h - 0.025), (w / 2 + 0.01, d / 2 + 0.02, h), body * 0.92)
    return b.finish(f"{look} {kind.replace('_', ' ')}", kind, class_name, h)


def _niche_cabinet(b: ShapeBuilder, rng: Rng, kind: str, size: tuple[float, float, float], cells: tuple[int, int],
        colors: tuple[np.ndarray, np.ndarray], class_name: str) -> FurnitureModel:
    """A body with fronts, and an open bay with a shelf above or below it."""
    (w, d, h), (body, front), share = size, colors, rng.uniform(0.25, 0.45)
    above = rng.uniform() < 0.5
    low, high = (0.0, h * (1 - share)) if above else (h * share, h)
    b.slab((-w / 2, -d / 2, low), (w / 2, d / 2, high), body)
    _fronts(b, rng, w - 0.02, d, low + 0.02, high - 0.02, front, *cells)
    bay = (high, h) if above else (0.0, low)
    for x in (-w / 2, w / 2 - 0.02):
        b.slab((x, -d / 2, bay[0]), (x + 0.02, d / 2, bay[1]), body)
    b.slab((-w / 2, -d / 2, bay[0]), (w / 2, -d / 2 + 0.015, bay[1]), body * 0.9)
    for z in (bay[0], (bay[0] + bay[1]) / 2, bay[1] - 0.02):
        b.slab((-w / 2, -d / 2, z), (w / 2, d / 2, z + 0.02), body)
    return b.finish(f"niche {kind.replace('_', ' ')}", kind, class_name, h)


def low_cabinet(rng: Rng, split: str) -> FurnitureModel:
    """A sideboard or a chest of drawers."""
    w, h = rng.uniform(0.6, 1.8), rng.uniform(0.6, 1.15)
    return _cabinet(rng, split, "low_cabinet", w, rng.uniform(0.36, 0.52), h, max(1, int(w / 0.5)), int(rng.integers(1, 5)))


def wardrobe(rng: Rng, split: str) -> FurnitureModel:
    """A tall cabinet with doors."""
    w = rng.uniform(0.6, 2.2)
    return _cabinet(rng, split, "wardrobe", w, rng.uniform(0.42, 0.65), rng.uniform(1.5, 2.25), max(1, round(w / 0.55)),
        1 + int(rng.uniform() < 0.2))


def tv_stand(rng: Rng, split: str) -> FurnitureModel:
    """A long low cabinet under a screen."""
    w = rng.uniform(0.9, 2.0)
    return _cabinet(rng, split, "tv_stand", w, rng.uniform(0.35, 0.5), rng.uniform(0.35, 0.6), max(2, int(w / 0.5)),
        1 + int(rng.uniform() < 0.3))


def kitchen_tall(rng: Rng, split: str) -> FurnitureModel:
    """A tall kitchen cabinet."""
    return _cabinet(rng, split, "kitchen_tall", rng.uniform(0.45, 0.7), rng.uniform(0.55, 0.65), rng.uniform(1.9, 2.25), 1,
        int(rng.integers(2, 4)))


def kitchen_base(rng: Rng, split: str) -> FurnitureModel:
    """A run of kitchen base cabinets without their counter."""
    w = rng.uniform(0.6, 2.4)
    return _cabinet(rng, split, "kitchen_base", w, rng.uniform(0.55, 0.62), rng.uniform(0.8, 0.88), max(1, round(w / 0.55)),
        int(rng.integers(1, 4)))


def wall_cabinet(rng: Rng, split: str) -> FurnitureModel:
    """A kitchen cabinet to be hung on the wall."""
    b = ShapeBuilder()
    w, h, d, body = rng.uniform(0.5, 2.2), rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.4), wood(rng)
    b.slab((-w / 2, -d / 2, 0), (w / 2, d / 2, h), body)
    _fronts(b, rng, w - 0.01, d, 0.01, h - 0.01, body * rng.uniform(0.9, 1.1), max(1, round(w / 0.5)), 1)
    return b.finish("wall cabinet", "wall_cabinet", "cabinet", h)


def nightstand(rng: Rng, split: str) -> FurnitureModel:
    """A bedside cabinet: the benchmark counts it as other furniture."""
    return _cabinet(rng, split, "nightstand", rng.uniform(0.35, 0.58), rng.uniform(0.32, 0.46), rng.uniform(0.4, 0.66), 1,
        int(rng.integers(1, 4)), "otherfurniture")


def bookshelf(rng: Rng, split: str) -> FurnitureModel:
    """Open shelves with rows and piles of books."""
    b = ShapeBuilder()
    w, d, h = rng.uniform(0.5, 1.9), rng.uniform(0.24, 0.4), rng.uniform(0.8, 2.2)
    color, board = wood(rng), rng.uniform(0.018, 0.035)
    look = style(rng, ("closed", "cubes"), ("ladder",), split, ("stepped", "leaning"))
    columns = max(1, round(w / rng.uniform(0.38, 0.9)))
    rows = max(2, round(h / (w / columns))) if look == "cubes" else max(2, round(h / rng.uniform(0.28, 0.4)))
    for k in range(columns + 1):
        x = -w / 2 + board / 2 + (w - board) * k / columns
        if look == "ladder":
            for t in (-1, 1):
                b.rod((x, t * (d / 2 - 0.02), 0), (x, t * (d / 2 - 0.02), h), 0.018, color, sides=6)
        else:
            tall = h * (1 - 0.5 * max(0, k - 1) / columns) if look == "stepped" else h
            b.slab((x - board / 2, -d / 2, 0), (x + board / 2, d / 2, tall), color)
    if look not in ("ladder", "stepped") and rng.uniform() < 0.8:
        b.slab((-w / 2, -d / 2, 0.03), (w / 2, -d / 2 + 0.012, h), color * 0.9)
    levels = np.linspace(0.04, h - board, rows + 1)

    def front(z: float) -> float:
        """y of the shelf's edge at a height."""
        return d / 2 - (0.4 * d * z / h if look == "leaning" else 0.0)

    def reached(z: float) -> int:
        """How many columns are as high as this."""
        return sum(h * (1 - 0.5 * k / columns) >= z + board for k in range(columns)) if look == "stepped" else columns

    for z in levels:
        right = w / 2 - (w - board) * (columns - reached(z)) / columns
        b.slab((-w / 2, -d / 2, z), (right, front(z), z + board), color)
    fill = rng.uniform(0.3, 1.0)
    for z, above in zip(levels[:-1] + board, levels[1:], strict=False):
        for k in range(columns):
            if rng.uniform() > fill or k >= reached(above):
                continue
            x, end = -w / 2 + board + (w - board) * k / columns, -w / 2 + (w - board) * (k + 1) / columns
            end -= rng.uniform(0, 0.5) * (end - x)
            while x < end - 0.06:
                wide, high = rng.uniform(0.03, 0.12), (above - z) * rng.uniform(0.6, 0.95)
                b.slab((x, -d / 2 + 0.02, z), (min(x + wide, end), front(z) - rng.uniform(0.01, 0.1), z + high), fabric(rng))
                x += wide
    return b.finish(f"{look} bookshelf", "bookshelf", "bookshelf", h)


def refrigerator(rng: Rng, split: str) -> FurnitureModel:
    """One or two doors above each other, or side by side."""
    b = ShapeBuilder()
    look = style(rng, ("one door", "two doors"), ("side by side",), split)
    w = rng.uniform(0.85, 0.95) if look == "side by side" else rng.uniform(0.54, 0.78)
    d, h = rng.uniform(0.58, 0.75), rng.uniform(1.4, 2.0) if rng.uniform() < 0.85 else rng.uniform(0.82, 1.0)
    color = np.full(3, rng.uniform(215, 250)) if rng.uniform() < 0.6 else metal(rng) if rng.uniform() < 0.8 else plastic(rng)
    b.slab((-w / 2, -d / 2, 0.02), (w / 2, d / 2 - 0.07, h), color * 0.93)
    seam = h * rng.uniform(0.3, 0.7)
    cells = {
        "one door": [(-w / 2, w / 2, 0.04, h)], "two doors": [(-w / 2, w / 2, 0.04, seam), (-w / 2, w / 2, seam, h)],
        "side by side": [(-w / 2, -0.02, 0.04, h), (-0.02, w / 2, 0.04, h)]}[look]
    for x0, x1, z0, z1 in cells:
        b.cushion(((x0 + x1) / 2, d / 2 - 0.035, (z0 + z1) / 2), (x1 - x0 - 0.008, 0.07, z1 - z0 - 0.012), color, 0.08)
        x = x1 - 0.05 if look != "side by side" or x0 < -0.1 else x0 + 0.05
        b.slab((x - 0.012, d / 2, z0 + (z1 - z0) * 0.25), (x + 0.012, d / 2 + 0.04, z0 + (z1 - z0) * 0.75), (130, 130, 135))
    return b.finish(f"{look} refrigerator", "refrigerator", "refrigerator", h)


def counter(rng: Rng, split: str) -> FurnitureModel:
    """A kitchen island or bar: body and overhanging top in one piece."""
    b = ShapeBuilder()
    w, d, h = rng.uniform(1.0, 2.6), rng.uniform(0.55, 0.95), rng.uniform(0.85, 1.08)
    body, top = wood(rng), wood(rng)
    over = rng.uniform(0.0, min(0.2, d / 4))
    b.slab((-w / 2 + 0.02, -d / 2, 0), (w / 2 - 0.02, d / 2 - over, h - 0.04), body)
    b.slab((-w / 2, -d / 2, h - 0.045), (w / 2, d / 2, h), top)
    return b.finish("island counter", "counter", "counter", h)


def toilet(rng: Rng, split: str) -> FurnitureModel:
    """Bowl, seat and tank (or a bowl hung before a boxed-in tank)."""
    b = ShapeBuilder()
    white = np.full(3, rng.uniform(222, 252)) + rng.normal(0, 3, 3)
    w, d, seat = rng.uniform(0.34, 0.4), rng.uniform(0.4, 0.5), rng.uniform(0.38, 0.45)
    look = style(rng, ("tank", "tank"), ("hung",), split)
    b.cushion((0, 0.12, seat * 0.72), (w, d, seat * 0.6), white, 0.75)
    if look == "tank":
        b.rod((0, 0.05, 0), (0, 0.08, seat * 0.7), w * 0.32, white, w * 0.42, 14)
        b.cushion((0, -0.21, (seat + 0.8) / 2), (w + 0.06, 0.19, 0.8 - seat + 0.08), white, 0.2)
    else:
        b.slab((-w / 2 - 0.05, -0.24, 0), (w / 2 + 0.05, -0.08, rng.uniform(0.85, 1.1)), white * 0.97)
    lid = white if rng.uniform() < 0.7 else plastic(rng)
    if rng.uniform() < 0.6:
        b.cushion((0, 0.12, seat), (w * 1.02, d, 0.04), lid, 0.7)
    else:
        b.cushion((0, 0.12, seat - 0.01), (w * 1.02, d, 0.03), white * 0.9, 0.7)
        b.cushion((0, -0.1, seat + 0.2), (w, 0.04, 0.42), lid, 0.7)
    return b.finish(f"{look} toilet", "toilet", "toilet")


def _basin(b: ShapeBuilder, w: float, d: float, z: float, deep: float, white: np.ndarray, y: float = 0.0) -> None:
    """A rim of four bars around a floor, so that the basin is hollow, and a tap."""
    rim = 0.045
    b.slab((-w / 2, y - d / 2, z - deep), (w / 2, y + d / 2, z - deep + 0.03), white * 0.93)
    for s in (-1, 1):
        b.slab((s * (w / 2 - rim / 2) - rim / 2, y - d / 2, z - deep), (s * (w / 2 - rim / 2) + rim / 2, y + d / 2, z), white)
        b.slab((-w / 2, y + s * (d / 2 - rim / 2) - rim / 2, z - deep), (w / 2, y + s * (d / 2 - rim / 2) + rim / 2, z), white)
    b.rod((0, y - d / 2 + 0.03, z), (0, y - d / 2 + 0.03, z + 0.2), 0.014, (170, 170, 175), sides=6)
    b.rod((0, y - d / 2 + 0.03, z + 0.19), (0, y - d / 2 + 0.16, z + 0.16), 0.012, (170, 170, 175), sides=6)


def sink(rng: Rng, split: str) -> FurnitureModel:
    """A washbasin on a pedestal or fixed to the wall."""
    b = ShapeBuilder()
    white = np.full(3, rng.uniform(220, 252))
    w, d, z = rng.uniform(0.42, 0.7), rng.uniform(0.36, 0.5), rng.uniform(0.78, 0.9)
    look = style(rng, ("pedestal", "half pedestal"), ("bowl",), split)
    if look == "bowl":
        b.cushion((0, 0, z - 0.09), (w, d, 0.2), white, 0.7)
        b.rod((0, -d / 2 + 0.06, 0), (0, -d / 2 + 0.06, z + 0.12), 0.03, (170, 170, 175))
    else:
        _basin(b, w, d, z, rng.uniform(0.13, 0.2), white)
        b.rod((0, -d * 0.15, 0 if look == "pedestal" else 0.45), (0, -d * 0.1, z - 0.1), 0.07, white, 0.11, 12)
        b.slab((-0.05, -d / 2, 0), (0.05, -d / 2 + 0.03, z - 0.1), white)
    return b.finish(f"{look} sink", "sink", "sink")


def sink_inset(rng: Rng, split: str) -> FurnitureModel:
    """The basin let into a kitchen counter or a bathroom vanity; z = 0 is its bottom."""
    b = ShapeBuilder()
    steel = np.full(3, rng.uniform(140, 200)) if rng.uniform() < 0.6 else np.full(3, rng.uniform(220, 250))
    _basin(b, rng.uniform(0.45, 0.8), rng.uniform(0.38, 0.46), 0.17, 0.17, steel)
    return b.finish("inset sink", "sink_inset", "sink")


def bathtub(rng: Rng, split: str) -> FurnitureModel:
    """A hollow tub, boxed in or free-standing."""
    b = ShapeBuilder()
    white = np.full(3, rng.uniform(220, 252))
    w, d, h = rng.uniform(1.45, 1.85), rng.uniform(0.68, 0.85), rng.uniform(0.48, 0.62)
    round_tub = style(rng, ("boxed", "boxed"), ("free-standing",), split) == "free-standing"
    a = np.arange(28) * 2 * np.pi / 28
    power = 0.5 if round_tub else 0.12
    ring = np.column_stack([np.sign(np.cos(a)) * np.abs(np.cos(a)) ** power, np.sign(np.sin(a)) * np.abs(np.sin(a)) ** power])
    inside = np.column_stack([np.sign(np.cos(a)) * np.abs(np.cos(a)) ** 0.45, np.sign(np.sin(a)) * np.abs(np.sin(a)) ** 0.45])
    foot = 0.75 if round_tub else 1.0
    profile = [(ring, foot, 0.0), (ring, 1.0, h), (inside, 0.88, h), (inside, 0.72, 0.12), (inside, 0.02, 0.12)]
    rows = [np.column_stack([r * [w / 2, d / 2] * s, np.full(len(a), z)]) for r, s, z in profile]
    grid = np.stack(rows)
    b.sheet(np.concatenate([grid, grid[:, :1]], axis=1), white)
    b.rod((w / 2 - 0.06, 0, h), (w / 2 - 0.06, 0, h + 0.14), 0.02, (170, 170, 175), sides=6)
    return b.finish("free-standing bathtub" if round_tub else "boxed bathtub", "bathtub", "bathtub")


MAKERS = {
    "low_cabinet": low_cabinet, "wardrobe": wardrobe, "tv_stand": tv_stand, "kitchen_tall": kitchen_tall,
    "kitchen_base": kitchen_base,
    "wall_cabinet": wall_cabinet, "nightstand": nightstand, "bookshelf": bookshelf, "refrigerator": refrigerator,
    "counter": counter,
    "toilet": toilet, "sink": sink, "sink_inset": sink_inset, "bathtub": bathtub,
}
"""Kind of furniture -> its maker (rng, split)."""
