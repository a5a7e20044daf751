"""HDBSCAN as a grouper."""

import numpy as np
import pytest
from grouping_scenes import assert_apart, box, component

from instseg_ros.config import GroupingConfig
from instseg_ros.grouping.hdbscan_grouper import split_hdbscan
from instseg_ros.grouping.space import clustering_space


def test_the_space_is_scaled_embedding_and_voted_centre() -> None:
    one = component(box((0, 0, 0), (3, 4, 5)))
    where = clustering_space(one, GroupingConfig(embedding_scale=2.0, offset_scale=3.0))
    assert where.shape == (60, 7) and np.allclose(where[:, :4], 2.0 * one.rows.embedding)
    assert np.allclose(where[:, 4:], 3.0 * 0.05 * np.array([1.5, 2.0, 2.5]), atol=1e-5)
    assert clustering_space(one, GroupingConfig(offset_scale=0.0)).shape == (60, 4)
    assert clustering_space(one, GroupingConfig(embedding_scale=0.0)).shape == (60, 3)
    where = clustering_space(one, GroupingConfig(semantic_scale=2.0))
    assert where.shape == (60, 27) and np.allclose(where[:, 7:], 2.0 * one.rows.semantic)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_objects_come_apart(noise: float) -> None:
    parts = box((0, 0, 0), (8, 8, 8)), box((8, 0, 0), (16, 8, 8)), box((16, 2, 0), (24, 8, 8)), box((40, 0, 0), (46, 6, 6))
    assert_apart(GroupingConfig(), *parts, noise=noise)


def test_a_component_too_small_for_two_clusters_is_one() -> None:
    one = component(box((0, 0, 0), (5, 5, 2)))
    one.rows.embedding[:25] += 10.0
    assert set(split_hdbscan(one, GroupingConfig(min_cluster_voxels=26))[0].tolist()) == {0}
    assert set(split_hdbscan(one, GroupingConfig(min_cluster_voxels=20))[0].tolist()) == {0, 1}
