"""Made-up maps and predictions for the tests of the groupers."""

import numpy as np
import pytest

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.components import canonical_keys
from instseg_ros.grouping.grouper import Grouper
from instseg_ros.grouping.segmentation import Segmentation
from instseg_ros.grouping.splitter import Component
from instseg_ros.labels import NUM_CLASSES
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.mapping.voxel_map import MapDelta, VoxelMap
from instseg_ros.prediction import Prediction

VOXEL_M = 0.05
CHAIR, TABLE, WALL = 4, 6, 0
WIDTHS = {"semantic": NUM_CLASSES, "embedding": 4, "offset": 3, "direction": 3, "covariance": 2, "occupancy": 1}


def update(coords: np.ndarray, deleted: np.ndarray | None = None, colors: np.ndarray | None = None) -> MapUpdate:
    gone = np.zeros((0, 3), np.int32) if deleted is None else deleted
    count = len(coords)
    colors = np.zeros((count, 3), np.uint8) if colors is None else colors
    return MapUpdate(coords.astype(np.int32), colors, np.ones(count, np.float32), VOXEL_M, deleted=gone)


def empty_prediction(capacity: int) -> Prediction:
    return Prediction.empty(WIDTHS, capacity)


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    axes = [np.arange(a, b, dtype=np.int32) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def shell(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """The surface of a box, which is what a robot maps."""
    coords = box(low, high)
    return coords[((coords == low) | (coords == np.array(high) - 1)).any(axis=1)]


def one_update(*parts: np.ndarray, colors: np.ndarray | None = None) -> tuple[VoxelMap, MapDelta, Prediction, list[np.ndarray]]:
    voxel_map = VoxelMap(VOXEL_M)
    delta = voxel_map.apply(update(np.concatenate(parts), colors=colors))
    return voxel_map, delta, empty_prediction(voxel_map.capacity), [voxel_map.lookup(p) for p in parts]


def predict(prediction: Prediction, slots: np.ndarray, class_index: int, embedding: float, offset: np.ndarray | float = 0.0) -> None:
    prediction.semantic[slots] = 0.1 / (NUM_CLASSES - 1)
    prediction.semantic[slots, class_index] = 0.9
    prediction.embedding[slots] = embedding
    prediction.offset[slots] = offset


def perfect(prediction: Prediction, slots: np.ndarray, coords: np.ndarray, class_index: int, number: int) -> None:
    """What a perfect network says of instance `number`, which holds these voxels."""
    offset = (coords.mean(axis=0) - coords) * VOXEL_M
    predict(prediction, slots, class_index, 0.0, offset)
    prediction.embedding[slots, number % 4] = 3.0 * (1 + number // 4)
    prediction.direction[slots] = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-9)
    prediction.covariance[slots] = 0.6, 0.2
    prediction.occupancy[slots] = np.log(len(coords))


def group(
    config: GroupingConfig, *parts: np.ndarray, classes: tuple[int, ...] = (CHAIR,), noise: float = 0.0
) -> tuple[Segmentation, list[np.ndarray]]:
    """Objects, each of one colour, with predictions that are perfect but for noise; the segments, and the slots of every object."""
    rng = np.random.default_rng(0)
    paint = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)], np.uint8)
    colors = np.concatenate([np.broadcast_to(paint[i % 4], part.shape) for i, part in enumerate(parts)])
    voxel_map, delta, prediction, slots = one_update(*parts, colors=colors)
    for number, (mine, coords) in enumerate(zip(slots, parts, strict=True)):
        perfect(prediction, mine, coords, classes[number % len(classes)], number)
        for name, scale in (("embedding", 0.3), ("offset", 0.05), ("direction", 0.3), ("occupancy", 0.2)):
            values = getattr(prediction, name)
            values[mine] += (noise * scale * rng.standard_normal((len(mine), values.shape[1]))).astype(np.float32)
    return Grouper(config).regroup(voxel_map, prediction, voxel_map.live_slots(), delta), slots


def assert_apart(config: GroupingConfig, *parts: np.ndarray, classes: tuple[int, ...] = (CHAIR,), noise: float = 0.0) -> None:
    """Every object is one segment, without noise to the voxel."""
    result, slots = group(config, *parts, classes=classes, noise=noise)
    found = [set(result.segment[mine].tolist()) - {-1} for mine in slots]
    if noise:
        majority = [np.bincount(result.segment[mine] + 1).argmax() - 1 for mine in slots]
        assert len(set(majority)) == len(parts) == len(result.segments) and -1 not in majority
        assert all((result.segment[mine] == m).mean() > 0.9 for mine, m in zip(slots, majority, strict=True))
    else:
        assert [len(f) for f in found] == [1] * len(parts) and len(set.union(*found)) == len(parts) == len(result.segments)
        assert all((result.segment[mine] >= 0).all() for mine in slots)


