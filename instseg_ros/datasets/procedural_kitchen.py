"""A kitchen run: base cabinets, a counter with a sink let into it, a cooktop."""

__all__ = ["kitchen_run"]

import numpy as np

from instseg_ros.datasets.palette import metal, plastic, wood
from instseg_ros.datasets.shapes import FurnitureModel, ShapeBuilder

Rng = np.random.Generator


def _part(b: ShapeBuilder, kind: str, class_name: str, support_z_m: float = -1.0) -> FurnitureModel:
    """The solids as they stand, not centred: the parts of a run keep their places in it."""
    vertices, faces, colors = b.raw()
    return FurnitureModel(kind, kind, class_name, vertices.astype(np.float32), faces.astype(np.int32), colors, support_z_m)


def kitchen_run(rng: Rng, length: float, with_sink: bool = True) -> list[FurnitureModel]:
    """Cabinets, counter and perhaps a sink and a cooktop, in one common frame: back at y = 0, front at +y, x = 0..length.

    The cabinets under one counter are one instance, as people label them. What is under the worktop is always of class
    cabinet and the worktop alone is the counter; in a third of the runs the body has no fronts.
    """
    cabinets, counter, cooktop = ShapeBuilder(), ShapeBuilder(), ShapeBuilder()
    depth, high, thick = rng.uniform(0.56, 0.65), rng.uniform(0.84, 0.95), rng.uniform(0.03, 0.05)
    body, top, under = wood(rng), wood(rng), high - thick
    plain = rng.uniform() < 0.33
    sink_w, sink_d = rng.uniform(0.45, 0.75), rng.uniform(0.36, 0.44)
    sink_x = rng.uniform(sink_w / 2 + 0.1, length - sink_w / 2 - 0.1) if with_sink and length > sink_w + 0.25 else None
    left, right = (0.0, 0.0) if sink_x is None else (sink_x - sink_w / 2, sink_x + sink_w / 2)
    y0, y1 = depth / 2 - sink_d / 2, depth / 2 + sink_d / 2
    front = depth - 0.03
    for x0, x1, top_z in ((0.0, left, under), (left, right, under - 0.22), (right, length, under)):
        if x1 - x0 > 0.01:
            cabinets.slab((x0, 0, 0.08), (x1, front - 0.02, top_z), body)
    cabinets.slab((0, front - 0.03, 0.08), (length, front - 0.02, under), body)
    cabinets.slab((0, 0, 0), (length, front - 0.07, 0.08), body * 0.6)
    if not plain:
        columns, handle = max(1, round(length / rng.uniform(0.45, 0.65))), metal(rng)
        for k in range(columns):
            rows = (1, 1, 2, 3)[rng.integers(4)]
            for r in range(rows):
                w, h = length / columns, (under - 0.1) / rows
                x, z = (k + 0.5) * w, 0.09 + (r + 0.5) * h
                cabinets.box((x, front - 0.012, z), (w - 0.012, 0.02, h - 0.012), body * rng.uniform(0.95, 1.08))
                cabinets.box((x, front + 0.01, z + h / 2 - 0.06), (min(0.18, w / 2), 0.02, 0.015), handle)
    pieces = [(0.0, length, 0.0, depth)] if sink_x is None else [
        (0.0, left, 0.0, depth), (right, length, 0.0, depth), (left, right, 0.0, y0), (left, right, y1, depth)]
    for x0, x1, ya, yb in pieces:
        if x1 - x0 > 0.005 and yb - ya > 0.005:
            counter.slab((x0, ya, under), (x1, yb, high), top)
    if rng.uniform() < 0.4:
        counter.slab((0, 0, high), (length, 0.015, high + rng.uniform(0.06, 0.5)), top * 1.05)
    parts = [_part(counter, "counter", "counter", high), _part(cabinets, "kitchen_base", "cabinet")]
    if sink_x is not None:
        parts.append(_part(_sink(rng, left, right, y0, y1, high), "sink_inset", "sink"))
    at = rng.uniform(0.35, length - 0.35) if length > 1.3 else None
    if at is not None and (sink_x is None or abs(at - sink_x) > sink_w / 2 + 0.33) and rng.uniform() < 0.7:
        cooktop.slab((at - 0.29, 0.07, high), (at + 0.29, depth - 0.07, high + 0.012), (25, 25, 28))
        for s in (-0.14, 0.14):
            for t in (0.3, 0.7):
                cooktop.rod((at + s, depth * t, high + 0.01), (at + s, depth * t, high + 0.02), 0.085, (60, 60, 60), sides=12)
        parts.append(_part(cooktop, "cooktop", ""))
    return parts


def _sink(rng: Rng, x0: float, x1: float, y0: float, y1: float, z: float) -> ShapeBuilder:
    """A hollow basin hanging in the opening, with its rim on the counter, and a tap behind it."""
    b, deep, wall = ShapeBuilder(), 0.2, 0.015
    color = np.full(3, rng.uniform(140, 205)) if rng.uniform() < 0.7 else plastic(rng) * 0.3 + 165
    b.slab((x0, y0, z - deep), (x1, y1, z - deep + wall), color * 0.95)
    for xa, xb, ya, yb in ((x0, x0 + wall, y0, y1), (x1 - wall, x1, y0, y1), (x0, x1, y0, y0 + wall), (x0, x1, y1 - wall, y1)):
        b.slab((xa, ya, z - deep), (xb, yb, z), color)
    rim = 0.03
    for xa, xb, ya, yb in ((x0 - rim, x0, y0 - rim, y1 + rim), (x1, x1 + rim, y0 - rim, y1 + rim), (x0, x1, y0 - rim, y0),
            (x0, x1, y1, y1 + rim)):
        b.slab((xa, ya, z), (xb, yb, z + 0.006), color)
    x, high = (x0 + x1) / 2, rng.uniform(0.16, 0.32)
    b.rod((x, y0 - 0.02, z), (x, y0 - 0.02, z + high), 0.014, (175, 175, 180), sides=6)
    b.rod((x, y0 - 0.02, z + high), (x, y0 + 0.16, z + high - 0.03), 0.012, (175, 175, 180), sides=6)
    return b
