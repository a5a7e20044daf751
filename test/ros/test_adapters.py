"""Other mappers' messages as input: what they say is in the map, what is malformed is refused with the reason."""

import array
import sys
import types
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ros_bench import block
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import PointCloud2, PointField

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.errors import InputError, MissingDependencyError
from instseg_ros.mapping.update import coord_keys
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.mapping.voxelize import voxelize_points
from instseg_ros.ros import qos
from instseg_ros.ros.adapters.blocks import BlockMap
from instseg_ros.ros.adapters.nvblox import read_layer, read_mesh
from instseg_ros.ros.adapters.nvblox_bytes import layer_from_bytes, mesh_from_bytes
from instseg_ros.ros.adapters.voxblox import near_surface
from instseg_ros.ros.conversions import header
from instseg_ros.ros.pointcloud import check_layout, read_points
from instseg_ros.ros.segmenter_node import SegmenterNode

VOXEL_M = 0.05
SIDE = 8


# Messages with the fields that nvblox publishes.


@dataclass
class Triple:
    x: float
    y: float
    z: float


@dataclass
class Rgba:
    r: float
    g: float
    b: float
    a: float = 1.0


@dataclass
class VoxelBlock:
    centers: list = field(default_factory=list)
    colors: list = field(default_factory=list)


@dataclass
class VoxelBlockLayer:
    """nvblox_ros 3.2 and later."""

    header: object
    block_size_m: float
    voxel_size_m: float
    block_indices: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    clear: bool = False
    layer_type: int = 1


@dataclass
class MeshBlock:
    vertices: list = field(default_factory=list)
    normals: list = field(default_factory=list)
    colors: list = field(default_factory=list)
    triangles: list = field(default_factory=list)


@dataclass
class Mesh:
    """nvblox_ros 3.2 and later."""

    header: object
    block_size_m: float
    block_indices: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    clear: bool = False


@dataclass
class OldMesh:
    """nvblox_ros 3.1 and before."""

    header: object
    block_size: float
    block_indices: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    clear: bool = False


def layer(named: dict, size_m=VOXEL_M, clear=False, stamp_s=1, frame="map", cls=VoxelBlockLayer) -> VoxelBlockLayer:
    """A message of blocks {(i, j, k): (voxel indices inside the block [n, 3], colours [n, 3] 0..255)}."""
    size_m = float(np.float32(size_m))
    blocks = []
    for index, (cells, colors) in named.items():
        centers = (np.array(index) * SIDE + np.asarray(cells).reshape(-1, 3) + 0.5) * size_m
        blocks.append(VoxelBlock(
            [Triple(*map(float, np.float32(c))) for c in centers], [Rgba(*(float(v) / 255 for v in c)) for c in np.asarray(colors).reshape(-1, 3)],
        ))
    indices = [Triple(*index) for index in named]
    return cls(header(int(stamp_s * 1e9), frame), float(np.float32(SIDE * size_m)), size_m, indices, blocks, clear)


def some(count: int, rng, value=None):
    cells = np.unique(rng.integers(0, SIDE, (count, 3)), axis=0)
    return cells, rng.integers(0, 256, (len(cells), 3)) if value is None else np.full((len(cells), 3), value)


def content(voxels: VoxelMap) -> dict:
    live = voxels.live_slots()
    return {tuple(c): tuple(v) for c, v in zip(voxels.coords[live].tolist(), voxels.colors[live].tolist(), strict=True)}


def brute_force(named: dict, size_m: float) -> dict:
    """The voxels of all blocks, one point at a time."""
    out: dict = {}
    for index, (cells, colors) in named.items():
        for cell, color in zip(cells.tolist(), colors.tolist(), strict=True):
            at = tuple(int(np.floor(float(np.float32((index[i] * SIDE + cell[i] + 0.5) * float(np.float32(size_m)))) / VOXEL_M)) for i in range(3))
            out.setdefault(at, []).append(color)
    return {at: np.mean(colors, axis=0) for at, colors in out.items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([VOXEL_M, 0.04, 0.025, 0.0173]), st.integers(1, 6))
