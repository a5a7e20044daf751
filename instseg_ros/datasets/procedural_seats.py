"""Procedural chairs, stools, armchairs, sofas and beds. The front is +y."""

__all__ = ["MAKERS"]

import numpy as np

from instseg_ros.datasets.palette import fabric, metal, plastic, style, wood
from instseg_ros.datasets.shapes import FurnitureModel, ShapeBuilder, rotation

Rng = np.random.Generator


def four_legs(b: ShapeBuilder, w: float, d: float, top: float, thick: float, color: np.ndarray, look: str) -> None:
    """Legs under a w x d board: straight (square), round, tapered, turned, crossed, splayed or sled (runners on the floor)."""
    x, y = w / 2 - thick / 2, d / 2 - thick / 2
    if look == "crossed":
        for s in (-1, 1):
            for t in (-1, 1):
                b.rod((s * x, t * y, 0), (s * x, -t * y, top), thick / 2, color, sides=6)
        b.rod((-x, 0, top / 2), (x, 0, top / 2), thick / 3, color, sides=6)
        return
    if look == "turned":
        for s in (-1, 1):
            for t in (-1, 1):
                for low, high, wide in ((0.0, 0.15, 0.35), (0.15, 0.55, 0.6), (0.55, 0.65, 0.3), (0.65, 1.0, 0.55)):
                    b.rod((s * x, t * y, low * top), (s * x, t * y, high * top), thick * wide, color, sides=8)
        return
    if look == "sled":
        for s in (-1, 1):
            b.slab((s * x - thick / 2, -y, 0), (s * x + thick / 2, y, thick), color)
            for t in (-1, 1):
                b.slab((s * x - thick / 2, t * y - thick / 2, 0), (s * x + thick / 2, t * y + thick / 2, top), color)
        return
    out = 0.25 * min(w, d) * 0.4 if look == "splayed" else 0.0
    for s in (-1, 1):
        for t in (-1, 1):
            if look == "straight":
                b.slab((s * x - thick / 2, t * y - thick / 2, 0), (s * x + thick / 2, t * y + thick / 2, top), color)
            else:
                foot = thick * (0.3 if look in ("tapered", "splayed") else 0.5)
                inner = 0.8 if look == "splayed" else 1.0
                b.rod((s * (x * inner + out), t * (y * inner + out), 0), (s * x * inner, t * y * inner, top), foot, color,
                    thick / 2, 8)


def _star_base(b: ShapeBuilder, radius: float, seat: float, color: np.ndarray) -> None:
    for k in range(5):
        a = 2 * np.pi * k / 5 + 0.3
        end = np.array([np.cos(a), np.sin(a), 0.0]) * radius
        b.rod((0, 0, 0.11), end + [0, 0, 0.07], 0.028, color, 0.018, 6)
        b.cushion(end + [0, 0, 0.03], (0.06, 0.06, 0.06), (30, 30, 30), 1.0, steps=8)
    b.rod((0, 0, 0.1), (0, 0, seat), 0.03, color)


def _seat(b: ShapeBuilder, rng: Rng, w: float, d: float, z: float, thick: float, color: np.ndarray) -> None:
    """A seat whose top is at z: a board or a cushion."""
    if rng.uniform() < 0.5:
        b.cushion((0, 0, z - thick / 2), (w, d, thick), color, rng.uniform(0.15, 0.45))
    else:
        b.slab((-w / 2, -d / 2, z - thick), (w / 2, d / 2, z), color)


