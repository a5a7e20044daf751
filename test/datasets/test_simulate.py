"""Simulated scenes: the same by seed, labelled as they were built, readable as bag and sequence."""

import json

import numpy as np
import pytest

from instseg_ros.cli import main
from instseg_ros.config import FusionConfig
from instseg_ros.datasets.bag_writer import write_bag
from instseg_ros.datasets.bags import open_bag
from instseg_ros.datasets.rgbd import open_sequence
from instseg_ros.datasets.rooms import compose_room
from instseg_ros.datasets.scenes import load_scene
from instseg_ros.datasets.sequence_writer import write_sequence
from instseg_ros.datasets.simulate import SimulationOptions, fuse_scenes, simulate_rooms, simulate_sequence
from instseg_ros.errors import DataError
from instseg_ros.labels import BACKGROUND, CLASS_NAMES, IGNORE, NUM_CLASSES

SHORT = SimulationOptions("procedural", frames=6)


@pytest.fixture(scope="module")
def room():
    return compose_room(11, "train", "procedural")


@pytest.fixture(scope="module")
def frames(room):
    return list(simulate_sequence(room, 11, 30))


def same(a, b) -> bool:
    arrays = all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("coords", "colors", "class_index", "instance"))
    return arrays and a.metadata == b.metadata and a.name == b.name


def test_a_sequence_is_the_same_by_seed_and_clean_without_noise(room, frames):
    again = list(simulate_sequence(room, 11, 30))
    assert len(frames) == len(again) == 30
    for a, b in zip(frames, again, strict=True):
        assert np.array_equal(a.depth_m, b.depth_m) and np.array_equal(a.color, b.color)
    assert (np.diff([f.stamp_ns for f in frames]) == 200_000_000).all()
    clean = next(iter(simulate_sequence(room, 11, 30, noise=False)))
    both = (clean.depth_m > 0) & (frames[0].depth_m > 0)
    error = np.abs(clean.depth_m - frames[0].depth_m)[both]
    assert 0 < np.median(error) < 0.03 and not np.array_equal(clean.T_world_camera, frames[0].T_world_camera)


def test_fused_scenes_are_labelled_and_grow(room, frames):
    part, whole = fuse_scenes("r", frames, room.mesh, FusionConfig(block_count=4000), (0.35, 1.0), {"seed": 11})
    assert (part.name, whole.name) == ("r_part35", "r") and part.metadata["frames"] == 10 and whole.metadata["share"] == 1.0
    assert 500 < len(part) < len(whole)
    scene = whole.validate()
    labelled = scene.class_index != IGNORE
    assert labelled.mean() > 0.95
    assert {0, 1} < set(scene.class_index.tolist()) and len(set(scene.instance.tolist())) > 3
    assert (scene.instance[np.isin(scene.class_index, (*BACKGROUND, IGNORE))] == -1).all()
    objects = scene.instance >= 0
    classes = np.array([i.class_index for i in room.mesh.instances])
    assert np.array_equal(classes[scene.instance[objects]], scene.class_index[objects])
    assert scene.class_index[objects].max() < NUM_CLASSES
    low, high = room.mesh.bounds_m()
    centers = (scene.coords + 0.5) * 0.05
    assert ((centers > low - 0.3) & (centers < high + 0.3)).all()


def test_rooms_are_the_same_whatever_the_number_of_processes(tmp_path):
    partial = SimulationOptions("procedural", frames=6, partial=(0.5,))
    one = simulate_rooms(tmp_path / "a", 2, "validation", 3, 1, partial, progress=False)
    two = simulate_rooms(tmp_path / "b", 2, "validation", 3, 2, partial, progress=False)
    assert one == two and [r["name"] for r in one] == ["room_0000", "room_0001"]
    names = ["room_0000.npz", "room_0000_part50.npz", "room_0001.npz", "room_0001_part50.npz"]
    for folder in ("a", "b"):
        assert sorted(p.name for p in (tmp_path / folder / "validation").iterdir()) == names
    assert all(same(load_scene(tmp_path / "a/validation" / n), load_scene(tmp_path / "b/validation" / n)) for n in names)
    later = simulate_rooms(tmp_path / "c", 1, "validation", 3, 1, partial, progress=False, first=1)
    assert later == one[1:]
    assert same(load_scene(tmp_path / "c/validation" / names[2]), load_scene(tmp_path / "a/validation" / names[2]))
    other = simulate_rooms(tmp_path / "d", 1, "validation", 4, 1, SHORT, progress=False)
    assert other[0]["voxels"] != one[0]["voxels"]


