"""The state file: everything a segmenter needs to go on where it was.

It is a safetensors file (a JSON header and plain arrays, no pickle) with a checksum (state_format.py, docs/state_file.md), written so that
a crash at any moment leaves this file or the one before.
"""

__all__ = [
    "PREVIOUS", "STATE_SUFFIX", "State", "load_newest_state", "load_state", "previous_file", "save_state", "set_aside", "take_state",
    "weights_fingerprint", "write_state",
]

import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instseg_ros.errors import DataError
from instseg_ros.settings import flatten, to_mapping
from instseg_ros.state_format import HISTORY, State, read_state_content, write_state_content

if TYPE_CHECKING:
    from instseg_ros.models.network import InstanceNet
    from instseg_ros.segmenter import Segmenter

STATE_SUFFIX = ".instseg"
PREVIOUS = ".1"
"""Suffix of the file before the newest."""


def weights_fingerprint(net: "InstanceNet") -> str:
    """SHA-256 of a network's configuration and parameters."""
    digest = hashlib.sha256(json.dumps(to_mapping(net.config), sort_keys=True).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def take_state(segmenter: "Segmenter", stamp_ns: int, sequence: int) -> State:
    """The state of a segmenter; copies, so that it can be written while the segmenter goes on.

    Args:
        segmenter: between two updates.
        stamp_ns, sequence: of the last update it took.
    """
    voxels, slots = segmenter.map, segmenter.map.live_slots()
    cloud, tracker = segmenter.cloud(slots), segmenter.tracker.state()
    memory, history = tracker.pop("dormant.slots"), {f"voxel.{name}": tracker.pop(name)[slots] for name in HISTORY}
    arrays = {
        "voxel.slot": slots, "voxel.coords": voxels.coords[slots], "voxel.color": voxels.colors[slots], "voxel.weight": voxels.weights[slots],
        "voxel.class_index": cloud.class_index, "voxel.confidence": np.nan_to_num(cloud.confidence),
        "free.slot": voxels.free_slots(), "memory.slot": memory, **history, **tracker, **segmenter.log.state(),
    }
    return State(
        voxels.voxel_size_m, voxels.frame_id, int(stamp_ns), int(sequence), segmenter.weights, time.time_ns(), flatten(segmenter.config), arrays,
    )


def save_state(path: Path | str, segmenter: "Segmenter", stamp_ns: int = 0, sequence: int = 0) -> State:
    """`take_state` and `write_state` in one."""
    state = take_state(segmenter, stamp_ns, sequence)
    write_state(path, state)
    return state


# Writing.


def write_state(path: Path | str, state: State) -> None:
    """Write a state file; the one that was there is kept beside it (`previous_file`).

    Whenever the process or the machine stops, the file is there whole, the new one or the old.

    Raises:
        OSError: the disk is full, or the folder not writable; the files are as before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            write_state_content(file, state)
            file.flush()
            os.fsync(file.fileno())
        _keep_previous(path)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def previous_file(path: Path | str) -> Path:
    """Where the file before the newest is kept."""
    return Path(f"{path}{PREVIOUS}")


def _keep_previous(path: Path) -> None:
    """Give the file a second name, so that there is no moment without one under the first."""
    if not path.exists():
        return
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links; the reader looks for both names
        path.replace(previous_file(path))
        return
    link.replace(previous_file(path))
    link.unlink(missing_ok=True)  # still there if both names were of one file already


# Reading.


def load_state(path: Path | str) -> State:
    """Read a state file.

    Raises:
        DataError: it is missing, of another program or version, truncated or damaged; the text says which.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return read_state_content(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def load_newest_state(path: Path | str) -> tuple[State | None, list[str]]:
    """The state in a file, or in the one before it if that cannot be used; None if there is none. And what was wrong."""
    refused: list[str] = []
    for candidate in (Path(path), previous_file(path)):
        if candidate.exists():
            try:
                return load_state(candidate), refused
            except DataError as error:
                refused.append(str(error))
    return None, refused


def set_aside(path: Path | str) -> Path | None:
    """Rename a file that could not be used, so that the next save does not replace it or keep it as the one before; its new name."""
    path = Path(path)
    if not path.exists():
        return None
    return path.replace(path.with_name(f"{path.name}.refused"))