def test_a_history_of_tsdf_blocks_equals_brute_force(seed, size_m, messages):
    rng = np.random.default_rng(seed)
    blocks, voxels, truth = BlockMap(VOXEL_M), VoxelMap(VOXEL_M), {}
    for number in range(messages):
        named = {}
        for index in np.unique(rng.integers(-2, 2, (rng.integers(0, 5), 3)), axis=0).tolist():
            distance = rng.normal(0, 2, (SIDE,) * 3)  # a TSDF in voxels; nvblox sends what is observed and not in front of the surface
            cells = np.argwhere((distance <= 0) & (rng.random((SIDE,) * 3) < 0.2))[: rng.choice([0, 3, 200])]
            named[tuple(index)] = cells, rng.integers(0, 256, (len(cells), 3))
        clear = bool(rng.random() < 0.2)
        if rng.random() < 0.2:
            blocks.resend()
        truth = {} if clear else truth
        truth.update(named)
        before = content(voxels)
        update = blocks.apply(read_layer(layer(named, size_m, clear), VOXEL_M))
        update.validate()
        assert all(tuple(c) in before for c in update.deleted.tolist())
        voxels.apply(update)
        expected = brute_force(truth, size_m)
        found = content(voxels)
        assert found.keys() == expected.keys(), number
        assert all(np.abs(np.array(found[at]) - expected[at]).max() <= 0.5001 for at in expected)
        assert len(blocks) == len(expected)


def test_blocks_are_replaced_deleted_and_cleared():
    rng = np.random.default_rng(0)
    blocks, voxels = BlockMap(VOXEL_M), VoxelMap(VOXEL_M)
    first, second = some(50, rng), some(50, rng)

    def send(named, **kwargs):
        update = blocks.apply(read_layer(layer(named, **kwargs), VOXEL_M))
        voxels.apply(update)
        return update

    assert send({(0, 0, 0): first, (1, 0, -1): second}).full, "the first is the whole map"
    kept = content(voxels)
    other = (first[0][:10], first[1][:10])
    update = send({(0, 0, 0): other})
    assert not update.full and len(update) == 0 and len(update.deleted) == len(first[0]) - 10
    update = send({(0, 0, 0): other})
    assert len(update) == len(update.deleted) == 0, "the same again changes nothing"
    update = send({(1, 0, -1): (np.zeros((0, 3), int), np.zeros((0, 3), int))})
    assert len(update.deleted) == len(second[0]), "a block named without content is gone"
    assert len(voxels) == 10 and content(voxels).items() < kept.items()
    update = send({(3, 3, 3): first}, clear=True)
    assert update.full and len(voxels) == len(first[0])
    assert send({}, clear=True).full and len(voxels) == 0


def test_colours_that_hardly_move_are_not_sent_again():
    blocks = BlockMap(VOXEL_M)
    cells = np.array([[0, 0, 0], [1, 1, 1]])
    sent = [
        len(blocks.apply(read_layer(layer({(0, 0, 0): (cells, np.full((2, 3), value))}), VOXEL_M), color_step=12)) for value in (100, 110, 113, 120)
    ]
    assert sent == [2, 0, 2, 0], "compared with what was sent, so that a slow drift is sent in the end"


def test_after_a_loss_the_whole_map_is_sent():
    rng = np.random.default_rng(1)
    blocks, voxels = BlockMap(VOXEL_M), VoxelMap(VOXEL_M)
    named = {(0, 0, 0): some(30, rng), (1, 1, 1): some(30, rng)}
    blocks.apply(read_layer(layer(named), VOXEL_M))  # is lost
    blocks.resend()
    last = {(0, 0, 0): some(5, rng)}
    update = blocks.apply(read_layer(layer(last), VOXEL_M))
    voxels.apply(update)
    assert update.full and content(voxels).keys() == brute_force({**named, **last}, VOXEL_M).keys()


def test_after_a_restart_the_map_from_before_is_gone_on_with():
    rng = np.random.default_rng(1)
    before, after = {(0, 0, 0): some(30, rng)}, {(1, 1, 1): some(30, rng)}
    voxels = VoxelMap(VOXEL_M)
    voxels.apply(BlockMap(VOXEL_M).apply(read_layer(layer(before), VOXEL_M)))
    blocks = BlockMap(VOXEL_M)
    blocks.go_on()
    update = blocks.apply(read_layer(layer(after), VOXEL_M))
    voxels.apply(update)
    assert not update.full and content(voxels).keys() == brute_force({**before, **after}, VOXEL_M).keys()
    blocks = BlockMap(VOXEL_M)
    blocks.go_on()
    assert blocks.apply(read_layer(layer(after, clear=True), VOXEL_M)).full


