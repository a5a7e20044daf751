"""ScanNet v2 (Dai et al. 2017): annotated meshes of scans, and its lists of scans."""

__all__ = ["find_scannet", "read_scannet", "read_split"]

from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.datasets.labelled_points import LabelledPoints
from instseg_ros.datasets.nyu40 import NYU40_NAMES
from instseg_ros.datasets.raw_files import check_file, read_json, read_ply
from instseg_ros.errors import DataError
from instseg_ros.labels import nyu40_to_class

CURE = "download the scan again with ScanNet's download script (the types _vh_clean_2.ply, .aggregation.json, *.segs.json, .txt)"
_GREY = 160


def find_scannet(source: Path) -> list[Path]:
    """Folders `sceneXXXX_YY` of scans in a folder, or in its `scans` and `scans_test`.

    Raises:
        DataError: there is none.
    """
    if source.name.startswith("scene") and source.is_dir():
        return [source]
    found = [p for folder in (source, source / "scans", source / "scans_test") if folder.is_dir() for p in folder.glob("scene*_*") if p.is_dir()]
    if not found:
        raise DataError(f"{source} holds no folders sceneXXXX_YY: name the folder with the scans, or the one with scans/ in it")
    return sorted(found, key=lambda p: p.name)


def read_split(path: Path) -> list[str]:
    """Names of scans in a list such as scannetv2_train.txt: one a line.

    Raises:
        DataError: missing, or a line is no name of a scan.
    """
    lines = check_file(path, "the lists are in Tasks/Benchmark of the repository ScanNet/ScanNet").read_text(errors="replace").split()
    wrong = [line for line in lines if not line.startswith("scene")]
    if wrong:
        raise DataError(f"{path} holds {wrong[0][:40]!r}, not the name of a scan: one sceneXXXX_YY a line is expected")
    return lines


def read_scannet(folder: Path | str, label_map: dict[str, int] | None = None, align: bool = True) -> LabelledPoints:
    """One scan with its annotation, by the rules of ScanNet's own export script.

    Class and instance of a vertex are those of the annotated groups that its segment is in; of several, the last counts. A scan
    without annotation (of the test set) is read without labels.

    Args:
        folder: `sceneXXXX_YY`.
        label_map: NYU40 id of each raw category (`nyu40.read_label_map`); None = classes from `_vh_clean_2.labels.ply`.
        align: turn the scan by the axisAlignment of its .txt, where it has one.

    Raises:
        DataError: a file is missing, damaged, or does not fit the mesh.
    """
    folder = Path(folder)
    name = folder.name
    mesh = read_ply(folder / f"{name}_vh_clean_2.ply", CURE)
    count = len(mesh.vertices)
    nyu40, instance = np.zeros(count, np.int32), np.full(count, -1, np.int32)
    annotated = (folder / f"{name}.aggregation.json").is_file()
    if annotated:
        groups = _read_groups(folder / f"{name}.aggregation.json")
        segments = _read_segments(folder / f"{name}_vh_clean_2.0.010000.segs.json", count)
        instance, by_group = _apply_groups(segments, groups)
        nyu40 = by_group(label_map, folder / f"{name}.aggregation.json") if label_map is not None else _labels_ply(folder, count)
    points_m = mesh.points_m()
    T_aligned_scan = _axis_alignment(folder / f"{name}.txt") if align else np.eye(4)
    points_m = points_m @ T_aligned_scan[:3, :3].T + T_aligned_scan[:3, 3]
    colors = mesh.colors()
    return LabelledPoints(
        name, points_m, np.full((count, 3), _GREY, np.uint8) if colors is None else colors, nyu40_to_class(nyu40), instance, nyu40,
        dict(enumerate(NYU40_NAMES)), mesh.faces,
        {"dataset": "scannet", "annotated": annotated, "axis_alignment": T_aligned_scan.tolist()},
    )


def _read_groups(path: Path) -> list[tuple[int, str, np.ndarray]]:
    """Object id, raw category and segments of each annotated group."""
    data = read_json(path, CURE)
    try:
        return [(int(g["objectId"]), str(g["label"]), np.array(g["segments"], np.int64).reshape(-1)) for g in data["segGroups"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {type(error).__name__} {error} in segGroups (objectId, label, segments are needed): {CURE}") from error


def _read_segments(path: Path, count: int) -> np.ndarray:
    """Segment [V] of each vertex."""
    try:
        segments = np.array(read_json(path, CURE)["segIndices"], np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {type(error).__name__} {error}; a list segIndices of numbers is needed: {CURE}") from error
    if segments.shape != (count,):
        raise DataError(f"{path} has {segments.size} entries for {count} vertices: it belongs to another mesh. {CURE}")
    return segments


def _apply_groups(segments: np.ndarray, groups: list[tuple[int, str, np.ndarray]]) -> tuple[np.ndarray, Any]:
    """Instance [V] of each vertex (objectId, -1 = none), and a function that gives its NYU40 id [V] by a label map."""
    distinct, vertex_segment = np.unique(segments, return_inverse=True)

    def spread(values: list[tuple[int, np.ndarray]], nothing: int) -> np.ndarray:
        """The value of the last entry that names a segment, on the vertices of that segment."""
        of_segment = np.full(len(distinct), nothing, np.int32)
        for value, members in values:
            place = np.minimum(np.searchsorted(distinct, members), max(len(distinct) - 1, 0))
            of_segment[place[distinct[place] == members]] = value
        return of_segment[vertex_segment.reshape(-1)]

    def nyu40(label_map: dict[str, int], path: Path) -> np.ndarray:
        by_label: dict[str, list[np.ndarray]] = {}
        for _, label, members in groups:  # a category counts where it is first named, as in ScanNet's script
            by_label.setdefault(label, []).append(members)
        unknown = sorted(set(by_label) - set(label_map))
        if unknown:
            raise DataError(f"{path} names {unknown[0]!r}, which the label table lacks: use scannetv2-labels.combined.tsv of the v2 release")
        return spread([(label_map[label], np.concatenate(parts)) for label, parts in by_label.items()], 0)

    return spread([(number, members) for number, _, members in sorted(groups, key=lambda g: g[0])], -1), nyu40


def _labels_ply(folder: Path, count: int) -> np.ndarray:
    """NYU40 id [V] of each vertex from the mesh that shows the labels."""
    path = folder / f"{folder.name}_vh_clean_2.labels.ply"
    labels = read_ply(path, f"name the table of labels with --labels, or {CURE}", ("label",)).vertices["label"].astype(np.int32)
    if len(labels) != count:
        raise DataError(f"{path} has {len(labels)} vertices, the mesh {count}: they do not belong together. {CURE}")
    return labels


def _axis_alignment(path: Path) -> np.ndarray:
    """The [4, 4] axisAlignment in the text file of a scan; the identity where there is none."""
    if not path.is_file():
        return np.eye(4)
    for line in check_file(path, CURE).read_text(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                return np.array(value.split(), np.float64).reshape(4, 4)
            except ValueError as error:
                raise DataError(f"{path}: axisAlignment must hold 16 numbers ({error}): {CURE}") from error
    return np.eye(4)
