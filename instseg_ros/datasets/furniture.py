"""Where rooms get their furniture from: models of catalogues and procedural ones, kept apart by split.

The catalogues are files of Debian's package sweethome3d-furniture: zips of OBJ models (cm, y up, front towards +z) and a
list with name, model file and real size. Test rooms take from `BlendSwap-CC-0.sh3f` alone, training and validation rooms
from three more as well (`furniture_catalogue.TRAINING_CATALOGUES`).
"""

__all__ = ["DEFAULT_CATALOGUE", "FurnitureLibrary", "FurnitureSource", "furniture_source"]

import functools
import hashlib
import logging
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from instseg_ros.datasets.furniture_catalogue import CATALOGUE, KIND_CLASS, TRAINING_CATALOGUES, model_kinds
from instseg_ros.datasets.obj_reader import read_obj
from instseg_ros.datasets.palette import fabric, wood
from instseg_ros.datasets.procedural import make
from instseg_ros.datasets.shapes import FurnitureModel
from instseg_ros.errors import DataError, require

DEFAULT_CATALOGUE = Path("/usr/share/sweethome3d/furniture") / CATALOGUE
_CURE = "apt-get install sweethome3d-furniture, or give the path of BlendSwap-CC-0.sh3f, or use --furniture procedural"
_CATALOGUE_SHARE = 0.6
_TALL_M = 1.6
_MOST_FACES, _REDUCED_FACES = 15_000, 10_000
_T_UP_CATALOGUE = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # y up, front +z  ->  z up, front +y
_log = logging.getLogger(__name__)


def _split_models(kinds: dict[str, str], with_test: bool) -> dict[str, str]:
    """Model -> split, stratified by class: one in five (at least one of three) for test, about one in seven for validation.

    The order within a class comes from a hash of the name, so it is the same everywhere.
    """
    by_class: dict[str, list[str]] = {}
    for name in sorted(kinds, key=lambda n: hashlib.sha256(n.encode()).digest()):
        by_class.setdefault(KIND_CLASS[kinds[name]], []).append(name)
    result = {}
    for members in by_class.values():
        count = len(members)
        testing = max(1, round(0.2 * count)) if with_test and count >= 3 else 0
        validation = max(1, round(0.15 * count)) if count >= 5 else 0
        for k, name in enumerate(members):
            result[name] = "test" if k < testing else "validation" if k < testing + validation else "train"
    return result


def _reduced(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, material: np.ndarray) -> tuple[np.ndarray,
        np.ndarray, np.ndarray]:
    """A model of many faces with fewer, material by material so that each keeps its colour."""
    o3d = require("open3d", "reduce furniture models of many faces", "pip install open3d")
    parts, base = [], 0
    for m in np.unique(material):
        own = material == m
        mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(vertices),
            o3d.utility.Vector3iVector(faces[own].astype(np.int32)))
        mesh = mesh.remove_unreferenced_vertices().simplify_quadric_decimation(max(4,
            int(own.sum() * _REDUCED_FACES / len(faces))))
        points, triangles = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
        parts.append((points, triangles + base, np.broadcast_to(colors[own][0], (len(triangles), 3))))
        base += len(points)
    return tuple(np.concatenate([p[k] for p in parts]) for k in range(3))  # type: ignore[return-value]


