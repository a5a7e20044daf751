"""Updates that are lost, doubled or overtaken on their way: once the whole map has come again, all is as if nothing had happened."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instseg_ros.msg import MapUpdate as MapUpdateMsg
from instseg_ros.srv import RequestFull
from ros_bench import block

from instseg_ros.benchmarks.chair_net import chair_net
from instseg_ros.config import GroupingConfig, SegmenterConfig
from instseg_ros.mapping.merge import merge_updates
from instseg_ros.mapping.update import MapUpdate, coord_keys
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import update_to_msg
from instseg_ros.ros.inputs import Arrival, SequenceWatch, UpdateQueue
from instseg_ros.segmenter import Segmenter

SITES, PERIOD_NS, START_NS = 9, 100_000_000, 10_000_000_000


class Mapper:
    """Blocks that come, grow, change colour and go; ten updates a second."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.sequence, self.size, self.color = rng, -1, np.zeros(SITES, int), np.zeros(SITES, int)

    def change(self) -> MapUpdate:
        site = int(self.rng.integers(SITES))
        before, after = self.size[site], 0 if self.rng.random() < 0.2 else int(self.rng.integers(3, 6))
        self.size[site], self.color[site] = after, int(self.rng.integers(256))
        left = block(10 * site, before)[0]
        gone = left[((left - (10 * site, 0, 0)) >= after).any(axis=1)]
        return self._update([site], False, gone)

    def whole(self) -> MapUpdate:
        return self._update(range(SITES), True, np.zeros((0, 3), np.int32))

    def _update(self, sites, full: bool, deleted: np.ndarray) -> MapUpdate:
        self.sequence += 1
        parts = [block(10 * site, self.size[site], self.color[site]) for site in sites]
        coords, colors = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        stamp_ns = START_NS + PERIOD_NS * self.sequence
        return MapUpdate(coords, colors, np.ones(len(coords), np.float32), 0.05, "map", stamp_ns, self.sequence, full, deleted)


class Channel:
    """Loses, doubles and delays; what it delays comes up to five messages later."""

    def __init__(self, rng: np.random.Generator, share: float) -> None:
        self.rng, self.share, self.late = rng, share, []

    def send(self, message):
        """What arrives now."""
        arriving = [m for left, m in self.late if left == 0]
        self.late = [(left - 1, m) for left, m in self.late if left]
        fate = self.rng.random()
        if fate < self.share:
            copies = []  # lost
        elif fate < 2 * self.share:
            copies = [(0, message), (int(self.rng.integers(1, 5)), message)]
        elif fate < 3 * self.share:
            copies = [(int(self.rng.integers(1, 5)), message)]
        else:
            copies = [(0, message)]
        arriving += [m for delay, m in copies if not delay]
        self.late += [(delay - 1, m) for delay, m in copies if delay]
        return [arriving[i] for i in self.rng.permutation(len(arriving))]


class Receiver:
    """The node's way from a message to the map, without the node."""

    def __init__(self, max_voxels: int) -> None:
        grouping = GroupingConfig(method="connected_components", min_voxels=5)
        self.segmenter = Segmenter(SegmenterConfig(grouping=grouping, device="cpu", threads=1, tolerance=0.0), chair_net())
        self.watch, self.queue = SequenceWatch(), UpdateQueue(max_voxels)

    def receive(self, update: MapUpdate) -> None:
        if self.watch.check(update.sequence, update.stamp_ns, update.full) is Arrival.STALE:
            return
        if not self.queue.put(update, len(update) + len(update.deleted), 0, update.full):
            self.watch.lost_one()

    def work(self) -> None:
        waiting = self.queue.take()
        if waiting:
            self.segmenter.process(merge_updates([w.content for w in waiting]))


def labelled(segmenter: Segmenter):
    """Voxels in order of place: colour, class and confidence, and the partition into instances (the first voxel of each one's own)."""
    live = segmenter.map.live_slots()
    live = live[np.argsort(coord_keys(segmenter.map.coords[live]))]
    cloud = segmenter.cloud(live)
    _, first, inverse = np.unique(cloud.instance, return_index=True, return_inverse=True)
    return segmenter.map.coords[live], cloud.colors, cloud.class_index, cloud.confidence, np.where(cloud.instance > 0, first[inverse], -1)