def component(coords: np.ndarray, number: int = 0, colors: np.ndarray | None = None) -> Component:
    """One component with perfect predictions of a single instance, to be given to a splitter."""
    coords = coords[np.argsort(canonical_keys(coords))]
    rows = empty_prediction(len(coords))
    perfect(rows, np.arange(len(coords)), coords, CHAIR, number)
    return Component(coords.astype(np.int32), np.zeros((len(coords), 3), np.uint8) if colors is None else colors, VOXEL_M, rows)


def contents(result: Segmentation, coords: np.ndarray) -> dict[frozenset[tuple[int, ...]], tuple[int, float]]:
    return {frozenset(map(tuple, coords[s.slots].tolist())): (s.class_index, s.score) for s in result.segments.values()}


def assert_consistent(result: Segmentation, voxel_map: VoxelMap) -> None:
    expected = np.full(voxel_map.capacity, -1, np.int32)
    for s, segment in result.segments.items():
        assert (expected[segment.slots] == -1).all() and voxel_map.alive[segment.slots].all()
        expected[segment.slots] = s
        assert np.array_equal(segment.slots, segment.slots[np.argsort(canonical_keys(voxel_map.coords[segment.slots]))])
        assert segment.class_index >= 2 and 0.0 <= segment.score <= 1.0
    assert np.array_equal(result.segment, expected)
    assert result.touched <= set(result.segments) and not result.gone & set(result.segments)


def random_prediction(prediction: Prediction, slots: np.ndarray, rng: np.random.Generator) -> None:
    """Predictions of three kinds, with noise."""
    count = len(slots)
    kind = rng.integers(0, 3, count)
    prediction.semantic[slots] = rng.dirichlet(np.full(NUM_CLASSES, 0.05), count)
    prediction.embedding[slots] = kind[:, None] + rng.normal(0, 0.1, (count, 4))
    prediction.offset[slots] = rng.normal(0, 0.1, (count, 3))
    direction = rng.normal(0, 1.0, (count, 3))
    prediction.direction[slots] = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    prediction.covariance[slots] = np.exp(rng.normal(0, 0.5, (count, 2)))
    prediction.occupancy[slots] = np.log(rng.integers(2, 60, count))[:, None]


def assert_touched_only_equals_everything(config: GroupingConfig, seed: int, extent: int, steps: int = 5) -> None:
    """After every step of a random history of insertions, changes and deletions: the same segments as from scratch."""
    rng = np.random.default_rng(seed)
    grouper, voxel_map, prediction = Grouper(config), VoxelMap(VOXEL_M), empty_prediction(0)
    known: set[int] = set()
    for _ in range(steps):
        fresh = np.unique(rng.integers(0, extent, (int(rng.integers(1, 150)), 3)), axis=0).astype(np.int32)
        live = voxel_map.coords[voxel_map.live_slots()]
        gone = live[rng.random(len(live)) < rng.choice([0.0, 0.02, 0.3])]
        gone = gone[~np.isin(canonical_keys(gone), canonical_keys(fresh))]
        delta = voxel_map.apply(update(fresh, gone, rng.integers(0, 2, (len(fresh), 3), np.uint8) * np.uint8(200)))
        prediction = prediction.grown(voxel_map.capacity)
        live_slots = voxel_map.live_slots()
        changed = np.union1d(delta.added, live_slots[rng.random(len(live_slots)) < rng.choice([0.0, 0.02, 0.2])])
        random_prediction(prediction, changed, rng)
        before = dict(grouper._segments)
        result = grouper.regroup(voxel_map, prediction, changed, delta)
        assert_consistent(result, voxel_map)
        assert result.gone == set(before) - set(result.segments) and not known & (result.touched - set(before))
        known |= set(result.segments)
        for s in set(result.segments) - result.touched:
            assert np.array_equal(before[s].slots, result.segments[s].slots) and before[s].score == result.segments[s].score

        # From scratch, in a map whose slots are dealt out differently
        other = VoxelMap(VOXEL_M)
        order = rng.permutation(live_slots)
        other_delta = other.apply(update(voxel_map.coords[order], colors=voxel_map.colors[order]))
        slots = other.lookup(voxel_map.coords[order])
        moved = empty_prediction(other.capacity)
        for name, values in moved.items():
            values[slots] = getattr(prediction, name)[order]
        scratch = contents(Grouper(config).regroup(other, moved, other.live_slots(), other_delta), other.coords)
        online = contents(result, voxel_map.coords)
        assert scratch.keys() == online.keys()
        for voxels, (class_index, score) in scratch.items():
            assert online[voxels][0] == class_index and online[voxels][1] == pytest.approx(score, abs=1e-5)
