"""What a Kinect-like sensor does to perfect depth, and a localisation to perfect poses."""

__all__ = ["add_kinect_noise", "noisy_poses"]

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from instseg_ros.datasets.frames import RgbdFrame

NEAR_M, FAR_M = 0.4, 4.5
DISPARITY_M = 8 * 43.5
"""Depth times disparity of a Kinect: 580 px focal length x 7.5 cm baseline, disparity counted in eighths of a pixel."""
JITTER_PX = 0.4
"""Standard deviation of the lateral jitter, pixels of a 160 x 120 image."""
EDGE_STEP = 0.04
"""Neighbouring depths that differ by more than this share of the depth make an edge."""
GRAZING = 0.26
"""Cosine of the incidence below which readings get lost."""


def add_kinect_noise(frame: RgbdFrame, rng: np.random.Generator) -> RgbdFrame:
    """A frame whose depth has a structured-light sensor's errors; colour and labels stay.

    Axial noise sigma = 0.0012 + 0.0019 (z - 0.4)^2 m (Nguyen, Izadi, Lovell: Modeling Kinect Sensor Noise for Improved 3D
    Reconstruction and Tracking, 2012, eq. 2), lateral jitter of edges, disparity in whole counts, no readings out of range, at
    grazing incidence and beside many depth edges.
    """
    depth = frame.depth_m
    height, width = depth.shape
    v, u = np.mgrid[:height, :width]
    jitter = np.rint(rng.normal(0.0, JITTER_PX, (2, height, width))).astype(np.int64)
    noisy = depth[np.clip(v + jitter[0], 0, height - 1), np.clip(u + jitter[1], 0, width - 1)].astype(np.float64)
    noisy = np.where(noisy > 0, noisy + rng.normal(size=depth.shape) * (0.0012 + 0.0019 * (noisy - 0.4) ** 2), 0.0)
    counts = np.rint(DISPARITY_M / np.maximum(noisy, 0.1))
    noisy = np.where(noisy > 0, DISPARITY_M / np.maximum(counts, 1.0), 0.0)
    cosine, edge = _surface(depth, frame.K)
    lost = rng.random(depth.shape) < np.clip((GRAZING - cosine) / GRAZING, 0.0, 1.0) * 0.9
    lost |= edge & (rng.random(depth.shape) < 0.5)
    lost |= (noisy < NEAR_M) | (noisy > FAR_M)
    return replace(frame, depth_m=np.where(lost, 0.0, noisy).astype(np.float32))


def _surface(depth: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of the incidence [H, W] (1 where not known), and whether a pixel lies at a depth edge [H, W]."""
    height, width = depth.shape
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(depth.shape)], -1)
    points = rays * depth[..., None]
    step = EDGE_STEP * depth
    across, down = np.diff(depth, axis=1), np.diff(depth, axis=0)
    edge = np.zeros(depth.shape, bool)
    edge[:, :-1] |= np.abs(across) > step[:, :-1]
    edge[:, 1:] |= np.abs(across) > step[:, 1:]
    edge[:-1] |= np.abs(down) > step[:-1]
    edge[1:] |= np.abs(down) > step[1:]
    normal = np.cross(np.diff(points, axis=1)[:-1], np.diff(points, axis=0)[:, :-1])
    length = np.linalg.norm(normal, axis=-1) * np.linalg.norm(points[:-1, :-1], axis=-1)
    cosine = np.ones(depth.shape)
    cosine[:-1, :-1] = np.abs((normal * points[:-1, :-1]).sum(-1)) / np.maximum(length, 1e-12)
    cosine[(depth <= 0) | edge] = 1.0
    return cosine, edge


def noisy_poses(
    T_world_camera: np.ndarray, rng: np.random.Generator, sigma_m: float = 0.005, sigma_deg: float = 0.3
) -> np.ndarray:
    """Poses [T, 4, 4] as a localisation would report them: off by an error that drifts slowly and stays bounded.

    Args:
        T_world_camera: [T, 4, 4] true poses.
        rng: where the noise comes from.
        sigma_m, sigma_deg: standard deviation of the position along each axis and of the rotation about each axis.
    """
    count, memory = len(T_world_camera), 0.95  # errors are forgotten over about 20 frames
    drift = np.empty((count, 6))
    state = rng.normal(size=6)
    for t in range(count):
        drift[t] = state
        state = memory * state + np.sqrt(1 - memory**2) * rng.normal(size=6)
    result = np.array(T_world_camera, np.float64)
    result[:, :3, 3] += sigma_m * drift[:, :3]
    result[:, :3, :3] = result[:, :3, :3] @ Rotation.from_rotvec(np.radians(sigma_deg) * drift[:, 3:]).as_matrix()
    return result
