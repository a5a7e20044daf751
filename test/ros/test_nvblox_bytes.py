"""nvblox's messages as the bytes of a topic say what the messages say; damaged ones are refused."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nvblox_messages import SQUARE, VOXEL_M, Rgba, layer, mesh, some
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from instseg_ros.errors import InputError
from instseg_ros.ros.adapters.blocks import BlockMap
from instseg_ros.ros.adapters.nvblox import read_layer, read_mesh
from instseg_ros.ros.adapters.nvblox_bytes import layer_from_bytes, mesh_from_bytes

FIELDS = {
    "Index3D": "int32 x\nint32 y\nint32 z",
    "VoxelBlock": "geometry_msgs/Point32[] centers\nstd_msgs/ColorRGBA[] colors",
    "VoxelBlockLayer": "std_msgs/Header header\nfloat32 block_size_m\nfloat32 voxel_size_m\nnvblox_msgs/Index3D[] block_indices\n"
    "nvblox_msgs/VoxelBlock[] blocks\nbool clear\nint32 layer_type",
    "MeshBlock": "geometry_msgs/Point32[] vertices\ngeometry_msgs/Point32[] normals\nstd_msgs/ColorRGBA[] colors\nint32[] triangles",
    "Mesh": "std_msgs/Header header\nfloat32 block_size_m\nnvblox_msgs/Index3D[] block_indices\nnvblox_msgs/MeshBlock[] blocks\nbool clear",
}
STORE = get_typestore(Stores.ROS2_JAZZY)
for name, text in FIELDS.items():
    STORE.register(get_types_from_msg(text, f"nvblox_msgs/msg/{name}"))


def serialised(msg) -> bytes:
    """A message as another implementation of CDR writes it."""

    def convert(value, kind: str):
        if kind.endswith("/Header"):
            stamp = STORE.types["builtin_interfaces/msg/Time"](value.stamp.sec, value.stamp.nanosec)
            return STORE.types[kind](stamp, value.frame_id)
        out = []
        for name, (code, detail) in STORE.fielddefs[kind][1]:
            one = getattr(value, name)
            if code == 1:  # of a primitive type
                out.append(one)
            elif code == 2:  # a message
                out.append(convert(one, detail))
            elif detail[0][0] == 1:
                out.append(np.array(one, np.int32))
            else:
                out.append([convert(element, detail[0][1]) for element in one])
        return STORE.types[kind](*out)

    kind = f"nvblox_msgs/msg/{type(msg).__name__}"
    return bytes(STORE.serialize_cdr(convert(msg, kind), kind))


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.text(max_size=9))
def test_bytes_say_what_their_message_says(seed, frame):
    rng = np.random.default_rng(seed)
    indices = np.unique(rng.integers(-3, 3, (rng.integers(0, 4), 3)), axis=0).tolist()
    frame = "map" + frame.replace("\0", "")
    msg = layer({tuple(i): some(rng.integers(0, 20), rng) for i in indices}, clear=bool(seed % 2), frame=frame)
    assert same(read_layer(layer_from_bytes(serialised(msg)), VOXEL_M), read_layer(msg, VOXEL_M))
    msg = mesh({tuple(i): (np.float32(SQUARE[0] + np.array(i) * 0.4), SQUARE[1]) for i in indices}, clear=bool(seed % 2), frame=frame)
    msg.block_size_m = float(np.float32(0.4))
    for one in msg.blocks:
        one.colors = [Rgba(0.25, 0.5, 1.0) for _ in one.colors] if rng.random() < 0.5 else []
    assert same(read_mesh(mesh_from_bytes(serialised(msg)), VOXEL_M), read_mesh(msg, VOXEL_M))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_are_read_or_refused(data):
    rng = np.random.default_rng(0)
    good = serialised(layer({(0, 0, 0): some(3, rng), (1, 0, 0): some(2, rng)})), serialised(mesh({(0, 0, 0): SQUARE}))
    which = data.draw(st.integers(0, 1))
    raw = bytearray(good[which])
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    parse, read = ((layer_from_bytes, read_layer), (mesh_from_bytes, read_mesh))[which]
    try:
        update = BlockMap(VOXEL_M).apply(read(parse(bytes(raw)), VOXEL_M))
    except InputError:
        return
    update.validate()