@pytest.mark.parametrize("change, match", [
    ({"count": 0}, "count"), ({"jobs": 0}, "jobs"), ({"split": "holiday"}, "split"), ({"first": -1}, "first"),
])
def test_impossible_requests_are_refused(tmp_path, change, match):
    with pytest.raises(DataError, match=match):
        simulate_rooms(**{
            "out": tmp_path, "count": 1, "split": "train", "seed": 0, "options": SHORT, "progress": False, **change,
        })
    with pytest.raises(DataError, match="between 0 and 1"):
        simulate_rooms(tmp_path, 1, "train", 0, 1, SimulationOptions("procedural", partial=(1.5,)), progress=False)
    assert not list(tmp_path.iterdir())


def test_a_sequence_folder_holds_what_was_written(tmp_path, frames):
    write_sequence(tmp_path / "s", frames[:4])
    back = open_sequence(tmp_path / "s")
    assert len(back) == 4
    for a, b in zip(frames[:4], back, strict=True):
        assert a.stamp_ns == b.stamp_ns and np.allclose(a.K, b.K) and np.allclose(a.T_world_camera, b.T_world_camera)
        assert np.abs(a.depth_m - b.depth_m).max() <= 0.00051 and np.array_equal(a.instance, b.instance)
        assert np.abs(a.color.astype(int) - b.color).mean() < 6
    with pytest.raises(DataError, match="at least one"):
        write_sequence(tmp_path / "t", [])


def test_a_bag_holds_what_was_written(tmp_path, frames):
    write_bag(tmp_path / "bag", frames[:4])
    back = list(open_bag(tmp_path / "bag"))
    assert len(back) == 4
    for a, b in zip(frames[:4], back, strict=True):
        assert a.stamp_ns == b.stamp_ns and np.allclose(a.K, b.K) and np.allclose(a.T_world_camera, b.T_world_camera, atol=1e-6)
        assert np.abs(a.depth_m - b.depth_m).max() <= 0.00051 and np.array_equal(a.color, b.color)
    with pytest.raises(DataError, match="already"):
        write_bag(tmp_path / "bag", frames[:1])


def test_the_command_writes_rooms_bags_and_sequences(tmp_path, capsys):
    arguments = "--count 1 --jobs 1 --frames 5 --furniture procedural --split test --bag --sequence".split()
    assert main(["simulate", "rooms", "--out", str(tmp_path), *arguments]) == 0
    folder = tmp_path / "test"
    assert sorted(p.name for p in folder.iterdir()) == ["room_0000.npz", "room_0000_bag", "room_0000_sequence"]
    assert len(json.loads((folder / "room_0000_sequence/sequence.json").read_text())["frames"]) == 5
    assert len(list(open_bag(folder / "room_0000_bag"))) == 5
    printed = capsys.readouterr().out
    assert "1 scenes of 1 walks" in printed and "wall" in printed
    assert main(["simulate", "house", "--house", str(tmp_path / "none.npz"), "--out", str(tmp_path)]) == 2
    assert "none.npz" in capsys.readouterr().err


def test_a_house_file_becomes_one_scene(tmp_path, room):
    mesh = room.mesh
    corner_rgb = np.repeat(mesh.face_colors[:, None], 3, axis=1)
    classes = [CLASS_NAMES[i.class_index] if i.class_index < NUM_CLASSES else "" for i in mesh.instances]
    names = [i.name for i in mesh.instances] + ["clutter"]
    face_instance = np.where(mesh.face_instance < 0, len(mesh.instances), mesh.face_instance)
    np.savez(
        tmp_path / "house.npz", vertices=mesh.vertices, faces=mesh.faces, corner_rgb=corner_rgb, face_instance=face_instance,
        instance_name=np.array(names), benchmark_class=np.array([*classes, ""]),
    )
    assert main(["simulate", "house", "--house", str(tmp_path), "--out", str(tmp_path / "out"), "--frames", "8"]) == 0
    scene = load_scene(tmp_path / "out" / "house.npz")
    assert len(scene) > 1000 and scene.metadata["frames"] == 8
