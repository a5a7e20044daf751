"""nvblox's messages straight from their serialised bytes: rclpy would make two Python objects of every voxel, which takes longer than all the rest.

The arrays stand where the lists of the message classes would, so `nvblox.read_layer` and `read_mesh` take either. Plain CDR, as every ROS 2
middleware sends it. nvblox_msgs/Mesh has had one layout in all releases, whatever its fields were called.
"""

__all__ = ["layer_from_bytes", "mesh_from_bytes"]

from types import SimpleNamespace

import numpy as np

from instseg_ros.errors import InputError


class _Cdr:
    """Reads one value after the other; sizes are checked before anything is taken."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 4 or data[0] != 0 or data[1] > 1:
            raise InputError("the message is not plain CDR: let the mapper use a ROS 2 middleware like this node's")
        self._data = memoryview(data)[4:]
        self._order = "<" if data[1] else ">"
        self._at = 0

    def array(self, kind: str, count: int, width: int = 1) -> np.ndarray:
        """The next `count` rows of `width` numbers; [count, width], or [count] for a width of 1."""
        dtype = np.dtype(self._order + kind)
        start = -(-self._at // dtype.itemsize) * dtype.itemsize
        end = start + count * width * dtype.itemsize
        if end > len(self._data):
            raise InputError(f"the message is cut short: {end} bytes are needed and {len(self._data)} are there")
        self._at = end
        out = np.frombuffer(self._data[start:end], dtype)
        return out if width == 1 else out.reshape(count, width)

    def number(self, kind: str) -> float:
        return self.array(kind, 1)[0].item()

    def count(self) -> int:
        return int(self.number("u4"))

    def sequence(self, kind: str, width: int = 1) -> np.ndarray:
        return self.array(kind, self.count(), width)

    def header(self) -> SimpleNamespace:
        stamp = SimpleNamespace(sec=int(self.number("i4")), nanosec=int(self.number("u4")))
        name = self.sequence("u1").tobytes().rstrip(b"\0").decode("utf-8", "replace")
        return SimpleNamespace(stamp=stamp, frame_id=name)


def layer_from_bytes(data: bytes) -> SimpleNamespace:
    """A `VoxelBlockLayer` with arrays for its points, colours and indices.

    Raises:
        InputError: the bytes are cut short, or of another encoding.
    """
    cdr = _Cdr(data)
    msg = SimpleNamespace(header=cdr.header(), block_size_m=cdr.number("f4"), voxel_size_m=cdr.number("f4"))
    msg.block_indices = cdr.sequence("i4", 3)
    msg.blocks = [SimpleNamespace(centers=cdr.sequence("f4", 3), colors=cdr.sequence("f4", 4)) for _ in range(cdr.count())]
    msg.clear = bool(cdr.number("u1"))
    return msg


def mesh_from_bytes(data: bytes) -> SimpleNamespace:
    """A `Mesh` with arrays for its vertices, colours, triangles and indices.

    Raises:
        InputError: the bytes are cut short, or of another encoding.
    """
    cdr = _Cdr(data)
    msg = SimpleNamespace(header=cdr.header(), block_size_m=cdr.number("f4"))
    msg.block_indices = cdr.sequence("i4", 3)
    msg.blocks = [
        SimpleNamespace(
            vertices=cdr.sequence("f4", 3), normals=cdr.sequence("f4", 3), colors=cdr.sequence("f4", 4), triangles=cdr.sequence("i4")
        )
        for _ in range(cdr.count())
    ]
    msg.clear = bool(cdr.number("u1"))
    return msg
