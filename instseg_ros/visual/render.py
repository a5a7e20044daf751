"""Pictures of voxel maps without a GPU or a display: shaded cubes seen in parallel projection."""

__all__ = ["best_azimuth", "render_points"]

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from instseg_ros.visual.annotate import Label, draw_labels
from instseg_ros.visual.view import Projection, View

FACE_LIGHT = np.array([1.0, 0.80, 0.64])
"""Brightness of faces: top, and the two upright ones."""
MARGIN = 0.03
"""Share of the picture left empty on each side."""
EMPTY = np.uint64(2**64 - 1)


def _frame(points_m: np.ndarray, view: View, size: tuple[int, int], padding_m: float) -> Projection:
    """The frame in which the points fill the picture."""
    axes = view.axes
    seen = points_m @ axes[:2].T
    low, high = seen.min(axis=0) - padding_m, seen.max(axis=0) + padding_m
    scale = float(np.min(np.array(size) * (1.0 - 2.0 * MARGIN) / (high - low)))
    return Projection(axes, scale, (low + high) / 2.0 - np.array(size) / (2.0 * scale))


def render_points(
    points_m: np.ndarray,
    colors: np.ndarray,
    voxel_size_m: float,
    view: View | None = None,
    size: tuple[int, int] = (960, 720),
    *,
    labels: Sequence[Label] = (),
    outline: np.ndarray | None = None,
    extent_m: np.ndarray | None = None,
    supersample: int = 2,
) -> np.ndarray:
    """A picture of a voxel map on white.

    Args:
        points_m: [N, 3] voxel centres.
        colors: [N, 3] uint8 RGB.
        voxel_size_m: edge of a voxel.
        view: direction; `View(elevation_deg=90)` is a plan.
        size: (width, height) in pixels.
        labels: boxes and names drawn on top.
        outline: [N] integers; where neighbouring pixels show different ones, a fine dark line is drawn.
        extent_m: [M, 3] points that must fit into the picture, default the voxels (fix it to compare pictures).
        supersample: each pixel is the mean of this many squared.

    Returns:
        [H, W, 3] uint8.
    """
    view = view or View()
    points_m = np.asarray(points_m, np.float64).reshape(-1, 3)
    if not len(points_m):
        return np.full((size[1], size[0], 3), 255, np.uint8)
    large = (size[0] * supersample, size[1] * supersample)
    fit = points_m if extent_m is None or not len(extent_m) else np.asarray(extent_m, np.float64)
    frame = _frame(fit, view, large, voxel_size_m)
    key = _rasterise(points_m, voxel_size_m, frame, large)
    picture = _shade(key, points_m, np.asarray(colors, np.float64), outline, voxel_size_m, frame)
    image = Image.fromarray(picture).resize(size, Image.Resampling.BOX)
    if labels:
        draw_labels(image, labels, Projection(frame.axes, frame.scale / supersample, frame.origin))
    return np.array(image)