def test_the_weights_of_a_tsdf_layer_are_a_threshold_and_its_map_is_grey():
    cells = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    weights = np.repeat([[10.0], [102.0], [255.0]], 3, axis=1)  # 0.2, 2 and at least 5
    msg = layer({(0, 0, 0): (cells, weights)})
    assert [len(read_layer(msg, VOXEL_M, "tsdf", w)) for w in (0.0, 0.2, 1.0, 2.0, 2.1, 5.0)] == [3, 2, 2, 2, 1, 1]
    assert np.unique(read_layer(msg, VOXEL_M, "tsdf").colors).tolist() == [128]


def change(path: str, value):
    """Set a nested attribute or element, as in `blocks.0.centers.1.x`."""

    def apply(msg):
        *parts, last = path.split(".")
        for part in parts:
            msg = msg[int(part)] if part.isdigit() else getattr(msg, part)
        setattr(msg, last, value(getattr(msg, last)) if callable(value) else value)

    return apply


BAD = {
    "fewer blocks than indices": (lambda m: m.blocks.pop(), "2 block_indices and 1 blocks"),
    "no frame": (change("header.frame_id", ""), "frame_id is empty"),
    "no voxel size": (change("voxel_size_m", 0.0), "voxel_size_m is 0"),
    "NaN block size": (change("block_size_m", float("nan")), "block_size_m is nan"),
    "sizes that do not fit": (change("block_size_m", 0.42), "whole number"),
    "coarse voxels": (lambda m: (change("voxel_size_m", 0.1)(m), change("block_size_m", 0.8)(m)), "coarse voxels would leave holes"),
    "NaN centre": (change("blocks.0.centers.0.x", float("nan")), "1 points are not finite"),
    "infinite colour": (change("blocks.1.colors.0.g", float("inf")), "colors are not finite"),
    "fewer colours": (lambda m: m.blocks[1].colors.pop(), "block 1 has"),
    "centre in another block": (change("blocks.0.centers.2.z", 7.0), "outside of their blocks"),
    "more voxels than fit": (change("blocks.0.centers", lambda c: c * 100), "only 512 fit"),
    "block twice": (lambda m: m.block_indices.__setitem__(1, m.block_indices[0]), "named more than once"),
    "absurd block": (change("block_indices.0.x", 2**31 - 1), "block indices reach beyond"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_layers_are_refused(name):
    damage, text = BAD[name]
    rng = np.random.default_rng(2)
    msg = layer({(0, 0, 0): some(20, rng), (0, 1, 0): some(20, rng)})
    read_layer(msg, VOXEL_M)
    damage(msg)
    with pytest.raises(InputError, match=text):
        read_layer(msg, VOXEL_M)


def test_absurd_counts_are_refused_before_memory_is_taken():
    class Endless(list):
        def __len__(self):
            return 10**12

        def __iter__(self):
            raise AssertionError("was read")

    msg = layer({(0, 0, 0): some(2, np.random.default_rng(0))})
    msg.blocks[0].centers = Endless()
    with pytest.raises(InputError, match="only 512 fit"):
        read_layer(msg, VOXEL_M)
    msg = mesh({(0, 0, 0): SQUARE})
    msg.blocks[0].triangles = Endless()
    with pytest.raises(InputError, match="more than"):
        read_mesh(msg, VOXEL_M)
    msg.block_indices = msg.blocks = Endless()
    with pytest.raises(InputError, match="blocks in one message"):
        read_mesh(msg, VOXEL_M)


# Meshes.

SQUARE = (np.array([[0.02, 0.02, 0.21], [0.38, 0.02, 0.21], [0.38, 0.38, 0.21], [0.02, 0.38, 0.21]]), [[0, 1, 2], [0, 2, 3]])


def mesh(named: dict, clear=False, stamp_s=1, frame="map", cls=Mesh, block_m=0.4, color=(1.0, 0.5, 0.0)):
    """A message of blocks {(i, j, k): (vertices [n, 3] m, triangles)}."""
    blocks = [
        MeshBlock([Triple(*map(float, v)) for v in vertices], [], [Rgba(*color) for _ in vertices], [int(i) for t in triangles for i in t])
        for vertices, triangles in named.values()
    ]
    return cls(header(int(stamp_s * 1e9), frame), block_m, [Triple(*index) for index in named], blocks, clear)


@pytest.mark.parametrize("cls", [Mesh, OldMesh])
def test_both_generations_of_meshes_are_read(cls):
    blocks, voxels = BlockMap(VOXEL_M), VoxelMap(VOXEL_M)
    moved = SQUARE[0] + [0.4, 0, 0]
    update = blocks.apply(read_mesh(mesh({(0, 0, 0): SQUARE, (1, 0, 0): (moved, SQUARE[1])}, cls=cls), VOXEL_M))
    voxels.apply(update)
    found = content(voxels)
    assert found.keys() == {(i, j, 4) for i in range(16) for j in range(8)}, "a closed sheet, one voxel thick"
    assert set(found.values()) == {(255, 128, 0)}
    update = blocks.apply(read_mesh(mesh({(1, 0, 0): (np.zeros((0, 3)), [])}, cls=cls), VOXEL_M))
    voxels.apply(update)
    assert content(voxels).keys() == {(i, j, 4) for i in range(8) for j in range(8)}
    update = blocks.apply(read_mesh(mesh({(5, 0, 0): (SQUARE[0] + [2.0, 0, 0], SQUARE[1])}, clear=True, cls=cls), VOXEL_M))
    voxels.apply(update)
    assert update.full and {c[0] // 8 for c in content(voxels)} == {5}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_no_point_of_a_triangle_is_far_from_a_voxel_of_the_map(seed):
    rng = np.random.default_rng(seed)
    corners = rng.random((3, 3)) * 0.4
    update = BlockMap(VOXEL_M).apply(read_mesh(mesh({(0, 0, 0): (corners, [[0, 1, 2]])}), VOXEL_M))
    weights = rng.dirichlet(np.ones(3), 500)
    dense = voxelize_points(weights @ corners, np.zeros((500, 3), np.uint8), VOXEL_M)
    held = set(coord_keys(update.coords).tolist())
    missed = [c for c, key in zip(dense.coords, coord_keys(dense.coords).tolist(), strict=True) if key not in held]
    assert all(np.abs(update.coords - c).max(axis=1).min() <= 1 for c in missed), "what is cut in a corner has a neighbour"
    centers = (update.coords + 0.5) * VOXEL_M
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    if np.linalg.norm(normal) > 1e-6:
        distance = np.abs((centers - corners[0]) @ normal) / np.linalg.norm(normal)
        assert distance.max() <= VOXEL_M * np.sqrt(3) / 2 + 1e-9, "and nothing else is in the map"


BAD_MESH = {
    "vertex that is not there": (lambda m: m.blocks[0].triangles.__setitem__(0, 4), "a triangle names a vertex"),
    "negative vertex": (lambda m: m.blocks[0].triangles.__setitem__(0, -1), "a triangle names a vertex"),
    "two thirds of a triangle": (lambda m: m.blocks[0].triangles.pop(), "three vertices each"),
    "NaN vertex": (change("blocks.0.vertices.0.x", float("nan")), "not finite"),
    "far vertex": (change("blocks.0.vertices.0.x", 9.0), "outside of their blocks"),
    "fewer colours": (lambda m: m.blocks[0].colors.pop(), "4 points and 3 colors"),
    "more blocks than indices": (lambda m: m.blocks.append(MeshBlock()), "lengths must agree"),
    "no block size": (change("block_size_m", 0.0), "block_size_m is 0"),
}


@pytest.mark.parametrize("name", BAD_MESH)
def test_malformed_meshes_are_refused(name):
    damage, text = BAD_MESH[name]
    msg = mesh({(0, 0, 0): SQUARE})
    damage(msg)
    with pytest.raises(InputError, match=text):
        read_mesh(msg, VOXEL_M)


def test_a_refused_update_leaves_the_block_map():
    blocks = BlockMap(VOXEL_M)
    blocks.apply(read_mesh(mesh({(0, 0, 0): SQUARE}), VOXEL_M))
    for bad, text in (
        (mesh({(0, 0, 0): SQUARE}, frame="odom"), "one fixed frame"),
        (mesh({(10**6, 0, 0): (SQUARE[0] + [4e5, 0, 0], SQUARE[1])}, clear=True), "check units and frame"),
    ):
        with pytest.raises(InputError, match=text):
            blocks.apply(read_mesh(bad, VOXEL_M))
        assert len(blocks) == 64
    blocks.resend()
    other = blocks.apply(read_mesh(mesh({(1, 0, 0): (SQUARE[0] + [0.4, 0, 0], SQUARE[1])}, frame="odom"), VOXEL_M))
    assert other.full and len(blocks) == 64 and other.frame_id == "odom", "after a reset another frame begins a new map"


# The bytes of a topic.

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


# Clouds of voxblox and RTAB-Map.


def pcl_cloud(columns: dict, step: int, dense=True) -> PointCloud2:
    """A cloud as pcl writes it: {name: (offset, values float32)}, padded points."""
    count = len(next(iter(columns.values()))[1])
    offsets = [offset for offset, _ in columns.values()]
    records = np.zeros(count, {"names": list(columns), "formats": ["<f4"] * len(columns), "offsets": offsets, "itemsize": step})
    for name, (_, values) in columns.items():
        records[name] = values
    fields = [PointField(name=n, offset=o, datatype=PointField.FLOAT32, count=1) for n, (o, _) in columns.items()]
    return PointCloud2(
        header=header(1, "world"), height=1, width=count, fields=fields, point_step=step, row_step=step * count, is_dense=dense,
        data=array.array("B", records.tobytes()),
    )


CENTERS = (block(0)[0] + 0.5).astype(np.float32) * np.float32(VOXEL_M)


def tsdf_cloud(distance, dense=True) -> PointCloud2:
    return pcl_cloud({**{n: (4 * i, CENTERS[:, i]) for i, n in enumerate("xyz")}, "intensity": (16, distance)}, 32, dense)


def test_voxblox_tsdf_clouds_are_cut_to_the_surface():
    distance = np.linspace(-0.1, 0.1, 64).astype(np.float32)
    cut = near_surface(tsdf_cloud(distance), "intensity", 0.03)
    points, colors, dropped = read_points(cut, check_layout(cut))
    np.testing.assert_allclose(points, CENTERS[np.abs(distance) < 0.03])
    assert colors is None and dropped == 0 and cut.header.frame_id == "world"
    distance[30:34] = np.nan
    with pytest.raises(InputError, match="4 numbers of field 'intensity' are not finite"):
        near_surface(tsdf_cloud(distance), "intensity", 0.03)
    assert near_surface(tsdf_cloud(distance, dense=False), "intensity", 0.03).width == cut.width - 4
    with pytest.raises(InputError, match="no float field 'distance'.*input.distance_field"):
        near_surface(tsdf_cloud(distance), "distance", 0.03)
    assert near_surface(pcl_cloud({n: (4 * i, []) for i, n in enumerate("xyzd")}, 16), "d", 1.0).width == 0


def test_clouds_of_rtabmap_and_of_voxblox_surfaces_are_read_as_they_are():
    """pcl::PointXYZRGB: 32 bytes a point, the colour as a float at 16."""
    rgb = np.arange(64, dtype=np.uint32) * 65793
    msg = pcl_cloud({**{n: (4 * i, CENTERS[:, i]) for i, n in enumerate("xyz")}, "rgb": (16, rgb.view(np.float32))}, 32)
    points, colors, _ = read_points(msg, check_layout(msg))
    update = voxelize_points(points, colors, VOXEL_M)
    assert {tuple(c) for c in update.coords.tolist()} == {tuple(c) for c in block(0)[0].tolist()}
    assert np.array_equal(np.sort(update.colors[:, 0]), np.arange(64)) and (update.weights == 1).all()


# The node.


def test_the_node_maps_a_tsdf_cloud(bench):
    node = bench.segmenter(input__distance_field="intensity")
    publisher = bench.publisher(PointCloud2, "map_points", qos.CLOUDS)
    distance = np.where(block(0)[0][:, 2] == 1, 0.01, 0.05).astype(np.float32)
    publisher.publish(tsdf_cloud(distance))
    bench.until(lambda: node.worker.voxels == 16, "the voxels near the surface")
    publisher.publish(pcl_cloud({n: (4 * i, CENTERS[:, i]) for i, n in enumerate("xyz")}, 16))
    bench.until(lambda: node.monitor.counts["refused"] == 1, "a cloud without distances is refused")
    assert "input.distance_field" in node.monitor.last_error and node.worker.voxels == 16


@pytest.fixture
def nvblox_node(bench, monkeypatch):
    """A segmenter node whose nvblox subscriptions are called by the test, for there need not be a nvblox_msgs."""
    package, msgs = types.ModuleType("nvblox_msgs"), types.ModuleType("nvblox_msgs.msg")
    msgs.Mesh, msgs.VoxelBlockLayer = Mesh, VoxelBlockLayer
    monkeypatch.setitem(sys.modules, "nvblox_msgs", package)
    monkeypatch.setitem(sys.modules, "nvblox_msgs.msg", msgs)
    monkeypatch.delitem(sys.modules, "instseg_ros.ros.adapters.nvblox_input", raising=False)
    callbacks = {}
    original = SegmenterNode.create_subscription

    def create(self, kind, topic, callback, *args, **kwargs):
        if kind not in (Mesh, VoxelBlockLayer):
            return original(self, kind, topic, callback, *args, **kwargs)
        callbacks[topic] = callback

    monkeypatch.setattr(SegmenterNode, "create_subscription", create)
    node = bench.segmenter(input__nvblox="on")
    yield node, callbacks
    sys.modules.pop("instseg_ros.ros.adapters.nvblox_input", None)


def test_the_node_maps_nvblox(bench, nvblox_node):
    node, send = nvblox_node
    rng = np.random.default_rng(3)
    send["nvblox_layer"](layer({(0, 0, 0): some(99, rng), (1, 0, 0): (np.zeros((1, 3), int), np.full((1, 3), 9))}))
    bench.until(lambda: node.worker.voxels > 50, "a layer")
    before = node.segmenter.cloud()
    refused = [
        (layer({(0, 0, 0): some(9, rng)}, frame="odom"), "nvblox_layer", "one fixed frame"),
        (mesh({(0, 0, 0): SQUARE}), "nvblox_mesh", "already comes from nvblox_layer"),
    ]
    for damage, text in BAD.values():
        msg = layer({(0, 0, 0): some(20, rng), (0, 1, 0): some(20, rng)}, stamp_s=1)
        damage(msg)
        refused.append((msg, "nvblox_layer", text))
    for count, (msg, topic, text) in enumerate(refused, 1):
        send[topic](msg)
        assert node.monitor.counts["refused"] == count and text in node.monitor.last_error, text
    np.testing.assert_array_equal(node.segmenter.cloud().points_m, before.points_m)
    send["nvblox_layer"](layer({(0, 0, 0): (np.zeros((0, 3), int), np.zeros((0, 3), int))}))
    bench.until(lambda: node.worker.voxels == 1, "a deleted block")


def test_a_dropped_nvblox_message_is_made_up_for(bench, nvblox_node):
    node, send = nvblox_node
    node.worker.pause(True)
    cells = np.argwhere(np.ones((SIDE,) * 3))
    colors = np.full((512, 3), 50)
    node.parameters.config.input.max_waiting_voxels = 1000
    for i in range(2):
        send["nvblox_layer"](layer({(i, 0, 0): (cells, colors)}))
    assert node.queue.counts["dropped_queue_full"] == 1 and not node.watch.complete
    node.worker.pause(False)
    bench.until(lambda: node.worker.voxels == 512, "what was queued")
    send["nvblox_layer"](layer({(2, 0, 0): (cells, colors)}))
    bench.until(lambda: node.worker.voxels == 3 * 512, "the whole map, with what was dropped, though it is larger than the bound")
    assert node.watch.complete and node.queue.counts["dropped_queue_full"] == 1


def test_a_reset_and_a_time_jump_begin_a_new_nvblox_map(bench, nvblox_node):
    from std_srvs.srv import Trigger

    node, send = nvblox_node
    send["nvblox_mesh"](mesh({(0, 0, 0): SQUARE}, stamp_s=100))
    bench.until(lambda: node.worker.voxels == 64, "a mesh")
    assert bench.call(Trigger, "/segmenter/reset").success
    send["nvblox_mesh"](mesh({(1, 0, 0): (SQUARE[0] + [0.4, 0, 0], SQUARE[1])}, stamp_s=101))
    bench.until(lambda: node.worker.voxels == 128, "the mapper keeps its map")
    send["nvblox_layer"](layer({(0, 0, 0): (np.zeros((1, 3), int), np.full((1, 3), 9))}, stamp_s=5))
    assert node.monitor.counts["refused"] == 1, "still from the mesh"
    send["nvblox_mesh"](mesh({(1, 0, 0): (SQUARE[0] + [0.4, 0, 0], SQUARE[1])}, stamp_s=5))
    bench.until(lambda: node.worker.voxels == 64 and node.monitor.counts["resets_by_time"] == 1, "a bag that loops")
    assert bench.call(Trigger, "/segmenter/reset").success
    send["nvblox_layer"](layer({(0, 0, 0): (np.zeros((1, 3), int), np.full((1, 3), 9))}, stamp_s=6, frame="odom"))
    bench.until(lambda: node.worker.voxels == 1, "another topic and frame after a reset")


def test_without_nvblox_msgs_the_node_runs_unless_told_otherwise(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvblox_msgs", None)
    monkeypatch.setitem(sys.modules, "nvblox_msgs.msg", None)
    monkeypatch.delitem(sys.modules, "instseg_ros.ros.adapters.nvblox_input", raising=False)
    node = bench.segmenter()
    assert not [s for s in node.subscriptions if "nvblox" in s.topic_name]
    from rclpy.parameter import Parameter

    with pytest.raises(MissingDependencyError, match="nvblox_msgs cannot be imported"):
        SegmenterNode(chair_net(), parameter_overrides=[Parameter("input.nvblox", value="on")])


def test_real_nvblox_messages_over_a_topic(bench):
    msgs = pytest.importorskip("nvblox_msgs.msg", reason="nvblox_msgs is not installed")
    from geometry_msgs.msg import Point32
    from std_msgs.msg import ColorRGBA

    def real(fake):
        out = msgs.VoxelBlockLayer() if isinstance(fake, VoxelBlockLayer) else msgs.Mesh()
        for name in ("header", "block_size_m", "voxel_size_m", "clear", "layer_type"):
            if hasattr(fake, name):
                setattr(out, name, getattr(fake, name))
        out.block_indices = [msgs.Index3D(x=i.x, y=i.y, z=i.z) for i in fake.block_indices]
        color = partial(map, lambda c: ColorRGBA(r=c.r, g=c.g, b=c.b, a=c.a))
        point = partial(map, lambda p: Point32(x=p.x, y=p.y, z=p.z))
        for one in fake.blocks:
            if isinstance(one, VoxelBlock):
                out.blocks.append(msgs.VoxelBlock(centers=list(point(one.centers)), colors=list(color(one.colors))))
            else:
                out.blocks.append(msgs.MeshBlock(vertices=list(point(one.vertices)), colors=list(color(one.colors)), triangles=one.triangles))
        return out

    node = bench.segmenter(input__nvblox="on", remap={"nvblox_layer": "/nvblox_node/color_layer"})
    publisher = bench.publisher(msgs.VoxelBlockLayer, "/nvblox_node/color_layer", 1)
    named = {(0, 0, 0): some(99, np.random.default_rng(3)), (0, 0, 1): some(99, np.random.default_rng(4))}
    publisher.publish(real(layer(named)))
    count = len(brute_force(named, VOXEL_M))
    bench.until(lambda: node.worker.voxels == count, "a layer")
    publisher.publish(real(layer({(0, 0, 1): (np.zeros((0, 3), int), np.zeros((0, 3), int))})))
    bench.until(lambda: node.worker.voxels == len(named[0, 0, 0][0]), "a deleted block")
    np.testing.assert_array_equal(
        read_mesh(real(mesh({(0, 0, 0): SQUARE})), VOXEL_M).colors, read_mesh(mesh({(0, 0, 0): SQUARE}), VOXEL_M).colors
    )