def assert_equal(one: Segmenter, other: Segmenter) -> None:
    for a, b in zip(labelled(one), labelled(other), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.15, 0.3]), st.sampled_from([300, 100_000]))
def test_lossy_equals_lossless(seed, share, room):
    rng = np.random.default_rng(seed)
    mapper, channel, lossy, lossless = Mapper(rng), Channel(rng, share), Receiver(room), Receiver(10**6)
    pending = 0

    def deliver(update: MapUpdate, safely: bool = False) -> None:
        lossless.receive(update)
        for one in channel.send(update) if not safely else [*(m for _, m in channel.late), update]:
            lossy.receive(one)
        for receiver in (lossy, lossless):
            if rng.random() < 0.5 or safely:
                receiver.work()

    for _ in range(40):
        deliver(mapper.change())
        pending = pending + 1 if not lossy.watch.complete else 0
        if pending >= 4:  # an answer takes its time, and can be lost as well
            deliver(mapper.whole())
            pending = 0
    deliver(mapper.change(), safely=True)  # that the last one is lost shows when another one comes
    for _ in range(3):
        if lossy.watch.complete:
            break
        deliver(mapper.whole(), safely=True)
    assert lossy.watch.complete
    assert_equal(lossy.segmenter, lossless.segmenter)


def test_what_arrives_is_never_complete_and_wrong():
    """Whenever the watch says complete, and nothing waits or is under way, the map is the mapper's."""
    compared = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mapper, channel, lossy = Mapper(rng), Channel(rng, 0.1), Receiver(10**6)
        for _ in range(30):
            update = mapper.change() if lossy.watch.complete or rng.random() < 0.5 else mapper.whole()
            for one in channel.send(update):
                lossy.receive(one)
            lossy.work()
            if lossy.watch.complete and lossy.watch._last == mapper.sequence:
                wanted = np.concatenate([block(10 * site, size)[0] for site, size in enumerate(mapper.size)])
                live = lossy.segmenter.map.live_slots()
                np.testing.assert_array_equal(np.sort(coord_keys(lossy.segmenter.map.coords[live])), np.sort(coord_keys(wanted)))
                compared += 1
    assert compared > 50


@pytest.mark.parametrize("seed", [0, 1])
def test_over_topics_a_map_is_healed_by_request_full(bench, seed):
    rng = np.random.default_rng(seed)
    parameters = {"grouping__method": "connected_components", "grouping__min_voxels": 5, "tolerance": 0.0, "input__request_period_s": 0.05}
    node = bench.segmenter(**parameters)
    mapper, channel, lossless = Mapper(rng), Channel(rng, 0.2), Receiver(10**6)
    wanted = []
    publisher = bench.publisher(MapUpdateMsg, "map_updates", qos.DELTAS)

    def asked(_request, response):
        wanted.append(True)
        response.success = True
        return response

    bench.probe.create_service(RequestFull, "request_full", asked)

    def send(update: MapUpdate, safely: bool = False) -> None:
        lossless.receive(update)
        lossless.work()
        for one in [update] if safely else channel.send(update):
            publisher.publish(update_to_msg(one))

    for _ in range(60):
        send(mapper.whole() if wanted else mapper.change())
        wanted.clear()
        bench.executor.spin_once(timeout_sec=0.02)
    send(mapper.change(), safely=True)

    def healed() -> bool:
        if wanted:
            wanted.clear()
            send(mapper.whole(), safely=True)
        return node.watch.complete and node.watch._last == mapper.sequence and not len(node.queue)

    bench.until(healed, "the whole map")
    bench.until(lambda: node.worker._last_sequence == mapper.sequence, "its result")
    counts = node.monitor.counts
    assert counts["sequence_gaps"] and counts["full_requests"] and counts["dropped_duplicate_or_late"] and not counts["resets_by_time"]
    assert_equal(node.segmenter, lossless.segmenter)
