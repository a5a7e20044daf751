"""`instseg segment` from the shell to its files, with a small untrained network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instseg_ros.cli import main
from instseg_ros.commands import segment
from instseg_ros.config import ModelConfig
from instseg_ros.evaluation import rotation_average
from instseg_ros.labels import CLASS_NAMES, NYU40_IDS
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights
from instseg_ros.visual.ply import read_labelled_ply

H, W = 60, 80
K = np.array([[70.0, 0, 39.5], [0, 70.0, 29.5], [0, 0, 1]])


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    for name in ("PICTURE_SIZE", "FIGURE_SIZE", "GIF_SIZE"):
        monkeypatch.setattr(segment, name, (240, 180))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, InstanceNet(ModelConfig(channels=(8, 12, 16))).eval(), {})
    return str(path)


@pytest.fixture(scope="module")
def sequence(tmp_path_factory) -> Path:
    """A camera 1.5 m over a floor with a box on it, looking straight down and moving along x."""
    folder = tmp_path_factory.mktemp("sequence")
    frames = []
    for i in range(8):
        x = 0.1 * i
        u, _ = np.meshgrid(np.arange(W), np.arange(H))
        on_box = np.abs((u - K[0, 2]) / K[0, 0] * 1.0 + x - 0.4) < 0.2
        depth = np.where(on_box, 1000, 1500).astype(np.uint16)
        Image.fromarray(depth).save(folder / f"d{i}.png")
        color = np.where(on_box[..., None], (200, 40, 40), (90, 120, 90)).astype(np.uint8)
        Image.fromarray(color).save(folder / f"c{i}.png")
        T_world_camera = np.array([[1.0, 0, 0, x], [0, -1, 0, 0], [0, 0, -1, 1.5], [0, 0, 0, 1]])
        frames.append({"color": f"c{i}.png", "depth": f"d{i}.png", "stamp": i * 0.1, "T_world_camera": T_world_camera.tolist()})
    (folder / "sequence.json").write_text(
        json.dumps({"width": W, "height": H, "K": K.tolist(), "depth_unit_m": 0.001, "frames": frames})
    )
    return folder


def assert_results(out: Path) -> dict:
    report = json.loads((out / "instances.json").read_text())
    assert set(report) == {"machine", "figures", "rows"}
    cloud, labels = read_labelled_ply(out / "labelled.ply"), np.load(out / "labels.npz")
    assert len(cloud["points_m"]) == report["figures"]["voxels"] == len(labels["coords"]) > 100
    assert np.array_equal(cloud["instance"], labels["instance"])
    assert set(np.unique(labels["nyu40"])) <= {*NYU40_IDS, 65535}
    rows = {row["id"]: row for row in report["rows"]}
    assert set(rows) == set(np.unique(labels["instance"])) - {0} and len(rows) == report["figures"]["instances"]
    for one, row in rows.items():
        own = labels["points_m"][labels["instance"] == one]
        assert row["voxels"] == len(own) and np.allclose(row["center_m"], own.mean(axis=0), atol=0.002)
        assert (own >= np.array(row["box_min_m"]) - 1e-3).all() and (own <= np.array(row["box_max_m"]) + 1e-3).all()
    for name in ("map_color", "map_instances", "map_classes"):
        image = np.array(Image.open(out / f"{name}.png"))
        assert (image < 250).any(axis=2).mean() > 0.02
    return report


EVERYTHING = ["--grouping.min-score", "0.0", "--grouping.min-voxels", "1"]


def test_a_sequence(tmp_path, sequence, weights, capsys):
    out, figure = tmp_path / "out", tmp_path / "docs" / "figure.png"
    status = main(
        [
            "segment",
            str(sequence),
            "--out",
            str(out),
            "--weights",
            weights,
            "--update-every",
            "3",
            "--figure",
            str(figure),
            *EVERYTHING,
        ]
    )
    assert status == 0
    report = assert_results(out)
    assert report["figures"]["updates"] == 3 and report["figures"]["frames"] == 8
    assert report["figures"]["stage_ms"]["total"]["p95"] > 0
    animation = Image.open(out / "growth.gif")
    assert animation.n_frames >= 2
    wide = Image.open(figure)
    assert wide.width > 2 * wide.height
    printed = capsys.readouterr().out
    assert "class" in printed and str(out) in printed
    for row in report["rows"][: segment.TABLE_ROWS]:
        assert row["class"] in printed


def test_stride_and_max_frames(tmp_path, sequence, weights):
    arguments = ["--stride", "2", "--max-frames", "3", "--update-every", "2", "--no-gif", "--weights", weights]
    assert main(["segment", str(sequence), "--out", str(tmp_path), *arguments]) == 0
    report = assert_results(tmp_path)
    assert report["figures"]["frames"] == 3 and report["figures"]["updates"] == 2
    assert not (tmp_path / "growth.gif").exists()


def test_the_finished_map_is_segmented_once_more_with_averaged_classes(tmp_path, weights, sequence, monkeypatch):
    sizes = []

    def spy(program, config, coords, colors, rotations, *rest):
        sizes.append((rotations, len(coords)))
        return np.eye(20, dtype=np.float32)[np.full(len(coords), CLASS_NAMES.index("sofa"))]

    monkeypatch.setattr(rotation_average, "average_semantics", spy)
    arguments = ["segment", str(sequence), "--out", str(tmp_path), "--weights", weights, "--rotations", "10", "--no-gif", *EVERYTHING]
    assert main(arguments) == 0
    labels = np.load(tmp_path / "labels.npz")["class_index"]
    assert sizes == [(10, len(labels))] and (labels == CLASS_NAMES.index("sofa")).all()


def test_a_cloud_is_one_update(tmp_path, weights):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "cloud.npz",
        points=rng.uniform(0, 1, (4000, 3)) * [2, 2, 0.3],
        colors=rng.integers(0, 255, (4000, 3), np.uint8),
    )
    out = tmp_path / "out"
    assert main(["segment", str(tmp_path / "cloud.npz"), "--out", str(out), "--weights", weights, *EVERYTHING]) == 0
    assert assert_results(out)["figures"]["updates"] == 1 and not (out / "growth.gif").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{missing}"], "is missing"),
        (["{sequence}", "--update-every", "0"], "must be 1 or more"),
        (["{sequence}", "--weights", "{missing}"], "no weights at"),
        (["{sequence}", "--voxel-size", "0.1"], "trained for voxels of 0.05"),
        (["{sequence}", "--fusion.max-depth-m", "0.5"], "empty map"),
        (["{sequence}", "--grouping.min-voxels", "0"], "grouping.min_voxels"),
    ],
)
def test_errors_are_one_line_with_the_cure(tmp_path, sequence, weights, arguments, words, capsys):
    filled = [a.format(missing=tmp_path / "none", sequence=sequence) for a in arguments]
    if "--weights" not in filled:
        filled += ["--weights", weights]
    assert main(["segment", *filled, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error.splitlines()[-1] and error.splitlines()[-1].startswith("instseg segment: ")


def test_many_sources_have_a_folder_each_and_a_broken_one_stops_no_other(weights, sequence, tmp_path, capsys):
    broken, cloud = tmp_path / "broken.npz", tmp_path / "cloud.npz"
    broken.write_bytes(b"nothing")
    points = np.random.default_rng(0).uniform(0, 1, (3000, 3)) * [1, 1, 0.01]
    np.savez(cloud, points=points, colors=np.full((3000, 3), 100, np.uint8))
    out = tmp_path / "out"
    sources = [str(sequence), str(broken), str(cloud)]
    assert main(["segment", *sources, "--out", str(out), "--weights", weights, "--no-gif", "--jobs", "2"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 3 could not be segmented" in printed and "broken: error" in printed
    for name in (sequence.name, "cloud"):
        assert_results(out / name)
    assert not (out / "broken").exists()
    assert main(["segment", str(cloud), str(cloud), "--out", str(out), "--weights", weights]) != 0
    assert "give each name once" in capsys.readouterr().err