def _back(b: ShapeBuilder, rng: Rng, w: float, d: float, low: float, high: float, color: np.ndarray, frame: np.ndarray,
        look: str) -> None:
    """A back rest leaning a little backwards: solid, slats, ladder, cross, open, shell or spokes."""
    lean, thick = rng.uniform(0.0, 0.08), rng.uniform(0.02, 0.06)
    y0, y1 = -d / 2 + 0.02, -d / 2 + 0.02 - lean

    def at(t: float) -> tuple[float, float]:
        return y0 + (y1 - y0) * t, low + (high - low) * t

    if look == "shell":  # bent around the seat
        round_, reach = w / 2, rng.uniform(0.9, 1.6)
        for a in np.linspace(-reach, reach, 7):
            drop = (high - low) * 0.4 * (a / reach) ** 2
            b.cushion((round_ * np.sin(a), y0 + round_ * (1 - np.cos(a)), (low + high - drop) / 2),
                (0.36 * w * reach, thick, high - drop - low), color, 0.25, rotation(float(a)))
        return
    if look == "solid":
        (ya, za), (yb, zb) = at(rng.uniform(0.0, 0.35)), at(1.0)
        tilt = rotation(roll=float(np.arctan2(ya - yb, zb - za)))
        b.cushion((0, (ya + yb) / 2, (za + zb) / 2), (w, thick, zb - za), color, rng.uniform(0.12, 0.4), tilt)
        if za > low + 0.02:
            for s in (-1, 1):
                b.rod((s * w * 0.4, y0, low - 0.02), (s * w * 0.4, ya, za + 0.05), 0.014, frame, sides=6)
        return
    for s in (-1, 1):
        b.rod((s * (w / 2 - 0.02), y0, low - 0.03), (s * (w / 2 - 0.02), y1, high), 0.02, frame, sides=6)
    if look == "ladder":
        for t in np.linspace(0.3, 0.92, rng.integers(2, 5)):
            y, z = at(float(t))
            b.box((0, y, z), (w - 0.04, 0.02, rng.uniform(0.05, 0.09)), color)
        return
    y, z = at(0.94)
    b.box((0, y, z), (w, 0.028, rng.uniform(0.05, 0.1)), color)
    if look in ("cross", "open"):
        if look == "cross":
            for s in (-1, 1):
                b.rod((s * w * 0.45, y0, low + 0.03), (-s * w * 0.45, y, z), 0.014, color, sides=6)
        else:
            b.box((0, (y0 + y) / 2, low + 0.35 * (z - low)), (w, 0.024, 0.06), color)
        return
    for x in np.linspace(-0.38, 0.38, rng.integers(3, 7)) * w:
        if look == "slats":
            b.box((x, (y0 + y) / 2, (low + z) / 2), (0.035, 0.015, z - low), color,
                rotation(roll=float(np.arctan2(y0 - y, z - low))))
        else:
            b.rod((x, y0, low), (x, y, z), 0.009, color, sides=6)


def dining_chair(rng: Rng, split: str) -> FurnitureModel:
    """Legs, seat and back; about a quarter with arm rests."""
    b = ShapeBuilder()
    w, d, seat = rng.uniform(0.38, 0.54), rng.uniform(0.38, 0.52), rng.uniform(0.41, 0.49)
    high, legs = rng.uniform(0.74, 1.08), wood(rng) if rng.uniform() < 0.7 else metal(rng)
    cover = legs if rng.uniform() < 0.4 else fabric(rng)
    look = style(rng, ("straight", "round", "tapered", "cantilever"), ("splayed", "sled"), split,
        ("crossed", "turned", "foot", "cheeks"))
    back = style(rng, ("solid", "solid", "slats", "ladder"), ("spokes",), split, ("cross", "open", "shell"))
    thick = rng.uniform(0.025, 0.075)
    if look == "cantilever":
        x, y, r = w / 2 - 0.02, d / 2 - 0.03, 0.013
        for s in (-1, 1):
            b.rod((s * x, -y, r), (s * x, y, r), r, legs, sides=6)
            b.rod((s * x, y, r), (s * x, y, seat - thick / 2), r, legs, sides=6)
        b.rod((-x, -y, r), (x, -y, r), r, legs, sides=6)
    elif look == "foot":
        b.rod((0, 0, 0), (0, 0, 0.025), w * rng.uniform(0.45, 0.55), legs, sides=16)
        b.rod((0, 0, 0.02), (0, 0, seat - thick / 2), rng.uniform(0.03, 0.06), legs, rng.uniform(0.03, 0.12))
    elif look == "cheeks":
        for s in (-1, 1):
            b.slab((s * w / 2 - 0.015, -d * 0.45, 0), (s * w / 2 + 0.015, d * 0.45, seat - thick / 2), legs)
    else:
        four_legs(b, w * 0.95, d * 0.95, seat - thick / 2, rng.uniform(0.026, 0.05), legs, look)
    _seat(b, rng, w, d, seat, thick, cover)
    _back(b, rng, w * rng.uniform(0.85, 1.0), d, seat, high, cover, legs, back)
    if rng.uniform() < 0.25:
        arm = seat + rng.uniform(0.17, 0.24)
        for s in (-1, 1):
            b.slab((s * w / 2 - 0.02, -d / 2, arm - 0.03), (s * w / 2 + 0.02, d * 0.35, arm), legs)
            b.rod((s * w / 2, d * 0.3, seat - 0.03), (s * w / 2, d * 0.3, arm), 0.015, legs, sides=6)
    return b.finish(f"{look} chair, {back} back", "dining_chair", "chair", seat)


