"""What is kept follows the map and not the time: a robot that runs for weeks does not fill its memory."""

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.config import GroupingConfig, SegmenterConfig
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.ros.finished_map import FinishedMap
from instseg_ros.ros.inputs import UpdateQueue
from instseg_ros.segmenter import Segmenter
from instseg_ros.voxel_history import VoxelHistory

NONE = np.zeros((0, 3), np.int32)
CUBE = np.argwhere(np.ones((3, 3, 3), bool)).astype(np.int32)


def row_of_cubes(first: int) -> np.ndarray:
    """Sixteen cubes at a distance from each other, numbers `first` and on."""
    return np.concatenate([CUBE + (12 * k, 0, 0) for k in range(first, first + 16)]).astype(np.int32)


def move_on(segmenter: Segmenter, finished: FinishedMap, steps: range) -> None:
    """The window of a rolling map moves by sixteen cubes with every update: new ones ahead, old ones gone behind."""
    for k in steps:
        coords = row_of_cubes(16 * k)
        colors = np.full_like(coords, 100, np.uint8)
        gone = row_of_cubes(16 * (k - 3)) if k >= 3 else NONE
        update = MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05, stamp_ns=k * 10**8, sequence=k, deleted=gone)
        result = segmenter.process(update)
        finished.follow(result, segmenter.cloud(result.relabelled))
        assert len(result.instances) == 16 * min(k + 1, 3)


def size_of(thing: Any, seen: dict[int, Any]) -> int:
    """Items in all containers and bytes in all arrays that can be reached from an object of the package."""
    if id(thing) in seen or isinstance(thing, (type, torch.nn.Module, torch.Tensor)):
        return 0
    seen[id(thing)] = thing
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, dict):
        return len(thing) + sum(size_of(part, seen) for pair in thing.items() for part in pair)
    if isinstance(thing, (list, tuple, set, frozenset, deque)):
        return len(thing) + sum(size_of(part, seen) for part in thing)
    if type(thing).__module__.startswith("instseg_ros"):
        return size_of(vars(thing), seen)
    return 0


@pytest.mark.parametrize("limits", [{}, {"cache_radius_m": 4.0, "cache_mb": 1}])
def test_a_map_that_moves_on_for_ever_takes_no_more_memory(limits):
    grouping = GroupingConfig(method="connected_components")
    segmenter, finished = Segmenter(SegmenterConfig(device="cpu", threads=1, grouping=grouping, **limits), chair_net()), FinishedMap()
    move_on(segmenter, finished, range(70))  # more than a thousand ids that ended: as many as are remembered
    before = size_of([segmenter, finished], {})
    move_on(segmenter, finished, range(70, 140))
    assert before > 50_000 and size_of([segmenter, finished], {}) <= 1.02 * before


def test_numbers_of_segments_and_components_outlast_31_bits():
    segmenter = Segmenter(SegmenterConfig(device="cpu", threads=1, grouping=GroupingConfig(method="connected_components")), chair_net())
    segmenter.grouper._next = segmenter.grouper._components._next = 2**31 - 4
    move_on(segmenter, FinishedMap(), range(5))
    assert min(segmenter.grouper._segments) > 2**31 and segmenter.grouper._components.of.max() > 2**31


def test_what_a_voxel_belonged_to_longest_is_found_whatever_its_id():
    history = VoxelHistory()
    history.fit(4)
    old, new = 4_000_000_000, 4_000_000_001  # a table of all ids would take tens of GB
    history.label(np.arange(4), old, 1, lambda i: True)
    history.label(np.arange(2), new, 9, lambda i: True)
    home, tenure = history.longest(np.arange(4), 10, lambda i: True)
    assert home.tolist() == [old] * 4 and tenure.tolist() == [8, 8, 9, 9]
    home, tenure = history.longest(np.arange(4), 10, lambda i: i == new)
    assert home.tolist() == [new, new, old, old] and tenure.tolist() == [1, 1, 9, 9]


def test_a_paused_queue_does_not_grow_with_updates_of_nothing():
    queue = UpdateQueue(1000)
    for k in range(3500):
        coords = np.array([[k % 5, 0, 0]] * (k % 2), np.int32).reshape(-1, 3)
        update = MapUpdate(coords, np.full((len(coords), 3), k % 256, np.uint8), np.ones(len(coords), np.float32), 0.05, sequence=k)
        assert queue.put(update, len(update), 0) and len(queue) <= 1001
    waiting = queue.take()
    assert sum(entry.updates for entry in waiting) == 3500 and not queue.counts["dropped_queue_full"]
    known: dict[int, int] = {}
    for entry in waiting:
        known.update(zip(entry.content.coords[:, 0].tolist(), entry.content.colors[:, 0].tolist(), strict=True))
    last = {k % 5: k % 256 for k in range(3500) if k % 2}
    assert known == last, "later values win, nothing is lost"
