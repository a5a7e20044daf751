"""Tables built by sorting and searching: those of the pyramid, but for the order of coarser rows."""

import os

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_incremental import random_step
from test_program import small_net

from instseg_ros.mapping.voxel_map import VoxelMap
from instseg_ros.sparse.device_pyramid import build_tables_on
from instseg_ros.sparse.pyramid import Pyramid, Tables
from instseg_ros.sparse.runner import FullPassRunner

DEVICE = os.environ.get("INSTSEG_TEST_DEVICE", "cpu")


def by_voxel(table: torch.Tensor, rows: list, columns: list) -> dict:
    """What a table says, told by voxels: {voxel of a row: {column: voxel it names}}, of rows that name any."""
    said: dict = {}
    for row, column in torch.nonzero(table >= 0).tolist():
        said.setdefault(rows[row], {})[column] = columns[int(table[row, column])]
    return said


def told(tables: Tables, finest: list) -> list[list[dict]]:
    """All tables by voxels; those of a coarser row are its children's, halved."""
    levels, voxels = [], finest
    for level in tables.levels:
        levels.append([by_voxel(level.neighbors.cpu(), voxels, voxels)])
        if level.up is not None:
            up = level.up.cpu()
            coarser: list = [None] * (int(up.max()) + 1 if len(up) else 0)
            for row, column in torch.nonzero(up >= 0).tolist():
                coarser[int(up[row, column])] = tuple(c >> 1 for c in voxels[row])
            levels[-1].append(by_voxel(up, voxels, coarser))
            levels[-1].append(by_voxel(tables.levels[len(levels)].children.cpu(), coarser, voxels))
            voxels = coarser
    return levels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 4), st.sampled_from([3, 9, 40]), st.booleans())
@example(0, 1, 3, True)
def test_tables_are_those_of_the_pyramid(seed, depth, side, some_gone):
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-side, side, (rng.integers(1, 200), 3)).astype(np.int32), axis=0)
    rng.shuffle(coords)
    pyramid = Pyramid(depth)
    pyramid.insert(coords)
    if some_gone:
        pyramid.remove(np.flatnonzero(rng.random(len(coords)) < 0.3).astype(np.int32))
    finest = pyramid.levels[0]
    voxels, alive = (torch.from_numpy(part[: finest.high_water]) for part in (finest.coords, finest.alive))
    got = build_tables_on(voxels.to(DEVICE), depth, alive.to(DEVICE) if some_gone else None)
    rows = [tuple(voxel) for voxel in voxels.tolist()]
    assert told(got, rows) == told(pyramid.tables(), rows)
    assert len(got.levels[0].neighbors) == len(voxels)


@pytest.mark.parametrize("seed", range(4))
def test_a_full_pass_over_them_is_the_same(seed):
    net, rng = small_net(seed), np.random.default_rng(seed)
    voxels, by_search, by_pyramid = VoxelMap(0.05, depth=3), FullPassRunner(net, DEVICE), FullPassRunner(net, DEVICE)
    by_search._builds_tables, by_pyramid._builds_tables = True, False
    for _ in range(4):
        delta = voxels.apply(random_step(rng, voxels))
        changed = [runner.refresh(voxels, delta) for runner in (by_search, by_pyramid)]
        live = voxels.live_slots()
        assert np.isin(delta.added, changed[0]).all()
        for name, want in by_pyramid.prediction.items():
            got = getattr(by_search.prediction, name)
            assert np.abs(got[live] - want[live]).max(initial=0.0) <= 1e-5 * (1 + np.abs(want[live]).max(initial=0.0))


def test_an_empty_map_has_empty_tables():
    tables = build_tables_on(torch.zeros(0, 3, dtype=torch.int32, device=DEVICE), 3)
    assert [level.neighbors.shape for level in tables.levels] == [(0, 27)] * 3
    gone = build_tables_on(torch.zeros(2, 3, dtype=torch.int32, device=DEVICE), 2, torch.zeros(2, dtype=torch.bool, device=DEVICE))
    assert gone.levels[0].neighbors.shape == (2, 27) and (gone.levels[0].neighbors == -1).all()
    assert gone.levels[1].neighbors.shape == (0, 27)
