"""From a furnished scene to a posed RGB-D sequence, and from the sequence to labelled voxel scenes."""

__all__ = [
    "SimulationOptions", "frames_for", "fuse_scene", "fuse_scenes", "simulate_house", "simulate_room", "simulate_rooms",
    "simulate_sequence",
]

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instseg_ros.config import FusionConfig
from instseg_ros.datasets.camera import DEFAULT_CAMERA, PinholeCamera, SceneRenderer
from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.free_floor import FreeFloor, free_floor
from instseg_ros.datasets.house import load_house
from instseg_ros.datasets.rooms import Room, compose_room
from instseg_ros.datasets.scene_mesh import SceneMesh
from instseg_ros.datasets.scenes import VoxelScene, label_voxels, save_scene
from instseg_ros.datasets.sensor_noise import add_kinect_noise, noisy_poses
from instseg_ros.datasets.sequence_writer import write_sequence
from instseg_ros.datasets.walk import walk
from instseg_ros.errors import DataError
from instseg_ros.mapping.fusion import TsdfFusion

RATE_HZ = 5.0
"""Frames per second of a simulated sequence: at this rate the camera turns and moves as a person's does."""
FIRST_STAMP_NS = 1_000_000_000
FRAMES_BASE, FRAMES_PER_M2 = 35, 3.5
"""Frames of a walk by the free floor's area, where their number is not given."""
SEEDS_PER_RUN = 1_000_000
"""Room seeds are seed * this + number, so that runs with different seeds share no room."""


@dataclass(frozen=True)
class SimulationOptions:
    """What `simulate_room` writes besides the scene of the whole walk."""

    library: str = "auto"
    """Furniture: "auto", "procedural" or the path of a catalogue file (see `furniture.furniture_source`)."""
    frames: int = 0
    """Frames of the walk; 0 = by the size of the room."""
    noise: bool = True
    """Sensor and pose noise."""
    partial: tuple[float, ...] = ()
    """Shares of the walk, below 1, after which the map so far is saved as a scene of its own."""
    voxel_size_m: float = 0.05
    bag: bool = False
    """Also write the frames as an mcap bag."""
    sequence: bool = False
    """Also write the frames as a folder with `sequence.json`."""


def simulate_sequence(
    room: Room | SceneMesh, seed: int, frames: int = 0, noise: bool = True, camera: PinholeCamera = DEFAULT_CAMERA,
    rate_hz: float = RATE_HZ, floor: FreeFloor | None = None,
) -> Iterator[RgbdFrame]:
    """A camera walked through a room, one frame after the other; the same for the same arguments.

    Args:
        room: the scene.
        seed: of the walk, the light and the noise.
        frames: length of the walk; 0 = by the size of the free floor.
        noise: Kinect-like depth noise, and poses off by some 5 mm and 0.3 degrees.
        camera: image size and focal length.
        rate_hz: frames per second, for the stamps.
        floor: where one can stand, if that is known already.

    Raises:
        DataError: there is no floor, or no free one.
    """
    mesh = room if isinstance(room, SceneMesh) else room.mesh
    floor = floor or free_floor(mesh)
    count = frames or frames_for(floor)
    renderer = SceneRenderer(mesh, seed, camera)
    poses = walk(renderer, seed, count, floor)
    rng = np.random.default_rng([seed, 3])
    reported = noisy_poses(poses, rng) if noise else poses
    for k in range(count):
        frame = renderer.render(poses[k], FIRST_STAMP_NS + round(k * 1e9 / rate_hz))
        if noise:
            frame = add_kinect_noise(frame, rng)
            frame.T_world_camera = reported[k]
        yield frame


def frames_for(floor: FreeFloor) -> int:
    """Frames that a walk over a floor takes to see most of what is around it."""
    return int(FRAMES_BASE + FRAMES_PER_M2 * floor.free.sum() * floor.cell_m**2)


def fuse_scenes(
    name: str, frames: Sequence[RgbdFrame], mesh: SceneMesh, config: FusionConfig | None = None,
    shares: Sequence[float] = (1.0,), metadata: dict[str, Any] | None = None,
) -> list[VoxelScene]:
    """Fuse a sequence, and label the map as it is after each share of the frames.

    Args:
        name: of the scenes; those of a part get "_part35" and the like behind it.
        frames: the sequence.
        mesh: the clean scene that the labels come from.
        config: settings of the fusion.
        shares: ascending, in (0, 1].
        metadata: kept with each scene, together with the share and the names of its objects.
    """
    fusion, scenes, taken = TsdfFusion(config), [], 0
    for share in shares:
        until = max(1, round(share * len(frames)))
        for frame in frames[taken:until]:
            fusion.integrate(frame.depth_m, frame.color, frame.K, frame.T_world_camera)
        taken = until
        update = fusion.take_update(frames[until - 1].stamp_ns, "map", full=True)
        classes, instance = label_voxels(update.coords, update.voxel_size_m, mesh)
        order = np.lexsort(update.coords.T)  # the order of the fusion's blocks is of no meaning
        scenes.append(VoxelScene(
            name if share >= 1.0 else f"{name}_part{round(100 * share):02d}", update.voxel_size_m, update.coords[order],
            update.colors[order], classes[order], instance[order],
            {**(metadata or {}), "frames": until, "share": share, "names": [i.name for i in mesh.instances]},
        ))
    return scenes


