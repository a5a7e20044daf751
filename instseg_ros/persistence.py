"""The state file: everything a segmenter needs to go on where it was.

docs/state_file.md describes the format. It is a safetensors file (a JSON header and plain arrays, no pickle) with a checksum, written so
that a crash at any moment leaves this file or the one before. What is read is checked before memory is taken for it.
"""

__all__ = [
    "PREVIOUS", "STATE_SUFFIX", "State", "load_newest_state", "load_state", "previous_file", "save_state", "set_aside", "take_state",
    "weights_fingerprint", "write_state",
]

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from instseg_ros.config import flatten, to_mapping
from instseg_ros.errors import DataError
from instseg_ros.event_log import EVENT_KINDS
from instseg_ros.labels import CLASS_NAMES, IGNORE
from instseg_ros.mapping.update import MAX_ABS_COORD, MAX_VOXELS, coord_keys

if TYPE_CHECKING:
    from instseg_ros.models.network import InstanceNet
    from instseg_ros.segmenter import Segmenter

FORMAT, VERSION = "instseg_ros state", 1
STATE_SUFFIX = ".instseg"
PREVIOUS = ".1"
"""Suffix of the file before the newest."""

_MAX_HEADER_BYTES = 1 << 20
_MAX_ROWS = {"voxel": MAX_VOXELS, "free": MAX_VOXELS, "live": 10_000_000, "dormant": 10_000_000, "memory": 20 * MAX_VOXELS, "event": 100_000_000}
_MAX_NS = (1 << 31) * 1_000_000_000
"""Times that a message stamp holds end here, and begin as far before 1970."""

