"""nvblox's messages as input: what they say is in the map, what is malformed is refused with the reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvblox_messages import (
    BAD,
    SIDE,
    SQUARE,
    VOXEL_M,
    Mesh,
    MeshBlock,
    OldMesh,
    brute_force,
    change,
    content,
    layer,
    mesh,
    some,
)

from instseg_ros.errors import InputError
from instseg_ros.mapping.update import coord_keys
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.mapping.voxelize import voxelize_points
from instseg_ros.ros.adapters.blocks import BlockMap
from instseg_ros.ros.adapters.nvblox import read_layer, read_mesh


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
