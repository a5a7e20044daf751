"""What a grouper is: a function that splits one connected component into instances, and the heads it reads."""

__all__ = ["FOREGROUND", "PRESETS_WITH", "Component", "Splitter", "check_heads"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError
from instseg_ros.grouping.components import canonical_keys
from instseg_ros.labels import BACKGROUND, NUM_CLASSES
from instseg_ros.mapping.update import voxel_centers
from instseg_ros.prediction import Prediction

FOREGROUND = np.array([c for c in range(NUM_CLASSES) if c not in BACKGROUND])
"""The classes that instances can have."""


@dataclass(frozen=True)
class Component:
    """The voxels of one connected component of the foreground, in canonical (lexicographic) order."""

    coords: np.ndarray
    """[n, 3] int32."""
    colors: np.ndarray
    """[n, 3] uint8."""
    voxel_size_m: float
    rows: Prediction
    """Predictions of these voxels, in their order."""

    def __len__(self) -> int:
        return len(self.coords)

    @cached_property
    def keys(self) -> np.ndarray:
        """[n] canonical keys, ascending."""
        return canonical_keys(self.coords)

    @cached_property
    def points_m(self) -> np.ndarray:
        """[n, 3] float32 voxel centres, m."""
        return voxel_centers(self.coords, self.voxel_size_m)


Splitter = Callable[[Component, GroupingConfig], tuple[np.ndarray, np.ndarray]]
"""(component, config) -> labels [n] int from 0 (-1 = noise), membership [n] in 0..1.

The result may depend on nothing but these two: that is what makes regrouping the touched components the same as grouping all.
"""

PRESETS_WITH = {
    "embedding": ("rooms", "mtml", "occuseg", "ssen", "structure_gcn"),
    "offset": ("rooms", "occuseg"),
    "direction": ("mtml",),
    "covariance": ("occuseg",),
    "occupancy": ("occuseg",),
}
"""Which presets train a head."""


def check_heads(method: str, needed: Iterable[str], prediction: Prediction) -> None:
    """Refuse predictions that lack a head which a grouper reads.

    Args:
        method: name of the grouper.
        needed: heads; "a|b" = one of them is enough.
        prediction: what the network says.

    Raises:
        ConfigError: a head is missing; the message names it, and the presets whose networks have it.
    """
    for choice in needed:
        heads = choice.split("|")
        if all(getattr(prediction, head) is None for head in heads):
            presets = sorted({preset for head in heads for preset in PRESETS_WITH[head]})
            raise ConfigError(
                f"grouping.method = {method!r} reads the head {' or '.join(heads)}, which this network does not have: use weights of "
                f"the preset {' or '.join(presets)}, or choose another grouping.method, or settings without that head"
            )
