"""Styles of procedural furniture: which split shows which."""

import numpy as np
import pytest

from instseg_ros.datasets.palette import style
from instseg_ros.datasets.procedural import MAKERS, make

SPLITS = ("train", "validation", "test")


def _drawn(split: str, other: tuple[str, ...] = ("new", "newer", "newest")) -> list[str]:
    rng = np.random.default_rng(0)
    return [style(rng, ("old", "plain"), ("odd",), split, other) for _ in range(400)]


def test_test_and_validation_have_styles_of_their_own() -> None:
    seen = {split: set(_drawn(split)) for split in SPLITS}
    assert seen == {"train": {"old", "plain", "new", "newer"}, "validation": {"old", "plain", "newest"}, "test": {"old", "plain", "odd"}}
    assert 150 < _drawn("test").count("odd") < 250 and 150 < _drawn("validation").count("newest") < 250


def test_styles_of_other_splits_do_not_change_what_test_rooms_draw() -> None:
    assert _drawn("test") == _drawn("test", ())


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_every_style_stands_on_the_floor_centred_and_finite(kind: str) -> None:
    for split in SPLITS:
        for seed in range(40):
            model = make(kind, np.random.default_rng(seed), split)
            low, high = model.vertices.min(axis=0), model.vertices.max(axis=0)
            assert np.isfinite(model.vertices).all() and np.allclose((low + high)[:2], 0, atol=1e-5) and abs(low[2]) < 1e-6
            assert len(model.faces) == len(model.face_colors) and model.support_z_m <= model.size_m[2] + 0.05