def office_chair(rng: Rng, split: str) -> FurnitureModel:
    """A swivel chair on a star base, with or without arms and head rest."""
    b = ShapeBuilder()
    w, d, seat = rng.uniform(0.44, 0.56), rng.uniform(0.44, 0.52), rng.uniform(0.42, 0.54)
    cover, frame = (plastic(rng) if rng.uniform() < 0.5 else fabric(rng)), metal(rng)
    _star_base(b, rng.uniform(0.26, 0.34), seat - 0.06, frame)
    thick, high = rng.uniform(0.05, 0.11), seat + rng.uniform(0.4, 0.75)
    b.cushion((0, 0, seat - thick / 2), (w, d, thick), cover, 0.4)
    gap = rng.uniform(0.02, 0.16)
    b.rod((0, -d / 2 + 0.06, seat - thick), (0, -d / 2 - 0.02, seat + gap + 0.1), 0.025, frame, sides=6)
    b.cushion((0, -d / 2, (seat + gap + high) / 2), (w * rng.uniform(0.8, 1.0), rng.uniform(0.05, 0.1), high - seat - gap),
        cover, 0.35,
              rotation(roll=rng.uniform(0.02, 0.2)))
    if style(rng, ("arms", "plain"), ("loops",), split) != "plain":
        for s in (-1, 1):
            b.rod((s * w * 0.45, 0, seat - 0.05), (s * (w / 2 + 0.04), 0, seat + 0.2), 0.018, frame, sides=6)
            b.cushion((s * (w / 2 + 0.04), 0.02, seat + 0.21), (0.07, rng.uniform(0.2, 0.3), 0.035), (35, 35, 35), 0.4)
    if rng.uniform() < 0.25:
        b.cushion((0, -d / 2 - 0.03, high + 0.09), (w * 0.55, 0.06, 0.14), cover, 0.4)
    return b.finish("office chair", "office_chair", "chair", seat)


def stool(rng: Rng, split: str) -> FurnitureModel:
    """A low or bar-high seat without a back."""
    b = ShapeBuilder()
    seat = rng.uniform(0.4, 0.5) if rng.uniform() < 0.6 else rng.uniform(0.6, 0.78)
    w, color, cover = rng.uniform(0.3, 0.42), wood(rng), fabric(rng)
    look = style(rng, ("straight", "tapered", "pedestal", "pouf"), ("splayed",), split, ("crossed", "turned", "drum"))
    if look == "drum":
        for low, high, wide in ((0.0, 0.3, 0.5), (0.3, 0.7, 0.36), (0.7, 1.0, 0.5)):
            b.rod((0, 0, low * seat), (0, 0, high * seat), wide * w, cover if low else color, sides=16)
    elif look == "pouf" and seat < 0.52:
        b.cushion((0, 0, seat / 2), (w + 0.1, w + 0.1, seat), cover, rng.uniform(0.3, 0.6))
    elif look in ("pedestal", "pouf"):
        b.rod((0, 0, 0), (0, 0, 0.03), w * 0.55, metal(rng), sides=16)
        b.rod((0, 0, 0.02), (0, 0, seat - 0.04), 0.025, metal(rng))
        b.rod((0, 0, seat - 0.06), (0, 0, seat), w / 2, cover, sides=16)
    else:
        four_legs(b, w * 0.9, w * 0.9, seat - 0.03, 0.035, color, look)
        if rng.uniform() < 0.5:
            b.rod((0, 0, seat - 0.04), (0, 0, seat), w / 2, cover, sides=16)
        else:
            b.slab((-w / 2, -w / 2, seat - 0.04), (w / 2, w / 2, seat), cover)
    return b.finish(f"{look} stool", "stool", "chair", seat)


