"""Checks and readers shared by the loaders of public data sets: files that are there, JSON, tables, PLY meshes."""

__all__ = ["PlyMesh", "check_file", "read_json", "read_ply", "read_tsv"]

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.errors import DataError

LFS_HEADER = b"version https://git-lfs"
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_HEADER_BYTES = 1 << 16


def check_file(path: Path, cure: str) -> Path:
    """The path itself, if a file with content is there.

    Args:
        path: the file.
        cure: what to do where it is missing, completing "... is missing: ".

    Raises:
        DataError: missing, empty, or a Git LFS pointer.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: {cure}")
    with path.open("rb") as stream:
        start = stream.read(len(LFS_HEADER))
    if start == LFS_HEADER:
        raise DataError(f"{path} is a Git LFS pointer, not the data: run `git lfs pull` in the folder it came from")
    if not start:
        raise DataError(f"{path} is empty: copy or download it again")
    return path


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: missing, a Git LFS pointer, or not a JSON object.
    """
    try:
        data = json.loads(check_file(path, cure).read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): it may be cut short, download it again") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds a {type(data).__name__}, not a JSON object: download it again")
    return data


def read_tsv(path: Path, columns: tuple[str, ...], cure: str) -> list[tuple[str, ...]]:
    """Columns of a table with a header line, separated by tabs.

    Raises:
        DataError: missing, a Git LFS pointer, not text, or without one of the columns.
    """
    try:
        text = check_file(path, cure).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text ({error}): {cure}") from error
    reader = csv.DictReader(io.StringIO(text), delimiter="\t")
    missing = [c for c in columns if c not in (reader.fieldnames or [])]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)} (tabs separate columns): {cure}")
    return [tuple(row[c] or "" for c in columns) for row in reader]


# -- PLY ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlyMesh:
    """Vertices and triangles of a PLY file."""

    vertices: np.ndarray
    """[V] structured: one field per property, as the file names them."""
    faces: np.ndarray
    """[F, 3] int32 rows of `vertices`; [0, 3] for a cloud."""

    def points_m(self) -> np.ndarray:
        """[V, 3] float64."""
        return np.stack([self.vertices[c].astype(np.float64) for c in "xyz"], axis=1)

    def colors(self) -> np.ndarray | None:
        """[V, 3] uint8, None where the file has none."""
        if not {"red", "green", "blue"} <= set(self.vertices.dtype.names or ()):
            return None
        return np.stack([self.vertices[c].astype(np.uint8) for c in ("red", "green", "blue")], axis=1)


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str, str]]
    """Name, type, and type of the count for a list ("" = no list)."""


def read_ply(path: Path, cure: str, needed: tuple[str, ...] = ("x", "y", "z")) -> PlyMesh:
    """Read a PLY mesh (binary of either order, or ASCII), whatever properties its vertices have.

    Args:
        path: the file.
        cure: what to do where it is missing.
        needed: properties that the vertices must have.

    Raises:
        DataError: missing, a Git LFS pointer, damaged, cut short, or with faces that are not triangles.
    """
    check_file(path, cure)
    size = path.stat().st_size
    with path.open("rb") as stream:
        order, elements, start = _read_header(path, stream.read(_HEADER_BYTES))
        stream.seek(start)
        vertices: np.ndarray | None = None
        faces = np.zeros((0, 3), np.int32)
        lines = iter(stream) if order == "=" else None
        for element in elements:
            if element.name not in ("vertex", "face"):
                break  # nothing of interest follows the faces
            dtype = _row_type(path, element, order)
            if element.count * (dtype.itemsize if lines is None else 2) > size - start:
                raise DataError(f"{path} is cut short: {size} bytes cannot hold {element.count} of {element.name}; download it again")
            rows = _binary_rows(path, stream, element, dtype) if lines is None else _ascii_rows(path, lines, element, dtype)
            if element.name == "vertex":
                vertices = rows
            else:
                faces = _triangles(path, rows)
    names = () if vertices is None else vertices.dtype.names or ()
    if vertices is None or not set(needed) <= set(names):
        lacking = ", ".join(n for n in needed if n not in names)
        raise DataError(f"the vertices of {path} have no {lacking}: {cure}")
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise DataError(f"{path} has faces that name vertices beyond its {len(vertices)}: it is damaged, download it again")
    return PlyMesh(vertices, faces)


def _read_header(path: Path, head: bytes) -> tuple[str, list[_Element], int]:
    """Byte order, elements, and where the data begin."""
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if not head.startswith(b"ply") or end < 0 or newline < 0:
        raise DataError(f"{path} is not a PLY file, or its header is damaged: download it again")
    order, elements = "", []
    try:
        for words in (line.split() for line in head[:end].decode("ascii", "replace").splitlines()):
            if words[:1] == ["format"]:
                order = _ORDERS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], int(words[2]), []))
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append((words[4], _TYPES[words[3]], _TYPES[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], _TYPES[words[1]], ""))
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path} has a damaged PLY header ({error}): download it again") from error
    if not order or any(e.count < 0 for e in elements):
        raise DataError(f"{path} has a damaged PLY header (no format, or a negative count): download it again")
    return order, elements, newline + 1


def _row_type(path: Path, element: _Element, order: str) -> np.dtype:
    """Type of one row; a list is taken as one of three: the lengths are checked once they are read."""
    fields: list[tuple[str, Any] | tuple[str, Any, tuple[int, ...]]] = []
    for name, kind, counter in element.properties:
        if counter and element.name == "vertex":
            raise DataError(f"{path} has vertices with a list ({name}), which is not read: export it without")
        if counter:
            fields.append((f"{name} count", order + counter))
        fields.append((name, order + kind, (3,)) if counter else (name, order + kind))
    try:
        return np.dtype(fields)
    except ValueError as error:
        raise DataError(f"{path} names a property twice ({error}): export it again") from error


def _binary_rows(path: Path, stream: Any, element: _Element, dtype: np.dtype) -> np.ndarray:
    data = stream.read(element.count * dtype.itemsize)
    if len(data) != element.count * dtype.itemsize:
        raise DataError(f"{path} is cut short in its {element.count} of {element.name}, or a face is no triangle: download it again")
    return np.frombuffer(data, dtype)


def _ascii_rows(path: Path, lines: Any, element: _Element, dtype: np.dtype) -> np.ndarray:
    text = [line for _, line in zip(range(element.count), lines)]  # noqa: B905
    try:
        values = np.loadtxt([line.decode("ascii") for line in text], np.float64, ndmin=2) if text else np.zeros((0, 0))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} has a damaged {element.name} ({error}), or a face that is no triangle: export it again") from error
    rows = np.zeros(element.count, dtype)
    width = sum(int(np.prod(dtype[name].shape)) for name in dtype.names or ())
    if values.shape != (element.count, width) and element.count:
        raise DataError(f"{path} is cut short in its {element.count} of {element.name}, or a face is no triangle: export it again")
    column = 0
    for name in dtype.names or ():
        step = int(np.prod(dtype[name].shape))
        rows[name] = values[:, column : column + step].reshape(rows[name].shape)
        column += step
    return rows


def _triangles(path: Path, rows: np.ndarray) -> np.ndarray:
    lists = [name for name in rows.dtype.names or () if name in ("vertex_indices", "vertex_index")]
    if not lists:
        return np.zeros((0, 3), np.int32)
    if len(rows) and (rows[f"{lists[0]} count"] != 3).any():
        raise DataError(f"{path} has faces that are no triangles: export it as a triangle mesh")
    return rows[lists[0]].astype(np.int32)