class FurnitureLibrary:
    """The models of a catalogue file; each is read when it is first drawn and kept in memory.

    Attributes:
        path: the file; its name says which models are used, and as what (`furniture_catalogue.model_kinds`).
        kind_of: model name -> kind.
        split_of: model name -> "train", "validation" or "test".
    """

    def __init__(self, path: Path | str = DEFAULT_CATALOGUE) -> None:
        """Opens the catalogue.

        Raises:
            DataError: the file is missing or is not such a catalogue; the message names the cure.
        """
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
        except FileNotFoundError as error:
            raise DataError(f"no furniture catalogue at {self.path}. Cure: {_CURE}") from error
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path} is not a Sweet Home 3D furniture file ({error}). Cure: {_CURE}") from error
        entries: dict[str, dict[str, str]] = {}
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\s*$", text, re.MULTILINE):
            entries.setdefault(number, {})[key] = value
        kinds = model_kinds(self.path.name)
        self._entries = {Path(e["model"]).stem: e for e in entries.values() if Path(e.get("model", "")).stem in kinds}
        if not self._entries:
            raise DataError(f"{self.path} holds none of the models this project knows. Cure: {_CURE}")
        self.kind_of = {name: kinds[name] for name in self._entries}
        self.split_of = _split_models(self.kind_of, self.path.name not in TRAINING_CATALOGUES)
        self._models: dict[str, FurnitureModel] = {}

    def names(self, kind: str, split: str) -> list[str]:
        """Models of a kind in a split, in a fixed order."""
        return sorted(n for n, s in self.split_of.items() if s == split and self.kind_of[n] == kind)

    def model(self, name: str) -> FurnitureModel:
        """A model in its catalogue size, centred, z up, front +y.

        Raises:
            DataError: its files are damaged.
        """
        if name not in self._models:
            entry = self._entries[name]
            try:
                with zipfile.ZipFile(self.path) as archive:  # opened anew: worker processes must not share a file position
                    vertices, faces, colors, material = read_obj(archive, entry["model"].lstrip("/"))
                size = np.array([float(entry[k]) for k in ("width", "height", "depth")]) / 100.0
            except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
                raise DataError(f"{self.path}: model {name} cannot be read ({error}). Install it anew: {_CURE}") from error
            if "modelRotation" in entry:
                vertices = vertices @ np.array(entry["modelRotation"].split(), np.float64).reshape(3, 3).T
            used = np.unique(faces)
            low, high = vertices[used].min(axis=0), vertices[used].max(axis=0)
            vertices = (vertices - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) * (size / np.maximum(high - low,
                1e-9))
            vertices = vertices @ _T_UP_CATALOGUE.T
            if len(faces) > _MOST_FACES:
                vertices, faces, colors = _reduced(vertices, faces, colors, material)
            used, faces = np.unique(faces, return_inverse=True)
            kind, top = self.kind_of[name], float(entry.get("dropOnTopElevation", 100 * size[1])) / 100.0
            self._models[name] = FurnitureModel(
                name, kind, KIND_CLASS[kind], vertices[used].astype(np.float32), faces.reshape(-1, 3).astype(np.int32), colors,
                float(size[1]) if kind == "bookshelf" else top)
        return self._models[name]


def _warped(values: np.ndarray, low: float, high: float, widths: np.ndarray) -> np.ndarray:
    """Values between low and high moved so that equal parts of the range get these relative widths; the ends stay."""
    knots = np.linspace(low, high, len(widths) + 1)
    return np.interp(values, knots, low + (high - low) * np.concatenate([[0.0], np.cumsum(widths) / widths.sum()]))


def _reshaped(model: FurnitureModel, rng: np.random.Generator) -> FurnitureModel:
    """A copy for training: stretched along each axis and unevenly within it, and often dyed, as a whole or part by part.

    With few models of a class a network learns the models; with these it has to learn what they share.
    """
    scale = rng.uniform(0.85, 1.15) * rng.uniform(0.92, 1.08, 3)
    if model.size_m[2] > _TALL_M:  # what reaches towards the ceiling does not grow through it
        scale[2] = min(scale[2], 1.0)
    vertices = (model.vertices * scale).astype(np.float64)
    support = model.support_z_m if model.support_z_m < 0 else model.support_z_m * scale[2]
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    for axis in range(3):
        widths = rng.uniform(0.7, 1.4, 4)
        vertices[:, axis] = _warped(vertices[:, axis], low[axis], high[axis], widths)
        if axis == 2 and support >= 0:
            support = float(_warped(np.array([support]), low[2], high[2], widths)[0])
    return replace(model, vertices=vertices.astype(np.float32), face_colors=_dyed(model.face_colors, rng), support_z_m=support)


