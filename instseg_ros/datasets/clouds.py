"""Clouds, meshes and voxel scenes in files, read as one full map update."""

__all__ = ["open_cloud", "sample_triangles"]

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from instseg_ros.errors import DataError, InputError, require
from instseg_ros.mapping.update import MAX_ABS_COORD, MapUpdate, coord_keys, voxel_centers, voxel_coords

MESH_SUFFIXES = (".obj", ".stl", ".glb", ".gltf", ".off")
SAMPLES_PER_VOXEL = 3.0
"""Samples along a voxel's edge: none that a mesh crosses in its middle is missed."""
GREY = 160
MAX_EXTENT_M = 500.0
MIN_EXTENT_M = 0.05


def open_cloud(path: Path | str, voxel_size_m: float = 0.05) -> MapUpdate:
    """Read a cloud or mesh as a full map update; the colour of a voxel is the mean of what lies in it.

    Args:
        path: PLY (cloud or mesh), PCD, XYZ; OBJ, STL, GLB, OFF; NPZ with `points` (and `colors`), with
            `coords`, `colors`, `voxel_size_m` (a voxel scene), or with `vertices`, `faces` (and `corner_rgb`).
        voxel_size_m: edge of a voxel.

    Raises:
        DataError: missing, damaged or of another format.
        InputError: the extent shows that the unit is not metres.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is missing: give a PLY, PCD, OBJ, STL, GLB or NPZ file")
    with path.open("rb") as stream:
        if stream.read(23) == b"version https://git-lfs":
            raise DataError(f"{path} is a Git LFS pointer, not the data: run `git lfs pull` in the folder it came from")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        coords, colors, weights = _read_npz(path, voxel_size_m)
    elif suffix in MESH_SUFFIXES or (suffix == ".ply" and _ply_faces(path) > 0):
        coords, colors, weights = _read_mesh(path, voxel_size_m)
    elif suffix in (".ply", ".pcd", ".xyz", ".xyzrgb", ".pts"):
        coords, colors, weights = _read_points(path, voxel_size_m)
    else:
        raise DataError(
            f"{path}: {suffix or 'a file without suffix'} is not read; convert it to PLY, PCD, OBJ, STL, GLB or NPZ"
        )
    return MapUpdate(coords, colors, weights, voxel_size_m, full=True)


def _reduce(parts: Iterator[tuple[np.ndarray, np.ndarray]], voxel_size_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean colour and count per voxel over parts of (points [N, 3], colours [N, 3])."""
    coords, sums = np.zeros((0, 3), np.int32), np.zeros((0, 3))
    counts: np.ndarray = np.zeros(0)
    for points_m, colors in parts:
        finite = np.isfinite(points_m).all(axis=1)
        points_m, colors = points_m[finite], colors[finite]
        if len(points_m) and np.abs(points_m).max() / voxel_size_m > MAX_ABS_COORD:
            raise InputError(
                f"points reach {np.abs(points_m).max():.0f} m from the origin: check the unit, or subtract a global offset"
            )
        coords = np.concatenate([coords, voxel_coords(points_m, voxel_size_m)])
        sums = np.concatenate([sums, np.asarray(colors, np.float64)])
        counts = np.concatenate([counts, np.ones(len(points_m))])
        _, first, voxel = np.unique(coord_keys(coords), return_index=True, return_inverse=True)
        coords = coords[first]
        sums = np.stack([np.bincount(voxel, sums[:, c], len(first)) for c in range(3)], axis=1)
        counts = np.bincount(voxel, counts, len(first))
    mean = np.rint(sums / np.maximum(counts, 1)[:, None])
    return coords, np.clip(mean, 0, 255).astype(np.uint8), counts.astype(np.float32)


