"""The incremental network with every update as a Triton launch; run by test_device.py with TRITON_INTERPRET=1, or so by hand.

Not collected with the other tests: the interpreter has to be asked for before Triton is first imported.
"""

import sys

import numpy as np
from test_device import difference, floor, full_pass
from test_program import small_net

from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse import device as device_module
from instseg_ros.sparse.conv import only_path
from instseg_ros.sparse.device import DeviceIncrementalNetwork


def check_triton(**changes) -> None:
    """A short history with every update launched as a Triton kernel; lists that are too short at first."""
    device_module._SHORTEST = 1
    net, rng = small_net(3, **{"channels": (4, 8), **changes}), np.random.default_rng(1)
    voxels = VoxelMap(0.05, depth=len(net.config.channels))
    network = DeviceIncrementalNetwork(net, "cpu")
    coords = np.argwhere(np.ones((5, 5, 1), bool)).astype(np.int32)
    for k in range(3):
        some = coords[rng.random(len(coords)) < (1.0 if k == 0 else 0.15)]
        gone = coords[:3] if k == 1 else coords[:0]
        some = some[~(some[:, None] == gone[None]).all(-1).any(1)]
        colors = rng.integers(0, 256, (len(some), 3)).astype(np.uint8)
        delta = voxels.apply(MapUpdate(some, colors, np.ones(len(some), np.float32), 0.05, deleted=gone))
        with only_path("triton"):
            network.refresh(voxels, delta)
        assert difference(network.prediction, full_pass(net, voxels), voxels.live_slots()) <= 1e-5
    assert 22 <= len(voxels) < 25


def check_triton_within_limits() -> None:
    """Two patches far apart are seen in turns, and only one may be held."""
    net, rng = small_net(2, channels=(4, 8)), np.random.default_rng(2)
    voxels, network = VoxelMap(0.05, depth=2), DeviceIncrementalNetwork(net, "cpu", budget_bytes=5_000)
    patch = np.argwhere(np.ones((5, 5, 1), bool)).astype(np.int32)
    for k in range(4):
        some = patch[rng.random(len(patch)) < (1.0 if k < 2 else 0.3)] + np.array([[k % 2 * 1000, 0, 0]], np.int32)
        colors = rng.integers(0, 256, (len(some), 3)).astype(np.uint8)
        delta = voxels.apply(MapUpdate(some, colors, np.ones(len(some), np.float32), 0.05))
        with only_path("triton"):
            network.refresh(voxels, delta)
        assert difference(network.prediction, full_pass(net, voxels), voxels.live_slots()) <= 1e-5
        assert 0 < network.held_bytes() <= 5_000 and (network._residency.place[0][: len(voxels)] < 0).sum() == (25 if k else 0)


def check_any_order(seed: int) -> None:
    """Programs of a launch run in any order on a GPU, several at a time; the interpreter takes them in turn, here shuffled."""
    from triton.runtime import interpreter

    rng, launched = np.random.default_rng(seed), 0

    def shuffled(*bounds: int) -> list[int]:
        nonlocal launched
        numbers = list(range(*bounds))
        if sys._getframe(1).f_code.co_name == "__call__":  # the loops over the grid
            launched += 1
            rng.shuffle(numbers)
        return numbers

    interpreter.range = shuffled
    net, voxels = small_net(seed, refine_layers=1), VoxelMap(0.05, depth=3)
    network, everything = DeviceIncrementalNetwork(net, "cpu"), floor(18)
    for k in range(3):
        some = rng.random(len(everything.coords)) < (1.0 if k == 0 else 0.2)
        gone = everything.coords[~some][:30] if k == 1 else everything.coords[:0]
        colors = rng.integers(0, 256, (int(some.sum()), 3)).astype(np.uint8)
        delta = voxels.apply(MapUpdate(everything.coords[some], colors, np.ones(len(colors), np.float32), 0.05, deleted=gone))
        with only_path("triton"):
            network.refresh(voxels, delta)
        assert difference(network.prediction, full_pass(net, voxels), voxels.live_slots()) <= 1e-5
    del interpreter.range
    assert launched > 100


if __name__ == "__main__":
    check_triton()
    check_triton(channels=(8,), refine_layers=2)
    check_triton(channels=(8,), backbone="dilated", dilations=(2,))  # tables at a distance, and layers of a voxel itself
    check_triton_within_limits()
    check_any_order(0)
