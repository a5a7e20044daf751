"""RgbdFrame: one posed depth and colour image."""

__all__ = ["RgbdFrame"]

from dataclasses import dataclass

import numpy as np


@dataclass
class RgbdFrame:
    """What a depth camera saw at one moment, and from where. Depth and colour are registered: one K serves both."""

    stamp_ns: int
    depth_m: np.ndarray
    """[H, W] float32: distance along the optical axis; 0 = no reading."""
    color: np.ndarray
    """[H, W, 3] uint8 RGB."""
    K: np.ndarray
    """[3, 3] float64 pinhole matrix; the centre of the pixel in column u and row v is at (u, v)."""
    T_world_camera: np.ndarray
    """[4, 4] float64: optical frame (x right, y down, z forward) to the world (z up)."""
    instance: np.ndarray | None = None
    """[H, W] int32: index of the instance that each pixel shows, -1 = none; None where it is not known."""
