"""How well the network knows the size of an instance: OccuSeg's relative error of the occupancy (eq. 11, Fig. 4)."""

__all__ = ["OCCUPANCY_ERROR", "occupancy_curve", "occupancy_errors", "occupancy_within", "save_occupancy_plot"]

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from instseg_ros.errors import InputError

OCCUPANCY_ERROR = 0.3
"""The error below which OccuSeg finds over 68 % of the instances of ScanNet's validation scans."""


def occupancy_errors(instance: np.ndarray, log_occupancy: np.ndarray, min_voxels: int = 1) -> np.ndarray:
    """Relative error R = |N - exp(mean of o)| / N of every true instance (OccuSeg eq. 11).

    Args:
        instance: [N] true instance of each voxel, -1 = none.
        log_occupancy: [N] or [N, 1] predicted log of the number of voxels of the voxel's instance, `Prediction.occupancy`.
        min_voxels: smaller instances are left out.

    Returns:
        [C] float64, in the order of the instances' numbers.

    Raises:
        InputError: the arrays are not over the same voxels.
    """
    instance, log_occupancy = np.asarray(instance), np.asarray(log_occupancy, np.float64)
    if instance.ndim != 1 or log_occupancy.size != len(instance):
        raise InputError(f"instance is {instance.shape}, log_occupancy {log_occupancy.shape}: both must have one entry per voxel")
    mine = instance >= 0
    _, row, size = np.unique(instance[mine], return_inverse=True, return_counts=True)
    predicted = np.exp(np.bincount(row, log_occupancy.reshape(-1)[mine], len(size)) / size)
    return (np.abs(size - predicted) / size)[size >= min_voxels]


def occupancy_within(errors: np.ndarray, limit: float = OCCUPANCY_ERROR) -> float:
    """Share of instances with an error below the limit; NaN without instances."""
    return float(np.mean(np.asarray(errors) < limit)) if len(errors) else float("nan")


def occupancy_curve(errors: np.ndarray, points: int = 101, largest: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The cumulative distribution: limits [points] from 0 to `largest`, and the share of instances below each [points]."""
    limits = np.linspace(0.0, largest, points)
    return limits, np.searchsorted(np.sort(errors), limits, side="left") / max(len(errors), 1)


def save_occupancy_plot(path: Path | str, errors: Mapping[str, np.ndarray]) -> None:
    """Write a PNG of the cumulative distributions of several networks, as OccuSeg's Fig. 4.

    Args:
        path: file to write; folders are made.
        errors: of `occupancy_errors` by the name of the network.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, values in errors.items():
        limits, share = occupancy_curve(values)
        axes.plot(limits, share, label=f"{name}: {100 * occupancy_within(values):.1f} % within {OCCUPANCY_ERROR}")
    axes.axvline(OCCUPANCY_ERROR, color="0.7", linewidth=0.8)
    axes.set(xlabel="relative error of the predicted voxel count", ylabel="share of instances", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
