"""Clouds of voxblox and RTAB-Map as input."""

import array

import numpy as np
import pytest
from ros_bench import block
from sensor_msgs.msg import PointCloud2, PointField

from instseg_ros.errors import InputError
from instseg_ros.mapping.voxelize import voxelize_points
from instseg_ros.ros import qos
from instseg_ros.ros.adapters.voxblox import near_surface
from instseg_ros.ros.conversions import header
from instseg_ros.ros.pointcloud import check_layout, read_points

VOXEL_M = 0.05


def pcl_cloud(columns: dict, step: int, dense=True) -> PointCloud2:
    """A cloud as pcl writes it: {name: (offset, values float32)}, padded points."""
    count = len(next(iter(columns.values()))[1])
    offsets = [offset for offset, _ in columns.values()]
    records = np.zeros(count, {"names": list(columns), "formats": ["<f4"] * len(columns), "offsets": offsets, "itemsize": step})
    for name, (_, values) in columns.items():
        records[name] = values
    fields = [PointField(name=n, offset=o, datatype=PointField.FLOAT32, count=1) for n, (o, _) in columns.items()]
    return PointCloud2(
        header=header(1, "world"), height=1, width=count, fields=fields, point_step=step, row_step=step * count, is_dense=dense,
        data=array.array("B", records.tobytes()),
    )


CENTERS = (block(0)[0] + 0.5).astype(np.float32) * np.float32(VOXEL_M)


def tsdf_cloud(distance, dense=True) -> PointCloud2:
    return pcl_cloud({**{n: (4 * i, CENTERS[:, i]) for i, n in enumerate("xyz")}, "intensity": (16, distance)}, 32, dense)


def test_voxblox_tsdf_clouds_are_cut_to_the_surface():
    distance = np.linspace(-0.1, 0.1, 64).astype(np.float32)
    cut = near_surface(tsdf_cloud(distance), "intensity", 0.03)
    points, colors, dropped = read_points(cut, check_layout(cut))
    np.testing.assert_allclose(points, CENTERS[np.abs(distance) < 0.03])
    assert colors is None and dropped == 0 and cut.header.frame_id == "world"
    distance[30:34] = np.nan
    with pytest.raises(InputError, match="4 numbers of field 'intensity' are not finite"):
        near_surface(tsdf_cloud(distance), "intensity", 0.03)
    assert near_surface(tsdf_cloud(distance, dense=False), "intensity", 0.03).width == cut.width - 4
    with pytest.raises(InputError, match="no float field 'distance'.*input.distance_field"):
        near_surface(tsdf_cloud(distance), "distance", 0.03)
    assert near_surface(pcl_cloud({n: (4 * i, []) for i, n in enumerate("xyzd")}, 16), "d", 1.0).width == 0


def test_clouds_of_rtabmap_and_of_voxblox_surfaces_are_read_as_they_are():
    """pcl::PointXYZRGB: 32 bytes a point, the colour as a float at 16."""
    rgb = np.arange(64, dtype=np.uint32) * 65793
    msg = pcl_cloud({**{n: (4 * i, CENTERS[:, i]) for i, n in enumerate("xyz")}, "rgb": (16, rgb.view(np.float32))}, 32)
    points, colors, _ = read_points(msg, check_layout(msg))
    update = voxelize_points(points, colors, VOXEL_M)
    assert {tuple(c) for c in update.coords.tolist()} == {tuple(c) for c in block(0)[0].tolist()}
    assert np.array_equal(np.sort(update.colors[:, 0]), np.arange(64)) and (update.weights == 1).all()


def test_the_node_maps_a_tsdf_cloud(bench):
    node = bench.segmenter(input__distance_field="intensity")
    publisher = bench.publisher(PointCloud2, "map_points", qos.CLOUDS)
    distance = np.where(block(0)[0][:, 2] == 1, 0.01, 0.05).astype(np.float32)
    publisher.publish(tsdf_cloud(distance))
    bench.until(lambda: node.worker.voxels == 16, "the voxels near the surface")
    publisher.publish(pcl_cloud({n: (4 * i, CENTERS[:, i]) for i, n in enumerate("xyz")}, 16))
    bench.until(lambda: node.monitor.counts["refused"] == 1, "a cloud without distances is refused")
    assert "input.distance_field" in node.monitor.last_error and node.worker.voxels == 16
