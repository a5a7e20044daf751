"""What stands in a state file, and how it is read without trusting it. docs/state_file.md describes the format."""

__all__ = ["HISTORY", "State", "read_state_content", "write_state_content"]

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from instseg_ros.errors import DataError
from instseg_ros.event_log import EVENT_KINDS
from instseg_ros.labels import CLASS_NAMES, IGNORE
from instseg_ros.mapping.update import MAX_ABS_COORD, MAX_VOXELS, coord_keys

FORMAT, VERSION = "instseg_ros state", 1
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
HISTORY = ("instance_of", "since", "home", "tenure")


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
        for name in HISTORY:
            rows = self.arrays[f"voxel.{name}"]
            arrays[name] = np.zeros(capacity, rows.dtype)
            arrays[name][self.arrays["voxel.slot"]] = rows
        return {**arrays, "dormant.slots": self.arrays["memory.slot"]}


# Writing.


def write_state_content(file: IO[bytes], state: State) -> None:
    """Write header and arrays."""
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


def read_state_content(file: IO[bytes]) -> State:
    """Read and check everything; the file stands at its begin.

    Raises:
        DataError: it is of another program or version, truncated or damaged, or its values contradict each other.
    """
    size = os.fstat(file.fileno()).st_size
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
    layout: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    rows, end = {"counters": 2}, 0
    for name, kind in _SCHEMA.items():
        code, _, columns = kind.partition("x")
        dtype, entry = np.dtype(_TYPES[code]), header[name]
        shape: Any = entry.get("shape") if isinstance(entry, dict) else None
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
