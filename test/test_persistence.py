"""The state file: what was saved goes on as if nothing had happened, and what is not whole is refused with a reason."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from test_segmenter import box, by_voxel, make, scene, update

from instseg_ros.errors import DataError
from instseg_ros.event_log import EventLog
from instseg_ros.instance import TrackEvent
from instseg_ros.persistence import (
    load_newest_state,
    load_state,
    previous_file,
    save_state,
    set_aside,
    take_state,
    write_state,
)
from instseg_ros.segmenter import Segmenter

ROOT = Path(__file__).parents[1]


class World:
    """A table of boxes that come, go, touch and part, as updates with everything at random."""

    COLORS = ((255, 0, 0), (0, 255, 0))

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.voxels: dict = {}
        self.sequence = 0

    def step(self):
        before = dict(self.voxels)
        for _ in range(int(self.rng.integers(1, 4))):
            corner = self.rng.integers(0, 4, 3) * 6
            color = self.COLORS[self.rng.integers(2)]
            # 7 wide boxes touch their neighbours on the grid of 6, 3 wide ones do not
            coords, colors = box(corner, self.rng.choice([3, 5, 7], 3), color)
            for c, k in zip(coords.tolist(), colors.tolist(), strict=True):
                if self.rng.random() < 0.02:
                    continue
                if color[0] or tuple(c) not in self.voxels:
                    self.voxels[tuple(c)] = tuple(k)
            if self.rng.random() < 0.6:
                low = self.rng.integers(0, 24, 3)
                high = low + self.rng.integers(3, 12, 3)
                self.voxels = {c: k for c, k in self.voxels.items() if not all(a <= v < b for a, v, b in zip(low, c, high, strict=True))}
        full = bool(self.rng.random() < 0.3)
        new = [c for c, k in self.voxels.items() if full or before.get(c) != k]
        gone = [] if full else [c for c in before if c not in self.voxels]
        self.rng.shuffle(new)
        self.rng.shuffle(gone)
        self.sequence += 1
        return update(
            np.array(new, np.int32).reshape(-1, 3), np.array([self.voxels[tuple(c)] for c in new], np.uint8).reshape(-1, 3), full=full,
            deleted=np.array(gone, np.int32).reshape(-1, 3), sequence=self.sequence, stamp_ns=self.sequence * 1000,
        )


def same_state(a: Segmenter, b: Segmenter) -> None:
    """Everything of two segmenters that outlives an update is equal, to the last bit."""
    one, other = take_state(a, 0, 0), take_state(b, 0, 0)
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        if name != "memory.slot":
            np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    assert memories(one.arrays) == memories(other.arrays)
    live = a.map.live_slots()
    np.testing.assert_array_equal(a.runner.prediction.semantic[live], b.runner.prediction.semantic[live])


def memories(arrays) -> list:
    """What every instance asleep remembers: a set of slots, their order says nothing."""
    return [set(part.tolist()) for part in np.split(arrays["memory.slot"], np.cumsum(arrays["dormant.remembered"]))]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from(["full", "incremental"]))
def test_an_interrupted_run_is_the_uninterrupted_one(tmp_path_factory, seed, passes):
    changes = {"passes": passes, "tolerance": 0.0, "tracking.retire_after": 3, "grouping.min_voxels": 5}
    path = tmp_path_factory.mktemp("state") / "map.instseg"
    world, rng = World(seed), np.random.default_rng(seed + 1)
    straight, resumed = make(**changes), make(**changes)
    for _ in range(8):
        one = world.step()
        first, second = straight.process(one), resumed.process(one)
        assert first.events == second.events
        assert by_voxel(straight) == by_voxel(resumed)
        np.testing.assert_array_equal(first.relabelled, second.relabelled)
        assert {i.id for i in first.instances} == {i.id for i in second.instances}
        if rng.random() < 0.4:
            save_state(path, resumed, one.stamp_ns, one.sequence)
            state = load_state(path)
            assert (state.stamp_ns, state.sequence, state.voxels) == (one.stamp_ns, one.sequence, len(resumed.map))
            resumed = make(**changes)
            if rng.random() < 0.5:
                resumed.process(World(7).step())  # what it held before does not matter
            resumed.restore(state)
            assert by_voxel(resumed) == by_voxel(straight)
        same_state(straight, resumed)


@pytest.fixture(scope="module")
def used() -> Segmenter:
    """A segmenter with instances awake and asleep, events, and freed slots."""
    segmenter = make(**{"tracking.retire_after": 10, "tolerance": 0.0})
    coords, colors = scene()
    segmenter.process(update(coords, colors, stamp_ns=5, frame_id="odom"))
    keep = ~((coords[:, 0] < 10) & (coords[:, 2] > 0) & (coords[:, 1] < 10))
    black = np.where(((coords[:, 0] > 20) & (coords[:, 2] > 0))[:, None], 0, colors).astype(np.uint8)
    segmenter.process(update(coords[keep], black[keep], full=True, stamp_ns=6, frame_id="odom"))
    return segmenter


@pytest.fixture
def saved(used, tmp_path) -> Path:
    save_state(tmp_path / "map.instseg", used, 6, 1)
    return tmp_path / "map.instseg"


def test_what_is_loaded_is_what_was_saved(used, saved):
    state = load_state(saved)
    assert (state.frame_id, state.voxel_size_m, state.stamp_ns, state.sequence, state.weights) == ("odom", 0.05, 6, 1, used.weights)
    assert state.instances == len(used.tracker.instances) == 1 and len(state.arrays["dormant.id"]) == 1 and len(state.arrays["free.slot"]) == 216
    assert state.settings["tracking.retire_after"] == 10
    other = make(**{"tolerance": 0.0})
    other.restore(state)
    assert by_voxel(other) == by_voxel(used) and other.map.frame_id == "odom"
    gone = next(i for i in (1, 2, 3) if other.log.of(i)[-1].event.kind == "retired")
    assert [(x.stamp_ns, x.event.kind) for x in other.log.of(gone)] == [(5, "born"), (6, "retired")] == [
        (x.stamp_ns, x.event.kind) for x in used.log.of(gone)
    ]


def test_the_file_is_plain_safetensors(used, saved):
    with safe_open(str(saved), "np") as file:
        assert np.array_equal(file.get_tensor("voxel.coords"), used.map.coords[used.map.live_slots()])
        assert json.loads(file.metadata()["about"])["frame_id"] == "odom"


def test_other_weights_and_settings_keep_the_ids(used, saved):
    state = load_state(saved)
    other = make(**{"grouping.min_voxels": 30})
    other.restore(replace(state, weights="another"))
    assert set(other.tracker.instances) == set(used.tracker.instances)
    strict = make(**{"grouping.min_voxels": 100_000})
    strict.restore(state)
    assert set(strict.tracker.instances) == set(used.tracker.instances), "as saved, until the next update looks again"
    assert not strict.process(update(np.array([[90, 90, 0]], np.int32), np.zeros((1, 3), np.uint8), frame_id="odom")).instances


def test_another_voxel_size_is_refused_and_nothing_changes(used, saved):
    before = by_voxel(used)
    with pytest.raises(DataError, match=r"0\.1 m, voxel_size_m is 0\.05"):
        used.restore(replace(load_state(saved), voxel_size_m=0.1))
    damaged = load_state(saved)
    damaged.arrays["voxel.instance_of"][:] = 0
    with pytest.raises(DataError, match="disagree"):
        used.restore(damaged)
    assert by_voxel(used) == before


def test_an_empty_map_is_saved_too(tmp_path):
    save_state(tmp_path / "e.instseg", make())
    other = make()
    other.restore(load_state(tmp_path / "e.instseg"))
    coords, colors = scene()
    assert sorted(i.id for i in other.process(update(coords, colors)).instances) == [1, 2, 3]


# Damage.


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_state(path)
    return str(caught.value)


def parts(content: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: dict, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def test_truncated_files_are_refused_wherever_they_end(saved, tmp_path):
    content = saved.read_bytes()
    header, payload = parts(content)
    begin = len(content) - len(payload)
    ends = {0, 1, 7, 8, 9, begin // 2, begin - 1, begin, begin + 1, len(content) - 1}
    ends |= {begin + o for entry in header.values() if "data_offsets" in entry for o in entry["data_offsets"]} - {len(content)}
    for end in sorted(ends):
        assert "x.instseg: " in refused(tmp_path / "x.instseg", content[:end])
    refused(tmp_path / "x.instseg", content + b"x")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_are_refused_or_do_not_matter(used, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "x.instseg"
    save_state(path, used, 6, 1)
    whole, content = load_state(path), bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    zone = data.draw(st.sampled_from([(0, 8), (8, begin), (begin, len(content))]))
    content[data.draw(st.integers(zone[0], zone[1] - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        state = load_state(path)
    except DataError:
        return
    assert all(np.array_equal(a, state.arrays[name]) for name, a in whole.arrays.items()) and zone[0] > 0, "white space, no more"


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def test_foreign_files_are_refused(tmp_path):
    from safetensors.numpy import save

    np.savez(tmp_path / "n.npz", a=np.zeros(3))
    np.save(tmp_path / "o.npy", np.array([Bomb()], object), allow_pickle=True)
    contents = [
        b"", b"ply\nformat ascii 1.0\n", os.urandom(500), b"\xff" * 100, (tmp_path / "n.npz").read_bytes(), (tmp_path / "o.npy").read_bytes(),
        pickle.dumps(Bomb()), save({"a": np.zeros(3, np.float32)}), save({"a": np.zeros(3)}, {"format": "instseg_ros 1"}),
        (5).to_bytes(8, "little") + b"[1,2]", (1 << 62).to_bytes(8, "little") + b"{}", (20_000).to_bytes(8, "little") + b"[" * 20_000,
    ]
    for content in contents:
        assert "not a state file" in refused(tmp_path / "x.instseg", content), content[:20]
    with pytest.raises(DataError, match="cannot be read"):
        load_state(tmp_path / "missing.instseg")
    with pytest.raises(DataError, match="cannot be read"):
        load_state(tmp_path)


@pytest.mark.parametrize("damage", [
    lambda h: h["voxel.coords"].update(shape=[1 << 60, 3]),
    lambda h: h["voxel.coords"].update(shape=[-1, 3]),
    lambda h: h["voxel.coords"].update(shape=[10, 4]),
    lambda h: h["voxel.coords"].update(shape=[True, 3]),
    lambda h: h["voxel.coords"].update(dtype="I64"),
    lambda h: h["voxel.slot"].update(data_offsets=[0, 1 << 60]),
    lambda h: h.update({"voxel.slot": 3}),
    lambda h: h.update(more={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
    lambda h: h.pop("free.slot"),
    lambda h: [h[n].update(shape=[1 << 40, *h[n]["shape"][1:]]) for n in h if n.startswith("voxel.")],
    lambda h: h["__metadata__"].update(version="2"),
    lambda h: h["__metadata__"].pop("sha256"),
    lambda h: h["__metadata__"].update(about="[]"),
    lambda h: h["__metadata__"].update(about=json.dumps({**json.loads(h["__metadata__"]["about"]), "stamp_ns": "now"})),
    lambda h: h["__metadata__"].update(about=json.dumps({**json.loads(h["__metadata__"]["about"]), "sequence": -1})),
])
def test_wrong_headers_are_refused_before_memory_is_taken(saved, tmp_path, damage):
    header, payload = parts(saved.read_bytes())
    damage(header)
    assert "x.instseg: " in refused(tmp_path / "x.instseg", joined(header, payload))


@pytest.mark.parametrize(("name", "value"), [
    ("voxel.slot", -1), ("voxel.slot", 1), ("voxel.coords", 1 << 30), ("voxel.weight", np.nan), ("voxel.weight", 0.0), ("voxel.class_index", 77),
    ("voxel.confidence", np.inf), ("voxel.home", 2**32 - 1), ("live.score", np.nan), ("live.box_min_m", np.inf), ("live.id", 0),
    ("live.class_index", -1), ("dormant.merged_into", 99), ("dormant.remembered", 1), ("memory.slot", 10**9), ("event.kind", 9),
    ("counters", 0), ("free.slot", 0), ("live.first_seen_ns", 1 << 62),
])
def test_values_out_of_range_are_refused(used, tmp_path, name, value):
    state = take_state(used, 6, 1)
    array = np.array(state.arrays[name])
    array.reshape(-1)[0] = value
    state.arrays[name] = array
    write_state(tmp_path / "x.instseg", state)
    assert "whatever wrote this file" in refused(tmp_path / "x.instseg", (tmp_path / "x.instseg").read_bytes())


def test_the_file_before_is_used_when_the_newest_is_damaged(used, saved):
    save_state(saved, used, 7, 2)
    assert (load_state(saved).sequence, load_state(previous_file(saved)).sequence) == (2, 1)
    saved.write_bytes(saved.read_bytes()[:-1])
    state, why = load_newest_state(saved)
    assert state is not None and state.sequence == 1 and "truncated" in why[0]
    assert set_aside(saved) == saved.with_name("map.instseg.refused") and not saved.exists()
    save_state(saved, used, 8, 3)
    assert load_state(previous_file(saved)).sequence == 1, "the good one is not pushed out by the damaged one"
    assert load_newest_state(saved.with_name("none.instseg")) == (None, [])


def test_a_full_disk_leaves_the_files(used, saved, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        save_state(saved, used, 9, 9)
    assert load_state(saved).sequence == 1 and sorted(p.name for p in saved.parent.iterdir()) == ["map.instseg"]


KILLER = """
import os, signal, sys, time
from dataclasses import replace
import numpy as np
from instseg_ros.persistence import load_newest_state, load_state, previous_file, write_state

