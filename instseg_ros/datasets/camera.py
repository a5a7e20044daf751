"""The virtual camera: depth, colour and labels of a scene mesh by ray casting."""

__all__ = ["DEFAULT_CAMERA", "PinholeCamera", "SceneRenderer"]

from dataclasses import dataclass

import numpy as np
import open3d as o3d

from instseg_ros.datasets.frames import RgbdFrame
from instseg_ros.datasets.scene_mesh import SceneMesh

AMBIENT = 0.55
"""Share of the light that comes from everywhere; the rest is Lambert shading by lamps at the ceiling."""


@dataclass(frozen=True)
class PinholeCamera:
    """Size and focal length of a camera whose axis goes through the middle of its image."""

    width: int = 160
    height: int = 120
    focal_px: float = 140.0

    @property
    def K(self) -> np.ndarray:
        """[3, 3]; pixel centres are at whole numbers."""
        cx, cy = (self.width - 1) / 2, (self.height - 1) / 2
        return np.array([[self.focal_px, 0.0, cx], [0.0, self.focal_px, cy], [0.0, 0.0, 1.0]])

    def rays(self) -> np.ndarray:
        """Directions [H, W, 3] in the optical frame, of length 1 along the axis, so that a ray's parameter is the depth."""
        v, u = np.mgrid[: self.height, : self.width]
        K = self.K
        return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)


DEFAULT_CAMERA = PinholeCamera()
"""A Kinect's field of view (59 degrees) at a quarter of its resolution: finer than 5 cm voxels up to 4 m."""


class SceneRenderer:
    """A scene ready to be looked at: its ray-casting structure, colours and lamps."""

    def __init__(self, mesh: SceneMesh, seed: int = 0, camera: PinholeCamera = DEFAULT_CAMERA) -> None:
        """
        Args:
            mesh: what there is to see.
            seed: of the lamps' places, the exposure of each frame and the grain of the images.
            camera: its image size and focal length.
        """
        self.mesh, self.camera = mesh, camera
        self._rng = np.random.default_rng([seed, 1])
        self._scene = o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            o3d.core.Tensor.from_numpy(mesh.vertices), o3d.core.Tensor.from_numpy(mesh.faces.astype(np.uint32)),
        )
        self._rays = camera.rays().reshape(-1, 3)
        low, high = mesh.bounds_m()
        margin = 0.2 * (high - low)[:2]
        self._lamps = self._rng.uniform([*(low[:2] + margin), high[2] - 0.4], [*(high[:2] - margin), high[2]], (2, 3))
        self._tint = self._rng.uniform(0.93, 1.0, 3)

    def render(self, T_world_camera: np.ndarray, stamp_ns: int = 0) -> RgbdFrame:
        """What an ideal camera sees from a pose [4, 4]; the depth is exact, the colour has exposure and grain."""
        height, width = self.camera.height, self.camera.width
        rays = np.empty((len(self._rays), 6), np.float32)
        rays[:, :3] = T_world_camera[:3, 3]
        rays[:, 3:] = self._rays @ T_world_camera[:3, :3].T
        hits = self._scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
        depth = hits["t_hit"].numpy()
        seen = np.isfinite(depth)
        face = np.where(seen, hits["primitive_ids"].numpy().astype(np.int64), 0)
        points = rays[:, :3] + rays[:, 3:] * np.where(seen, depth, 0)[:, None]
        color = self._shade(face, points, hits["primitive_normals"].numpy())
        color[~seen] = 0
        return RgbdFrame(
            stamp_ns, np.where(seen, depth, 0).astype(np.float32).reshape(height, width), color.reshape(height, width, 3),
            self.camera.K, np.array(T_world_camera, np.float64),
            np.where(seen, self.mesh.face_instance[face], -1).astype(np.int32).reshape(height, width),
        )

    def _shade(self, face: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Colour [N, 3] uint8 of surface points; faces are lit from both sides alike."""
        light = np.zeros(len(face), np.float32)
        for lamp in self._lamps:
            to = lamp.astype(np.float32) - points
            light += np.abs(np.einsum("nk,nk->n", to, normals)) / np.maximum(np.linalg.norm(to, axis=1), 0.05)
        gain = (AMBIENT + (1 - AMBIENT) * light / len(self._lamps)) * self._rng.uniform(0.9, 1.2)
        color = self.mesh.face_colors[face] * (gain[:, None] * self._tint.astype(np.float32))
        color += self._rng.normal(0.0, 2.5, (len(face), 1)).astype(np.float32)
        return np.clip(color, 0, 255).astype(np.uint8)

    def visible(self, eye: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Which of the points [N, 3] on surfaces can be seen from a place [3]: [N] bool."""
        to = points - eye
        # stop short of the point, so that its own surface does not hide it
        rays = np.concatenate([np.broadcast_to(eye, points.shape), to], axis=1).astype(np.float32)
        return ~self._scene.test_occlusions(o3d.core.Tensor.from_numpy(rays), 0.0, 0.985, nthreads=1).numpy()
