"""Toy scenes: what is in them, that they repeat, and what connected components make of them."""

import numpy as np
import pytest

from instseg_ros.cli import main
from instseg_ros.datasets import toy
from instseg_ros.datasets.scenes import load_scene
from instseg_ros.errors import DataError
from instseg_ros.evaluation.baselines import connected_components
from instseg_ros.evaluation.toy import connected_components_ap, toy_ap50


def test_a_scene_is_valid_and_the_same_for_the_same_seed():
    scene, again, other = (toy.make_toy_scene([1, 0, n]) for n in (3, 3, 4))
    scene.validate()
    assert np.array_equal(scene.coords, again.coords) and np.array_equal(scene.instance, again.instance)
    assert np.array_equal(scene.colors, again.colors)
    assert not np.array_equal(scene.coords, other.coords)
    assert 3000 <= len(scene) <= 10000
    assert (scene.colors == scene.colors[:, :1]).all()  # grey


def test_plane_and_objects_have_their_classes():
    scene = toy.make_toy_scene(5)
    floor = scene.class_index == toy.FLOOR
    assert (scene.coords[floor, 2] == 0).all() and (scene.instance[floor] == -1).all()
    assert set(np.unique(scene.class_index[~floor]).tolist()) <= set(toy.TOY_CLASSES)
    for number, name in enumerate(scene.metadata["objects"]):
        classes = np.unique(scene.class_index[scene.instance == number])
        assert classes.tolist() == [toy.class_index(name)]


def test_cuboids_are_surfaces_without_base_and_the_plane_ends_below_them():
    scene = toy.make_toy_scene(8)
    occupied = {tuple(c) for c in scene.coords.tolist()}
    shapes = {shape.name: shape for shape in toy.SHAPES}
    for number, name in enumerate(scene.metadata["objects"]):
        own = scene.coords[scene.instance == number]
        height = shapes[name].edges_m[2] / scene.voxel_size_m
        assert abs(own[:, 2].max() - height) <= 1
        middle = np.rint(own[own[:, 2] == own[:, 2].max()].mean(axis=0)).astype(int)  # under the middle of its top
        assert not any((middle[0], middle[1], z) in occupied for z in range(0, int(own[:, 2].max()) - 1))


@pytest.mark.parametrize("seed", range(6))
def test_an_object_put_against_another_touches_it_without_overlap(seed):
    rng = np.random.default_rng(seed)
    first = toy.Cuboid(1, np.array([1.0, 1.0]), rng.uniform(0, 6))
    second = toy._against(3, first, rng)
    assert toy._separation(first, second) == pytest.approx(0.0, abs=1e-9)
    corners = np.concatenate([second.corners_m(), np.full((4, 1), 0.1)], axis=1)
    assert not first.contains(corners).any()


def test_separated_cuboids_share_no_neighbouring_voxels():
    for seed in range(5):
        scene = toy.make_toy_scene([9, seed])
        component, owner = _components(scene)
        for number, name in enumerate(scene.metadata["objects"]):
            parts = np.unique(component[scene.instance == number])
            assert (owner[parts] == toy.class_index(name)).all()
            assert len(parts) == 1  # no object falls apart


def test_objects_of_a_class_that_stand_apart_are_components_of_their_own():
    rng = np.random.default_rng(0)
    apart = 0
    for number in range(8):
        cuboids = []
        for shape in rng.integers(5, size=8).tolist():
            cuboid = toy._place(shape, cuboids, np.array([3.0, 3.0]), rng)
            cuboids += [] if cuboid is None else [cuboid]
        points, owner = toy._surface(cuboids, np.array([3.0, 3.0]), 0.05)
        voxels = [set(map(tuple, np.floor(points[owner == k] / 0.05).astype(int).tolist())) for k in range(len(cuboids))]
        for a in range(len(cuboids)):
            grown = {(x + i, y + j, z + k) for x, y, z in voxels[a] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)}
            for b in range(a):
                gap = toy._separation(cuboids[a], cuboids[b])
                assert gap > toy.GAP_M - 1e-9 or abs(gap) < 1e-9
                if gap > 1e-9:
                    assert not grown & voxels[b], (number, a, b)
                    apart += 1
                else:
                    assert grown & voxels[b], (number, a, b)
    assert apart > 50


def test_connected_components_are_near_the_papers_baseline():
    """Few scenes, so a wide margin: the figures of the whole test set stand in docs/datasets.md."""
    scenes = [toy.make_toy_scene([1, 2, n]) for n in range(25)]
    figures = 100 * np.array(toy_ap50(connected_components_ap(scenes)))
    assert (figures > 60).all() and (figures < 100).any()
    apart = [s for s in scenes if _no_two_touch(s)]
    assert apart and np.nanmin(toy_ap50(connected_components_ap(apart))) == 1.0


def _no_two_touch(scene) -> bool:
    return len(_components(scene)[1]) == len(scene.metadata["objects"])


def _components(scene):
    """Component per voxel, -1 = plane, and the class of each."""
    found = connected_components(scene.coords, scene.class_index, np.ones(len(scene)))
    component = np.full(len(scene), -1)
    component[found.members] = found.owner
    return component, found.class_index


def test_command_writes_three_splits_with_different_scenes(tmp_path, capsys):
    assert main(["simulate", "toy", "--out", str(tmp_path), "--count", "3", "--validation", "1", "--test", "2", "--seed", "4"]) == 0
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.npz"))
    assert files == ["test/toy_0000.npz", "test/toy_0001.npz", "train/toy_0000.npz", "train/toy_0001.npz", "train/toy_0002.npz",
                     "validation/toy_0000.npz"]
    shapes = {load_scene(tmp_path / name).coords.tobytes() for name in files}
    assert len(shapes) == len(files)
    assert "3 train, 1 validation, 2 test" in capsys.readouterr().out


def test_impossible_counts_are_refused(tmp_path):
    with pytest.raises(DataError, match="0 or more"):
        toy.simulate_toy(tmp_path, counts={"train": -1}, progress=False)