_RECORD = {
    "id": "I64", "class_index": "I64", "score": "F64", "voxels": "I64", "center_m": "F32x3", "box_min_m": "F32x3", "box_max_m": "F32x3",
    "first_seen_ns": "I64", "last_changed_ns": "I64",
}
_SCHEMA = {
    # The map, one row a voxel; slots are the rows of the running segmenter's arrays, `free.slot` those without a voxel.
    "voxel.slot": "I32", "voxel.coords": "I32x3", "voxel.color": "U8x3", "voxel.weight": "F32",
    # What was published of them
    "voxel.class_index": "U8", "voxel.confidence": "F32",
    # Whose they are since which update, and whose they were for longest (voxel_history.py)
    "voxel.instance_of": "U32", "voxel.since": "I64", "voxel.home": "U32", "voxel.tenure": "I64",
    "free.slot": "I32",
    # The tracker: next id and number of updates; instances; instances asleep and the slots they remember
    "counters": "I64",
    **{f"live.{name}": kind for name, kind in _RECORD.items()},
    **{f"dormant.{name}": kind for name, kind in _RECORD.items()},
    "dormant.deadline": "I64", "dormant.merged_into": "I64", "dormant.remembered": "I64", "memory.slot": "I32",
    "event.stamp_ns": "I64", "event.kind": "U8", "event.id": "U32", "event.other": "U32", "event.class_index": "U8",
}
"""Every array of a file with its type, in the order in which they stand there. What is before the dot says what its rows are."""
_TYPES = {"U8": np.uint8, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F64": np.float64}
_HISTORY = ("instance_of", "since", "home", "tenure")


@dataclass(frozen=True)
class State:
    """A segmenter at rest, between two updates."""

    voxel_size_m: float
    frame_id: str
    """Empty as long as there was no update."""
    stamp_ns: int
    """Of the newest input behind it."""
    sequence: int
    """Of the last map update in it."""
    weights: str
    """Fingerprint of the network."""
    saved_ns: int
    """Time of day at which it was taken, ns since 1970."""
    settings: dict[str, Any]
    """Of the segmenter, by dotted name; for the reader, not used."""
    arrays: dict[str, np.ndarray] = field(repr=False)
    """By the names of the file."""

    @property
    def voxels(self) -> int:
        """Voxels in the map."""
        return len(self.arrays["voxel.slot"])

    @property
    def instances(self) -> int:
        """Live instances."""
        return len(self.arrays["live.id"])

    def tracker_state(self, capacity: int) -> dict[str, np.ndarray]:
        """The arrays that `InstanceTracker.from_state` reads, for a map of so many slots."""
        arrays = {name: a for name, a in self.arrays.items() if name.startswith(("live.", "dormant.")) or name == "counters"}
        for name in _HISTORY:
            rows = self.arrays[f"voxel.{name}"]
            arrays[name] = np.zeros(capacity, rows.dtype)
            arrays[name][self.arrays["voxel.slot"]] = rows
        return {**arrays, "dormant.slots": self.arrays["memory.slot"]}


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
    memory, history = tracker.pop("dormant.slots"), {f"voxel.{name}": tracker.pop(name)[slots] for name in _HISTORY}
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
            _write(file, state)
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


def _write(file: IO[bytes], state: State) -> None:
    about = json.dumps({
        "voxel_size_m": state.voxel_size_m, "frame_id": state.frame_id, "stamp_ns": state.stamp_ns, "sequence": state.sequence,
        "weights": state.weights, "saved_ns": state.saved_ns, "settings": state.settings,
    })
    columns = {name: np.ascontiguousarray(state.arrays[name], _TYPES[kind.partition("x")[0]]) for name, kind in _SCHEMA.items()}
    digest = hashlib.sha256(about.encode())
    header: dict[str, Any] = {}
    end = 0
    for name, kind in _SCHEMA.items():
        column, start = columns[name], end
        end += column.nbytes
        header[name] = {"dtype": kind.partition("x")[0], "shape": list(column.shape), "data_offsets": [start, end]}
        digest.update(column.data.cast("B") if column.size else b"")
    header["__metadata__"] = {"format": FORMAT, "version": str(VERSION), "sha256": digest.hexdigest(), "about": about}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for column in columns.values():
        column.tofile(file)


# Reading.


def load_state(path: Path | str) -> State:
    """Read a state file.

    Raises:
        DataError: it is missing, of another program or version, truncated or damaged; the text says which.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def load_newest_state(path: Path | str) -> tuple[State | None, list[str]]:
    """The state in a file, or in the one before it if that cannot be used; None if there is none. And what was wrong."""
    refused = []
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


def _read(file: IO[bytes], size: int) -> State:
    header, start = _read_header(file, size)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise DataError("this is not a state file of instseg_ros: give one that ~/save_map or the autosave wrote")
    if metadata.get("version") != str(VERSION):
        raise DataError(f"it is of version {metadata.get('version')!r} of the format, this program reads {VERSION}: use the program that wrote it")
    about = _read_about(metadata.get("about"))
    layout = _check_layout(header, size - start)
    digest = hashlib.sha256(metadata["about"].encode())
    arrays = {}
    for name, (dtype, shape) in layout.items():
        column = np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape)
        digest.update(column.data.cast("B") if column.size else b"")
        arrays[name] = column
    if digest.hexdigest() != metadata.get("sha256"):
        raise DataError("it is damaged (its checksum does not match): use the file before it, or another copy")
    _check_values(arrays)
    return State(**about, arrays=arrays)


def _read_header(file: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    """The JSON header and where the arrays begin."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= _MAX_HEADER_BYTES:
        raise DataError("this is not a state file of instseg_ros, or only its beginning: give one that ~/save_map or the autosave wrote")
    if 8 + length > size:
        raise DataError("it is truncated: use the file before it, or another copy")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise DataError("its header is not readable: it is damaged, or not a state file of instseg_ros") from error
    if not isinstance(header, dict):
        raise DataError("its header is not readable: it is damaged, or not a state file of instseg_ros")
    return header, 8 + length


def _read_about(text: Any) -> dict[str, Any]:
    """The fields of a `State` without the arrays."""
    kinds = {"voxel_size_m": float, "frame_id": str, "stamp_ns": int, "sequence": int, "weights": str, "saved_ns": int, "settings": dict}
    try:
        about = json.loads(text)
        about = {name: about[name] for name in kinds}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"its header is damaged ({type(error).__name__}: {error})") from error
    wrong = [name for name, kind in kinds.items() if type(about[name]) is not kind]
    if wrong:
        raise DataError(f"its header is damaged ({', '.join(wrong)} of the wrong type)")
    for name, low, high in (("voxel_size_m", 1e-4, 10.0), ("stamp_ns", -_MAX_NS, _MAX_NS), ("sequence", 0, 2**64 - 1), ("saved_ns", 0, 2**63 - 1)):
        if not low <= about[name] <= high:
            raise DataError(f"its header is damaged ({name} = {about[name]})")
    return about


