"""TSDF fusion: where surfaces come out, and that updates add up to the map."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from instseg_ros.config import FusionConfig
from instseg_ros.errors import InputError
from instseg_ros.mapping.fusion import TsdfFusion
from instseg_ros.mapping.update import MapUpdate, voxel_centers

K = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
SHAPE = (120, 160)
CONFIG = FusionConfig(block_count=500)


def look(eye, forward) -> np.ndarray:
    """Pose of a camera at `eye` that looks along `forward`, world z up."""
    z = np.asarray(forward, float) / np.linalg.norm(forward)
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3] = np.stack([x, np.cross(z, x), z, np.asarray(eye, float)], 1)
    return T


def rays() -> np.ndarray:
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(SHAPE)], -1)


def plane_depth(T: np.ndarray, normal, offset: float) -> np.ndarray:
    """Depth of the plane normal . x = offset."""
    speed = rays() @ T[:3, :3].T @ np.asarray(normal, float)
    with np.errstate(divide="ignore"):
        depth = (offset - T[:3, 3] @ normal) / speed
    return np.where(depth > 0, depth, 0).astype(np.float32)


def sphere_depth(T: np.ndarray, center, radius: float) -> np.ndarray:
    d = rays() @ T[:3, :3].T
    to = T[:3, 3] - np.asarray(center, float)
    a, b, c = (d * d).sum(-1), 2 * d @ to, to @ to - radius**2
    root = b * b - 4 * a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / (2 * a), 0).astype(np.float32)


def grey(value: int = 100) -> np.ndarray:
    return np.full((*SHAPE, 3), value, np.uint8)


def fused(depths, poses, config=CONFIG) -> MapUpdate:
    fusion = TsdfFusion(config)
    for depth, T in zip(depths, poses, strict=True):
        fusion.integrate(depth, grey(), K, T)
    update = fusion.take_update(5, "map", full=True)
    update.validate()
    return update


@pytest.mark.parametrize("offset", [1.5, 1.512, 1.525, 1.54, 1.549])
def test_a_wall_is_one_voxel_thick_and_where_it_was_measured(offset):
    T = look([0.013, 0.02, 1.2], [1, 0, 0])
    update = fused([plane_depth(T, [1, 0, 0], offset)] * 3, [T] * 3)
    centers = voxel_centers(update.coords, 0.05)
    assert len(update) > 500
    assert np.abs(centers[:, 0] - offset).max() <= 0.0251
    assert len(np.unique(update.coords[:, 1:], axis=0)) == len(update)  # no second layer
    grid = np.zeros(np.ptp(update.coords[:, 1:], axis=0) + 1, bool)
    grid[tuple((update.coords[:, 1:] - update.coords[:, 1:].min(0)).T)] = True
    assert grid[1:-1, 1:-1].all()  # no hole
    assert (update.colors == 100).all() and (update.weights >= 2).all()


@pytest.mark.parametrize("normal", [[1, 1, 0], [1, 0.3, 0.2], [1, -0.7, 0.9], [0.2, 0.1, 1]])
def test_an_oblique_plane_is_closed_and_near(normal):
    normal = np.asarray(normal, float) / np.linalg.norm(normal)
    T = look([0, 0, 0], normal + [0.1, -0.2, 0.05])
    update = fused([plane_depth(T, normal, 1.2)] * 3, [T] * 3)
    assert np.abs(voxel_centers(update.coords, 0.05) @ normal - 1.2).max() < 0.05
    # closed: of the voxels beside the plane, those before it and behind it do not touch
    low = update.coords.min(0) - 2
    shape = update.coords.max(0) + 3 - low
    grid = np.zeros(shape, bool)
    grid[tuple((update.coords - low).T)] = True
    index = np.indices(shape).reshape(3, -1).T
    centers = voxel_centers(index + low, 0.05)
    in_camera = (centers - T[:3, 3]) @ T[:3, :3]
    u, v = in_camera[:, 0] / in_camera[:, 2] * 140 + 79.5, in_camera[:, 1] / in_camera[:, 2] * 140 + 59.5
    side = centers @ normal - 1.2
    view = (np.abs(side) < 0.14) & (u > 12) & (u < 148) & (v > 12) & (v < 108)
    free = view.reshape(shape) & ~grid
    parts, _ = ndimage.label(free)  # six-connected, as a ray passes from voxel to voxel
    before = np.unique(parts[free & (side < 0).reshape(shape)])
    behind = np.unique(parts[free & (side > 0).reshape(shape)])
    assert len(before) and len(behind) and not set(before) & set(behind)


def test_a_sphere_seen_from_around_comes_out_at_its_radius():
    center, poses = np.array([0.31, -0.17, 0.83]), []
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        eye = center + [1.5 * np.cos(angle), 1.5 * np.sin(angle), 0.9 * np.sin(3 * angle)]
        poses.append(look(eye, center - eye))
    update = fused([sphere_depth(T, center, 0.5) for T in poses], poses)
    radius = np.linalg.norm(voxel_centers(update.coords, 0.05) - center, axis=1)
    assert np.abs(radius - 0.5).max() < 0.06 and np.mean(np.abs(radius - 0.5) < 0.045) > 0.99
    assert abs(radius.mean() - 0.5) < 0.01
    area = 4 * np.pi * 0.5**2 / 0.05**2
    assert 0.7 * area < len(update) < 1.0 * area  # one layer, joined over edges and corners: about 0.83


def test_a_thin_sheet_seen_from_both_sides_stays_thin():
    front, back = look([0, 0, 1], [1, 0, 0]), look([2.4, 0, 1], [-1, 0, 0])
    depths = [plane_depth(front, [1, 0, 0], 1.19)] * 3 + [plane_depth(back, [1, 0, 0], 1.22)] * 3
    update = fused(depths, [front] * 3 + [back] * 3)
    centers = voxel_centers(update.coords, 0.05)
    assert np.abs(centers[:, 0] - 1.205).max() < 0.05 and len(np.unique(update.coords[:, 0])) <= 2


def test_what_moves_away_is_deleted():
    T = look([0, 0, 1], [1, 0, 0])
    fusion = TsdfFusion(CONFIG)
    for _ in range(3):
        fusion.integrate(plane_depth(T, [1, 0, 0], 1.02), grey(), K, T)
    first = fusion.take_update(1, "map")
    for _ in range(40):
        fusion.integrate(plane_depth(T, [1, 0, 0], 1.52), grey(), K, T)
    second = fusion.take_update(2, "map")
    second.validate()
    assert (first.sequence, second.sequence) == (0, 1) and len(first.deleted) == 0
    shared = {tuple(c) for c in first.coords.tolist()} & {tuple(c) for c in second.deleted.tolist()}
    assert len(shared) > 0.8 * len(first)
    assert np.abs(voxel_centers(second.coords, 0.05)[:, 0] - 1.52).max() < 0.03


def test_nothing_new_sends_nothing_and_colour_is_sent_when_it_moved():
    T = look([0, 0, 1], [1, 0, 0])
    depth = plane_depth(T, [1, 0, 0], 1.02)
    fusion = TsdfFusion(CONFIG)
    for _ in range(3):
        fusion.integrate(depth, grey(), K, T)
    count = len(fusion.take_update(1, "map"))
    fusion.integrate(depth, grey(110), K, T)
    quiet = fusion.take_update(2, "map")
    assert len(quiet) == 0 and len(quiet.deleted) == 0 and quiet.sequence == 1
    for _ in range(10):
        fusion.integrate(depth, grey(200), K, T)
    repainted = fusion.take_update(3, "map")
    assert len(repainted) == count and repainted.colors.min() > 150
    fusion.reset()
    assert len(fusion.take_update(4, "map", full=True)) == 0


def apply(map_: dict, update: MapUpdate) -> None:
    update.validate()
    if update.full:
        map_.clear()
    for c in update.deleted.tolist():
        del map_[tuple(c)]
    for c, color, weight in zip(update.coords.tolist(), update.colors.tolist(), update.weights.tolist(), strict=True):
        map_[tuple(c)] = (*color, weight)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from([50, 600]))
def test_updates_add_up_to_the_full_map(seed, color_step, block_count):
    rng = np.random.default_rng(seed)
    fusion = TsdfFusion(FusionConfig(min_weight=1.0, color_step=color_step, block_count=max(100, block_count)))
    K_small = np.array([[20.0, 0, 12], [0, 20.0, 9], [0, 0, 1]])
    map_: dict = {}
    for step in range(8):
        bumps = ndimage.zoom(rng.uniform(0.8, 2.5, (4, 5)), (20 / 4, 25 / 5), order=1).astype(np.float32)
        bumps[rng.random(bumps.shape) < 0.1] = np.nan
        color = rng.integers(0, 256, (*bumps.shape, 3), np.uint8)
        forward = rng.normal(size=3) + [0.01, 0, 0]
        fusion.integrate(bumps, color, K_small, look(rng.uniform(-0.3, 0.3, 3), forward))
        if rng.random() < 0.6:
            apply(map_, fusion.take_update(step, "map"))
    apply(map_, fusion.take_update(8, "map"))
    whole: dict = {}
    apply(whole, fusion.take_update(9, "map", full=True))
    assert map_ == whole and len(whole) > 50


def test_bad_input_is_refused_with_its_cause():
    T = look([0, 0, 1], [1, 0, 0])
    depth = plane_depth(T, [1, 0, 0], 1.0)
    fusion = TsdfFusion(CONFIG)
    scaled, mirrored, holes = T.copy(), T.copy(), K.copy()
    scaled[:3, :3] *= 1.1
    mirrored[:3, 0] *= -1
    holes[0, 2] = np.nan
    for bad, match in [
        ((depth[0], grey(), K, T), "depth"), ((depth, grey()[:60], K, T), "color"),
        ((depth, grey().astype(float), K, T), "color"), ((depth, grey(), K[:2], T), "K must"),
        ((depth, grey(), holes, T), "K must"), ((depth, grey(), -K, T), "K must"), ((depth, grey(), K, scaled), "rigid"),
        ((depth, grey(), K, mirrored), "rigid"), ((depth, grey(), K, T[:3]), "4x4"),
    ]:
        with pytest.raises(InputError, match=match):
            fusion.integrate(*bad)
    for nothing in (np.nan, np.inf, -1.0, 0.0, 0.1, 9.0):
        fusion.integrate(np.full(SHAPE, nothing, np.float32), grey(), K, T)
    assert len(fusion.take_update(1, "map", full=True)) == 0


def test_it_keeps_up_with_a_camera():
    T = look([0, 0, 1], [1, 0.2, -0.3])
    floor, wall = plane_depth(T, [0, 0, 1], 0.0), plane_depth(T, [1, 0, 0], 3.0)
    depth = np.where(floor > 0, np.minimum(floor, wall), wall)
    fusion = TsdfFusion(FusionConfig())
    spent = []
    for k in range(12):
        turned = look([0, 0.02 * k, 1], [1, 0.2, -0.3])
        start = time.process_time()
        fusion.integrate(depth, grey(), K, turned)
        fusion.take_update(k, "map")
        spent.append(time.process_time() - start)
    assert np.median(spent) < 0.25  # about 0.02 s; the bound is wide for busy machines
