"""The label sets: ScanNet's 20 class names, their NYU40 ids, and colours for classes and instances."""

__all__ = [
    "BACKGROUND", "CLASS_COLORS", "CLASS_NAMES", "IGNORE", "NUM_CLASSES", "NYU40_IDS", "UNLABELLED_ID",
    "class_index", "class_to_nyu40", "instance_color", "nyu40_to_class",
]

import numpy as np

CLASS_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub",
    "otherfurniture",
)
"""ScanNet benchmark classes; the index into this tuple is the class index used inside the package."""

NYU40_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""NYU40 id of each class, as published in messages and files."""

NUM_CLASSES = len(CLASS_NAMES)
IGNORE = 255
"""Class index of a voxel without a (known) class; losses and metrics leave it out."""
UNLABELLED_ID = 65535
"""What the `label` field of a cloud holds where there is no class."""
BACKGROUND = (0, 1)
"""Class indices that are never instances: wall and floor (a ceiling counts as wall)."""

CLASS_COLORS = np.array(
    [
        (174, 199, 232), (152, 223, 138), (31, 119, 180), (255, 187, 120), (188, 189, 34), (140, 86, 75),
        (255, 152, 150), (214, 39, 40), (197, 176, 213), (148, 103, 189), (196, 156, 148), (23, 190, 207),
        (247, 182, 210), (219, 219, 141), (255, 127, 14), (158, 218, 229), (44, 160, 44), (112, 128, 144),
        (227, 119, 194), (82, 84, 163),
    ],
    dtype=np.uint8,
)
"""RGB of each class [20, 3], ScanNet's own palette."""


def class_index(name: str) -> int:
    """Index of a class name; unknown names are `IGNORE`."""
    return CLASS_NAMES.index(name) if name in CLASS_NAMES else IGNORE


def class_to_nyu40(classes: np.ndarray) -> np.ndarray:
    """Class indices [N] (any integer type, `IGNORE` allowed) to published label ids [N] uint16."""
    table = np.full(256, UNLABELLED_ID, np.uint16)
    table[:NUM_CLASSES] = NYU40_IDS
    return table[np.asarray(classes, np.uint8)]


def nyu40_to_class(labels: np.ndarray) -> np.ndarray:
    """NYU40 ids [N] to class indices [N] uint8; ids outside the benchmark become `IGNORE`."""
    table = np.full(65536, IGNORE, np.uint8)
    table[list(NYU40_IDS)] = np.arange(NUM_CLASSES)
    return table[np.asarray(labels).astype(np.uint16)]


def instance_color(ids: np.ndarray) -> np.ndarray:
    """A lasting RGB colour [N, 3] uint8 for instance ids [N], hashed so that neighbours differ; id 0 is grey."""
    ids = np.atleast_1d(np.asarray(ids, np.uint64))
    hue = (ids * np.uint64(2654435769) % np.uint64(2**32)).astype(np.float64) / 2**32
    level = (ids * np.uint64(40503) % np.uint64(7)).astype(np.float64) / 6.0
    saturation, value = 0.55 + 0.4 * level, 0.7 + 0.3 * level
    sector = (hue[:, None] * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    mix = np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    rgb = value[:, None] * (1.0 - saturation[:, None] * mix)
    colors = (rgb * 255.0).astype(np.uint8)
    colors[ids == 0] = 128
    return colors
