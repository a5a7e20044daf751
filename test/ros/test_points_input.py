"""PointCloud2 as input: every well-formed layout is read, everything else is refused with the reason."""

import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ros_bench import block
from sensor_msgs.msg import PointCloud2, PointField

from instseg_ros.errors import InputError
from instseg_ros.ros import qos
from instseg_ros.ros.conversions import header
from instseg_ros.ros.pointcloud import check_layout, colored_cloud_to_msg, labelled_cloud_to_msg, read_points

KINDS = {"f4": PointField.FLOAT32, "f8": PointField.FLOAT64, "u4": PointField.UINT32, "u1": PointField.UINT8}


def cloud(fields, order="<", height=1, row_pad=0, point_pad=0, dense=True) -> PointCloud2:
    """A cloud of the given (name, type, values) columns."""
    width = len(fields[0][2]) // height
    dtype = np.dtype([(name, order + kind) for name, kind, _ in fields] + ([("pad", f"V{point_pad}")] if point_pad else []))
    records = np.zeros(width * height, dtype)
    for name, _, values in fields:
        records[name] = values
    rows = [records[r * width : (r + 1) * width].tobytes() + b"\xff" * row_pad for r in range(height)]
    msg = PointCloud2(header=header(1, "map"), height=height, width=width, is_bigendian=order == ">", is_dense=dense)
    msg.point_step, msg.row_step = dtype.itemsize, dtype.itemsize * width + row_pad
    msg.fields = [PointField(name=n, offset=dtype.fields[n][1], datatype=KINDS[k], count=1) for n, k, _ in fields]
    msg.data = array.array("B", b"".join(rows))
    return msg


XYZ = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [9.0, 10.0, 11.0]])
RGB = np.array([[255, 0, 1], [2, 254, 3], [4, 5, 253], [128, 129, 130]], np.uint8)
PACKED = RGB.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)


def xyz(kind="f4"):
    return [(name, kind, XYZ[:, i]) for i, name in enumerate("xyz")]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", [{}, {"height": 2}, {"height": 2, "row_pad": 5, "point_pad": 3}, {"point_pad": 16}])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("color", ["uint32", "float32", "separate", "none"])
def test_every_layout_is_read(order, layout, kind, color):
    colors = {
        "uint32": [("rgb", "u4", PACKED)], "float32": [("rgb", "f4", PACKED.view(np.float32))],
        "separate": [("b", "u1", RGB[:, 2]), ("r", "u1", RGB[:, 0]), ("g", "u1", RGB[:, 1])], "none": [],
    }[color]
    msg = cloud(xyz(kind) + colors, order, **layout)
    points, read, dropped = read_points(msg, check_layout(msg))
    np.testing.assert_array_equal(points, XYZ)
    assert dropped == 0
    if color == "none":
        assert read is None
    else:
        np.testing.assert_array_equal(read, RGB)


def test_what_we_write_we_read():
    for msg in (
        colored_cloud_to_msg(header(5, "map"), XYZ, RGB),
        labelled_cloud_to_msg(header(5, "map"), XYZ, RGB, np.arange(4), np.arange(4), np.ones(4)),
    ):
        points, colors, _ = read_points(msg, check_layout(msg))
        np.testing.assert_array_equal(points, XYZ)
        np.testing.assert_array_equal(colors, RGB)


def test_points_that_are_not_finite():
    values = xyz()
    values[1] = ("y", "f4", np.array([1.0, np.nan, np.inf, 10.0]))
    msg = cloud(values, dense=False)
    points, _, dropped = read_points(msg, check_layout(msg))
    assert dropped == 2 and points[:, 0].tolist() == [0.0, 9.0]
    msg = cloud(values, dense=True)
    with pytest.raises(InputError, match="2 points are not finite.*is_dense to false"):
        read_points(msg, check_layout(msg))


def change(**fields):
    return lambda msg: [setattr(msg, name, value) for name, value in fields.items()]


