"""Semantics averaged over rotations, against passes over maps turned by hand."""

import numpy as np
import pytest
import torch

from instseg_ros.config import GroupingConfig, ModelConfig, SegmenterConfig
from instseg_ros.errors import ConfigError, InputError
from instseg_ros.evaluation.entries import parse_entry, segmenter_for
from instseg_ros.evaluation.rotation_average import RotationRunner, average_semantics
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.network import InstanceNet, input_features
from instseg_ros.models.weights import save_weights
from instseg_ros.segmenter import Segmenter
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import build_tables


def small_net(channels: tuple[int, ...]):
    torch.manual_seed(3)
    net = InstanceNet(ModelConfig(channels=channels)).eval()
    for parameter in net.parameters():  # outputs that differ from voxel to voxel
        torch.nn.init.normal_(parameter, 0.0, 0.4)
    return compile_network(net), net.config


def room(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A floor and two walls."""
    a, b = np.meshgrid(np.arange(24), np.arange(16), indexing="ij")
    zero = np.zeros_like(a)
    coords = np.unique(np.concatenate([np.stack(x, -1).reshape(-1, 3) for x in ((a, b, zero), (a, zero, b), (zero, b, a))]), axis=0)
    colors = np.random.default_rng(seed).integers(0, 256, (len(coords), 3)).astype(np.uint8)
    return (coords + [5, -7, 0]).astype(np.int32), colors


def plain(program, config, coords, colors):
    features = torch.from_numpy(input_features(colors, coords, config))
    return program.run(features, build_tables(coords, len(config.channels)))["semantic"].numpy()


def test_four_rotations_are_the_mean_of_four_explicit_passes():
    program, config = small_net((8, 12, 16))
    coords, colors = room(0)
    passes, turned = [], coords
    for _ in range(4):
        passes.append(plain(program, config, turned, colors))
        # a quarter turn about the middle of the ground plan, a corner of the grid at x = 17, y = 1: (x, y) -> (-y, x) of the voxel indices
        x, y = turned[:, 0] - 17, turned[:, 1] - 1
        turned = np.stack([17 - 1 - y, 1 + x, turned[:, 2]], 1).astype(np.int32)
    assert (turned == coords).all()
    assert np.abs(passes[0] - passes[1]).max() > 0.1  # the network does see which way it looks
    assert np.allclose(average_semantics(program, config, coords, colors, 4), np.mean(passes, 0), atol=1e-6)
    assert np.array_equal(average_semantics(program, config, coords, colors, 1), passes[0])


def test_four_rotations_do_not_depend_on_the_heading():
    program, config = small_net((8,))  # one level: no blocks of a coarser grid to fall into differently
    coords, colors = room(1)
    turned = np.stack([-1 - coords[:, 1], coords[:, 0], coords[:, 2]], 1).astype(np.int32)
    assert np.allclose(average_semantics(program, config, coords, colors, 4), average_semantics(program, config, turned, colors, 4), atol=1e-5)


def test_any_number_of_rotations_gives_probabilities_per_voxel():
    program, config = small_net((8, 12))
    coords, colors = room(2)
    averaged = average_semantics(program, config, coords, colors, 5, floor_z_m=None)
    assert averaged.shape == (len(coords), 20) and averaged.dtype == np.float32
    assert np.allclose(averaged.sum(1), 1.0, atol=1e-5) and averaged.min() >= 0.0


def test_what_depends_on_height_alone_is_the_same_at_every_heading():
    """A network that sees one voxel at a time, on colours that depend on its height: all rotations agree with the plain pass."""
    program, config = small_net((8,))
    for layer in program.layers:
        layer.weight[torch.arange(27) != 13] = 0.0  # the middle of the 3 x 3 x 3 kernel alone
    coords, _ = room(0)
    colors = np.repeat((coords[:, 2:] * 10).astype(np.uint8), 3, axis=1)
    once, averaged = plain(program, config, coords, colors), average_semantics(program, config, coords, colors, 7)
    wall = coords[:, 2] > 1  # at the foot of a wall a voxel of the floor may be nearest
    assert (np.abs(averaged - once).max(1)[wall] < 1e-4).mean() > 0.97


def test_empty_maps_and_no_rotations():
    program, config = small_net((8,))
    empty = np.zeros((0, 3), np.int32)
    assert average_semantics(program, config, empty, empty.astype(np.uint8)).shape == (0, 20)
    with pytest.raises(InputError, match="at least 1"):
        average_semantics(program, config, empty, empty.astype(np.uint8), 0)


def test_a_speck_that_vanishes_when_turned_keeps_its_plain_pass():
    program, config = small_net((8,))
    coords, colors = np.array([[0, 0, 0], [9, 0, 3]], np.int32), np.full((2, 3), 99, np.uint8)
    averaged = average_semantics(program, config, coords, colors, 10)
    assert np.allclose(averaged.sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize("passes", ["full", "incremental"])
def test_a_segmenter_groups_and_publishes_the_averaged_classes(tmp_path, passes):
    torch.manual_seed(5)
    net = InstanceNet(ModelConfig(channels=(8, 12), heads=("semantic", "offset"))).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.4)
    save_weights(tmp_path / "w.safetensors", net, {})
    config = SegmenterConfig(weights=str(tmp_path / "w.safetensors"), passes=passes, device="cpu", threads=1,
                             grouping=GroupingConfig(method="connected_components", min_voxels=1, min_score=0.0))
    coords, colors = room(4)
    update = MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05)
    plain, averaged = Segmenter(config), segmenter_for(config, (), 4)
    for segmenter in (plain, averaged):
        segmenter.process(update)
    slots = averaged.map.lookup(coords)
    want = average_semantics(averaged.runner.inner.program, net.config, coords, colors, 4)
    before, after = (s.runner.prediction for s in (plain, averaged))
    assert np.allclose(after.semantic[slots], want, atol=1e-5) and np.abs(before.semantic[plain.map.lookup(coords)] - want).max() > 0.05
    assert np.array_equal(after.offset[slots], before.offset[plain.map.lookup(coords)])  # only classes are averaged
    classes = after.semantic[slots].argmax(1)
    assert np.array_equal(averaged.cloud(slots).class_index, classes)  # components are of one class, so everything shows its own
    assert (classes != before.semantic[plain.map.lookup(coords)].argmax(1)).any()
    assert segmenter_for(config, (), 4) is averaged and segmenter_for(config) is not averaged


def test_entries_ask_for_rotations():
    assert parse_entry("a=,rotations=10", SegmenterConfig()).rotations == 10 and parse_entry("a=", SegmenterConfig()).rotations == 1
    for wrong in ("0", "ten", "1.5"):
        with pytest.raises(ConfigError, match="whole number"):
            parse_entry(f"a=,rotations={wrong}", SegmenterConfig())


def test_networks_that_read_true_classes_have_none_to_average():
    net = InstanceNet(ModelConfig(channels=(8,), label_input=True)).eval()
    with pytest.raises(ConfigError, match="leave rotations out"):
        RotationRunner(Segmenter(SegmenterConfig(device="cpu", threads=1), net).runner, 2)
