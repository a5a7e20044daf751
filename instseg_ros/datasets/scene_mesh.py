"""Triangle meshes whose faces know which object they belong to: what the virtual camera looks at."""

__all__ = ["SceneInstance", "SceneMesh", "concatenate"]

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from instseg_ros.errors import DataError
from instseg_ros.labels import IGNORE, NUM_CLASSES


@dataclass(frozen=True)
class SceneInstance:
    """One thing of a scene. Walls and floors are things too, of a background class.

    Attributes:
        name: what it is, for people.
        class_index: 0..19 or `labels.IGNORE`.
    """

    name: str
    class_index: int


@dataclass
class SceneMesh:
    """A scene as labelled triangles.

    Attributes:
        vertices: [V, 3] float32, m, z up.
        faces: [F, 3] int32, rows of `vertices`.
        face_colors: [F, 3] uint8, RGB.
        face_instance: [F] int32, index into `instances`; -1 = none (clutter, unlabelled).
        instances: the things of the scene.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray
    face_instance: np.ndarray
    instances: list[SceneInstance] = field(default_factory=list)

    def validate(self) -> "SceneMesh":
        """The mesh itself, if its arrays fit together.

        Raises:
            DataError: a shape, type, index or value is impossible; the message says which.
        """
        count = len(self.faces)
        expected = (
            ("vertices", self.vertices, (len(self.vertices), 3), np.float32), ("faces", self.faces, (count, 3), np.int32),
            ("face_colors", self.face_colors, (count, 3), np.uint8), ("face_instance", self.face_instance, (count,), np.int32),
        )
        for name, array, shape, dtype in expected:
            if array.shape != shape or array.dtype != dtype:
                raise DataError(f"{name} is {array.shape} {array.dtype}; a scene mesh needs {shape} {np.dtype(dtype)}")
        if not np.isfinite(self.vertices).all():
            raise DataError("vertices hold NaN or infinite values; remove them before making a scene mesh")
        if count and (self.faces.min() < 0 or self.faces.max() >= len(self.vertices)):
            raise DataError(f"faces point outside the {len(self.vertices)} vertices")
        if count and (self.face_instance.min() < -1 or self.face_instance.max() >= len(self.instances)):
            raise DataError(f"face_instance must lie in -1..{len(self.instances) - 1}")
        for instance in self.instances:
            if not (0 <= instance.class_index < NUM_CLASSES or instance.class_index == IGNORE):
                raise DataError(
                    f"{instance.name}: class index {instance.class_index} is neither 0..{NUM_CLASSES - 1} nor {IGNORE}")
        return self

    def transformed(self, T_target_source: np.ndarray) -> "SceneMesh":
        """A copy moved by a 4x4 transform."""
        moved = self.vertices.astype(np.float64) @ T_target_source[:3, :3].T + T_target_source[:3, 3]
        return SceneMesh(
            moved.astype(np.float32), self.faces.copy(), self.face_colors.copy(), self.face_instance.copy(),
            list(self.instances))

    def face_class(self) -> np.ndarray:
        """Class index of every face [F] uint8, `labels.IGNORE` where there is none."""
        table = np.array([i.class_index for i in self.instances] + [IGNORE], np.uint8)
        return table[self.face_instance]

    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner, [3] each, m."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)


def concatenate(meshes: Sequence[SceneMesh]) -> SceneMesh:
    """One mesh of several; instances keep their order and stay apart."""
    if not meshes:
        return SceneMesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8),
            np.zeros(0, np.int32))
    vertex_base = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    instance_base = np.cumsum([0] + [len(m.instances) for m in meshes[:-1]])
    return SceneMesh(
        vertices=np.concatenate([m.vertices for m in meshes]),
        faces=np.concatenate([m.faces + base for m, base in zip(meshes, vertex_base, strict=False)]).astype(np.int32),
        face_colors=np.concatenate([m.face_colors for m in meshes]),
        face_instance=np.concatenate([
            np.where(m.face_instance >= 0, m.face_instance + base, -1) for m, base in zip(meshes,
                instance_base, strict=False)]).astype(np.int32),
        instances=[i for m in meshes for i in m.instances],
    )
