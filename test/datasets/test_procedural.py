"""Procedural furniture: every maker, many seeds, sensible sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.datasets.procedural import MAKERS, make
from instseg_ros.datasets.shapes import ShapeBuilder, rotation
from instseg_ros.errors import DataError
from instseg_ros.labels import CLASS_NAMES

HEIGHTS_M = {
    "dining_chair": (0.7, 1.15), "office_chair": (0.75, 1.6), "stool": (0.38, 0.82), "armchair": (0.65, 1.1), "sofa": (0.65,
        1.1),
    "bed": (0.45, 1.3), "dining_table": (0.68, 0.8), "coffee_table": (0.28, 0.52), "desk": (0.68, 1.4), "wardrobe": (1.4, 2.3),
    "nightstand": (0.38, 0.68), "bookshelf": (0.75, 2.25), "refrigerator": (0.8, 2.05), "toilet": (0.6, 1.2), "bathtub": (0.55,
        0.85),
}


@given(kind=st.sampled_from(sorted(MAKERS)), seed=st.integers(0, 2**31), split=st.sampled_from(["train", "test"]))
@settings(max_examples=120, deadline=None)
def test_models_are_whole_and_stand_on_the_floor(kind: str, seed: int, split: str) -> None:
    model = make(kind, np.random.default_rng(seed), split)
    assert model.kind == kind and (model.class_name in CLASS_NAMES or model.class_name == "")
    assert model.vertices.dtype == np.float32 and np.isfinite(model.vertices).all()
    assert model.faces.min() >= 0 and model.faces.max() < len(model.vertices)
    assert model.face_colors.shape == model.faces.shape and model.face_colors.dtype == np.uint8
    low, high = model.vertices.min(axis=0), model.vertices.max(axis=0)
    assert abs(low[2]) < 1e-5 and np.allclose(low[:2], -high[:2], atol=1e-4)
    assert (model.size_m < 4.0).all() and len(model.faces) < 5000
    if kind in HEIGHTS_M:
        assert HEIGHTS_M[kind][0] <= model.size_m[2] <= HEIGHTS_M[kind][1]


def test_same_seed_same_model_and_other_seed_another() -> None:
    one, same, other = (make("sofa", np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(one.vertices, same.vertices) and np.array_equal(one.face_colors, same.face_colors)
    assert one.vertices.shape != other.vertices.shape or not np.allclose(one.vertices, other.vertices)


def test_some_styles_are_seen_in_test_only() -> None:
    for kind in ("dining_chair", "dining_table", "desk", "bed", "sofa", "bookshelf"):
        names = {split: {make(kind, np.random.default_rng(s), split).name for s in range(80)} for split in ("train", "test")}
        assert names["test"] - names["train"], kind
        assert names["test"] & names["train"], kind


def test_backs_are_at_the_back() -> None:
    for seed in range(20):
        chair = make("dining_chair", np.random.default_rng(seed))
        upper = chair.vertices[chair.vertices[:, 2] > 0.95 * chair.size_m[2]]
        assert upper[:, 1].mean() < -0.25 * chair.size_m[1]


def test_tops_are_where_they_are_said_to_be() -> None:
    for kind in ("dining_table", "coffee_table", "low_cabinet", "nightstand"):
        model = make(kind, np.random.default_rng(1))
        assert model.support_z_m == pytest.approx(model.size_m[2], abs=0.02)


def test_unknown_kind_lists_the_known() -> None:
    with pytest.raises(DataError, match="dining_chair"):
        make("submarine", np.random.default_rng(0))


def test_solids_have_the_size_asked_for() -> None:
    b = ShapeBuilder()
    b.box((0, 0, 1), (2, 1, 0.5), (10, 20, 30), rotation(np.pi / 2))
    vertices, faces, colors = b.raw()
    assert np.allclose(np.ptp(vertices, axis=0), (1, 2, 0.5))
    corners = vertices[faces]
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(1.0)  # closed, with normals outwards
    assert (colors == (10, 20, 30)).all()
    b = ShapeBuilder()
    b.cushion((0, 0, 0), (1, 2, 3), (0, 0, 0), 1.0, steps=60)
    assert np.allclose(np.ptp(b.raw()[0], axis=0), (1, 2, 3), rtol=0.01)
