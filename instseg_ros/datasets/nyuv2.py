"""NYU Depth V2 (Silberman et al. 2012): the 1449 labelled frames, each a cloud seen from one side."""

__all__ = ["NYUV2_K", "Nyuv2"]

from pathlib import Path
from typing import Any

import numpy as np

from instseg_ros.datasets.labelled_points import LabelledPoints, level_by_floor
from instseg_ros.datasets.nyu40 import NYU40_NAMES, nyu40_of_name
from instseg_ros.datasets.raw_files import check_file
from instseg_ros.errors import DataError, require
from instseg_ros.labels import nyu40_to_class

NYUV2_K = np.array([[518.85790117450188, 0.0, 325.58244941119034], [0.0, 519.46961112127485, 253.73616633400465], [0.0, 0.0, 1.0]])
"""[3, 3] intrinsics of the colour camera in the toolbox (camera_params.m), to which the depth is registered. The toolbox counts
pixels from 1: its centres are taken off by one here."""
MAX_DEPTH_M = 10.0
PROJECTION_MASK = (slice(44, 471), slice(40, 601))
"""Rows and columns of a 640 x 480 image that the depth camera saw too (the toolbox's get_projection_mask.m); outside of them depth
is invented by in-painting."""
CURE = "download nyu_depth_v2_labeled.mat (2.8 GB) again from the page of the data set"
_NEEDED = ("images", "depths", "labels", "instances", "names")


class Nyuv2:
    """The labelled frames of nyu_depth_v2_labeled.mat, read one at a time; `len()` of them.

    Args:
        path: the file, or the folder that it lies in.
        mapping: classMapping40.mat of Gupta et al., which gives the 40 classes of the 894 names; without it the names that are
            themselves one of the 40 are used, and all others have no label.

    Raises:
        DataError: a file is missing, damaged or of another layout.
        MissingDependencyError: h5py is not installed.
    """

    def __init__(self, path: Path | str, mapping: Path | str | None = None) -> None:
        path = Path(path)
        self.path = path / "nyu_depth_v2_labeled.mat" if path.is_dir() else path
        h5py = require("h5py", "read NYUv2, which is a MATLAB v7.3 (HDF5) file", "pip install h5py")
        check_file(self.path, CURE)
        try:
            self._file: Any = h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(f"{self.path} is no HDF5 file, or cut short ({error}): {CURE}") from error
        missing = [name for name in _NEEDED if name not in self._file]
        if missing:
            raise DataError(f"{self.path} has no {', '.join(missing)}: it is another file of the data set; {CURE}")
        # MATLAB counts dimensions from the fastest on, HDF5 from the slowest: images are [frame, colour, column, row]
        frames, channels, width, height = self._shape("images", 4)
        for name in ("depths", "labels", "instances"):
            if self._shape(name, 3) != (frames, width, height):
                raise DataError(f"{self.path}: {name} is {self._shape(name, 3)}, images {(frames, channels, width, height)}; {CURE}")
        if channels != 3 or not 0 < width * height <= 1 << 24:
            raise DataError(f"{self.path}: images are {(frames, channels, width, height)}, not [frames, 3, 640, 480]; {CURE}")
        self.frames = frames
        self.names = self._read_names()
        self._nyu40 = _read_mapping(Path(mapping), len(self.names)) if mapping else np.array([0, *map(nyu40_of_name, self.names)], np.int32)

    def __len__(self) -> int:
        return self.frames

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, index: int) -> LabelledPoints:
        """One frame, back-projected, z up, with the camera at the origin.

        It stands level where the frame shows labelled floor, and else as the camera was held.

        Raises:
            DataError: there is no such frame, or it cannot be read.
        """
        if not 0 <= index < self.frames:
            raise DataError(f"{self.path} has frames 0 to {self.frames - 1}, not {index}")
        try:
            image = np.asarray(self._file["images"][index], np.uint8).transpose(2, 1, 0)
            depth_m = np.asarray(self._file["depths"][index], np.float64).T
            raw = np.asarray(self._file["labels"][index], np.int64).T
            number = np.asarray(self._file["instances"][index], np.int64).T
        except OSError as error:
            raise DataError(f"frame {index} of {self.path} cannot be read ({error}): {CURE}") from error
        if raw.max(initial=0) >= len(self._nyu40):
            raise DataError(f"frame {index} of {self.path} has label {raw.max()} of {len(self.names)} names: {CURE}")
        inner = np.zeros(depth_m.shape, bool)
        inner[PROJECTION_MASK if inner.shape == (480, 640) else ...] = True
        v, u = np.nonzero(inner & np.isfinite(depth_m) & (depth_m > 0) & (depth_m < MAX_DEPTH_M))
        z = depth_m[v, u]
        # optical frame (x right, y down, z forward) to x right, y forward, z up
        points_m = np.stack([(u + 1 - NYUV2_K[0, 2]) * z / NYUV2_K[0, 0], z, -(v + 1 - NYUV2_K[1, 2]) * z / NYUV2_K[1, 1]], axis=1)
        raw, number = raw[v, u], number[v, u]
        nyu40 = self._nyu40[raw]
        R_level_camera = level_by_floor(points_m, nyu40 == NYU40_NAMES.index("floor"), np.array([0.0, 0.0, 1.0]))
        # an instance is a pair of label and number; without a label there is none
        pair = np.where((raw > 0) & (number > 0), raw * 256 + number, -1)
        pairs, place = np.unique(pair, return_inverse=True)
        instance = (place.reshape(-1) - int(len(pairs) > 0 and pairs[0] < 0)).astype(np.int32)
        return LabelledPoints(
            f"nyuv2_{index:04d}", points_m @ R_level_camera.T, image[v, u], nyu40_to_class(nyu40), instance, raw.astype(np.int32),
            {0: "unlabelled", **dict(enumerate(self.names, 1))}, None,
            {"dataset": "nyuv2", "frame": index, "rotation": R_level_camera.tolist()},
        )

    def _shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        shape = getattr(self._file[name], "shape", ())
        if len(shape) != dimensions:
            raise DataError(f"{self.path}: {name} has {len(shape)} dimensions, not {dimensions}; {CURE}")
        return tuple(shape)

    def _read_names(self) -> list[str]:
        """The names of the labels, from 1 on: a MATLAB cell array of references to strings of 16-bit characters."""
        try:
            references = np.asarray(self._file["names"]).reshape(-1)
            return ["".join(map(chr, np.asarray(self._file[r]).reshape(-1).tolist())) for r in references]
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"{self.path}: names cannot be read ({error}): {CURE}") from error


def _read_mapping(path: Path, names: int) -> np.ndarray:
    """NYU40 id [names + 1] of each label (0 = unlabelled) from classMapping40.mat."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    check_file(path, "classMapping40.mat comes with the code of Gupta et al., CVPR 2013; leave it out to match names")
    try:
        table = np.asarray(loadmat(path)["mapClass"]).reshape(-1).astype(np.int32)
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError, MatReadError) as error:
        raise DataError(f"{path} holds no mapClass ({type(error).__name__} {error}): name classMapping40.mat") from error
    if len(table) != names or table.min() < 0 or table.max() >= len(NYU40_NAMES):
        raise DataError(f"{path} maps {len(table)} labels to {table.min()}..{table.max()}; expected are {names} labels to 0..40")
    return np.concatenate([np.zeros(1, np.int32), table])
