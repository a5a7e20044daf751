"""Furnished rooms by seed: what the network is trained on."""

__all__ = ["ROOM_TYPES", "Room", "compose_room"]

from dataclasses import dataclass

import numpy as np

from instseg_ros.datasets.floor_plan import build_shell, random_plan
from instseg_ros.datasets.free_floor import free_floor
from instseg_ros.datasets.furniture import FurnitureLibrary, furniture_source
from instseg_ros.datasets.placement import Arranger, Placement
from instseg_ros.datasets.room_layouts import LAYOUTS, Decorator, Draw
from instseg_ros.datasets.scene_mesh import SceneInstance, SceneMesh, concatenate
from instseg_ros.errors import DataError
from instseg_ros.labels import class_index

ROOM_TYPES = tuple(LAYOUTS)
SPLITS = ("train", "validation", "test")
_TYPE_SHARES = (0.19, 0.19, 0.16, 0.18, 0.14, 0.14)  # of ROOM_TYPES
_LEAST_FREE_M2 = 2.0  # where a camera can stand
_LEAST_FURNITURE = 7
_ATTEMPTS = 20
_SMALLEST_INSTANCE_M = 0.12  # smaller things on tops are clutter that belongs to no instance


@dataclass
class Room:
    """A furnished place a camera can walk through.

    Attributes:
        mesh: everything in it.
        floor_polygon: outline of the floor [P, 2], m, in the mesh's frame.
        height_m: of its walls.
        floor_z_m: height of the floor in the mesh's frame.
        kind: room types of its parts, joined by "+".
    """

    mesh: SceneMesh
    floor_polygon: np.ndarray
    height_m: float
    floor_z_m: float = 0.0
    kind: str = ""


def compose_room(seed: int, split: str = "train", library: str | FurnitureLibrary = "auto") -> Room:
    """A room furnished at random, the same for the same arguments on every run.

    Rooms are rectangles, Ls or two rooms joined by an opening, turned by any angle in half of the cases and moved by
    fractions of a voxel. Furniture stands as people put it: chairs tucked under tables, nightstands at beds, cabinets
    side by side, screens and boxes stacked on furniture. Small clutter belongs to no instance and has no class.
    Doors, windows and pictures are of class wall, shower curtains do not occur.

    Args:
        seed: makes the room; rooms of different splits differ for the same seed.
        split: "train", "validation" or "test": catalogue models and some procedural styles belong to one of them only.
        library: as for `furniture_source`: "auto", "procedural", "sweethome3d", the path of a catalogue file, or an opened one.

    Raises:
        DataError: the split is unknown, the catalogue cannot be read, or (never seen) no attempt is usable.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; there is {', '.join(SPLITS)}")
    draw = furniture_source(library, split).draw
    for attempt in range(_ATTEMPTS):
        room = _compose(np.random.default_rng([SPLITS.index(split), seed, attempt]), draw)
        if len(room.mesh.instances) < 2 + _LEAST_FURNITURE:  # two are floor and wall
            continue
        free = free_floor(room.mesh)
        if free.free.sum() * free.cell_m**2 >= _LEAST_FREE_M2:
            return room
    raise DataError(f"room {seed} of {split} came out too full or too empty {_ATTEMPTS} times; use another seed")


def _compose(rng: np.random.Generator, draw: Draw) -> Room:
    """One attempt at a room."""
    plan = random_plan(rng)
    shell = build_shell(plan, rng)
    arranger = Arranger(plan, rng)
    decorator = Decorator(arranger, draw, rng)
    kinds = [ROOM_TYPES[k] for k in rng.choice(len(ROOM_TYPES), len(plan.regions), p=_TYPE_SHARES)]
    for region, kind in enumerate(kinds):
        LAYOUTS[kind](decorator, region)
    for region in range(len(plan.regions)):
        before = len(arranger.placed)
        decorator.extras(region, max(8, before), max(10, before + 5))
    mesh = concatenate([shell, _furniture_mesh(arranger.placed + arranger.attached, arranger.on_top, rng)])
    yaw = rng.uniform(-np.pi, np.pi) if rng.uniform() < 0.5 else 0.0
    T_scene_room = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    T_scene_room[:2, :2] = [[c, -s], [s, c]]
    T_scene_room[:3, 3] = rng.uniform(-1, 1, 3) * (2.0, 2.0, 0.025)
    polygon = plan.polygon @ T_scene_room[:2, :2].T + T_scene_room[:2, 3]
    return Room(mesh.transformed(T_scene_room).validate(), polygon, plan.height_m, float(T_scene_room[2, 3]), "+".join(kinds))


def _furniture_mesh(standing: list[Placement], on_top: list[Placement], rng: np.random.Generator) -> SceneMesh:
    """Everything placed as one mesh; each placement with a class is an instance."""
    meshes = []
    for k, placement in enumerate(standing + on_top):
        model = placement.model
        small = k >= len(standing) and float(model.size_m.max()) < _SMALLEST_INSTANCE_M
        known = bool(model.class_name) and not small
        noise = rng.normal(0, 3, (len(model.faces), 1))
        meshes.append(SceneMesh(
            placement.vertices(), model.faces, np.clip(model.face_colors + noise, 0, 255).astype(np.uint8),
            np.full(len(model.faces), 0 if known else -1, np.int32),
            [SceneInstance(model.name, class_index(model.class_name))] if known else [],
        ))
    return concatenate(meshes)