def _upholstered(rng: Rng, split: str, w: float, d: float, seats: int) -> tuple[ShapeBuilder, float, str]:
    """The common body of armchair and sofa: base, arms, back, seat and back cushions."""
    b = ShapeBuilder()
    cover = fabric(rng)
    accent = cover * rng.uniform(0.85, 1.1)
    seat, high = rng.uniform(0.38, 0.47), rng.uniform(0.7, 0.98)
    arm_w, back_d = rng.uniform(0.09, 0.24), rng.uniform(0.14, 0.26)
    look = style(rng, ("block", "round", "none"), ("slim",), split, ("sloped", "wing", "cheeks"))
    if look == "none":
        arm_w = 0.0
    if look == "slim":
        arm_w = 0.05
    foot = rng.uniform(0.0, 0.13)
    if foot > 0.03:
        for s in (-1, 1):
            for t in (-1, 1):
                b.rod((s * (w / 2 - 0.07), t * (d / 2 - 0.07), 0), (s * (w / 2 - 0.07), t * (d / 2 - 0.07), foot + 0.02),
                    0.025, wood(rng), sides=6)
    else:
        foot = 0.0
    cushion_h = rng.uniform(0.1, 0.18)
    b.slab((-w / 2 + arm_w, -d / 2, foot), (w / 2 - arm_w, d / 2 - 0.02, seat - cushion_h + 0.02), cover)
    b.cushion((0, -d / 2 + back_d / 2, (foot + high) / 2), (w - arm_w, back_d, high - foot), cover, 0.2,
        rotation(roll=rng.uniform(0, 0.1)))
    inner = (w - 2 * arm_w) / seats
    for k in range(seats):
        x = -w / 2 + arm_w + inner * (k + 0.5)
        b.cushion((x, back_d / 2, seat - cushion_h / 2), (inner, d - back_d, cushion_h), accent, rng.uniform(0.2, 0.35))
        if rng.uniform() < 0.7:
            b.cushion((x, -d / 2 + back_d + 0.06, (seat + high) / 2), (inner * 0.96, 0.18, high - seat), accent, 0.45,
                rotation(roll=0.15))
    arm_h = rng.uniform(0.52, 0.68)
    for s in (-1, 1):
        x = s * (w / 2 - arm_w / 2)
        if look == "round":
            b.slab((x - arm_w / 2, -d / 2, foot), (x + arm_w / 2, d / 2, arm_h - arm_w / 2), cover)
            b.rod((x, -d / 2, arm_h - arm_w / 2), (x, d / 2, arm_h - arm_w / 2), arm_w / 2 * 1.1, cover, sides=12)
        elif look == "sloped":
            tall = seat + rng.uniform(0.0, 0.06)
            b.slab((x - arm_w / 2, -d / 2, foot), (x + arm_w / 2, d / 2, tall), cover)
            b.cushion((x, -0.05 * d, tall), (arm_w, d * 0.95, 0.16), cover, 0.3, rotation(roll=-0.25))
        elif look == "cheeks":
            b.slab((x - arm_w / 2, -d / 2, 0), (x + arm_w / 2, d / 2, min(high, arm_h + 0.1)), accent * 0.9)
        elif look != "none":
            b.cushion((x, 0, (foot + arm_h) / 2), (arm_w, d, arm_h - foot), cover, 0.15)
            if look == "wing":
                b.cushion((x, -d * 0.3, (arm_h + high) / 2), (max(arm_w * 0.6, 0.07), d * 0.38, high - arm_h + 0.1), cover, 0.35)
    for _ in range(rng.integers(0, 1 + seats)):
        x = rng.uniform(-0.4, 0.4) * (w - 2 * arm_w)
        b.cushion((x, -d / 2 + back_d + 0.18, seat + 0.18), (0.4, 0.14, 0.4), fabric(rng), 0.6,
            rotation(rng.uniform(-0.4, 0.4), roll=0.4))
    return b, seat, look


def armchair(rng: Rng, split: str) -> FurnitureModel:
    """An upholstered seat for one: ScanNet calls it a chair."""
    b, seat, look = _upholstered(rng, split, rng.uniform(0.62, 0.98), rng.uniform(0.65, 0.92), 1)
    return b.finish(f"{look}-armed armchair", "armchair", "chair", seat)


def sofa(rng: Rng, split: str) -> FurnitureModel:
    """Two or three seats, sometimes with a chaise that makes it an L."""
    seats = int(rng.integers(2, 4))
    w, d = seats * rng.uniform(0.55, 0.75) + 0.35, rng.uniform(0.78, 1.0)
    b, seat, look = _upholstered(rng, split, w, d, seats)
    if seats == 3 and rng.uniform() < 0.4:
        s, long = (-1, 1)[rng.integers(2)], rng.uniform(0.55, 0.8)
        b.cushion((s * (w / 2 - 0.42), d / 2 + long / 2 - 0.05, seat / 2), (0.84, long + 0.1, seat), b.first_color(), 0.2)
        look += "-armed corner"
    return b.finish(f"{look} sofa", "sofa", "sofa", seat)