def _rasterise(points_m: np.ndarray, voxel_size_m: float, frame: Projection, size: tuple[int, int]) -> np.ndarray:
    """Z-buffer [H, W] uint64: depth (32 bits), then 4 x voxel + face; `EMPTY` where nothing is.

    In parallel projection each face of every voxel has the same footprint, so its pixels are
    found once and drawn for all voxels together.
    """
    width, height = size
    pixels = frame.project(points_m)
    near = pixels[:, 2].min() - 2.0 * voxel_size_m
    unit = (np.ptp(pixels[:, 2]) + 4.0 * voxel_size_m) / (2**32 - 2)
    buffer = np.full(width * height, EMPTY, np.uint64)
    columns, rows = np.floor(pixels[:, 0]).astype(np.int64), np.floor(pixels[:, 1]).astype(np.int64)
    batch = max(1, 500_000 // len(points_m))
    for face, (offsets, depth_m) in enumerate(_footprints(frame, voxel_size_m)):
        names = np.arange(len(points_m), dtype=np.uint64) * np.uint64(4) + np.uint64(face)
        for start in range(0, len(offsets), batch):
            part = slice(start, start + batch)
            x, y = columns + offsets[part, 0, None], rows + offsets[part, 1, None]
            depth = ((pixels[:, 2] + (depth_m[part, None] - near)) / unit).astype(np.uint64)
            key = (depth << np.uint64(32)) | names
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            np.minimum.at(buffer, (y * width + x)[inside], key[inside])
    return buffer.reshape(height, width)


def _footprints(frame: Projection, voxel_size_m: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per visible face (top, x, y): pixel offsets [P, 2] from the voxel's centre pixel and depth offsets [P] in m."""
    half = voxel_size_m / 2.0
    found = []
    for axis in (2, 0, 1):
        normal = np.zeros(3)
        normal[axis] = -np.sign(frame.axes[2, axis]) or 1.0
        if abs(frame.axes[2, axis]) < 1e-6:
            found.append((np.zeros((0, 2), np.int64), np.zeros(0)))
            continue
        sides = np.eye(3)[[a for a in range(3) if a != axis]]
        center, edges = frame.axes @ normal * half, sides @ frame.axes.T * half  # in picture axes, metres
        reach = int(np.ceil((np.abs(edges[:, :2]).sum(axis=0).max() + np.abs(center[:2]).max()) * frame.scale)) + 1
        grid = np.stack(np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)), axis=-1).reshape(-1, 2)
        # which points of the face lie at the grid's pixels: solve for its two edge coordinates
        local = np.linalg.solve(edges[:, :2].T, (grid / frame.scale - center[:2]).T).T
        slack = 1.0 + 0.75 / max(np.linalg.norm(edges[:, :2], axis=1).min() * frame.scale, 1e-9) * 0.9
        inside = (np.abs(local) <= slack).all(axis=1)
        found.append((grid[inside], center[2] + np.clip(local[inside], -1, 1) @ edges[:, 2]))
    return found


def _shade(
    key: np.ndarray,
    points_m: np.ndarray,
    colors: np.ndarray,
    outline: np.ndarray | None,
    voxel_size_m: float,
    frame: Projection,
) -> np.ndarray:
    """Colours of the z-buffer [H, W, 3] uint8: light by face and smoothed surface, hollows darker, contours drawn."""
    filled = key != EMPTY
    name = (key & np.uint64(0xFFFFFFFF)).astype(np.int64)
    voxel, face = np.where(filled, name >> 2, 0), np.where(filled, name & 3, 0)
    light = (0.45 * FACE_LIGHT[None, :] + 0.55 * _soft_light(points_m, voxel_size_m, frame)[:, None]).astype(np.float32)[
        voxel, face
    ]
    pixels = max(frame.scale * voxel_size_m, 1.0)
    depth = np.where(filled, (frame.project(points_m)[:, 2] / voxel_size_m).astype(np.float32)[voxel], np.float32(0.0))
    light = light * _hollows(depth, filled, 3.0 * pixels)
    light = light * _contours(depth, filled, None if outline is None else np.asarray(outline, np.int32)[voxel])
    picture = np.clip(colors.astype(np.float32)[voxel] * light[..., None], 0, 255)
    picture[~filled] = 255.0
    return picture.astype(np.uint8)


def _hollows(depth: np.ndarray, filled: np.ndarray, sigma_px: float) -> np.ndarray:
    """Factor [H, W] float32 that darkens what lies behind the mean depth around it, and lifts what stands out.

    Luft, Colditz, Deussen: Image enhancement by unsharp masking the depth buffer, SIGGRAPH 2006. `depth` [H, W] is in voxels.
    """
    step = max(1, int(sigma_px / 6.0))  # the mean is smooth: a coarse grid is enough
    coarse = filled[::step, ::step].astype(np.float32)
    sigma = sigma_px / step
    mass = ndimage.gaussian_filter(coarse, sigma, truncate=2.0)
    around = ndimage.gaussian_filter(depth[::step, ::step] * coarse, sigma, truncate=2.0) / np.maximum(mass, 1e-6)
    around = np.asarray(
        Image.fromarray(around).resize((around.shape[1] * step, around.shape[0] * step), Image.Resampling.BILINEAR)
    )
    behind = depth - around[: depth.shape[0], : depth.shape[1]]
    return (1.0 - np.clip(behind * 0.035, 0.0, 0.30)) * (1.0 + np.clip(behind * -0.01, 0.0, 0.06))


