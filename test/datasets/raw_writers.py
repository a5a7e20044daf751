"""Writes small files in the formats of the public data sets, byte by byte as their own tools write them."""

import json
import struct
import zlib

import numpy as np

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123456\n"
TSV = (
    "id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class\n"
    "1\twall\twall\t8277\t1\t12\twall\twall\n"
    "2\tchair\tchair\t4646\t5\t4\tchair\tchair\n"
    "22\tceiling\tceiling\t756\t22\t3\tceiling\tceiling\n"
    "6\toffice chair\toffice chair\t595\t5\t4\tchair\tchair\n"
    "3\tfloor\tfloor\t1553\t2\t5\tfloor\tfloor\n"
)
_PLY = {"f4": "float", "u1": "uchar", "u2": "ushort", "i4": "int", "i2": "short"}


def write_ply(path, fields, faces, order="<", text=False):
    """A mesh; `fields` is a list of (name, type, values)."""
    kind = "ascii" if text else {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    count = len(fields[0][2])
    vertices = np.zeros(count, [(n, order + t) for n, t, _ in fields])
    for name, _, values in fields:
        vertices[name] = values
    rows = np.zeros(len(faces), [("n", "u1"), ("v", order + "i4", (3,))])
    rows["n"], rows["v"] = 3, faces
    header = f"ply\nformat {kind} 1.0\ncomment VCGLIB generated\nelement vertex {count}\n"
    header += "".join(f"property {_PLY[t]} {n}\n" for n, t, _ in fields)
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    if text:
        body = "".join(" ".join(repr(float(x)) if isinstance(x, np.floating) else str(x) for x in row) + "\n" for row in vertices)
        body += "".join(f"3 {a} {b} {c}\n" for a, b, c in np.asarray(faces))
        path.write_text(header + body)
    else:
        path.write_bytes(header.encode() + vertices.tobytes() + rows.tobytes())


def patch(center, size, steps, label, z=None):
    """A square patch of a mesh: points [n, 3] in a plane of constant z, faces [m, 3], and its label per vertex."""
    line = np.linspace(-size / 2, size / 2, steps)
    x, y = np.meshgrid(line, line, indexing="ij")
    points = np.stack([x.ravel() + center[0], y.ravel() + center[1], np.full(x.size, center[2])], axis=1)
    a = (np.arange(steps - 1)[:, None] * steps + np.arange(steps - 1)).ravel()
    faces = np.concatenate([np.stack([a, a + 1, a + steps], 1), np.stack([a + 1, a + steps + 1, a + steps], 1)])
    return points, faces, np.full(len(points), label)


def join(patches):
    """Patches as one mesh: points, faces, labels."""
    points, faces, labels, start = [], [], [], 0
    for p, f, label in patches:
        points.append(p)
        faces.append(f + start)
        labels.append(label)
        start += len(p)
    return np.concatenate(points), np.concatenate(faces), np.concatenate(labels)


def write_scannet_scan(folder, alignment=None, labels_ply=True, steps=(11, 7, 7, 5)):
    """A scan of four patches: floor, two chairs, something without annotation. Segments do not count from 0.

    Args:
        steps: vertices along an edge of each patch.

    Returns:
        points [V, 3] and patch [V] of each vertex.
    """
    folder.mkdir(parents=True)
    name = folder.name
    points, faces, part = join([
        patch((0.5, 0.5, 0.0), 1.0, steps[0], 0), patch((0.3, 0.3, 0.5), 0.3, steps[1], 1), patch((0.8, 0.8, 0.5), 0.3, steps[2], 2),
        patch((0.2, 0.8, 0.9), 0.2, steps[3], 3),
    ])
    xyz = [(c, "f4", points[:, k]) for k, c in enumerate("xyz")]
    rgba = [(c, "u1", v) for c, v in (("red", 10 + part), ("green", 20 + part), ("blue", 30 + part), ("alpha", 255))]
    write_ply(folder / f"{name}_vh_clean_2.ply", xyz + rgba, faces)
    nyu40 = np.array([2, 5, 5, 0])[part]
    if labels_ply:
        write_ply(folder / f"{name}_vh_clean_2.labels.ply", xyz + rgba + [("label", "u2", nyu40)], faces)
    segments = 7 + 10 * part + (np.arange(len(part)) % 2)  # two segments each
    (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(
        json.dumps({"params": {"kThresh": "0.0001", "segMinVerts": "20"}, "sceneId": name, "segIndices": segments.tolist()})
    )
    groups = [
        {"id": 0, "objectId": 0, "segments": [17, 18], "label": "chair"},
        {"id": 1, "objectId": 1, "segments": [7, 8], "label": "floor"},
        {"id": 2, "objectId": 2, "segments": [27, 28], "label": "office chair"},
    ]
    (folder / f"{name}.aggregation.json").write_text(
        json.dumps({"sceneId": f"scannet.{name}", "appId": "Aggregator.v2", "segGroups": groups, "segmentsFile": "scannet.segs.json"})
    )
    lines = ["colorHeight = 968", "colorWidth = 1296", "numDepthFrames = 2", "sceneType = Office"]
    if alignment is not None:
        lines.insert(0, "axisAlignment = " + " ".join(f"{v:f}" for v in np.asarray(alignment).ravel()))
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return points, part


def sens_bytes(frames, color_size, depth_size, K_color, K_depth, color_type=2, depth_type=1, count=None, version=4, shift=1000.0):
    """A `.sens` file; a frame is (pose [4, 4], stamp in us, colour bytes, depth [H, W] uint16)."""
    def matrix(K):
        M = np.eye(4)
        M[:3, :3] = K
        return struct.pack("16f", *M.ravel())

    identity = struct.pack("16f", *np.eye(4).ravel())
    out = [struct.pack("I", version), struct.pack("Q", 14), b"StructureSenso", matrix(K_color), identity, matrix(K_depth), identity]
    out += [struct.pack("ii", color_type, depth_type), struct.pack("IIII", *color_size, *depth_size), struct.pack("f", shift)]
    out.append(struct.pack("Q", len(frames) if count is None else count))
    for pose, stamp, color, depth in frames:
        packed = zlib.compress(depth.tobytes()) if depth_type == 1 else depth.tobytes()
        out += [struct.pack("16f", *np.asarray(pose, np.float32).ravel()), struct.pack("QQ", stamp, stamp)]
        out += [struct.pack("QQ", len(color), len(packed)), color, packed]
    out.append(struct.pack("Q", 0))  # no IMU frames
    return b"".join(out)