def bed(rng: Rng, split: str) -> FurnitureModel:
    """Frame, mattress, pillows and a bumpy duvet; the head end is -y."""
    b = ShapeBuilder()
    double = rng.uniform() < 0.6
    w, length = (rng.uniform(1.35, 1.9) if double else rng.uniform(0.85, 1.15)), rng.uniform(1.92, 2.12)
    frame, sheet, duvet = wood(rng), fabric(rng) * 0.3 + 170, fabric(rng)
    base, top = rng.uniform(0.18, 0.34), rng.uniform(0.42, 0.6)
    look = style(rng, ("legs", "box"), ("posts",), split, ("platform", "sleigh", "three-sided"))
    if look == "platform":
        b.slab((-w * 0.42, -length * 0.42, 0), (w * 0.42, length * 0.42, base - 0.08), frame * 0.7)
        b.slab((-w / 2 - 0.12, -length / 2, base - 0.08), (w / 2 + 0.12, length / 2 + 0.12, base), frame)
    elif look == "three-sided":
        b.slab((-w / 2, -length / 2, 0.08), (w / 2, length / 2, base), frame)
        side, tall = (-1, 1)[rng.integers(2)], rng.uniform(0.65, 0.95)
        b.slab((side * w / 2 - 0.02, -length / 2, 0), (side * w / 2 + 0.02, length / 2, tall), frame)
        b.slab((-w / 2, length / 2, 0), (w / 2, length / 2 + 0.04, tall), frame)
    elif look == "sleigh":
        b.slab((-w / 2, -length / 2, 0.12), (w / 2, length / 2, base), frame)
        for t, tall in ((-1, rng.uniform(0.85, 1.15)), (1, rng.uniform(0.5, 0.75))):
            b.cushion((0, t * (length / 2 + 0.06), tall / 2), (w + 0.06, 0.08, tall), frame, 0.15, rotation(roll=-t * 0.12))
            b.rod((-w / 2, t * (length / 2 + 0.1), tall), (w / 2, t * (length / 2 + 0.1), tall), 0.06, frame)
    elif look == "box":
        b.slab((-w / 2, -length / 2, 0.02), (w / 2, length / 2, base), frame)
    else:
        b.slab((-w / 2, -length / 2, base - 0.12), (w / 2, length / 2, base), frame)
        tall = rng.uniform(0.8, 1.1) if look == "posts" else base
        for s in (-1, 1):
            for t in (-1, 1):
                b.rod((s * (w / 2 - 0.04), t * (length / 2 - 0.04), 0), (s * (w / 2 - 0.04), t * (length / 2 - 0.04), tall),
                    0.035, frame, sides=8)
    b.cushion((0, 0, (base + top) / 2), (w - 0.02, length - 0.03, top - base), sheet, 0.12)
    n = 13
    u, v = np.meshgrid(np.linspace(-1, 1, n), np.linspace(0, 1, n), indexing="ij")
    bumps = rng.normal(0, 0.012, (n, n))
    drop = np.clip((np.abs(u) - 0.85) / 0.15, 0, 1) * rng.uniform(0.08, 0.3)
    start = rng.uniform(-0.3, 0.05) * length
    b.sheet(np.stack([u * (w / 2 + 0.03), start + v * (length / 2 - start + 0.02), top + 0.04 + bumps - drop], axis=-1), duvet)
    for k in range(2 if double else 1):
        x = (k - 0.5) * w / 2 if double else 0.0
        b.cushion((x, -length / 2 + 0.27, top + 0.06), (min(w * 0.45, 0.7) if double else w * 0.7, 0.42, 0.16), sheet * 0.97,
            0.6,
                  rotation(rng.uniform(-0.15, 0.15)))
    if rng.uniform() < 0.8:
        high = rng.uniform(0.8, 1.25)
        b.cushion((0, -length / 2 - 0.03, high / 2), (w + rng.uniform(0, 0.1), rng.uniform(0.05, 0.12), high), frame,
            rng.uniform(0.05, 0.2))
    if rng.uniform() < 0.4:
        b.slab((-w / 2, length / 2, 0.05), (w / 2, length / 2 + 0.05, rng.uniform(0.4, 0.7)), frame)
    return b.finish(f"{look} bed", "bed", "bed", top)


MAKERS = {"dining_chair": dining_chair, "office_chair": office_chair, "stool": stool, "armchair": armchair, "sofa": sofa,
    "bed": bed}
"""Kind of furniture -> its maker (rng, split)."""