def _soft_light(points_m: np.ndarray, voxel_size_m: float, frame: Projection) -> np.ndarray:
    """Brightness [N] per voxel from a smooth normal: the direction in which its neighbourhood is empty."""
    index = np.rint((points_m - points_m.min(axis=0)) / voxel_size_m).astype(np.int64) + 3
    shape = index.max(axis=0) + 4
    if np.prod(shape.astype(float)) > 6e7:  # a very large map: faces alone must do
        return np.full(len(points_m), 0.9)
    grid = np.zeros(shape, np.float32)
    grid[tuple(index.T)] = 1.0
    smooth = ndimage.uniform_filter(grid, 5)
    i, j, k = index.T
    gradient = np.stack(
        [
            smooth[i - 1, j, k] - smooth[i + 1, j, k],
            smooth[i, j - 1, k] - smooth[i, j + 1, k],
            smooth[i, j, k - 1] - smooth[i, j, k + 1],
        ],
        1,
    )
    length = np.linalg.norm(gradient, axis=1)
    normal = gradient / np.maximum(length, 1e-6)[:, None]
    # thin sheets have no outside: turn every normal towards the viewer
    normal *= np.where(normal @ frame.axes[2] > 0, -1.0, 1.0)[:, None]
    sun = -frame.axes[2] * 0.5 - frame.axes[0] * 0.45 + np.array([0.0, 0.0, 0.9])
    lambert = np.clip(normal @ (sun / np.linalg.norm(sun)), 0.0, 1.0)
    return np.where(length > 0.02, 0.58 + 0.46 * lambert, 0.9)


def _contours(depth: np.ndarray, filled: np.ndarray, outline: np.ndarray | None) -> np.ndarray:
    """Factor [H, W] that draws a line where something stands in front of something else, and around outlined parts."""
    factor = np.ones(depth.shape, np.float32)
    far = np.where(filled, depth, depth[filled].max() + np.float32(20.0) if filled.any() else np.float32(0.0))
    for axis in (0, 1):
        first, second = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        jump = far[second] - far[first]
        factor[first][filled[first] & (jump > 3.0)] = 0.55
        factor[second][filled[second] & (jump < -3.0)] = 0.55
        if outline is not None:
            differs = (
                (outline[first] != outline[second])
                & filled[first]
                & filled[second]
                & (factor[first] == 1.0)
                & (factor[second] == 1.0)
            )
            factor[first][differs] = 0.62
            factor[second][differs] = 0.62
    return factor


def best_azimuth(
    points_m: np.ndarray, interesting: np.ndarray, voxel_size_m: float, elevation_deg: float = 42.0, candidates: int = 12
) -> float:
    """The azimuth (degrees) from which most of the interesting voxels [N] bool are seen."""
    if not len(points_m):
        return View.azimuth_deg
    scores = []
    azimuths = np.arange(candidates) * 360.0 / candidates + 15.0
    for azimuth in azimuths:
        frame = _frame(points_m, View(float(azimuth), elevation_deg), (240, 240), voxel_size_m)
        key = _rasterise(points_m, voxel_size_m, frame, (240, 240))
        seen = np.unique((key[key != EMPTY] & np.uint64(0xFFFFFFFF)) >> np.uint64(2)).astype(np.int64)
        scores.append(interesting[seen].sum())
    return float(azimuths[int(np.argmax(scores))])
