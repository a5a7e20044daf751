"""Random but plausible colours of furniture and rooms, and the choice of styles that only test rooms see."""

__all__ = ["fabric", "metal", "paint", "plastic", "style", "wood"]

import colorsys
from collections.abc import Sequence

import numpy as np

_WOODS = np.array([
    (205, 170, 125), (222, 190, 145), (160, 110, 65), (120, 75, 45), (85, 55, 38), (60, 42, 32), (190, 140, 90), (235, 225,
        205),
    (140, 95, 70), (175, 150, 120)])


def _hsv(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))) * 255


def wood(rng: np.random.Generator) -> np.ndarray:
    """A wooden surface [3], sometimes painted white, grey or in a colour."""
    roll = rng.uniform()
    if roll < 0.15:
        return np.full(3, rng.uniform(205, 250))
    if roll < 0.25:
        return np.full(3, rng.uniform(30, 120))
    if roll < 0.32:
        return _hsv(rng, (0.2, 0.7), (0.3, 0.9))
    return _WOODS[rng.integers(len(_WOODS))] * rng.uniform(0.8, 1.15) + rng.normal(0, 6, 3)


def fabric(rng: np.random.Generator) -> np.ndarray:
    """A textile or leather [3]: greys, beiges and colours."""
    roll = rng.uniform()
    if roll < 0.35:
        return np.full(3, rng.uniform(30, 215)) + rng.normal(0, 6, 3)
    if roll < 0.6:
        return np.array([200, 175, 140]) * rng.uniform(0.4, 1.2) + rng.normal(0, 8, 3)
    return _hsv(rng, (0.2, 0.85), (0.25, 0.9))


def metal(rng: np.random.Generator) -> np.ndarray:
    """Steel, black or white lacquer [3]."""
    return np.full(3, (rng.uniform(120, 190), rng.uniform(20, 60), rng.uniform(210, 245))[rng.integers(3)]) + rng.normal(0, 3,
        3)


def plastic(rng: np.random.Generator) -> np.ndarray:
    """A plastic [3]: black, grey, white or bright."""
    return np.full(3, rng.uniform(25, 235)) if rng.uniform() < 0.6 else _hsv(rng, (0.4, 0.9), (0.4, 0.95))


def paint(rng: np.random.Generator) -> np.ndarray:
    """A wall paint [3]: mostly light, sometimes strong."""
    if rng.uniform() < 0.5:
        return np.full(3, rng.uniform(185, 245)) + rng.normal(0, 5, 3)
    return _hsv(rng, (0.05, 0.45), (0.55, 0.97))


def style(
    rng: np.random.Generator, known: Sequence[str], test: Sequence[str], split: str, other: Sequence[str] = (),
) -> str:
    """One of the styles a piece of furniture comes in.

    Args:
        rng: draws.
        known: styles of all splits.
        test: styles of the test split alone; about half of its draws.
        split: "train", "validation" or "test".
        other: styles of the other splits: the last one of validation alone, where it is about half of the draws, the
            others of training alone.
    """
    own = test if split == "test" else other[-1:] if split == "validation" else ()
    if own and rng.uniform() < 0.5:
        return own[int(rng.integers(len(own)))]
    styles = (*known, *other[:-1]) if split == "train" else known
    return styles[int(rng.integers(len(styles)))]
