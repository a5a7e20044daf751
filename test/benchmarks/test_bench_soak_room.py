"""The room of the soak: it is explored, then changes for ever, by little at a time."""

import numpy as np

from instseg_ros.benchmarks.soak import ChangingRoom


def test_the_updates_lead_to_the_room_as_it_is():
    room, known = ChangingRoom(3, 250), {}
    kinds = set()
    for k in range(400):
        seen = room.explored
        update = room.change()
        assert update.sequence == k and update.stamp_ns % 10**9 == k % 10 * 10**8
        assert 0 < len(update) + len(update.deleted) <= (250 if seen else 2000)
        for voxel in map(tuple, update.deleted.tolist()):
            del known[voxel]  # it was there
        known.update(zip(map(tuple, update.coords.tolist()), map(tuple, update.colors.tolist()), strict=True))
        kinds.add((seen, bool(len(update)), bool(len(update.deleted))))
    assert kinds == {(False, True, False), (True, True, False), (True, False, True)}
    there = room.present
    assert known == dict(zip(map(tuple, room.room.coords[there].tolist()), map(tuple, room.colors[there].tolist()), strict=True))
    assert 0 < there.sum() < len(there)
    assert np.array_equal(ChangingRoom(3, 250).change().coords, room.room.coords[:2000]), "the same seed, the same room"
