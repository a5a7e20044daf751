"""Which instances are shown."""

__all__ = ["selected"]

from collections.abc import Iterable

from instseg_ros.config import OutputConfig
from instseg_ros.instance import Instance
from instseg_ros.labels import class_index


def selected(instances: Iterable[Instance], config: OutputConfig) -> list[Instance]:
    """The instances that `classes`, `min_confidence` and `min_voxels` of the settings let through, in their order."""
    classes = {class_index(name) for name in config.classes}
    return [
        one for one in instances
        if (not classes or one.class_index in classes) and one.score >= config.min_confidence and one.voxels >= config.min_voxels
    ]
