"""What a picture shows: nearest first, whole faces, cutaway rooms, labels that can be read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from instseg_ros.visual.annotate import Label
from instseg_ros.visual.render import best_azimuth, render_points
from instseg_ros.visual.view import View, cutaway

RED, GREEN = (230, 20, 20), (20, 200, 20)
VOXEL = 0.1


def block(low, high) -> np.ndarray:
    """Centres of all voxels from index `low` up to `high`."""
    axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    return (np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) + 0.5) * VOXEL


def painted(*parts):
    points = np.concatenate([p for p, _ in parts])
    colors = np.concatenate([np.tile(np.array(c, np.uint8), (len(p), 1)) for p, c in parts])
    return points, colors


def share(image, color) -> float:
    """Share of the coloured pixels that are mostly of a colour."""
    filled = (image < 250).any(axis=2)
    return float((image[filled].argmax(axis=1) == int(np.argmax(color))).mean())


def test_nothing_is_white():
    image = render_points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), VOXEL, size=(40, 30))
    assert image.shape == (30, 40, 3) and image.min() == 255


@pytest.mark.parametrize(("azimuth", "seen"), [(0, RED), (180, GREEN)])
def test_the_nearer_wall_hides_the_other(azimuth, seen):
    points, colors = painted((block((10, 0, 0), (11, 20, 20)), RED), (block((0, 0, 0), (1, 20, 20)), GREEN))
    assert share(render_points(points, colors, VOXEL, View(azimuth, 1.0), (120, 120)), seen) > 0.95


def test_a_plan_shows_what_is_on_top():
    points, colors = painted((block((0, 0, 0), (10, 10, 1)), RED), (block((0, 0, 5), (10, 10, 6)), GREEN))
    assert share(render_points(points, colors, VOXEL, View(0, 90), (80, 80)), GREEN) == 1.0


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 360), st.floats(5, 90), st.integers(1, 3))
def test_a_closed_surface_has_no_holes(azimuth, elevation, supersample):
    points, colors = painted((block((0, 0, 0), (12, 9, 7)), RED))
    image = render_points(points, colors, VOXEL, View(azimuth, elevation), (150, 110), supersample=supersample)
    filled = (image < 250).any(axis=2)
    assert filled.any()
    assert np.array_equal(ndimage.binary_fill_holes(filled), filled)


def test_the_picture_is_filled_and_nothing_is_cut_off():
    points, colors = painted((block((0, 0, 0), (30, 20, 10)), RED))
    filled = (render_points(points, colors, VOXEL, View(30, 40), (200, 150)) < 250).any(axis=2)
    assert not filled[[0, -1]].any() and not filled[:, [0, -1]].any()
    rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
    assert np.ptp(rows) > 0.85 * 150 or np.ptp(columns) > 0.85 * 200


def test_extent_keeps_the_scale_of_a_growing_map():
    points, colors = painted((block((0, 0, 0), (30, 20, 3)), RED))
    part = points[:, 0] < 1.5
    small = render_points(points[part], colors[part], VOXEL, View(20, 40), (200, 150), extent_m=points)
    whole = render_points(points, colors, VOXEL, View(20, 40), (200, 150))
    inside, outside = (small < 250).any(axis=2), (whole < 250).any(axis=2)
    assert inside.sum() < 0.7 * outside.sum() and not (inside & ~outside).any()


def test_labels_are_drawn_and_do_not_cover_each_other():
    points, colors = painted((block((0, 0, 0), (20, 20, 1)), (200, 200, 200)))
    box = (np.array([0.2, 0.2, 0.0]), np.array([1.0, 1.0, 0.8]))
    one = [Label("chair 7", *box, (0, 0, 255))]
    plain, single = (render_points(points, colors, VOXEL, View(), (300, 220), labels=x) for x in ((), one))
    double = render_points(points, colors, VOXEL, View(), (300, 220), labels=one * 2)
    drawn = (plain != single).any(axis=2).sum()
    assert drawn > 300
    assert (plain != double).any(axis=2).sum() > drawn + 200


def room():
    """A room of 4 x 4 m with four walls, a ceiling and a box in its middle: points, structure, floor, walls by direction."""
    floor, ceiling, furniture = block((0, 0, 0), (40, 40, 1)), block((0, 0, 25), (40, 40, 26)), block((18, 18, 1), (22, 22, 6))
    east, west = block((39, 0, 1), (40, 40, 25)), block((0, 0, 1), (1, 40, 25))
    north, south = block((1, 39, 1), (39, 40, 25)), block((1, 0, 1), (39, 1, 25))
    parts = [floor, ceiling, furniture, east, west, north, south]
    which = np.repeat(np.arange(7), [len(p) for p in parts])
    return np.concatenate(parts), (which == 1) | (which >= 3), which == 0, which


def test_cutaway_opens_the_walls_towards_the_viewer():
    points, structure, floor, which = room()
    keep = cutaway(points, View(45.0, 35.0), structure, floor)  # the viewer stands in the north-east
    kept = [keep[which == part].mean() for part in range(7)]
    assert kept[0] == 1.0 and kept[1] == 0.0 and kept[2] == 1.0
    assert kept[3] < 0.15 and kept[5] < 0.15, "near walls are cut down to a stub"
    assert kept[4] > 0.6 and kept[6] > 0.6, "far walls stay up to the height of the cut"
    assert keep[which == 3].any()


def test_cutaway_without_labels_takes_only_the_ceiling():
    points, _, _, which = room()
    keep = cutaway(points, View(45.0, 35.0))
    assert not keep[which == 1].any() and keep[which == 2].all() and keep[(which == 3) & (points[:, 2] < 2.0)].all()
    assert cutaway(np.zeros((0, 3)), View()).shape == (0,)


def test_best_azimuth_looks_at_the_interesting_side():
    wall, picture = block((0, 0, 0), (1, 30, 20)), block((1, 5, 8), (2, 25, 12))
    points = np.concatenate([wall, picture])
    azimuth = best_azimuth(points, np.arange(len(points)) >= len(wall), VOXEL)
    assert np.cos(np.radians(azimuth)) > 0.2  # the picture hangs on the side of +x