def _check_layout(header: dict[str, Any], payload: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Type and shape of every array; no memory has been taken for any.

    Raises:
        DataError: an array is missing, unknown, or not of the type and shape it must have; or they do not fill the file.
    """
    if header.keys() != _SCHEMA.keys():
        raise DataError(f"its arrays are not those of a state: {', '.join(sorted(map(str, header.keys() ^ _SCHEMA.keys()))[:5])}")
    layout, rows, end = {}, {"counters": 2}, 0
    for name, kind in _SCHEMA.items():
        code, _, columns = kind.partition("x")
        dtype, entry = np.dtype(_TYPES[code]), header[name]
        shape = entry.get("shape") if isinstance(entry, dict) else None
        sound = isinstance(shape, list) and bool(shape) and all(type(n) is int for n in shape) and entry.get("dtype") == code
        if not sound or shape[1:] != ([int(columns)] if columns else []):
            raise DataError(f"array {name} is not of the type and shape it must have")
        group = name.partition(".")[0]
        if shape[0] != rows.setdefault(group, shape[0]) or not 0 <= shape[0] <= _MAX_ROWS.get(group, 2):
            raise DataError(f"array {name} has {shape[0]} rows: they do not go together with the others, or are too many")
        start, end = end, end + shape[0] * dtype.itemsize * int(columns or 1)
        if entry.get("data_offsets") != [start, end]:
            raise DataError(f"array {name} is not where it must be")
        layout[name] = dtype, tuple(shape)
    if end != payload:
        raise DataError(f"it is {'truncated' if payload < end else 'too long'}: {payload} bytes of arrays, {end} expected; use the file before it")
    return layout


def _check_values(arrays: Mapping[str, np.ndarray]) -> None:
    """Everything that the program relies on; who is whose is checked by `InstanceTracker.from_state`."""

    def need(fine: Any, what: str) -> None:
        if not np.all(fine):
            raise DataError(f"{what}: whatever wrote this file did it wrong, use another")

    def within(name: str, low: float, high: float) -> None:
        a = arrays[name]
        need(not a.size or (low <= a.min() and a.max() <= high), f"array {name} reaches beyond {low:g} to {high:g}")  # NaN does too

    slots = np.concatenate([arrays["voxel.slot"], arrays["free.slot"]])
    within("voxel.slot", 0, len(slots) - 1)
    within("free.slot", 0, len(slots) - 1)
    need(np.bincount(slots, minlength=len(slots)) == 1, "a slot is named twice")
    within("voxel.coords", -MAX_ABS_COORD, MAX_ABS_COORD)
    keys = np.sort(coord_keys(arrays["voxel.coords"]))
    need(keys[1:] != keys[:-1], "a voxel is named twice")
    within("voxel.weight", np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max)
    within("voxel.confidence", 0.0, 1.001)
    for name in ("voxel.class_index", "event.class_index", "live.class_index", "dormant.class_index"):
        need((arrays[name] < len(CLASS_NAMES)) & (arrays[name] >= 0) | (arrays[name] == IGNORE), f"array {name} names a class that there is not")
    within("counters", 0, 2**62)
    next_id = int(arrays["counters"][0])
    need(1 <= next_id < 2**32, "the next id is out of range")
    for name in ("voxel.instance_of", "voxel.home", "live.id", "dormant.id", "dormant.merged_into", "event.id", "event.other"):
        within(name, 0, next_id - 1)
    within("voxel.since", 0, 2**62)
    within("voxel.tenure", 0, 2**31)
    for group in ("live", "dormant"):
        within(f"{group}.id", 1, next_id - 1)
        within(f"{group}.score", 0.0, 1.001)
        within(f"{group}.voxels", 0, MAX_VOXELS)
        for name in ("center_m", "box_min_m", "box_max_m"):
            within(f"{group}.{name}", -1e8, 1e8)
        within(f"{group}.first_seen_ns", -_MAX_NS, _MAX_NS)
        within(f"{group}.last_changed_ns", -_MAX_NS, _MAX_NS)
        need(len(np.unique(arrays[f"{group}.id"])) == len(arrays[f"{group}.id"]), "an instance is named twice")
    within("dormant.deadline", 0, 2**62)
    within("dormant.remembered", 0, MAX_VOXELS)
    need(arrays["dormant.remembered"].sum() == len(arrays["memory.slot"]), "what instances remember is of another length")
    within("memory.slot", 0, len(slots) - 1)
    within("event.kind", 0, len(EVENT_KINDS) - 1)
    within("event.stamp_ns", -_MAX_NS, _MAX_NS)
