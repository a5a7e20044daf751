"""Labelled clouds as binary PLY, with the fields of the published cloud."""

__all__ = ["read_labelled_ply", "write_labelled_ply"]

from pathlib import Path

import numpy as np

from instseg_ros.errors import DataError
from instseg_ros.labels import class_to_nyu40, instance_color, nyu40_to_class

FIELDS = (
    ("x", "<f4", "float"),
    ("y", "<f4", "float"),
    ("z", "<f4", "float"),
    ("red", "u1", "uchar"),
    ("green", "u1", "uchar"),
    ("blue", "u1", "uchar"),
    ("label", "<u2", "ushort"),
    ("instance", "<u4", "uint"),
    ("confidence", "<f4", "float"),
)
"""Name, type in memory and type in the header of each field of a vertex."""
DTYPE = np.dtype([(name, kind) for name, kind, _ in FIELDS])


def write_labelled_ply(
    path: Path | str,
    points_m: np.ndarray,
    class_index: np.ndarray,
    instance: np.ndarray,
    confidence: np.ndarray,
    frame_id: str = "map",
) -> None:
    """Write a labelled cloud; its colours are the instances' (grey = no instance), `label` is the NYU40 id.

    Args:
        path: file to write.
        points_m: [N, 3] voxel centres.
        class_index: [N] 0..19, 255 = none.
        instance: [N] ids, 0 = none.
        confidence: [N] 0 to 1.
        frame_id: frame of the points, kept as a comment.
    """
    vertices = np.zeros(len(points_m), DTYPE)
    vertices["x"], vertices["y"], vertices["z"] = np.asarray(points_m, np.float32).T
    vertices["red"], vertices["green"], vertices["blue"] = instance_color(instance).T
    vertices["label"], vertices["instance"], vertices["confidence"] = class_to_nyu40(class_index), instance, confidence
    properties = "".join(f"property {kind} {name}\n" for name, _, kind in FIELDS)
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment frame_id {frame_id}\n"
        "comment label: NYU40 id, 65535 = none; instance: 0 = none\n"
        f"element vertex {len(vertices)}\n{properties}end_header\n"
    )
    Path(path).write_bytes(header.encode() + vertices.tobytes())


def read_labelled_ply(path: Path | str) -> dict[str, np.ndarray]:
    """What `write_labelled_ply` wrote: points_m, colors, class_index, instance, confidence.

    Raises:
        DataError: missing, cut short, or not written by `write_labelled_ply`.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): run `instseg segment` to make it") from error
    header, _, body = content.partition(b"end_header\n")
    lines = header.decode("ascii", "replace").splitlines()
    counts = [int(line.split()[2]) for line in lines if line.startswith("element vertex")]
    names = [line.split()[-1] for line in lines if line.startswith("property")]
    if not lines or lines[0] != "ply" or not counts or names != [name for name, _, _ in FIELDS]:
        raise DataError(f"{path} is not a labelled cloud of instseg: its fields are {', '.join(names) or 'none'}")
    if len(body) != counts[0] * DTYPE.itemsize:
        raise DataError(f"{path} is cut short ({len(body)} bytes for {counts[0]} vertices): write it again")
    vertices = np.frombuffer(body, DTYPE)
    return {
        "points_m": np.stack([vertices[c] for c in "xyz"], axis=1),
        "colors": np.stack([vertices[c] for c in ("red", "green", "blue")], axis=1),
        "class_index": nyu40_to_class(vertices["label"]),
        "instance": vertices["instance"].copy(),
        "confidence": vertices["confidence"].copy(),
    }
