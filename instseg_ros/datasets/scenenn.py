"""SceneNN (Hua et al. 2016): meshes with a label per vertex, and the names of the labels in an XML file."""

__all__ = ["find_scenenn", "read_scenenn"]

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from instseg_ros.datasets.labelled_points import LabelledPoints, level_by_floor
from instseg_ros.datasets.nyu40 import NYU40_NAMES, nyu40_of_name
from instseg_ros.datasets.raw_files import check_file, read_ply
from instseg_ros.errors import DataError
from instseg_ros.labels import nyu40_to_class

CURE = "download the scene again: ID.ply and ID.xml in a folder named ID, as SceneNN's repository lays them out"
MAX_XML_BYTES = 64 << 20
_GREY = 160
PROP = NYU40_NAMES.index("otherprop")
"""SceneNN calls this class prop."""
_AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}


def find_scenenn(source: Path) -> list[Path]:
    """Meshes `ID/ID.ply` in a folder, or the one that is named.

    Raises:
        DataError: there is none.
    """
    if source.suffix == ".ply":
        return [source]
    found = sorted([*source.glob("[0-9][0-9][0-9].ply"), *source.glob("*/[0-9][0-9][0-9].ply")])
    if not found:
        raise DataError(f"{source} holds no ID/ID.ply (ID = three digits): {CURE}")
    return found


def read_scenenn(mesh: Path | str, up: str = "y") -> LabelledPoints:
    """One scene.

    Vertices whose label the XML does not name have none. The scene is turned so that its floor is level and z points up, or, if
    nothing is labelled floor, so that the axis `up` does.

    Args:
        mesh: `ID.ply`; `ID.xml` lies beside it.
        up: axis that points up, roughly: x, y, z, or one with a minus.

    Raises:
        DataError: a file is missing or damaged, or `up` is no axis.
    """
    mesh = Path(mesh)
    if up not in _AXES:
        raise DataError(f"up is {up!r}: it must be one of {', '.join(_AXES)}")
    ply = read_ply(mesh, CURE, ("x", "y", "z", "label"))
    raw = ply.vertices["label"].astype(np.int64)
    texts, classes = _read_annotation(mesh.with_suffix(".xml"))
    ids = np.array(sorted(classes), np.int64)
    place = np.minimum(np.searchsorted(ids, raw), len(ids) - 1)
    known = ids[place] == raw
    nyu40 = np.where(known, np.array([classes[i] for i in ids.tolist()], np.int32)[place], 0).astype(np.int32)
    instance = np.where(known & (nyu40 > 0), place, -1).astype(np.int32)
    points_m = ply.points_m()
    R_level_mesh = level_by_floor(points_m, nyu40 == NYU40_NAMES.index("floor"), np.array(_AXES[up], np.float64))
    colors = ply.colors()
    return LabelledPoints(
        mesh.stem, points_m @ R_level_mesh.T, np.full((len(raw), 3), _GREY, np.uint8) if colors is None else colors,
        nyu40_to_class(nyu40), instance, nyu40, {**dict(enumerate(NYU40_NAMES)), PROP: "prop"}, ply.faces,
        {"dataset": "scenenn", "texts": [texts[i] for i in ids.tolist()], "rotation": R_level_mesh.tolist()},
    )


def _read_annotation(path: Path) -> tuple[dict[int, str], dict[int, int]]:
    """Text and NYU40 id of each label: `<label id=".." text=".." nyu_class=".." ...>`."""
    if check_file(path, CURE).stat().st_size > MAX_XML_BYTES:
        raise DataError(f"{path} is larger than any annotation: {CURE}")
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(f"{path} defines entities, which no annotation does: {CURE}")
    texts: dict[int, str] = {}
    named = False
    classes: dict[int, int] = {}
    try:
        for label in ElementTree.fromstring(content).iter("label"):
            number = int(label.attrib["id"])
            texts[number] = label.attrib.get("text", "")
            named |= "nyu_class" in label.attrib
            classes[number] = nyu40_of_name(label.attrib.get("nyu_class", ""))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no annotation ({type(error).__name__} {error}): {CURE}") from error
    if not classes:
        raise DataError(f"{path} names no labels: {CURE}")
    if not named:
        raise DataError(f"{path} has no nyu_class in any label, so that nothing would have a class: {CURE}")
    return texts, classes
