"""Composed rooms: deterministic, labelled, furniture on the floor and not inside one another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.datasets.floor_plan import random_plan
from instseg_ros.datasets.free_floor import free_floor
from instseg_ros.datasets.placement import Arranger, Placement
from instseg_ros.datasets.procedural import make
from instseg_ros.datasets.procedural_kitchen import kitchen_run
from instseg_ros.datasets.rooms import compose_room
from instseg_ros.datasets.scene_mesh import SceneInstance, SceneMesh, concatenate
from instseg_ros.errors import DataError
from instseg_ros.labels import BACKGROUND, CLASS_NAMES, IGNORE


@given(seed=st.integers(0, 2**31), split=st.sampled_from(["train", "validation", "test"]))
@settings(max_examples=12, deadline=None)
def test_rooms_are_whole(seed: int, split: str) -> None:
    room = compose_room(seed, split, "procedural")
    mesh = room.mesh.validate()
    objects = [i for i in mesh.instances if i.class_index not in BACKGROUND]
    assert 7 <= len(objects) <= 50
    assert [i.class_index for i in mesh.instances[:2]] == [1, 0]
    assert all(i.class_index != IGNORE for i in mesh.instances)
    assert set(range(len(mesh.instances))) <= set(np.unique(mesh.face_instance).tolist())
    low, high = mesh.bounds_m()
    assert low[2] == pytest.approx(room.floor_z_m, abs=1e-3) and high[2] - low[2] <= room.height_m + 0.05
    furniture = mesh.vertices[mesh.faces[mesh.face_instance >= 2]].reshape(-1, 3)[:, :2]
    assert (furniture > room.floor_polygon.min(axis=0) - 0.1).all() and (furniture < room.floor_polygon.max(axis=0) + 0.1).all()
    assert free_floor(room.mesh).free.sum() > 50  # half a square metre


def test_same_seed_same_room_other_split_another_room() -> None:
    one, same, other = compose_room(5, "train", "procedural"), compose_room(5, "train", "procedural"), compose_room(5, "test",
        "procedural")
    for name in ("vertices", "faces", "face_colors", "face_instance"):
        assert np.array_equal(getattr(one.mesh, name), getattr(same.mesh, name))
    assert one.mesh.instances == same.mesh.instances
    assert one.mesh.vertices.shape != other.mesh.vertices.shape or not np.allclose(one.mesh.vertices, other.mesh.vertices)


def test_all_furniture_classes_occur_and_untrained_ones_do_not() -> None:
    seen = {CLASS_NAMES[i.class_index] for s in range(60) for i in compose_room(s, "train", "procedural").mesh.instances}
    assert seen == set(CLASS_NAMES) - {"door", "window", "picture", "shower curtain"}


def test_rooms_meet_every_angle_to_the_grid() -> None:
    angles = []
    for seed in range(20):
        edge = np.diff(compose_room(seed, "train", "procedural").floor_polygon[:2], axis=0)[0]
        angles.append(np.degrees(np.arctan2(edge[1], edge[0])) % 90)
    turned = [a for a in angles if 1 < a < 89]
    assert 4 <= len(turned) <= 16 and np.std(turned) > 10


def test_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="validation"):
        compose_room(0, "exam", "procedural")


def _volume_inside(points: np.ndarray, placement: Placement) -> np.ndarray:
    c, s = np.cos(placement.yaw), np.sin(placement.yaw)
    local = (points - (placement.x, placement.y)) @ np.array([[c, -s], [s, c]])
    return (np.abs(local) < placement.model.size_m[:2] / 2 - 0.02).all(axis=1)


def test_footprints_may_touch_and_not_overlap() -> None:
    rng = np.random.default_rng(0)
    plan = random_plan(rng)
    arranger = Arranger(plan, rng)
    kinds = ("dining_chair", "coffee_table", "low_cabinet", "box", "bin")
    for k in range(60):
        model = make(kinds[k % len(kinds)], rng)
        if k % 2:
            arranger.anywhere(model, 0)
        else:
            arranger.at_wall(model, 0)
    assert len(arranger.placed) > 8
    for a in arranger.placed:
        assert plan.contains(a.corners(0.011))
        w, d = a.model.size_m[:2] / 2
        grid = np.stack(np.meshgrid(np.linspace(-w, w, 15), np.linspace(-d, d, 15)), axis=-1).reshape(-1, 2)
        for b in arranger.placed:
            assert a is b or not _volume_inside(a.to_room(grid), b).any()


def test_furniture_at_a_wall_turns_its_back_to_it() -> None:
    rng = np.random.default_rng(2)
    plan = random_plan(rng)
    arranger = Arranger(plan, rng)
    for wall in arranger.walls(0):
        done = arranger.at_wall(make("low_cabinet", rng), 0, 0.0, 0.0, wall, tries=30)
        if done:
            front = done.to_room(np.array([[0.0, 1.0]]))[0] - (done.x, done.y)
            assert np.allclose(front, wall.inward, atol=1e-6)
            away = (done.corners() - wall.start) @ wall.inward
            assert away.min() == pytest.approx(0.005, abs=1e-3)


def test_things_stand_on_tops_beside_each_other() -> None:
    rng = np.random.default_rng(4)
    plan = random_plan(rng)
    arranger = Arranger(plan, rng)
    table = next(t for t in (arranger.anywhere(make("dining_table", rng), 0) for _ in range(20)) if t)
    for _ in range(10):
        arranger.on(make("clutter", rng), table)
    assert len(arranger.on_top) >= 3
    for item in arranger.on_top:
        assert item.z == pytest.approx(table.model.support_z_m)
        local = (np.array([item.x, item.y]) - (table.x, table.y))
        assert np.linalg.norm(local) < np.linalg.norm(table.model.size_m[:2]) / 2
    assert arranger.on(make("bed", rng), table) is None  # larger than the table


def test_kitchen_run_is_counter_cabinet_and_hollow_sink() -> None:
    for seed in range(30):
        parts = {p.kind: p for p in kitchen_run(np.random.default_rng(seed), 2.4)}
        assert parts["counter"].class_name == "counter" and parts["sink_inset"].class_name == "sink"
        sink, counter = parts["sink_inset"].vertices, parts["counter"]
        assert sink[:, 2].min() == pytest.approx(counter.support_z_m - 0.2, abs=1e-4)
        middle = sink.min(axis=0)[:2] * 0.5 + sink.max(axis=0)[:2] * 0.5
        for part in (counter, parts.get("kitchen_base")):
            if part is not None:  # nothing of the others covers the basin
                corners = part.vertices[part.faces]
                flat = np.ptp(corners[:, :, 2], axis=1) < 1e-6
                over = (corners[:, :, :2].min(axis=1) < middle - 0.05).all(axis=1) & (corners[:, :,
                    :2].max(axis=1) > middle + 0.05).all(axis=1)
                assert not (flat & over & (corners[:, 0, 2] > counter.support_z_m - 0.19)).any()


def _triangle(instance: int, instances: list[SceneInstance]) -> SceneMesh:
    return SceneMesh(
        np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), np.zeros((1, 3), np.uint8), np.array([instance],
            np.int32), instances)


def test_concatenate_keeps_instances_apart_and_transform_moves() -> None:
    both = concatenate([_triangle(0, [SceneInstance("a", 4)]), _triangle(-1, []),
        _triangle(0, [SceneInstance("b", 6)])]).validate()
    assert both.face_instance.tolist() == [0, -1, 1] and both.faces[2].tolist() == [6, 7, 8]
    assert both.face_class().tolist() == [4, IGNORE, 6]
    T_target_source = np.eye(4)
    T_target_source[:3, 3] = (1, 2, 3)
    moved = both.transformed(T_target_source)
    assert np.allclose(moved.vertices - both.vertices, (1, 2, 3)) and len(concatenate([]).faces) == 0


@pytest.mark.parametrize(("field", "value", "message"), [
    ("faces", np.array([[0, 1, 3]], np.int32), "outside"), ("faces", np.array([[0, 1, 2]], np.int64), "int64"),
    ("face_instance", np.array([1], np.int32), "face_instance"), ("vertices", np.full((3, 3), np.nan, np.float32), "NaN"),
    ("instances", [SceneInstance("x", 77)], "77"),
])
def test_validate_says_what_is_wrong(field: str, value: object, message: str) -> None:
    mesh = _triangle(0, [SceneInstance("a", 4)])
    setattr(mesh, field, value)
    with pytest.raises(DataError, match=message):
        mesh.validate()


def test_the_counter_is_the_worktop_and_what_is_under_it_a_cabinet() -> None:
    for seed in range(12):
        parts = {p.kind: p for p in kitchen_run(np.random.default_rng(seed), 2.4)}
        counter, base = parts["counter"], parts["kitchen_base"]
        assert (counter.class_name, base.class_name) == ("counter", "cabinet")
        assert counter.vertices[:, 2].min() >= base.vertices[:, 2].max() - 1e-5 and base.vertices[:, 2].min() == 0.0