def _dyed(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Face colours [F, 3] u1 as they are (half), in one colour with the shades kept, or with a new colour for every old one."""
    roll = rng.uniform()
    if roll < 0.5:
        return colors
    kinds, part = np.unique(colors, axis=0, return_inverse=True)
    if roll < 0.8 or len(kinds) > 64:
        part = np.zeros(len(colors), int)
    dyes = np.stack([_dye(rng) for _ in range(part.max() + 1)])[part.reshape(-1)]
    shade = colors.astype(np.float64).mean(axis=1, keepdims=True)
    return np.clip(dyes * (shade / max(float(np.median(shade)), 1.0)) ** 0.7, 0, 255).astype(np.uint8)


def _dye(rng: np.random.Generator) -> np.ndarray:
    """White, or a colour of cloth or wood."""
    return np.full(3, rng.uniform(215, 250)) if rng.uniform() < 0.3 else (fabric, wood)[rng.integers(2)](rng)


def _varied(model: FurnitureModel, rng: np.random.Generator) -> FurnitureModel:
    """A copy a little larger or smaller, perhaps mirrored, perhaps in other colours."""
    scale = rng.uniform(0.93, 1.07) * rng.uniform(0.96, 1.04, 3)
    flip = rng.uniform() < 0.5
    faces = model.faces[:, ::-1] if flip else model.faces
    colors = model.face_colors.astype(np.float64)
    roll = rng.uniform()
    if roll < 0.25:
        colors = colors[:, rng.permutation(3)]
    if roll < 0.7:
        colors = colors * rng.uniform(0.6, 1.3) * rng.uniform(0.8, 1.2, 3)
    vertices = (model.vertices * scale * ((-1, 1, 1) if flip else (1, 1, 1))).astype(np.float32)
    return replace(
        model, vertices=vertices, faces=np.ascontiguousarray(faces), face_colors=np.clip(colors, 0, 255).astype(np.uint8),
        support_z_m=model.support_z_m * scale[2])


class FurnitureSource:
    """Draws furniture of a kind for one split: catalogue models (60 %, where the split has one) or procedural ones.

    Those of the training split are stretched, warped and dyed; test and validation furniture stays as it is made.
    """

    def __init__(self, split: str, libraries: Sequence[FurnitureLibrary] = ()) -> None:
        self.split = split
        self._models = {kind: [(library, name) for library in libraries for name in library.names(kind, split)] for kind in KIND_CLASS}

    def draw(self, kind: str, rng: np.random.Generator) -> FurnitureModel:
        """A model of a kind.

        Raises:
            DataError: the kind is unknown.
        """
        model = self._draw(kind, rng)
        return _reshaped(model, rng) if self.split == "train" else model

    def _draw(self, kind: str, rng: np.random.Generator) -> FurnitureModel:
        models = self._models.get(kind)
        if models and rng.uniform() < _CATALOGUE_SHARE:
            library, name = models[rng.integers(len(models))]
            return _varied(library.model(name), rng)
        return make(kind, rng, self.split)


@functools.cache
def _opened(path: Path) -> FurnitureLibrary:
    return FurnitureLibrary(path)


@functools.cache
def _installed(split: str) -> tuple[FurnitureLibrary, ...]:
    """The installed catalogues that furnish rooms of a split."""
    if not DEFAULT_CATALOGUE.exists():
        _log.warning("no furniture catalogue at %s, so all furniture is procedural. Cure: %s", DEFAULT_CATALOGUE, _CURE)
        return ()
    more = [] if split == "test" else [DEFAULT_CATALOGUE.with_name(name) for name in TRAINING_CATALOGUES]
    return tuple(_opened(path) for path in (DEFAULT_CATALOGUE, *more) if path.exists())


def furniture_source(library: str | Path | FurnitureLibrary = "auto", split: str = "train") -> FurnitureSource:
    """The furniture of a split.

    Args:
        library: "auto" (the installed catalogues if there are any, and procedural), "procedural", "sweethome3d" (the
            installed catalogues or an error), the path of one catalogue file, or an opened library.
        split: "train", "validation" or "test".

    Raises:
        DataError: the catalogue asked for is not there; the message names the cure.
    """
    if isinstance(library, FurnitureLibrary):
        return FurnitureSource(split, [library])
    if library == "procedural":
        return FurnitureSource(split)
    if library == "auto" or (library == "sweethome3d" and DEFAULT_CATALOGUE.exists()):
        return FurnitureSource(split, _installed(split))
    return FurnitureSource(split, [_opened(DEFAULT_CATALOGUE if library == "sweethome3d" else Path(library))])
