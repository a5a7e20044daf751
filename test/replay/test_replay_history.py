"""The lives of ids: when they had voxels, what happened to them, and pictures of few and of very many."""

import numpy as np
import pytest

from instseg_ros.replay import plots
from instseg_ros.replay.history import IdHistory, Replay, Series, StateRow


def test_an_id_that_comes_back_has_two_spans():
    history = IdHistory()
    history.add(0.0, {1: 4, 2: 5}, [("born", 1, 0), ("born", 2, 0)])
    history.add(1.0, {1: 4, 2: 6}, [("updated", 2, 0)])
    history.add(2.0, {2: 6}, [("merged", 1, 2)])
    history.add(3.0, {1: 4, 2: 6}, [("split", 1, 2)])
    history.add(5.0, {1: 4}, [("retired", 2, 0)])
    one, two = history.lives.values()
    assert one.spans == [(0.0, 2.0), (3.0, 5.0)] and two.spans == [(0.0, 5.0)] and two.class_index == 6
    assert [(mark.kind, mark.other) for mark in one.marks] == [("born", 0), ("merged", 2), ("split", 2)]
    assert history.counts() == {"ids": 2, "born": 2, "merged": 1, "split": 1, "retired": 1}
    assert one.row() == {"row": "id", "id": 1, "class": one.name, "spans_s": pytest.approx(np.array(one.spans)), "events": [
        {"at_s": 0.0, "kind": "born", "other": 0}, {"at_s": 2.0, "kind": "merged", "other": 2}, {"at_s": 3.0, "kind": "split", "other": 2}]}


@pytest.mark.parametrize("count", [0, 1, 500])
def test_pictures_of_any_number_of_ids(tmp_path, count):
    history = IdHistory()
    for at in range(3):
        history.add(float(at), dict.fromkeys(range(1, count + 1), 4), [("born", i, 0) for i in range(1, count + 1) if not at])
    at_s = np.arange(3.0)
    replay = Replay(
        "topics", Series(at_s, {"ms": np.array([1.0, 2.0, 90.0])}), Series(at_s, {"map": at_s, "network": at_s}),
        [StateRow(at, 10, count) for at in at_s.tolist()], history, {}, [], Series(at_s, {"updates": at_s}),
    )
    for path in plots.write_plots(tmp_path, replay):
        assert path.stat().st_size > 3000
