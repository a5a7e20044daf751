"""Composed pictures, and the animation's limits."""

import numpy as np
import pytest
from PIL import Image

from instseg_ros.instance import Instance
from instseg_ros.labels import CLASS_COLORS, instance_color
from instseg_ros.segmenter import LabelledCloud
from instseg_ros.visual.pictures import MapPictures, beside, growth_strip, titled, write_gif, write_png
from instseg_ros.visual.view import View


def cube(low, high):
    return (
        np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1).reshape(-1, 3)
        + 0.5
    ) * 0.05


@pytest.fixture
def pictures() -> MapPictures:
    floor, chair = cube((0, 0, 0), (40, 40, 1)), cube((10, 10, 1), (24, 24, 12))
    points = np.concatenate([floor, chair]).astype(np.float32)
    is_chair = np.arange(len(points)) >= len(floor)
    cloud = LabelledCloud(
        points,
        np.full((len(points), 3), (120, 80, 40), np.uint8),
        np.where(is_chair, 4, 1).astype(np.uint8),
        np.where(is_chair, 7, 0).astype(np.uint32),
        np.ones(len(points), np.float32),
    )
    low, high = chair.min(axis=0) - 0.025, chair.max(axis=0) + 0.025
    return MapPictures(
        cloud, [Instance(7, 4, 0.9, len(chair), chair.mean(axis=0), low, high, 0, 0)], 0.05, View(30, 50), (240, 200)
    )


def hues_near(image: np.ndarray, color: np.ndarray) -> int:
    """Pixels whose colour is that one in some light."""
    pixels = image.reshape(-1, 3).astype(float)
    pixels = pixels[(pixels < 250).any(axis=1)]
    cosine = pixels @ color / np.maximum(np.linalg.norm(pixels, axis=1) * np.linalg.norm(color), 1e-9)
    return int((cosine > 0.999).sum())


def test_each_picture_shows_its_colors(pictures):
    own, chair = instance_color(np.array([7]))[0].astype(float), CLASS_COLORS[4].astype(float)
    assert hues_near(pictures.color(), np.array([120.0, 80, 40])) > 5000
    plain = pictures.instance(labels=False)
    assert hues_near(plain, own) > 2000 and hues_near(plain, np.array([120.0, 80, 40])) == 0
    assert (plain != pictures.instance()).any()
    assert hues_near(pictures.classes(), chair) > 2000


def test_legend_lists_the_classes_of_the_map_by_size(pictures):
    assert [name for name, _ in pictures.legend()] == ["chair", "floor"]


def test_the_view_is_chosen_from_the_objects(pictures):
    view = MapPictures.choose_view(pictures.cloud, 0.05)
    assert 0 <= view.azimuth_deg < 375 and view.elevation_deg == 42.0


def test_titles_and_rows_add_up(pictures):
    image = pictures.color()
    head = titled(image, "a title", [("chair", (1, 2, 3))] * 12)
    assert head.shape[1] == image.shape[1] and head.shape[0] > image.shape[0] + 40
    row = beside([image, head], gap=5)
    assert row.shape == (head.shape[0], 2 * image.shape[1] + 5, 3) and row[-1, 0].tolist() == [255, 255, 255]
    strip = growth_strip([image] * 9, [str(i) for i in range(9)], count=3)
    assert strip.shape[1] == 3 * image.shape[1] + 24


def test_png_round_trip(tmp_path, pictures):
    image = pictures.color()
    write_png(tmp_path / "deep/er/a.png", image)
    assert np.array_equal(np.array(Image.open(tmp_path / "deep/er/a.png")), image)


def test_gif_has_all_frames_and_stops_at_the_last(tmp_path, pictures):
    image = pictures.color()
    frames = [np.roll(image, i * 10, axis=1) for i in range(4)]
    write_gif(tmp_path / "g.gif", frames)
    animation = Image.open(tmp_path / "g.gif")
    assert animation.n_frames == 4 and animation.size == (240, 200) and animation.info["loop"] == 0
    durations = []
    for i in range(4):
        animation.seek(i)
        animation.load()
        durations.append(animation.info["duration"])
        shown = np.array(animation.convert("RGB")).astype(int)
        assert np.abs(shown - frames[i]).mean() < 6
    assert durations == [250, 250, 250, 2500]


def test_gif_is_made_smaller_until_it_fits(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(12)]
    write_gif(tmp_path / "g.gif", frames, max_bytes=40_000)
    assert (tmp_path / "g.gif").stat().st_size <= 40_000
