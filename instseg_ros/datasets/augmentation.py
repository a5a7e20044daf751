"""Augmentation of voxel scenes.

Scenes are turned and mirrored by the eight symmetries of the grid about the vertical, which map voxels to voxels exactly,
cropped to columns, thinned, and recoloured. Turns by any angle, tilts and scales are in rotation.py.
"""

__all__ = ["augment", "crop_column", "dye_objects", "jitter_colors", "recolor", "symmetry", "thin"]

from dataclasses import replace

import numpy as np

from instseg_ros.config import AugmentationConfig
from instseg_ros.datasets.rotation import draw_turn, rotate_scale
from instseg_ros.datasets.scenes import VoxelScene


def select(scene: VoxelScene, keep: np.ndarray) -> VoxelScene:
    """The scene's voxels at `keep` (mask or index)."""
    return replace(
        scene, coords=scene.coords[keep], colors=scene.colors[keep],
        class_index=scene.class_index[keep], instance=scene.instance[keep],
    )


def symmetry(scene: VoxelScene, which: int) -> VoxelScene:
    """One of the eight symmetries of the square applied to x and y: `which` in 0..7."""
    x, y = scene.coords[:, 0], scene.coords[:, 1]
    if which & 4:
        x, y = y, x
    x = -1 - x if which & 1 else x
    y = -1 - y if which & 2 else y
    return replace(scene, coords=np.stack([x, y, scene.coords[:, 2]], 1).astype(np.int32))


def crop_column(scene: VoxelScene, edge_m: float, rng: np.random.Generator) -> VoxelScene:
    """The square column of the given edge about a random voxel, preferably one of an object."""
    half = 0.5 * edge_m / scene.voxel_size_m
    objects = np.flatnonzero(scene.instance >= 0)
    pool = objects if len(objects) and rng.random() < 0.8 else np.arange(len(scene.coords))
    center = scene.coords[rng.choice(pool), :2]
    return select(scene, (np.abs(scene.coords[:, :2] - center) <= half).all(axis=1))


def thin(scene: VoxelScene, rng: np.random.Generator, most: float = 0.1) -> VoxelScene:
    """Drop a random share of the voxels, as a noisy map has holes."""
    return select(scene, rng.random(len(scene.coords)) >= rng.uniform(0.0, most))


def recolor(scene: VoxelScene, rng: np.random.Generator, jitter: float, drop: float) -> VoxelScene:
    """Vary contrast, brightness, tint and noise of the colours; some scenes lose their colours altogether.

    Args:
        jitter: standard deviation of tint and of the noise, 0 to 1.
        drop: share of scenes that become grey.
    """
    colors = scene.colors.astype(np.float32) / 255.0
    if rng.random() < drop:
        colors = np.repeat(colors.mean(1, keepdims=True), 3, axis=1)
    colors = (colors - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.normal(0.0, jitter) + rng.normal(0.0, jitter, (1, 3))
    colors += rng.normal(0.0, 0.3 * jitter, colors.shape)
    return replace(scene, colors=(np.clip(colors, 0.0, 1.0) * 255.0).astype(np.uint8))


def jitter_colors(scene: VoxelScene, rng: np.random.Generator, std: float = 0.03) -> VoxelScene:
    """Gaussian noise on the colour of every voxel by itself, as SSEN trains with (Zhang et al. 2020, section IV).

    Args:
        std: its standard deviation, as a share of the range of a channel.
    """
    noise = rng.normal(0.0, 255.0 * std, scene.colors.shape)
    return replace(scene, colors=np.clip(np.rint(scene.colors + noise), 0.0, 255.0).astype(np.uint8))


def dye_objects(scene: VoxelScene, rng: np.random.Generator, share: float) -> VoxelScene:
    """Give this share of the instances colours of their own: channels swapped, each with a gain."""
    objects, number = np.unique(scene.instance, return_inverse=True)
    chosen = (objects >= 0) & (rng.random(len(objects)) < share)
    gain = np.where(chosen[:, None], rng.uniform(0.5, 1.5, (len(objects), 3)), 1.0)
    order = np.stack([rng.permutation(3) if c else np.arange(3) for c in chosen])
    colors = np.take_along_axis(scene.colors, order[number], axis=1) * gain[number]
    return replace(scene, colors=np.clip(colors, 0.0, 255.0).astype(np.uint8))


def augment(scene: VoxelScene, config: AugmentationConfig, rng: np.random.Generator) -> VoxelScene:
    """A random variant of a scene for one training step."""
    scene = symmetry(scene, int(rng.integers(8)))
    if config.rotation == "any":
        scene = rotate_scale(scene, *draw_turn(
            rng, np.deg2rad(config.tilt_deg), np.deg2rad(config.most_tilt_deg), (config.least_scale, config.most_scale)))
    if config.crop_m:
        scene = crop_column(scene, config.crop_m, rng)
    scene = dye_objects(scene, rng, config.object_dye)
    return recolor(thin(scene, rng, config.thin), rng, config.color_jitter, config.color_drop)
