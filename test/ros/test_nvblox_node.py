"""The node maps what nvblox publishes."""

import sys
import types
from functools import partial

import numpy as np
import pytest
from nvblox_messages import BAD, SIDE, SQUARE, VOXEL_M, Mesh, VoxelBlock, VoxelBlockLayer, brute_force, layer, mesh, some

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.errors import MissingDependencyError
from instseg_ros.ros.adapters.nvblox import read_mesh
from instseg_ros.ros.segmenter_node import SegmenterNode


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
