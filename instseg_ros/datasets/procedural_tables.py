"""Procedural tables and desks. The front, where one sits at a desk, is +y."""

__all__ = ["MAKERS"]

import numpy as np

from instseg_ros.datasets.palette import metal, style, wood
from instseg_ros.datasets.procedural_seats import four_legs
from instseg_ros.datasets.shapes import FurnitureModel, ShapeBuilder

Rng = np.random.Generator


def _round(radius_x: float, radius_y: float, sides: int = 24) -> np.ndarray:
    a = np.arange(sides) * 2 * np.pi / sides
    return np.column_stack([radius_x * np.cos(a), radius_y * np.sin(a)])


def _table(rng: Rng, split: str, w: float, d: float, high: float, kind: str, round_top: bool) -> FurnitureModel:
    """A board on legs, a pedestal, trestles or side panels."""
    b = ShapeBuilder()
    top = wood(rng)
    legs = top * rng.uniform(0.75, 1.05) if rng.uniform() < 0.6 else metal(rng)
    thick = rng.uniform(0.02, 0.06)
    if round_top:
        b.prism(_round(w / 2, d / 2), high - thick, high, top)
    else:
        b.slab((-w / 2, -d / 2, high - thick), (w / 2, d / 2, high), top)
    known = ("straight", "tapered", "round", "pedestal") if round_top else ("straight", "tapered", "round", "panels",
        "pedestal")
    look = style(rng, known, ("splayed", "sled", "trestle"), split, ("crossed", "turned", "block", "columns", "inset"))
    inner_w, inner_d = (w * 0.68, d * 0.68) if round_top else (w - rng.uniform(0.02, 0.15), d - rng.uniform(0.02, 0.12))
    under = high - thick
    if look == "pedestal":
        r = min(w, d) / 2
        b.prism(_round(r * 0.55, r * 0.55, 14), 0, 0.035, legs)
        b.rod((0, 0, 0.03), (0, 0, under), rng.uniform(0.035, 0.08), legs)
        if w > 1.3 * d:
            b.slab((-w * 0.35, -0.05, under - 0.06), (w * 0.35, 0.05, under), legs)
    elif look == "block":
        share = rng.uniform(0.45, 0.9)
        b.slab((-inner_w * share / 2, -inner_d * share / 2, 0), (inner_w * share / 2, inner_d * share / 2, under), legs)
    elif look == "columns":
        for s in (-1, 1):
            x = s * inner_w * 0.3
            b.slab((x - 0.05, -inner_d * 0.4, 0), (x + 0.05, inner_d * 0.4, 0.05), legs)
            b.slab((x - 0.04, -0.09, 0.04), (x + 0.04, 0.09, under), legs)
    elif look == "inset":
        four_legs(b, inner_w * 0.6, inner_d * 0.6, under, rng.uniform(0.05, 0.1), legs, "straight")
        b.slab((-inner_w * 0.32, -inner_d * 0.32, under - 0.12), (inner_w * 0.32, inner_d * 0.32, under), legs)
    elif look == "panels":
        for s in (-1, 1):
            b.slab((s * inner_w / 2 - 0.02, -inner_d / 2, 0), (s * inner_w / 2 + 0.02, inner_d / 2, under), legs)
    elif look == "trestle":
        for s in (-1, 1):
            x = s * inner_w * 0.4
            b.rod((x, -inner_d * 0.42, 0), (x, 0, under), 0.025, legs, sides=6)
            b.rod((x, inner_d * 0.42, 0), (x, 0, under), 0.025, legs, sides=6)
            b.slab((x - 0.03, -inner_d * 0.4, under - 0.04), (x + 0.03, inner_d * 0.4, under), legs)
    else:
        four_legs(b, inner_w, inner_d, under, rng.uniform(0.035, 0.09), legs, look)
        if not round_top and rng.uniform() < 0.5:
            for t in (-1, 1):
                b.slab((-inner_w / 2, t * inner_d / 2 - 0.01, under - 0.09), (inner_w / 2, t * inner_d / 2 + 0.01, under), legs)
    if kind == "coffee_table" and look in ("straight", "round") and rng.uniform() < 0.4:
        b.slab((-inner_w / 2, -inner_d / 2, 0.12), (inner_w / 2, inner_d / 2, 0.14), top)
    return b.finish(f"{look} {kind.replace('_', ' ')}", kind, "table", high)


def dining_table(rng: Rng, split: str) -> FurnitureModel:
    """A rectangular or oval table for four to eight."""
    w, d, high = rng.uniform(1.0, 2.1), rng.uniform(0.7, 1.05), rng.uniform(0.7, 0.79)
    return _table(rng, split, w, d, high, "dining_table", rng.uniform() < 0.12)


def round_table(rng: Rng, split: str) -> FurnitureModel:
    """A round table for two to five."""
    w = rng.uniform(0.7, 1.35)
    return _table(rng, split, w, w, rng.uniform(0.7, 0.78), "round_table", True)


