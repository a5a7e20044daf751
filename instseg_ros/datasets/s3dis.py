"""S3DIS (Armeni et al. 2016): rooms of the Stanford 3D Indoor Spaces, version 1.2, aligned."""

__all__ = ["S3DIS_NAMES", "S3DIS_TO_CLASS", "find_s3dis", "read_s3dis"]

import re
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.datasets.labelled_points import LabelledPoints
from instseg_ros.datasets.raw_files import check_file
from instseg_ros.errors import DataError
from instseg_ros.labels import IGNORE, class_index

S3DIS_NAMES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board", "clutter",
)
"""The 13 classes of the data set; the index into this tuple is `LabelledPoints.label`."""
S3DIS_TO_CLASS = {
    "ceiling": class_index("wall"), "floor": class_index("floor"), "wall": class_index("wall"), "beam": class_index("wall"),
    "column": class_index("wall"), "window": class_index("window"), "door": class_index("door"), "table": class_index("table"),
    "chair": class_index("chair"), "sofa": class_index("sofa"), "bookcase": class_index("bookshelf"), "board": IGNORE, "clutter": IGNORE,
}
"""Class index of each: ceiling, beam and column count as wall; a board is none of the 20, nor is clutter."""
CLUTTER = S3DIS_NAMES.index("clutter")
CURE = "unpack Stanford3dDataset_v1.2_Aligned_Version.zip again, and name its folder, or one Area_k or room in it"
_OBJECT = re.compile(r"[A-Za-z]+_\d+\.txt")
MAX_DAMAGED_LINES = 10
"""More lines than this that are not six numbers mean that the file is something else."""


def find_s3dis(source: Path) -> list[Path]:
    """Folders of rooms: `source` itself, those of an Area_k, or those of all areas in it.

    Raises:
        DataError: there is none.
    """
    for pattern in ("Annotations", "*/Annotations", "Area_*/*/Annotations"):
        rooms = sorted(p.parent for p in source.glob(pattern) if p.is_dir())
        if rooms:
            return rooms
    raise DataError(f"{source} holds no room with a folder Annotations: {CURE}")


def read_s3dis(room: Path | str) -> LabelledPoints:
    """One room, from the files `Annotations/<class>_<n>.txt` of its objects: lines of x y z r g b.

    Every object is an instance, those of ceiling, floor, walls and clutter too. Names beyond the 13 ("stairs") count as clutter, as
    is usual. Files of other names are left out (`metadata["files_left_out"]`): in Area_5/office_36 of the release a `wall_3 (1).txt` lies
    beside `wall_3.txt`. Lines that are damaged are left out and named in `metadata["damaged_lines"]`: the release has one with a control
    character within a number, line 180389 of Area_5/hallway_6/Annotations/ceiling_1.txt.

    Args:
        room: the folder of the room; its name and that of its area become the name of the scan: `Area_5_hallway_6`.

    Raises:
        DataError: a file is missing, or is not lines of six numbers.
    """
    room = Path(room)
    there = sorted((room / "Annotations").glob("*.txt"))
    files = sorted((path for path in there if _OBJECT.fullmatch(path.name)), key=_by_number)
    if not files:
        raise DataError(f"{room / 'Annotations'} holds no <class>_<n>.txt: {CURE}")
    parts, labels, damaged = [], [], []
    for path in files:
        values, wrong = _read_points(path)
        parts.append(values)
        name = path.stem.rpartition("_")[0]
        labels.append(S3DIS_NAMES.index(name) if name in S3DIS_NAMES else CLUTTER)
        damaged += [[f"{path.parent.parent.name}/Annotations/{path.name}", number, text] for number, text in wrong]
    values = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts]).astype(np.int32)
    label = np.array(labels, np.int32)[owner]
    classes = np.array([S3DIS_TO_CLASS[name] for name in S3DIS_NAMES], np.uint8)[label]
    metadata: dict[str, Any] = {
        "dataset": "s3dis", "area": room.resolve().parent.name, "label_names": list(S3DIS_NAMES), "objects": [f.stem for f in files],
        "damaged_lines": damaged, "files_left_out": [path.name for path in there if path not in files],
    }
    return LabelledPoints(
        f"{metadata['area']}_{room.resolve().name}", values[:, :3], np.clip(values[:, 3:], 0, 255).astype(np.uint8), classes, owner, label,
        dict(enumerate(S3DIS_NAMES)), None, metadata,
    )


def _by_number(path: Path) -> tuple[str, int]:
    name, _, number = path.stem.rpartition("_")
    return name, int(number)


def _read_points(path: Path) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Rows [N, 6] of a file, and its damaged lines: (number, text)."""
    check_file(path, CURE)
    try:
        values = np.loadtxt(path, np.float64, comments=None, ndmin=2, encoding="latin-1")
        wrong: list[tuple[int, str]] = []
    except ValueError:
        values, wrong = _read_line_by_line(path)
    if values.shape[1:] != (6,) or not np.isfinite(values).all():
        raise DataError(f"{path} has lines of {values.shape[-1]} numbers, or numbers that are not finite; x y z r g b are expected: {CURE}")
    return values, wrong


def _read_line_by_line(path: Path) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """As `_read_points`, for a file with damaged lines: slower."""
    rows, wrong = [], []
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
    for index, line in enumerate(path.read_text(encoding="latin-1").split("\n"), 1):
        words = line.split(" ")
        words = [w for w in words if w.strip()]
        if not words:
            continue
        if len(words) == 6 and all(number.fullmatch(w.strip("\r\t")) for w in words):
            rows.append([float(w) for w in words])
        else:
            wrong.append((index, line[:60].encode("unicode_escape").decode()))
        if len(wrong) > MAX_DAMAGED_LINES:
            raise DataError(f"{path} is damaged: line {wrong[0][0]} and {len(wrong) - 1} more are not x y z r g b ({wrong[0][1]!r}). {CURE}")
    return np.array(rows, np.float64).reshape(-1, 6), wrong
