"""The 40 classes of NYU Depth V2 (Gupta et al. 2013), and which of them the names that data sets use mean."""

__all__ = ["NYU40_NAMES", "class_of_name", "nyu40_of_name", "read_label_map"]

from pathlib import Path

from instseg_ros.datasets.raw_files import read_tsv
from instseg_ros.errors import DataError
from instseg_ros.labels import IGNORE, NYU40_IDS

NYU40_NAMES = (
    "unannotated", "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet",
    "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)
"""Name of each id, 0 to 40."""

_SYNONYMS = {
    "fridge": 24, "refridgerator": 24, "tv": 25, "nightstand": 32, "bookcase": 10, "book shelf": 10, "couch": 6, "bath tub": 36,
    "white board": 30, "shelf": 15, "book": 23, "blind": 13, "floormat": 20, "mat": 20, "cloth": 21, "desktop": 14,
    "prop": 40, "other prop": 40, "otherprops": 40, "structure": 38, "other structure": 38, "furniture": 39,
    "other furniture": 39, "office chair": 5, "armchair": 5, "coffee table": 7, "dining table": 7, "desks": 14, "unknown": 0, "": 0,
}
"""Other names of classes, as SceneNN and NYUv2 write them."""
_TSV_CURE = "it comes with the ScanNet v2 release (scannetv2-labels.combined.tsv); name it with --labels"


def nyu40_of_name(name: str) -> int:
    """NYU40 id of a class name; 0 = unknown. Case, and blanks, `_` or `-` between words do not count."""
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    joined = plain.replace(" ", "")
    for candidate in (plain, joined):
        if candidate in NYU40_NAMES:
            return NYU40_NAMES.index(candidate)
        if candidate in _SYNONYMS:
            return _SYNONYMS[candidate]
    return 0


def class_of_name(name: str) -> int:
    """Class index 0..19 of a name, `IGNORE` where it means none of the 20."""
    number = nyu40_of_name(name)
    return NYU40_IDS.index(number) if number in NYU40_IDS else IGNORE


def read_label_map(path: Path | str) -> dict[str, int]:
    """ScanNet's table of raw categories: NYU40 id of each.

    Raises:
        DataError: missing, damaged, or a table of something else.
    """
    labels = {}
    for raw, number in read_tsv(Path(path), ("raw_category", "nyu40id"), _TSV_CURE):
        try:
            labels[raw] = int(number)
        except ValueError as error:
            raise DataError(f"{path}: the nyu40id of {raw!r} is {number!r}, not a number: {_TSV_CURE}") from error
        if not 0 <= labels[raw] < len(NYU40_NAMES):
            raise DataError(f"{path}: the nyu40id of {raw!r} is {number}, beyond 40: {_TSV_CURE}")
    return labels