def fuse_scene(name: str, frames: Iterable[RgbdFrame], mesh: SceneMesh, config: FusionConfig | None = None) -> VoxelScene:
    """The labelled map that a whole sequence gives."""
    return fuse_scenes(name, list(frames), mesh, config)[0]


def simulate_room(
    out: Path, name: str, room: Room, seed: int, options: SimulationOptions, metadata: dict[str, Any]
) -> dict[str, Any]:
    """Walk through one room, and write its scenes (and bag, and sequence) into a folder.

    Returns:
        What there is to say of it: name, voxels, frames, and voxels per class {index: count} of the whole map.
    """
    frames = list(simulate_sequence(room, seed, options.frames, options.noise))
    config = FusionConfig(voxel_size_m=options.voxel_size_m, block_count=4000)
    scenes = fuse_scenes(name, frames, room.mesh, config, (*sorted(options.partial), 1.0), metadata)
    for scene in scenes:
        save_scene(out / f"{scene.name}.npz", scene)
    if options.bag:
        from instseg_ros.datasets.bag_writer import write_bag

        write_bag(out / f"{name}_bag", frames)
    if options.sequence:
        write_sequence(out / f"{name}_sequence", frames)
    classes, counts = np.unique(scenes[-1].class_index, return_counts=True)
    return {
        "name": name, "voxels": len(scenes[-1]), "frames": len(frames), "scenes": len(scenes),
        "classes": dict(zip(classes.tolist(), counts.tolist(), strict=True)),
        "instances": len(np.unique(scenes[-1].instance[scenes[-1].instance >= 0])),
    }


def _simulate_numbered(out: Path, number: int, split: str, seed: int, options: SimulationOptions) -> dict[str, Any]:
    """Compose and simulate the room of a number: one task of a worker process."""
    room_seed = seed * SEEDS_PER_RUN + number
    room = compose_room(room_seed, split, options.library)
    metadata = {"seed": room_seed, "split": split, "kind": room.kind, "noise": options.noise}
    return simulate_room(out, f"room_{number:04d}", room, room_seed, options, metadata)


def simulate_rooms(
    out: Path | str, count: int, split: str, seed: int, jobs: int = 1, options: SimulationOptions | None = None,
    progress: bool = True, first: int = 0,
) -> list[dict[str, Any]]:
    """Write the scenes of many rooms to `out/<split>/room_0000.npz` and on.

    Args:
        out: folder of the data set.
        count: number of rooms.
        split: "train", "validation" or "test": which furniture may be used.
        seed: rooms of different seeds differ; the same seed gives the same files, whatever `jobs` is.
        jobs: processes.
        options: what else to write.
        progress: show a progress bar.
        first: number of the first room, to add rooms to those that are there.

    Returns:
        What `simulate_room` says of each room, in their order.

    Raises:
        DataError: a number is out of range, the split is unknown, or the furniture cannot be read.
    """
    if count < 1 or jobs < 1 or seed < 0 or first < 0 or first + count > SEEDS_PER_RUN:
        raise DataError(
            f"count {count}, jobs {jobs}, seed {seed}, first {first}: count and jobs must be 1 or more, seed and first 0 "
            f"or more, and at most {SEEDS_PER_RUN} rooms have one seed"
        )
    options, folder = options or SimulationOptions(), Path(out) / split
    if not all(0.0 < share < 1.0 for share in options.partial):
        raise DataError(f"partial shares {options.partial}: each must lie between 0 and 1")
    tasks = [(folder, number, split, seed, options) for number in range(first, first + count)]
    bar = tqdm(total=count, unit="room", desc=split, disable=not progress)
    if jobs == 1:
        results = []
        for task in tasks:
            results.append(_simulate_numbered(*task))
            bar.update()
    else:
        # Open3D's threads do not survive a fork
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(_simulate_numbered, *task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            results = [future.result() for future in futures]
    bar.close()
    return results


def simulate_house(
    house: Path | str, out: Path | str, seed: int = 0, options: SimulationOptions | None = None
) -> dict[str, Any]:
    """Walk through all rooms of a house, and write `out/house.npz`.

    Args:
        house: file or folder for `load_house`.
        out: folder to write into.
        seed: of the walk and the noise.
        options: as for rooms; `library` is not used.
    """
    room = load_house(house)
    return simulate_room(Path(out), "house", room, seed, options or SimulationOptions(), {"seed": seed, "split": "house"})