def _check_extent(points_m: np.ndarray, path: Path) -> None:
    """Refuse what cannot be in metres."""
    finite = points_m[np.isfinite(points_m).all(axis=1)]
    if not len(finite):
        raise DataError(f"{path} has no finite points: export it again, with coordinates")
    extent = float(np.ptp(finite, axis=0).max())
    if extent > MAX_EXTENT_M or extent < MIN_EXTENT_M:
        what = "millimetres or centimetres" if extent > MAX_EXTENT_M else "kilometres, or normalised coordinates"
        raise InputError(f"{path} is {extent:g} m across, which looks like {what}: scale it to metres first")


# -- readers -----------------------------------------------------------------------------------------------------------------


def _ply_faces(path: Path) -> int:
    """Number of faces a PLY header declares."""
    with path.open("rb") as stream:
        header = stream.read(65536).split(b"end_header")[0]
    if not header.startswith(b"ply"):
        raise DataError(f"{path} is not a PLY file (it does not begin with `ply`): export it again")
    counts = [line.split()[2] for line in header.splitlines() if line.startswith(b"element face")]
    return int(counts[0]) if counts else 0


def _read_points(path: Path, voxel_size_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    o3d = require("open3d", "read point clouds", "pip install open3d")
    cloud = o3d.io.read_point_cloud(str(path))
    points_m = np.asarray(cloud.points)
    if not len(points_m):
        raise DataError(f"no points could be read from {path}: it is empty or damaged, export it again")
    _check_extent(points_m, path)
    colors = np.asarray(cloud.colors) * 255.0 if cloud.has_colors() else np.full(points_m.shape, GREY)
    return _reduce(iter([(points_m, colors)]), voxel_size_m)


def _read_mesh(path: Path, voxel_size_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    o3d = require("open3d", "read meshes", "pip install open3d")
    mesh = o3d.io.read_triangle_mesh(str(path))
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
    if not len(faces):
        raise DataError(f"no triangles could be read from {path}: it is empty or damaged, export it again as triangles")
    if path.suffix.lower() in (".glb", ".gltf"):  # glTF is y up by its specification, maps are z up
        vertices = vertices[:, [0, 2, 1]] * np.array([1.0, -1.0, 1.0])
    _check_extent(vertices, path)
    spacing_m = voxel_size_m / SAMPLES_PER_VOXEL
    textures = [np.asarray(texture) for texture in mesh.textures]
    if mesh.has_triangle_uvs() and any(texture.size for texture in textures):
        uv = np.asarray(mesh.triangle_uvs).reshape(-1, 3, 2)
        material = (
            np.asarray(mesh.triangle_material_ids)
            if len(mesh.triangle_material_ids) == len(faces)
            else np.zeros(len(faces), int)
        )
        attributes = np.concatenate([uv, np.repeat(material[:, None, None], 3, axis=1)], axis=2)
        parts = ((p, _texture_colors(a, textures)) for p, a in sample_triangles(vertices[faces], attributes, spacing_m))
    else:
        rgb = np.asarray(mesh.vertex_colors) * 255.0 if mesh.has_vertex_colors() else np.full(vertices.shape, float(GREY))
        parts = ((p, a) for p, a in sample_triangles(vertices[faces], rgb[faces], spacing_m))
    return _reduce(parts, voxel_size_m)


def _texture_colors(uv_material: np.ndarray, textures: list[np.ndarray]) -> np.ndarray:
    """Colours [N, 3] of texture coordinates (u, v, material) [N, 3]; Open3D's images begin at v = 0."""
    colors = np.full((len(uv_material), 3), float(GREY))
    material = np.rint(uv_material[:, 2]).astype(int)
    for index, texture in enumerate(textures):
        rows = np.flatnonzero(material == index)
        if not len(rows) or not texture.size:
            continue
        image = texture if texture.ndim == 3 else np.repeat(texture[..., None], 3, axis=2)
        uv = uv_material[rows, :2]
        u, v = np.clip(
            np.where(np.abs(uv - 0.5) < 0.5 + 1e-6, uv, uv % 1.0), 0.0, 1.0
        ).T  # repeats, but its far edge is not its near edge
        x = np.minimum((u * image.shape[1]).astype(int), image.shape[1] - 1)
        y = np.minimum((v * image.shape[0]).astype(int), image.shape[0] - 1)
        colors[rows] = image[y, x, :3]
    return colors


def _read_npz(path: Path, voxel_size_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            data = {
                n: archive[n] for n in names & {"points", "colors", "coords", "voxel_size_m", "vertices", "faces", "corner_rgb"}
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}): copy it again, or write it with np.savez, without objects"
        ) from error
    if {"coords", "voxel_size_m"} <= names:
        return _scene_voxels(path, data, voxel_size_m)
    if {"vertices", "faces"} <= names:
        vertices, faces = data["vertices"].astype(np.float64), data["faces"]
        _check_extent(vertices, path)
        rgb = data.get("corner_rgb", np.full((len(faces), 3, 3), GREY)).astype(np.float64)
        return _reduce(sample_triangles(vertices[faces], rgb, voxel_size_m / SAMPLES_PER_VOXEL), voxel_size_m)
    if "points" in names:
        points_m = data["points"]
        if points_m.ndim != 2 or points_m.shape[1] != 3:
            raise DataError(f"{path}: points has shape {points_m.shape}, expected [N, 3]")
        colors = data.get("colors", np.full(points_m.shape, GREY, np.uint8))
        if colors.shape != points_m.shape:
            raise DataError(f"{path}: colors has shape {colors.shape}, points {points_m.shape}: one RGB a point is expected")
        _check_extent(points_m, path)
        if colors.dtype.kind == "f" and colors.size and colors.max() <= 1.0:
            colors = colors * 255.0
        return _reduce(iter([(points_m, colors)]), voxel_size_m)
    raise DataError(
        f"{path} holds {', '.join(sorted(names)) or 'nothing'}; expected is points (+ colors), coords + colors + voxel_size_m, "
        "or vertices + faces (+ corner_rgb)"
    )


def _scene_voxels(path: Path, data: dict[str, np.ndarray], voxel_size_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of a labelled scene, as they are or made coarser."""
    coords, size_m = data["coords"].astype(np.int32), float(data["voxel_size_m"])
    colors = data.get("colors", np.full((len(coords), 3), GREY)).astype(np.uint8)
    if abs(size_m - voxel_size_m) < 1e-6:
        return coords, colors, np.ones(len(coords), np.float32)
    if size_m > voxel_size_m:
        raise InputError(
            f"{path} has voxels of {size_m} m and cannot be made finer: "
            f"use --voxel-size {size_m}, or fuse it again at {voxel_size_m} m"
        )
    return _reduce(iter([(voxel_centers(coords, size_m), colors)]), voxel_size_m)


# -- meshes ------------------------------------------------------------------------------------------------------------------


def sample_triangles(
    corners_m: np.ndarray, attributes: np.ndarray, spacing_m: float, batch: int = 2_000_000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A regular lattice of points on each triangle.

    Args:
        corners_m: [F, 3, 3] corners.
        attributes: [F, 3, C] values at the corners, interpolated linearly.
        spacing_m: largest distance between neighbouring points along an edge.
        batch: about how many points are made at a time.

    Yields:
        points [n, 3] and their attributes [n, C].
    """
    edges_m = np.linalg.norm(corners_m - np.roll(corners_m, 1, axis=1), axis=2).max(axis=1)
    steps = np.maximum(np.ceil(edges_m / spacing_m), 1).astype(int)
    steps = np.where(steps > 8, ((steps + 7) // 8) * 8, steps)  # few distinct values, so that few lattices are made
    for n in np.unique(steps):
        a, b = np.nonzero(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n)
        weights = np.stack([a, b, n - a - b], axis=1) / n
        rows = np.flatnonzero(steps == n)
        for start in range(0, len(rows), max(1, batch // len(weights))):
            part = rows[start : start + max(1, batch // len(weights))]
            points = np.einsum("sk,fkd->fsd", weights, corners_m[part]).reshape(-1, 3)
            values = np.einsum("sk,fkd->fsd", weights, attributes[part]).reshape(-1, attributes.shape[2])
            yield points, values
