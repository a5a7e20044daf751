"""TSDF fusion: posed depth images in, the surface voxels that changed out."""

__all__ = ["TsdfFusion", "surface_voxels"]

import numpy as np
import open3d as o3d

from instseg_ros.config import FusionConfig
from instseg_ros.errors import InputError
from instseg_ros.mapping.update import MapUpdate, coord_keys

BLOCK = 8
"""Voxels along the edge of a block."""
VOXELS = BLOCK**3
MAX_JUMP = 2.0
"""A surface is crossed between two neighbouring voxels only if their distances differ by less than this (voxels).

More is the silhouette of something in front of something else, where there is no surface."""
SLOPE_STEP = 3
"""Pixels (of an image about 160 wide) over which the slope of the surface is measured."""
LEAST_SLOPE = 0.2
"""Smallest factor from depth difference to distance: 78 degrees of incidence."""
BEHIND_WEIGHT = 0.1
"""Weight of what is more than a voxel behind the measured surface: enough to close the surface, too little to argue with
a view from the other side of something thin."""


class TsdfFusion:
    """A truncated signed distance field in Open3D's VoxelBlockGrid, and what has been published of its surface.

    The sample of voxel (i, j, k) lies at the voxel's centre, (i + 0.5, j + 0.5, k + 0.5) voxels. Open3D's own integration
    weighs all samples alike, which thickens everything that is seen from two sides; so the grid keeps the blocks, and
    the samples are updated here.
    """

    def __init__(self, config: FusionConfig | None = None) -> None:
        self.config = config or FusionConfig()
        z, y, x = np.meshgrid(*(np.arange(BLOCK),) * 3, indexing="ij")
        self._local = np.stack([x, y, z], -1).reshape(VOXELS, 3).astype(np.int32)  # Open3D's order: x runs fastest
        self.reset()

    def reset(self) -> None:
        """Forget the map; the next update is numbered 0 again."""
        core = o3d.core
        self._grid = o3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"), (core.float32,) * 3, tuple(core.SizeVector([n]) for n in (1, 1, 3)),
            self.config.voxel_size_m, BLOCK, self.config.block_count, core.Device("CPU:0"),
        )
        self._touched: list[np.ndarray] = []
        self._row_of: dict[int, int] = {}
        self._blocks = np.zeros((0, 3), np.int32)
        self._shown = np.zeros((0, VOXELS), bool)
        self._shown_color = np.zeros((0, VOXELS, 3), np.uint8)
        self._shown_weight = np.zeros((0, VOXELS), np.float32)
        self._sequence = 0

    def integrate(self, depth_m: np.ndarray, color: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray) -> None:
        """Fuse one image.

        Args:
            depth_m: [H, W] distance along the optical axis, m; 0, negative, NaN and infinite mean "no reading".
            color: [H, W, 3] uint8 RGB, registered to the depth.
            K: [3, 3] pinhole matrix; pixel centres are at whole numbers.
            T_world_camera: [4, 4] pose of the optical frame.

        Raises:
            InputError: shapes or types that do not fit, a matrix that is not a pinhole, a pose that is not rigid.
        """
        depth, K, T = _checked(depth_m, color, K, T_world_camera)
        near, far = self.config.min_depth_m, self.config.max_depth_m
        depth = np.where((depth >= near) & (depth <= far), depth, np.float32(0.0))  # comparisons with NaN are false
        if not depth.any():
            return
        near_surface, known = self._seen_blocks(depth, K, T), self._known_blocks(K, T, depth.shape)
        blocks = np.unique(np.concatenate([near_surface, known]), axis=0)
        if len(blocks) == 0:
            return
        grid = self._grid.hashmap()
        keys = o3d.core.Tensor.from_numpy(blocks)
        grid.activate(keys)
        rows, _ = grid.find(keys)
        self._update(blocks, rows.numpy().astype(np.int64), depth, color, K, T)
        self._touched.append(blocks)

    def _seen_blocks(self, depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
        """Blocks [B, 3] int32 within the truncation distance of what the image shows."""
        K_corner, T = K.copy(), T_world_camera.copy()
        K_corner[:2, 2] += 0.5  # Open3D counts pixels from their corners
        T[:3, 3] -= 0.5 * self.config.voxel_size_m  # and samples voxels at theirs
        tensor = o3d.core.Tensor.from_numpy
        found = self._grid.compute_unique_block_coordinates(
            o3d.t.geometry.Image(np.ascontiguousarray(depth)), tensor(K_corner), tensor(np.linalg.inv(T)),
            1.0, self.config.max_depth_m, self.config.truncation_voxels,
        )
        return found.numpy().astype(np.int32, copy=True)

    def _known_blocks(self, K: np.ndarray, T_world_camera: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Published blocks [B, 3] in view, so that what is seen to be empty now is cleared."""
        rows = np.flatnonzero(self._shown.any(1))
        edge = BLOCK * self.config.voxel_size_m
        centers = (self._blocks[rows] + 0.5) * edge - T_world_camera[:3, 3]
        x, y, z = (centers @ T_world_camera[:3, :3]).T
        reach = edge * np.sqrt(3) / 2  # of a block's corners from its centre
        deep = np.maximum(z, reach)
        slack = K[0, 0] * reach / deep * 1.5
        u, v = K[0, 0] * x / deep + K[0, 2], K[1, 1] * y / deep + K[1, 2]
        seen = (z > -reach) & (z < self.config.max_depth_m + reach)
        seen &= (u > -slack) & (u < shape[1] + slack) & (v > -slack) & (v < shape[0] + slack)
        return self._blocks[rows[seen]]

    def _update(
        self, blocks: np.ndarray, rows: np.ndarray, depth: np.ndarray, color: np.ndarray, K: np.ndarray, T: np.ndarray
    ) -> None:
        """Running weighted mean of distance and colour in all voxels of the blocks that the image sees."""
        size = self.config.voxel_size_m
        R_camera_world = T[:3, :3].T
        origins = (blocks * (BLOCK * size) - T[:3, 3]) @ R_camera_world.T
        points = (origins[:, None] + ((self._local + 0.5) * size) @ R_camera_world.T).astype(np.float32).reshape(-1, 3)
        z = points[:, 2]
        front = np.flatnonzero(z > 0.01)
        z = z[front]
        u = np.rint(points[front, 0] * np.float32(K[0, 0]) / z + np.float32(K[0, 2]))
        v = np.rint(points[front, 1] * np.float32(K[1, 1]) / z + np.float32(K[1, 2]))
        height, width = depth.shape
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixel = v[inside].astype(np.int64) * width + u[inside].astype(np.int64)
        measured = depth.ravel()[pixel]
        along = (measured - z[inside]) / np.float32(size)
        keep = (measured > 0) & (along > -self.config.truncation_voxels)
        distance = along * _distance_per_depth(depth, K).ravel()[pixel]
        distance = np.minimum(distance[keep], np.float32(self.config.truncation_voxels))
        voxel = front[inside][keep]
        target = rows[voxel // VOXELS] * VOXELS + voxel % VOXELS
        # full weight down to half a voxel behind the surface, falling within another half
        weight = BEHIND_WEIGHT + (1.0 - BEHIND_WEIGHT) * np.clip(2.0 * distance + 2.0, 0.0, 1.0)
        field, total, colors = self._samples()
        old = total[target]
        share = weight / (old + weight)
        field[target] += (distance - field[target]) * share
        colors[target] += (color.reshape(-1, 3)[pixel[keep]] - colors[target]) * share[:, None]
        total[target] = old + weight

    def _samples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance (voxels) [n], weight [n] and colour [n, 3] of all samples, as views into the grid's own memory."""
        grid = self._grid  # views are taken anew each time, since the grid moves when it has to grow
        return (
            grid.attribute("tsdf").numpy().reshape(-1), grid.attribute("weight").numpy().reshape(-1),
            grid.attribute("color").numpy().reshape(-1, 3),
        )

    def take_update(self, stamp_ns: int, frame_id: str, full: bool = False) -> MapUpdate:
        """What changed since the last update.

        A voxel is sent when it is new on the surface or its colour has moved by more than `color_step` since it was last
        sent, and deleted when it has left the surface. Applying the updates one after another gives exactly what
        `full=True` gives.

        Args:
            stamp_ns: stamp of the newest image behind the update.
            frame_id: the fixed frame of the poses.
            full: send the whole map.
        """
        rows, now, color, weight = self._renew()
        before = self._shown[rows]
        moved = np.abs(color.astype(np.int16) - self._shown_color[rows]).max(-1) > self.config.color_step
        send, gone = now & (~before | moved), before & ~now
        self._shown[rows] = now
        at = np.nonzero(send)
        self._shown_color[rows[at[0]], at[1]] = color[at]
        self._shown_weight[rows[at[0]], at[1]] = weight[at]
        row, local = (rows[at[0]], at[1]) if not full else np.nonzero(self._shown)
        left = np.nonzero(gone)
        deleted = self._blocks[rows[left[0]]] * BLOCK + self._local[left[1]]
        update = MapUpdate(
            self._blocks[row] * BLOCK + self._local[local], self._shown_color[row, local], self._shown_weight[row, local],
            self.config.voxel_size_m, frame_id, stamp_ns, self._sequence, full,
            np.zeros((0, 3), np.int32) if full else deleted,
        )
        self._sequence += 1
        return update

    def _renew(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The blocks whose surface may have changed, as rows of the published arrays [B], with their surface now
        [B, 512], colour [B, 512, 3] uint8 and weight [B, 512]."""
        touched = np.concatenate(self._touched) if self._touched else np.zeros((0, 3), np.int32)
        self._touched = []
        steps = np.concatenate([np.zeros((1, 3), np.int32), np.eye(3, dtype=np.int32), -np.eye(3, dtype=np.int32)])
        around = (np.unique(touched, axis=0)[:, None] + steps).reshape(-1, 3)  # their values reach one voxel into neighbours
        around = np.unique(around, axis=0)
        slots, there = self._find(around)
        around, slots = around[there], slots[there]
        field, total, colors = self._samples()
        distance, weight = self._with_border(around, slots, field, total)
        now = surface_voxels(distance, weight, self.config.surface_band, self.config.min_weight).reshape(-1, VOXELS)
        color = np.rint(colors.reshape(-1, VOXELS, 3)[slots]).astype(np.uint8)
        return self._rows(around), now, color, total.reshape(-1, VOXELS)[slots]

    def _find(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slots [B] of blocks in the grid, and which of them are there at all [B]."""
        if len(blocks) == 0:
            return np.zeros(0, np.int64), np.zeros(0, bool)
        slots, there = self._grid.hashmap().find(o3d.core.Tensor.from_numpy(np.ascontiguousarray(blocks)))
        return slots.numpy().astype(np.int64), there.numpy().astype(bool)

    def _with_border(
        self, blocks: np.ndarray, slots: np.ndarray, field: np.ndarray, total: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distance and weight [B, 10, 10, 10] (z, y, x) of blocks with the touching faces of their six neighbours."""
        values = [field.reshape(-1, BLOCK, BLOCK, BLOCK), total.reshape(-1, BLOCK, BLOCK, BLOCK)]
        padded = [np.zeros((len(blocks), BLOCK + 2, BLOCK + 2, BLOCK + 2), np.float32) for _ in values]
        inner = slice(1, -1)
        for out, value in zip(padded, values, strict=True):
            out[:, inner, inner, inner] = value[slots]
        for axis in range(3):
            for step in (-1, 1):
                neighbor = blocks.copy()
                neighbor[:, 2 - axis] += step  # array axes are z, y, x
                slot, there = self._find(neighbor)
                target: list[slice | int] = [inner] * 3
                source: list[slice | int] = [slice(None)] * 3
                target[axis], source[axis] = (0, BLOCK - 1) if step < 0 else (BLOCK + 1, 0)
                into, taken = (there, *target), (slot[there], *source)
                for out, value in zip(padded, values, strict=True):
                    out[into] = value[taken]
        return padded[0], padded[1]

    def _rows(self, blocks: np.ndarray) -> np.ndarray:
        """Rows of the published arrays of blocks [B]; new blocks get new rows. (The grid's slots move when it grows.)"""
        rows = self._row_of
        found = np.array([rows.setdefault(key, len(rows)) for key in coord_keys(blocks).tolist()], np.int64)
        if len(rows) > len(self._shown):
            more = max(len(rows), 2 * len(self._shown)) - len(self._shown)
            self._blocks = np.concatenate([self._blocks, np.zeros((more, 3), np.int32)])
            self._shown = np.concatenate([self._shown, np.zeros((more, VOXELS), bool)])
            self._shown_color = np.concatenate([self._shown_color, np.zeros((more, VOXELS, 3), np.uint8)])
            self._shown_weight = np.concatenate([self._shown_weight, np.zeros((more, VOXELS), np.float32)])
        self._blocks[found] = blocks
        return found


def surface_voxels(distance: np.ndarray, weight: np.ndarray, band: float, min_weight: float) -> np.ndarray:
    """Voxels that make a closed surface one voxel thick.

    Wherever the sign of the distance changes between two of the six-neighbours, the one nearer to the surface is taken:
    the edges cut within one 2x2x2 cell have their ends in that cell, so the result is closed under 26-connectivity and
    never double. Sheets thinner than a voxel have no inside; of them, voxels within the band are taken.

    Args:
        distance: [B, n+2, n+2, n+2] signed distance, positive in front of the surface, voxels, with a border of one voxel.
        weight: the same shape; 0 = never seen.
        band: distance up to which a voxel without a change of sign beside it is surface, voxels.
        min_weight: voxels with less are not surface, though their sign counts.

    Returns:
        [B, n, n, n] bool.
    """
    seen = weight > 0
    solid = weight >= min_weight
    size = np.abs(distance)
    rank = np.where(solid, size, np.inf)  # the end of an edge with the smaller rank is the surface
    inner = (slice(None),) + (slice(1, -1),) * 3
    surface = np.zeros(distance[inner].shape, bool)
    crossed = np.zeros(distance[inner].shape, bool)
    for axis in (1, 2, 3):
        low = tuple(slice(0, -1) if a == axis else inner[a] for a in range(4))
        high = tuple(slice(1, None) if a == axis else inner[a] for a in range(4))
        cut = (
            ((distance[low] >= 0) != (distance[high] >= 0)) & seen[low] & seen[high]
            & (size[low] + size[high] < MAX_JUMP)
        )
        low_wins = rank[low] <= rank[high]
        at_low = tuple(slice(1, None) if a == axis else slice(None) for a in range(4))
        at_high = tuple(slice(0, -1) if a == axis else slice(None) for a in range(4))
        surface |= (cut & low_wins)[at_low] | (cut & ~low_wins)[at_high]
        crossed |= cut[at_low] | cut[at_high]
    return (surface | (~crossed & (size[inner] < band))) & solid[inner]


def _distance_per_depth(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Factor [H, W] from a difference in depth to the distance from the surface that a pixel shows.

    On a plane n . P = 1 the inverse depth is linear in the image, 1/z = n . (x, y, 1), so n follows from its gradient, and
    a point at depth z' on the pixel's ray lies (z - z') / (z |n|) in front of the plane. Without the factor, surfaces seen at a
    slant would come out thin and full of holes.
    """
    stride = max(1, depth.shape[1] // 160)
    small = depth[::stride, ::stride]
    valid = small > 0
    inverse = np.where(valid, 1.0 / np.where(valid, small, 1.0), np.nan).astype(np.float32)
    slopes = []
    for axis, focal in ((1, K[0, 0]), (0, K[1, 1])):
        step = min(SLOPE_STEP, inverse.shape[axis] - 1)
        padding = [(step, step) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(inverse, padding, constant_values=np.nan)
        length = inverse.shape[axis]
        before, after = (np.take(padded, np.arange(length) + offset, axis) for offset in (0, 2 * step))
        one, other = inverse - before, after - inverse
        # beside an edge only one side lies on the pixel's own surface: the flatter one
        least = np.where(np.abs(one) <= np.abs(other), one, np.where(np.isnan(other), one, other))
        slopes.append(np.nan_to_num(least) * np.float32(focal / (max(step, 1) * stride)))
    v, u = np.ogrid[: depth.shape[0] : stride, : depth.shape[1] : stride]
    rest = inverse - slopes[0] * ((u - K[0, 2]) / K[0, 0]) - slopes[1] * ((v - K[1, 2]) / K[1, 1])
    normal = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + rest**2)
    factor = np.clip(inverse / normal, LEAST_SLOPE, 2.0)
    factor = np.where(valid, factor, 1.0).astype(np.float32)
    if stride > 1:
        factor = factor.repeat(stride, 0).repeat(stride, 1)[: depth.shape[0], : depth.shape[1]]
    return factor


def _checked(depth_m: np.ndarray, color: np.ndarray, K: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth as float32, K and pose as float64.

    Raises:
        InputError: see `TsdfFusion.integrate`.
    """
    depth, color = np.asarray(depth_m), np.asarray(color)
    if depth.ndim != 2 or depth.size == 0 or depth.dtype.kind not in "fiu":
        raise InputError(f"depth has shape {depth.shape} and type {depth.dtype}: it must be [H, W] numbers, in metres")
    if color.shape != (*depth.shape, 3) or color.dtype != np.uint8:
        raise InputError(
            f"color has shape {color.shape} and type {color.dtype} for depth {depth.shape}: register it to the depth, "
            "[H, W, 3] uint8 RGB of the same size"
        )
    K, T = np.asarray(K, np.float64), np.asarray(T, np.float64)
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError("K must be a finite 3x3 pinhole matrix with positive focal lengths: check camera_info")
    if T.shape != (4, 4) or not np.isfinite(T).all() or not np.allclose(T[3], [0, 0, 0, 1], atol=1e-6):
        raise InputError("T_world_camera must be a finite 4x4 matrix whose last row is 0 0 0 1")
    if not np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-3) or np.linalg.det(T[:3, :3]) < 0:
        raise InputError(
            "T_world_camera is not rigid: its rotation must be orthonormal without a mirror; normalise the quaternion"
        )
    return depth.astype(np.float32), K, T
