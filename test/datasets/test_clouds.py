"""Clouds, meshes and scenes as map updates."""

import base64
import io
import json

import numpy as np
import open3d as o3d
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from instseg_ros.datasets.clouds import open_cloud, sample_triangles
from instseg_ros.errors import DataError, InputError

POINTS = np.array([[0.01, 0.01, 0.01], [0.04, 0.01, 0.01], [1.01, 0.51, -0.01]])
COLORS = np.array([[100, 0, 0], [200, 0, 0], [0, 0, 255]], np.uint8)


def check(update):
    update.validate()
    assert update.full and update.coords.tolist() == [[0, 0, 0], [20, 10, -1]]
    assert update.colors.tolist() == [[150, 0, 0], [0, 0, 255]]
    assert update.weights.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("ascii_text", [True, False])
def test_ply_cloud(tmp_path, ascii_text):
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(POINTS))
    cloud.colors = o3d.utility.Vector3dVector(COLORS / 255.0)
    o3d.io.write_point_cloud(str(tmp_path / "c.ply"), cloud, write_ascii=ascii_text)
    check(open_cloud(tmp_path / "c.ply", 0.05))


def test_npz_cloud(tmp_path):
    np.savez(tmp_path / "c.npz", points=np.vstack([POINTS, [[np.nan, 0, 0]]]), colors=np.vstack([COLORS, [[1, 2, 3]]]))
    check(open_cloud(tmp_path / "c.npz", 0.05))
    np.savez(tmp_path / "f.npz", points=POINTS, colors=COLORS / 255.0)
    check(open_cloud(tmp_path / "f.npz", 0.05))


def square_mesh(size: float):
    vertices = np.array([[0, 0, 0.0], [size, 0, 0], [size, size, 0], [0, size, 0]]) + [0.001, 0.001, 0.02]
    return vertices, np.array([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "off"])
def test_a_mesh_fills_every_voxel_it_crosses(tmp_path, suffix):
    vertices, faces = square_mesh(1.99)
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces))
    mesh.compute_vertex_normals()
    mesh.compute_triangle_normals()
    mesh.vertex_colors = o3d.utility.Vector3dVector(np.tile([[1.0, 0.5, 0.0]], (4, 1)))
    path = tmp_path / f"m.{suffix}"
    assert o3d.io.write_triangle_mesh(str(path), mesh)
    update = open_cloud(path, 0.05)
    update.validate()
    assert len(update) == 40 * 40 and set(update.coords[:, 2]) == {0}
    if suffix == "ply":
        assert np.abs(update.colors.astype(int) - [255, 127, 0]).max() <= 1


def test_npz_mesh_with_corner_colors(tmp_path):
    vertices, faces = square_mesh(0.98)
    corner_rgb = np.zeros((2, 3, 3), np.uint8)
    corner_rgb[0], corner_rgb[1] = (255, 0, 0), (0, 255, 0)
    np.savez(tmp_path / "m.npz", vertices=vertices.astype(np.float32), faces=faces, corner_rgb=corner_rgb)
    update = open_cloud(tmp_path / "m.npz", 0.05)
    at = {tuple(c): tuple(rgb) for c, rgb in zip(update.coords.tolist(), update.colors.tolist(), strict=True)}
    assert len(update) == 400 and at[(19, 0, 0)] == (255, 0, 0) and at[(0, 19, 0)] == (0, 255, 0)


def texture_png() -> bytes:
    """Upper half red, lower half blue."""
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4], texture[4:] = (255, 0, 0), (0, 0, 255)
    stream = io.BytesIO()
    Image.fromarray(texture).save(stream, "PNG")
    return stream.getvalue()