BAD = {
    "no x": (lambda m: setattr(m.fields[0], "name", "X"), "no float field 'x'"),
    "integer x": (lambda m: setattr(m.fields[0], "datatype", PointField.INT32), "no float field 'x'"),
    "wide rgb": (lambda m: setattr(m.fields[3], "datatype", PointField.FLOAT64), "4 bytes"),
    "field outside": (lambda m: setattr(m.fields[2], "offset", 1000), "does not fit point_step"),
    "two x": (lambda m: setattr(m.fields[0], "count", 2), "does not fit"),
    "short data": (lambda m: setattr(m, "data", m.data[:-1]), "cut short"),
    "huge": (change(width=2**31, height=4), "more than"),
    "no point_step": (change(point_step=0), "point_step is 0"),
    "empty with huge points": (change(width=0, point_step=2**31), "point_step is 2147483648"),
    "short rows": (change(height=2, row_step=4), "row_step 4"),
    "no frame": (lambda m: setattr(m.header, "frame_id", ""), "frame_id"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_clouds_are_refused(name):
    damage, text = BAD[name]
    msg = cloud([*xyz(), ("rgb", "u4", PACKED)])
    damage(msg)
    with pytest.raises(InputError, match=text):
        check_layout(msg)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_header_leads_outside_of_the_data(data):
    msg = cloud([*xyz(), ("rgb", "u4", PACKED)])
    small = st.one_of(st.integers(0, 40), st.sampled_from([2**16, 2**31, 2**32 - 1]))
    for name in data.draw(st.sets(st.sampled_from(["width", "height", "point_step", "row_step"]))):
        setattr(msg, name, data.draw(small))
    for field in msg.fields:
        if data.draw(st.booleans()):
            field.offset = data.draw(small)
            field.datatype = data.draw(st.integers(0, 9))
    msg.data = msg.data[: data.draw(st.integers(0, len(msg.data)))]
    msg.is_dense = data.draw(st.booleans())
    try:
        points, colors, dropped = read_points(msg, check_layout(msg))
    except InputError:
        return
    assert len(points) + dropped == msg.width * msg.height and np.isfinite(points).all()
    assert colors is None or colors.shape == points.shape


def test_an_empty_cloud_is_no_error():
    msg = PointCloud2(header=header(1, "map"), fields=cloud(xyz()).fields, point_step=12, is_dense=True)
    points, colors, _ = read_points(msg, check_layout(msg))
    assert points.shape == (0, 3) and colors is None


def as_cloud(*parts, stamp_ns=1_000_000_000, frame="map") -> PointCloud2:
    coords, colors = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return colored_cloud_to_msg(header(stamp_ns, frame), (coords + 0.5) * 0.05, colors)


def test_full_clouds_are_compared_with_the_map(bench):
    node = bench.segmenter()
    publisher = bench.publisher(PointCloud2, "map_points", qos.CLOUDS)
    publisher.publish(as_cloud(block(0), block(20)))
    bench.until(lambda: node.worker.voxels == 128 and node.worker.instances == 2, "the first cloud")
    deltas = []
    original = node.segmenter.process
    node.segmenter.process = lambda update: deltas.append(update) or original(update)
    # The second block is gone, a third is new, the first has changed too little to count.
    publisher.publish(as_cloud(block(0, value=105), block(40), stamp_ns=2_000_000_000))
    bench.until(lambda: len(deltas) == 1 and node.segmenter.map.lookup(block(40)[0]).min() >= 0, "the second cloud")
    bench.until(lambda: node.worker.voxels == 128, "its result")
    np.testing.assert_array_equal(np.sort(deltas[0].coords[:, 0]), np.sort(block(40)[0][:, 0]))
    assert len(deltas[0].deleted) == 64 and not deltas[0].full
    publisher.publish(as_cloud(block(0, value=105), block(40), stamp_ns=3_000_000_000))
    bench.until(lambda: node.monitor.counts["updates_without_change"] == 1, "nothing to do")
    assert len(deltas) == 1


def test_delta_clouds_add_to_the_map(bench):
    node = bench.segmenter(input__points_mode="delta")
    publisher = bench.publisher(PointCloud2, "map_points", qos.CLOUDS)
    publisher.publish(as_cloud(block(0)))
    publisher.publish(as_cloud(block(20)))
    bench.until(lambda: node.worker.voxels == 128, "both clouds")
    grey = cloud([(n, "f4", np.full(3, 9.0)) for n in "xyz"])
    publisher.publish(grey)
    bench.until(lambda: node.worker.voxels == 129, "a cloud without colour")
    slot = node.segmenter.map.lookup(np.array([[180, 180, 180]]))
    assert node.segmenter.map.colors[slot].tolist() == [[128, 128, 128]]


def test_malformed_clouds_leave_the_map(bench):
    node = bench.segmenter()
    publisher = bench.publisher(PointCloud2, "map_points", qos.CLOUDS)
    publisher.publish(as_cloud(block(0)))
    bench.until(lambda: node.worker.voxels == 64, "the first cloud")
    far = [("x", "f4", np.full(4, 1e9)), *xyz()[1:]]
    bad = [
        (cloud(far), "check units and frame"), (as_cloud(block(9), frame="odom"), "one fixed frame"),
        (cloud([("x", "f4", np.full(4, np.nan)), *xyz()[1:]]), "not finite"), (cloud(xyz()[:2]), "no float field 'z'"),
    ]
    for count, (msg, text) in enumerate(bad, 1):
        publisher.publish(msg)
        bench.until(lambda: node.monitor.counts["refused"] == count, text)  # noqa: B023
        assert text in node.monitor.last_error
    assert node.worker.voxels == len(node.segmenter.map) == 64
