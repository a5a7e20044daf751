"""Wavefront OBJ files with their materials, read from a zip archive: triangles and one colour each."""

__all__ = ["read_obj"]

import io
import posixpath
import zipfile

import numpy as np
from PIL import Image, UnidentifiedImageError

_GREY = np.array([180.0, 180.0, 180.0])


def _texture_mean(archive: zipfile.ZipFile, path: str) -> np.ndarray | None:
    """Mean colour [3] of a picture's opaque part; None if it is not there or not readable."""
    try:
        with Image.open(io.BytesIO(archive.read(path))) as image:
            pixels = np.asarray(image.convert("RGBA").resize((32, 32)), np.float64).reshape(-1, 4)
    except (KeyError, UnidentifiedImageError, OSError):
        return None
    opaque = pixels[pixels[:, 3] > 128]
    return (opaque if len(opaque) else pixels)[:, :3].mean(axis=0)


def _read_mtl(archive: zipfile.ZipFile, path: str) -> dict[str, np.ndarray]:
    """Material name -> RGB [3] in 0..255: the mean of its texture, else its diffuse colour."""
    colors: dict[str, np.ndarray] = {}
    try:
        lines = archive.read(path).decode("utf-8", "replace").splitlines()
    except KeyError:
        return colors
    name = ""
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == "newmtl":
            name = " ".join(words[1:])
            colors[name] = _GREY
        elif words[0] == "Kd" and len(words) >= 4:
            linear = np.clip([float(v) for v in words[1:4]], 0.0, 1.0)
            colors[name] = linear * 255.0
        elif words[0] == "map_Kd":
            mean = _texture_mean(archive, posixpath.join(posixpath.dirname(path), words[-1]))
            if mean is not None:
                colors[name] = mean
    return colors


def read_obj(archive: zipfile.ZipFile, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One model.

    Returns:
        vertices [V, 3] float64, faces [F, 3] int64 (polygons cut into fans), colours [F, 3] uint8, material number [F].

    Raises:
        KeyError: the archive has no such file.
        ValueError: a number cannot be read.
    """
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    materials: list[int] = []
    numbers: dict[str, int] = {"": 0}
    colors: dict[str, np.ndarray] = {}
    current = 0
    for line in archive.read(path).decode("utf-8", "replace").splitlines():
        if line.startswith("v "):
            vertices.append([float(v) for v in line.split()[1:4]])
        elif line.startswith("f "):
            corner = [int(word.split("/", 1)[0]) for word in line.split()[1:]]
            corner = [c - 1 if c > 0 else c + len(vertices) for c in corner]
            for b, c in zip(corner[1:-1], corner[2:], strict=False):
                faces.append((corner[0], b, c))
                materials.append(current)
        elif line.startswith("usemtl"):
            current = numbers.setdefault(line[6:].strip(), len(numbers))
        elif line.startswith("mtllib"):
            colors.update(_read_mtl(archive, posixpath.join(posixpath.dirname(path), line[6:].strip())))
    palette = np.array([colors.get(name, _GREY) for name in numbers])
    material = np.array(materials, np.int64)
    return np.array(vertices).reshape(-1, 3), np.array(faces, np.int64).reshape(-1,
        3), palette[material].astype(np.uint8), material