def test_textured_obj_takes_the_colors_of_its_texture(tmp_path):
    (tmp_path / "t.png").write_bytes(texture_png())
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd t.png\n")
    (tmp_path / "m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0.02\nv 1 0 0.02\nv 1 1 0.02\nv 0 1 0.02\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    update = open_cloud(tmp_path / "m.obj", 0.05)
    low, high = update.coords[:, 1] < 8, update.coords[:, 1] > 12
    assert (update.colors[low] == [0, 0, 255]).all() and (update.colors[high] == [255, 0, 0]).all()


def write_gltf(path) -> None:
    """A square that stands upright in glTF's y-up frame, x and y from 0 to 1; a texture's first row is at v = 0."""
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
    uvs = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "<f4")
    indices = np.array([0, 1, 2, 0, 2, 3], "<u4")
    parts = [positions.tobytes(), uvs.tobytes(), indices.tobytes(), texture_png()]
    offsets = np.cumsum([0] + [len(p) for p in parts])
    uri = "data:application/octet-stream;base64," + base64.b64encode(b"".join(parts)).decode()
    path.write_text(
        json.dumps(
            {
                "asset": {"version": "2.0"},
                "scene": 0,
                "scenes": [{"nodes": [0]}],
                "nodes": [{"mesh": 0}],
                "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
                "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
                "textures": [{"source": 0}],
                "images": [{"bufferView": 3, "mimeType": "image/png"}],
                "buffers": [{"uri": uri, "byteLength": int(offsets[-1])}],
                "bufferViews": [
                    {"buffer": 0, "byteOffset": int(offsets[i]), "byteLength": len(p)} for i, p in enumerate(parts)
                ],
                "accessors": [
                    {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]},
                    {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
                    {"bufferView": 2, "componentType": 5125, "count": 6, "type": "SCALAR"},
                ],
            }
        )
    )


def test_gltf_is_turned_to_z_up_and_textured(tmp_path):
    write_gltf(tmp_path / "m.gltf")
    update = open_cloud(tmp_path / "m.gltf", 0.05)
    assert np.ptp(update.coords, axis=0).tolist() == [20, 0, 20]
    low, high = update.coords[:, 2] < 8, update.coords[:, 2] > 12
    assert (update.colors[low] == [0, 0, 255]).all() and (update.colors[high] == [255, 0, 0]).all()


def test_voxel_scene(tmp_path):
    coords = np.array([[0, 0, 0], [1, 0, 0], [40, 0, 0]], np.int32)
    np.savez(tmp_path / "s.npz", coords=coords, colors=COLORS, voxel_size_m=0.05)
    assert np.array_equal(open_cloud(tmp_path / "s.npz", 0.05).coords, coords)
    assert open_cloud(tmp_path / "s.npz", 0.1).coords.tolist() == [[0, 0, 0], [20, 0, 0]]
    with pytest.raises(InputError, match="cannot be made finer"):
        open_cloud(tmp_path / "s.npz", 0.02)


@pytest.mark.parametrize(("scale", "words"), [(1e3, "millimetres"), (1e-3, "kilometres")])
def test_wrong_units_are_noticed(tmp_path, scale, words):
    np.savez(tmp_path / "c.npz", points=POINTS * scale)
    with pytest.raises(InputError, match=words):
        open_cloud(tmp_path / "c.npz", 0.05)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.ply", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.ply", b"solid\n", "not a PLY"),
        ("a.npz", b"PK\x03\x04broken", "cannot be read"),
        ("a.xls", b"1", "convert it"),
        ("a.obj", b"v 0 0 0\n", "no triangles"),
    ],
)
def test_unreadable_files_are_explained(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_cloud(tmp_path / name)


def test_wrong_arrays_are_explained(tmp_path):
    with pytest.raises(DataError, match="missing"):
        open_cloud(tmp_path / "none.ply")
    np.savez(tmp_path / "a.npz", cats=np.zeros(3))
    with pytest.raises(DataError, match="holds cats"):
        open_cloud(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", points=POINTS, colors=COLORS[:1])
    with pytest.raises(DataError, match="colors has shape"):
        open_cloud(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", points=np.full((3, 3), np.nan))
    with pytest.raises(DataError, match="no finite"):
        open_cloud(tmp_path / "c.npz")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=9, max_size=9), st.floats(0.02, 0.3))
def test_every_point_of_a_triangle_is_near_a_sample(values, spacing):
    corners = np.array(values).reshape(1, 3, 3)
    points = np.concatenate([p for p, _ in sample_triangles(corners, corners, spacing)])
    rng = np.random.default_rng(0)
    weights = rng.dirichlet([1.0, 1.0, 1.0], 50)
    for point in weights @ corners[0]:
        assert np.linalg.norm(points - point, axis=1).min() <= spacing
