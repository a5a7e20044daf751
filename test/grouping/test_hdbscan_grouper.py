"""HDBSCAN as a grouper."""

import numpy as np
import pytest
from grouping_scenes import assert_apart, box, component

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.components import canonical_keys
from instseg_ros.grouping.grouper import SPLITTERS
from instseg_ros.grouping.hdbscan_grouper import split_hdbscan
from instseg_ros.grouping.space import clustering_space


def test_the_space_is_scaled_embedding_and_voted_centre() -> None:
    one = component(box((0, 0, 0), (3, 4, 5)))
    where = clustering_space(one, GroupingConfig(embedding_scale=2.0, offset_scale=3.0))
    assert where.shape == (60, 7) and np.allclose(where[:, :4], 2.0 * one.rows.embedding)
    assert np.allclose(where[:, 4:], 3.0 * 0.05 * np.array([1.5, 2.0, 2.5]), atol=1e-5)
    assert clustering_space(one, GroupingConfig(offset_scale=0.0)).shape == (60, 4)
    assert clustering_space(one, GroupingConfig(embedding_scale=0.0)).shape == (60, 3)
    where = clustering_space(one, GroupingConfig(semantic_scale=2.0, position_scale=0.5))
    assert where.shape == (60, 30) and np.allclose(where[:, 7:10], 0.5 * one.points_m) and np.allclose(where[:, 10:], 2.0 * one.rows.semantic)


@pytest.mark.parametrize("method", ["hdbscan", "mean_shift"])
def test_equal_things_side_by_side_are_told_apart_by_where_they_are(method: str) -> None:
    parts = box((0, 0, 0), (6, 6, 6)), box((40, 0, 0), (46, 6, 6)), box((6, 2, 2), (40, 3, 3))  # two boxes and a thin bar between them
    apart = {}
    for scale in (0.0, 1.0):
        config = GroupingConfig(method=method, offset_scale=0.0, position_scale=scale, min_cluster_voxels=60, mean_shift_bandwidth=0.8)
        coords = np.concatenate(parts)
        one = component(coords)
        labels = SPLITTERS[method](one, config)[0]
        left, right = (labels[np.isin(one.keys, canonical_keys(part))] for part in parts[:2])
        apart[scale] = np.bincount(left).argmax() != np.bincount(right).argmax()
    assert apart == {0.0: False, 1.0: True}


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_objects_come_apart(noise: float) -> None:
    parts = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8)), box((16, 2, 0), (24, 8, 8)), box((40, 0, 0), (46, 6, 6))
    assert_apart(GroupingConfig(), *parts, noise=noise)


def test_a_component_too_small_for_two_clusters_is_one() -> None:
    one = component(box((0, 0, 0), (5, 5, 2)))
    one.rows.embedding[:25] += 10.0
    assert set(split_hdbscan(one, GroupingConfig(min_cluster_voxels=26))[0].tolist()) == {0}
    assert set(split_hdbscan(one, GroupingConfig(min_cluster_voxels=20))[0].tolist()) == {0, 1}
