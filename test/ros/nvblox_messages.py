"""Messages with the fields that nvblox publishes, and makers of them."""

from dataclasses import dataclass, field

import numpy as np

from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.ros.conversions import header

VOXEL_M = 0.05
SIDE = 8


@dataclass
class Triple:
    x: float
    y: float
    z: float


@dataclass
class Rgba:
    r: float
    g: float
    b: float
    a: float = 1.0


@dataclass
class VoxelBlock:
    centers: list = field(default_factory=list)
    colors: list = field(default_factory=list)


@dataclass
class VoxelBlockLayer:
    """nvblox_ros 3.2 and later."""

    header: object
    block_size_m: float
    voxel_size_m: float
    block_indices: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    clear: bool = False
    layer_type: int = 1


@dataclass
class MeshBlock:
    vertices: list = field(default_factory=list)
    normals: list = field(default_factory=list)
    colors: list = field(default_factory=list)
    triangles: list = field(default_factory=list)


@dataclass
class Mesh:
    """nvblox_ros 3.2 and later."""

    header: object
    block_size_m: float
    block_indices: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    clear: bool = False


@dataclass
class OldMesh:
    """nvblox_ros 3.1 and before."""

    header: object
    block_size: float
    block_indices: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    clear: bool = False


def layer(named: dict, size_m=VOXEL_M, clear=False, stamp_s=1, frame="map", cls=VoxelBlockLayer) -> VoxelBlockLayer:
    """A message of blocks {(i, j, k): (voxel indices inside the block [n, 3], colours [n, 3] 0..255)}."""
    size_m = float(np.float32(size_m))
    blocks = []
    for index, (cells, colors) in named.items():
        centers = (np.array(index) * SIDE + np.asarray(cells).reshape(-1, 3) + 0.5) * size_m
        blocks.append(VoxelBlock(
            [Triple(*map(float, np.float32(c))) for c in centers], [Rgba(*(float(v) / 255 for v in c)) for c in np.asarray(colors).reshape(-1, 3)],
        ))
    indices = [Triple(*index) for index in named]
    return cls(header(int(stamp_s * 1e9), frame), float(np.float32(SIDE * size_m)), size_m, indices, blocks, clear)


def some(count: int, rng, value=None):
    cells = np.unique(rng.integers(0, SIDE, (count, 3)), axis=0)
    return cells, rng.integers(0, 256, (len(cells), 3)) if value is None else np.full((len(cells), 3), value)


def content(voxels: VoxelMap) -> dict:
    live = voxels.live_slots()
    return {tuple(c): tuple(v) for c, v in zip(voxels.coords[live].tolist(), voxels.colors[live].tolist(), strict=True)}


SQUARE = (np.array([[0.02, 0.02, 0.21], [0.38, 0.02, 0.21], [0.38, 0.38, 0.21], [0.02, 0.38, 0.21]]), [[0, 1, 2], [0, 2, 3]])


def mesh(named: dict, clear=False, stamp_s=1, frame="map", cls=Mesh, block_m=0.4, color=(1.0, 0.5, 0.0)):
    """A message of blocks {(i, j, k): (vertices [n, 3] m, triangles)}."""
    blocks = [
        MeshBlock([Triple(*map(float, v)) for v in vertices], [], [Rgba(*color) for _ in vertices], [int(i) for t in triangles for i in t])
        for vertices, triangles in named.values()
    ]
    return cls(header(int(stamp_s * 1e9), frame), block_m, [Triple(*index) for index in named], blocks, clear)


def brute_force(named: dict, size_m: float) -> dict:
    """The voxels of all blocks, one point at a time."""
    out: dict = {}
    for index, (cells, colors) in named.items():
        for cell, color in zip(cells.tolist(), colors.tolist(), strict=True):
            at = tuple(int(np.floor(float(np.float32((index[i] * SIDE + cell[i] + 0.5) * float(np.float32(size_m)))) / VOXEL_M)) for i in range(3))
            out.setdefault(at, []).append(color)
    return {at: np.mean(colors, axis=0) for at, colors in out.items()}


def change(path: str, value):
    """Set a nested attribute or element, as in `blocks.0.centers.1.x`."""

    def apply(msg):
        *parts, last = path.split(".")
        for part in parts:
            msg = msg[int(part)] if part.isdigit() else getattr(msg, part)
        setattr(msg, last, value(getattr(msg, last)) if callable(value) else value)

    return apply


BAD = {
    # name: (damage to a layer of two blocks, words of the error)
    "fewer blocks than indices": (lambda m: m.blocks.pop(), "2 block_indices and 1 blocks"),
    "no frame": (change("header.frame_id", ""), "frame_id is empty"),
    "no voxel size": (change("voxel_size_m", 0.0), "voxel_size_m is 0"),
    "NaN block size": (change("block_size_m", float("nan")), "block_size_m is nan"),
    "sizes that do not fit": (change("block_size_m", 0.42), "whole number"),
    "coarse voxels": (lambda m: (change("voxel_size_m", 0.1)(m), change("block_size_m", 0.8)(m)), "coarse voxels would leave holes"),
    "NaN centre": (change("blocks.0.centers.0.x", float("nan")), "1 points are not finite"),
    "infinite colour": (change("blocks.1.colors.0.g", float("inf")), "colors are not finite"),
    "fewer colours": (lambda m: m.blocks[1].colors.pop(), "block 1 has"),
    "centre in another block": (change("blocks.0.centers.2.z", 7.0), "outside of their blocks"),
    "more voxels than fit": (change("blocks.0.centers", lambda c: c * 100), "only 512 fit"),
    "block twice": (lambda m: m.block_indices.__setitem__(1, m.block_indices[0]), "named more than once"),
    "absurd block": (change("block_indices.0.x", 2**31 - 1), "block indices reach beyond"),
}