def coffee_table(rng: Rng, split: str) -> FurnitureModel:
    """A low table before a sofa."""
    w, d, high = rng.uniform(0.6, 1.3), rng.uniform(0.45, 0.75), rng.uniform(0.3, 0.5)
    return _table(rng, split, w, d, high, "coffee_table", rng.uniform() < 0.3)


def side_table(rng: Rng, split: str) -> FurnitureModel:
    """A small table beside a seat."""
    w, high = rng.uniform(0.35, 0.6), rng.uniform(0.42, 0.65)
    return _table(rng, split, w, w * rng.uniform(0.8, 1.0), high, "side_table", rng.uniform() < 0.5)


def desk(rng: Rng, split: str) -> FurnitureModel:
    """A writing desk: side panels, drawers on one or both sides, a modesty panel, sometimes a hutch."""
    b = ShapeBuilder()
    w, d, high = rng.uniform(1.0, 1.85), rng.uniform(0.55, 0.85), rng.uniform(0.7, 0.78)
    top, body = wood(rng), wood(rng)
    if rng.uniform() < 0.6:
        body = top * rng.uniform(0.85, 1.05)
    handle, under = metal(rng), high - 0.03
    b.slab((-w / 2, -d / 2, under), (w / 2, d / 2, high), top)
    look = style(rng, ("panels", "left drawers", "right drawers", "legs"), ("two drawers", "corner"), split,
        ("crossed", "turned", "shelf end"))
    if look in ("crossed", "turned"):
        four_legs(b, w * 0.94, d * 0.9, under, rng.uniform(0.035, 0.06), body, look)
        b.slab((-w * 0.45, -d * 0.4, under - 0.1), (w * 0.45, d * 0.4, under), body)
    sides = {"left drawers": (-1,), "right drawers": (1,), "two drawers": (-1, 1)}.get(look, ())
    for s in (-1, 1):
        x = s * (w / 2 - 0.02)
        if look in ("crossed", "turned"):
            continue
        if look == "shelf end" and s > 0:
            for z in (0.02, under / 2, under - 0.03):
                b.slab((w / 2 - 0.4, -d / 2, z), (w / 2, d / 2 - 0.02, z + 0.02), body)
            for x in (w / 2 - 0.4, w / 2 - 0.02):
                b.slab((x, -d / 2, 0), (x + 0.02, d / 2 - 0.02, under), body)
        elif s in sides:
            deep = rng.uniform(0.36, 0.46)
            xs = sorted((s * w / 2, s * (w / 2 - deep)))
            b.slab((xs[0], -d / 2 + 0.02, 0.03), (xs[1], d / 2 - 0.03, under), body)
            count = int(rng.integers(2, 5))
            for k in range(count):
                z = 0.05 + (under - 0.06) * (k + 0.5) / count
                b.box(((xs[0] + xs[1]) / 2, d / 2 - 0.025, z), (deep - 0.04, 0.02, (under - 0.1) / count - 0.02), body * 1.08)
                b.box(((xs[0] + xs[1]) / 2, d / 2 - 0.008, z), (0.12, 0.016, 0.016), handle)
        elif look == "legs":
            for t in (-1, 1):
                b.rod((x, t * (d / 2 - 0.04), 0), (x, t * (d / 2 - 0.04), under), 0.025, handle, sides=6)
        else:
            b.slab((x - 0.02, -d / 2 + 0.01, 0), (x + 0.02, d / 2 - 0.02, under), body)
    if look not in ("legs", "crossed", "turned") or rng.uniform() < 0.3:
        b.slab((-w / 2 + 0.03, -d / 2 + 0.04, rng.uniform(0.2, 0.45)), (w / 2 - 0.03, -d / 2 + 0.06, under), body)
    if look == "corner":
        s, long = (-1, 1)[rng.integers(2)], rng.uniform(0.45, 0.8)
        xs = sorted((s * w / 2, s * (w / 2 - 0.5)))
        b.slab((xs[0], d / 2, under), (xs[1], d / 2 + long, high), top)
        b.slab((xs[0] + 0.02, d / 2 + long - 0.05, 0), (xs[1] - 0.02, d / 2 + long - 0.02, under), body)
    elif rng.uniform() < 0.15:
        shelf, z = rng.uniform(0.2, 0.3), high + rng.uniform(0.35, 0.55)
        for x in (-w / 2 + 0.02, w / 2 - 0.02):
            b.slab((x - 0.015, -d / 2, high), (x + 0.015, -d / 2 + shelf, z), body)
        b.slab((-w / 2, -d / 2, z - 0.025), (w / 2, -d / 2 + shelf, z), body)
    return b.finish(f"{look} desk", "desk", "desk", high)


MAKERS = {"dining_table": dining_table, "round_table": round_table, "coffee_table": coffee_table, "side_table": side_table,
    "desk": desk}
"""Kind of furniture -> its maker (rng, split)."""
