"""The catalogue reader on a small catalogue made here: sizes, axes, colours, splits, errors."""

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instseg_ros.datasets import furniture
from instseg_ros.datasets.furniture import FurnitureLibrary, furniture_source
from instseg_ros.datasets.furniture_catalogue import CATALOGUE, KIND_CLASS, MODEL_KINDS, TRAINING_CATALOGUES, model_kinds
from instseg_ros.datasets.obj_reader import read_obj
from instseg_ros.datasets.procedural import MAKERS, make
from instseg_ros.errors import DataError
from instseg_ros.labels import CLASS_NAMES

# A seat (a flat quad at y = 0.5) and a back (a quad at z = -1), y up, front +z, in its own units.
OBJ = """mtllib {stem}.mtl
v -1 0 -1
v 1 0 -1
v 1 0 1
v -1 0 1
v -1 4 -1
v 1 4 -1
usemtl seat
f 1/1 4/1 3/1 2/1
usemtl back
f -6//1 -5//1 -1//1
f 1 6 5
"""
MTL = "newmtl seat\nKd 0.2 0.4 0.6\nnewmtl back\nKd 1 1 1\nmap_Kd pattern.png\n"


def write_catalogue(path: Path, stems: list[str], rotation: str = "") -> Path:
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), (250, 10, 20)).save(picture, "PNG")
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for k, stem in enumerate(stems, 1):
            lines += [f"name#{k}=Thing", f"model#{k}=/m/{stem}/{stem}.obj", f"width#{k}=50", f"depth#{k}=60", f"height#{k}=100"]
            lines += [f"modelRotation#{k}={rotation}"] if rotation else []
            archive.writestr(f"m/{stem}/{stem}.obj", OBJ.format(stem=stem))
            archive.writestr(f"m/{stem}/{stem}.mtl", MTL)
            archive.writestr(f"m/{stem}/pattern.png", picture.getvalue())
        archive.writestr("PluginFurnitureCatalog.properties", "# list\nid=x\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return write_catalogue(tmp_path / "small.sh3f", sorted(MODEL_KINDS) + ["peterbilt"])


def test_model_has_catalogue_size_z_up_front_plus_y(catalogue: Path) -> None:
    model = FurnitureLibrary(catalogue).model("chair2")
    assert np.allclose(model.size_m, (0.5, 0.6, 1.0)) and model.class_name == "chair"
    assert np.allclose(model.vertices.min(axis=0), (-0.25, -0.3, 0.0), atol=1e-6)
    top = model.vertices[model.vertices[:, 2] > 0.9]
    assert np.allclose(top[:, 1], -0.3)  # the back rest stands at -y
    assert {tuple(c) for c in model.face_colors.tolist()} == {(51, 102, 153), (250, 10, 20)}


def test_model_rotation_is_applied(tmp_path: Path) -> None:
    turned = write_catalogue(tmp_path / "t.sh3f", ["chair2"], "1 0 0 0 0 1 0 -1 0")
    model = FurnitureLibrary(turned).model("chair2")
    assert np.allclose(model.size_m, (0.5, 0.6, 1.0))
    assert not np.allclose(model.vertices[model.vertices[:, 2] > 0.9][:, 1], -0.3)


def test_obj_polygons_become_fans_and_indices_may_be_negative(catalogue: Path) -> None:
    with zipfile.ZipFile(catalogue) as archive:
        vertices, faces, colors, material = read_obj(archive, "m/chair/chair.obj")
    assert faces.tolist() == [[0, 3, 2], [0, 2, 1], [0, 1, 5], [0, 5, 4]] and len(vertices) == 6
    assert material.tolist() == [1, 1, 2, 2] and colors[0].tolist() == [51, 102, 153]


def test_splits_are_apart_stratified_and_the_same_every_time(catalogue: Path) -> None:
    library = FurnitureLibrary(catalogue)
    assert "peterbilt" not in library.split_of and library.split_of == FurnitureLibrary(catalogue).split_of
    count = Counter((KIND_CLASS[MODEL_KINDS[n]], s) for n, s in library.split_of.items())
    for name in set(KIND_CLASS.values()):
        total = sum(count[name, s] for s in ("train", "validation", "test"))
        assert count[name, "test"] >= 1 if total >= 3 else count[name, "test"] == 0, name
        assert count[name, "train"] >= 1 or total == 0
    drawn: dict[str, set[str]] = {split: set() for split in ("train", "test")}
    for split, names in drawn.items():
        source = furniture_source(library, split)
        rng = np.random.default_rng(0)
        names |= {source.draw("dining_chair", rng).name for _ in range(100)} & set(MODEL_KINDS)
    assert drawn["train"] and drawn["test"] and not drawn["train"] & drawn["test"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all catalogues, as the package installs it; model names say which catalogue they are from."""
    for name in (CATALOGUE, *TRAINING_CATALOGUES):
        write_catalogue(tmp_path / name, sorted(model_kinds(name)))
    monkeypatch.setattr(furniture, "DEFAULT_CATALOGUE", tmp_path / CATALOGUE)
    furniture._installed.cache_clear()
    yield tmp_path
    furniture._installed.cache_clear()


@pytest.mark.parametrize("library", ["auto", "sweethome3d"])
def test_more_catalogues_furnish_training_and_validation_but_never_test_rooms(installed: Path, library: str) -> None:
    own = {name: set(FurnitureLibrary(installed / name).kind_of) for name in (CATALOGUE, *TRAINING_CATALOGUES)}
    foreign = set().union(*(models for name, models in own.items() if name != CATALOGUE)) - own[CATALOGUE]
    kinds = ("dining_chair", "armchair", "sofa", "small_plant")
    drawn: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        source, rng = furniture_source(library, split), np.random.default_rng(0)
        drawn[split] = {source.draw(kind, rng).name for kind in kinds for _ in range(150)}
    assert drawn["train"] & foreign and drawn["validation"] & foreign and not drawn["test"] & foreign
    assert not drawn["train"] & drawn["validation"] & foreign
    alone, rng, other = furniture_source(str(installed / CATALOGUE), "test"), np.random.default_rng(3), np.random.default_rng(3)
    both = furniture_source(library, "test")
    assert [alone.draw("sofa", rng).name for _ in range(20)] == [both.draw("sofa", other).name for _ in range(20)]


@pytest.mark.parametrize("name", sorted(TRAINING_CATALOGUES))
def test_a_training_catalogue_has_no_test_models_and_names_each_model_once(installed: Path, name: str) -> None:
    library = FurnitureLibrary(installed / name)
    listed = [model for models in TRAINING_CATALOGUES[name].values() for model in models.split()]
    assert len(listed) == len(set(listed)) == len(library.kind_of)
    assert set(library.split_of.values()) <= {"train", "validation"}


def test_every_kind_has_a_class_and_a_procedural_stand_in() -> None:
    assert set(MODEL_KINDS.values()) <= set(KIND_CLASS) and set(KIND_CLASS) <= set(MAKERS)
    assert all(set(kinds) <= set(KIND_CLASS) for kinds in TRAINING_CATALOGUES.values())
    assert set(KIND_CLASS.values()) <= set(CLASS_NAMES) | {""}


def test_drawn_models_vary_and_the_stored_one_does_not(catalogue: Path) -> None:
    library = FurnitureLibrary(catalogue)
    before = library.model("sofa").vertices.copy()
    source, rng = furniture_source(library, library.split_of["sofa"]), np.random.default_rng(0)
    sizes = {tuple(m.size_m.round(4)) for m in (source.draw("sofa", rng) for _ in range(30)) if m.name in MODEL_KINDS}
    assert len(sizes) > 5 and np.array_equal(before, library.model("sofa").vertices)


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_missing_or_damaged_catalogue_names_the_cure(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "BlendSwap-CC-0.sh3f"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="apt-get install sweethome3d-furniture.*--furniture procedural"):
        furniture_source(str(path), "train")


def test_catalogue_without_known_models_or_with_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the models"):
        FurnitureLibrary(write_catalogue(tmp_path / "a.sh3f", ["peterbilt"]))
    path = tmp_path / "b.sh3f"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "model#1=/m/sofa.obj\nwidth#1=1\nheight#1=1\ndepth#1=1\n")
    with pytest.raises(DataError, match="sofa cannot be read"):
        FurnitureLibrary(path).model("sofa")


def test_training_furniture_is_reshaped_and_dyed_and_other_furniture_is_not() -> None:
    train, test = furniture_source("procedural", "train"), furniture_source("procedural", "test")
    for kind in ("wardrobe", "dining_chair", "bed"):
        sizes, plain = [], 0
        for seed in range(30):
            made, drawn = make(kind, np.random.default_rng(seed), "train"), train.draw(kind, np.random.default_rng(seed))
            ratio = drawn.size_m / made.size_m
            assert (ratio > 0.75).all() and (ratio < 1.3).all() and (made.size_m[2] <= 1.6 or ratio[2] <= 1.0001)
            if made.support_z_m > 0:  # what was below the top still is
                below = made.vertices[:, 2] <= made.support_z_m + 1e-6
                assert drawn.vertices[below, 2].max() <= drawn.support_z_m + 1e-4
                assert (drawn.vertices[~below, 2] >= drawn.support_z_m - 1e-4).all()
            stretched = made.vertices * ratio
            stretched += drawn.vertices.min(0) - stretched.min(0)
            assert np.abs(drawn.vertices - stretched).max() > 0.005  # unevenly
            sizes.append(ratio)
            plain += np.array_equal(made.face_colors, drawn.face_colors)
            same = test.draw(kind, np.random.default_rng(seed))
            assert np.array_equal(same.vertices, make(kind, np.random.default_rng(seed), "test").vertices)
        assert np.ptp(sizes, axis=0).min() > 0.1 and 8 <= plain <= 25