state, path, rng, last, parts = load_state(sys.argv[1]), sys.argv[2], np.random.default_rng(0), 0, 0
for _ in range(25):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        while True:
            last += 1
            write_state(path, replace(state, sequence=last))
            os.write(tell, b"%d " % last)
    os.close(tell)
    os.read(told, 1)
    time.sleep(float(rng.uniform(0.0, 0.03)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(told) as said:
        done = [last + 1, *map(int, said.read().split()[1:])][-1]
    parts += os.path.exists(os.path.join(os.path.dirname(path), ".k.instseg.part"))
    newest, refused = load_newest_state(path)
    assert not refused and newest.sequence >= done, (refused, newest, done)
    assert not previous_file(path).exists() or load_state(previous_file(path)).sequence <= newest.sequence
    last = newest.sequence
print(parts)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(saved, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLER, str(saved), str(tmp_path / "k.instseg")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "some were killed while they wrote"


def test_the_event_log_is_bounded_and_tells_a_life():
    log = EventLog()
    for stamp in range(50):
        log.record([TrackEvent("born" if not stamp else "updated", 1, 0, 4)], stamp)
    assert [(x.stamp_ns, x.event.kind) for x in log.of(1)] == [(0, "born"), (49, "updated")]
    for stamp in range(100):
        log.record([TrackEvent("merged", 2, 1, 4), TrackEvent("split", 2, 1, 4)], stamp)
    assert len(log.of(2)) == 32 and log.of(2)[-1].event.kind == "split"
    log.record([TrackEvent("retired", i, 0, 4) for i in range(10, 3010)], 200)
    assert not log.of(10) and log.of(3009) and log.of(1)
    again = EventLog.from_state(log.state())
    assert all(again.of(i) == log.of(i) for i in range(3010))
    again.record([TrackEvent("retired", 5000, 0, 4)], 201)
    log.record([TrackEvent("retired", 5000, 0, 4)], 201)
    assert all(again.of(i) == log.of(i) for i in range(5001))
