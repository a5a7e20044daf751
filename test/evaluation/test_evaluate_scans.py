"""`instseg evaluate scannet|s3dis|nyuv2|scenenn`, from files in the data sets' own formats to the figures, the tables and the submission."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from raw_writers import LFS_POINTER, TSV, write_scannet_scan
from scipy.io import savemat
from test_nyuv2 import write_mat
from test_scenenn import write_scene

from instseg_ros import cli
from instseg_ros.config import ModelConfig, SegmenterConfig
from instseg_ros.datasets.import_scans import ConvertOptions
from instseg_ros.datasets.labelled_points import ScanPoints
from instseg_ros.errors import ConfigError
from instseg_ros.evaluation.entries import BaselineEntry, FoldEntry, SegmenterEntry
from instseg_ros.evaluation.instances import Predictions, Scan, average_precision
from instseg_ros.evaluation.jobs import run_job
from instseg_ros.evaluation.protocols import PROTOCOLS, area_of, onto_points
from instseg_ros.evaluation.s3dis import S3DIS_CLASSES
from instseg_ros.evaluation.scan_jobs import ScanJob
from instseg_ros.evaluation.scan_sources import scan_sources
from instseg_ros.evaluation.scannet_export import read_submission
from instseg_ros.evaluation.sources import scene_case
from instseg_ros.labels import CLASS_NAMES
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import save_weights

CHAIR, TABLE = CLASS_NAMES.index("chair"), CLASS_NAMES.index("table")
PERFECT = ("--oracle", "semantic", "--oracle", "grouping", "--grouping.min-voxels", "1")


def save_net(path, **grouping):
    torch.manual_seed(0)
    save_weights(path, InstanceNet(ModelConfig(voxel_size_m=0.1, channels=(8, 8))).eval(), {"grouping": grouping} if grouping else {})
    return path


@pytest.fixture()
def weights(tmp_path):
    return save_net(tmp_path / "net.safetensors")


def evaluate(tmp_path, *arguments):
    path = tmp_path / "report.json"
    path.unlink(missing_ok=True)
    status = cli.main(["evaluate", *map(str, arguments), "--json", str(path), "--device", "cpu", "--threads", "1"])
    return status, json.loads(path.read_text()) if path.exists() else None


def scannet(root, names=("scene0000_00", "scene0001_00", "scene0707_00"), annotated=2):
    """Two annotated scans, one for training and one for validation, and one without annotation."""
    for number, name in enumerate(names):
        write_scannet_scan(root / "scans" / name, steps=(21, 15, 15, 5))
        if number >= annotated:
            (root / "scans" / name / f"{name}.aggregation.json").unlink()
    (root / "scannetv2-labels.combined.tsv").write_text(TSV)
    (root / "scannetv2_train.txt").write_text("scene0000_00\n")
    (root / "scannetv2_val.txt").write_text("scene0001_00\n")
    (root / "scannetv2_test.txt").write_text("scene0707_00\n")
    return root


def block(center, size, step=0.04):
    """Points [n, 3] on a grid in a box."""
    axes = [np.arange(c - s / 2, c + s / 2 + 1e-9, step) for c, s in zip(center, size, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


ROOM = {
    "floor_1": ((2, 2, 0), (4, 4, 0)), "chair_1": ((1, 1, 0.5), (0.4, 0.4, 0.4)), "chair_2": ((3, 1, 0.5), (0.4, 0.4, 0.4)),
    "table_1": ((1, 3, 0.5), (0.8, 0.8, 0.1)), "ceiling_1": ((2, 2, 2.5), (4, 4, 0)), "clutter_1": ((3, 3, 0.5), (0.3, 0.3, 0.3)),
}


def s3dis(root, rooms=(("Area_1", "office_1"), ("Area_2", "office_1"), ("Area_2", "hallway_1"))):
    for area, room in rooms:
        folder = root / area / room / "Annotations"
        folder.mkdir(parents=True)
        for stem, (center, size) in ROOM.items():
            points = block(center, size)
            np.savetxt(folder / f"{stem}.txt", np.column_stack([points, np.full_like(points, 120)]), fmt="%.3f")
    return root


def nyuv2(root):
    root.mkdir()
    write_mat(root / "nyu_depth_v2_labeled.mat", frames=3)
    savemat(root / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[2], [3]]})
    return root


def scenenn(root):
    for name in ("016", "005"):
        write_scene(root / name)
    return root


def test_scannet_is_measured_on_the_vertices_of_its_validation_scans(tmp_path, weights, capsys):
    root = scannet(tmp_path / "raw")
    status, found = evaluate(tmp_path, "scannet", root, "--weights", weights, *PERFECT)
    assert status == 0
    figures = found["figures"]
    assert (figures["scannet_scenes"], figures["scannet_points"]) == (1, 21 * 21 + 2 * 15 * 15 + 25)
    assert figures["scannet_ap"] == figures["scannet_ap50"] == figures["scannet_ap25"] == 1.0
    rows = {row["class"]: row for row in found["rows"] if row["row"] == "class"}
    assert rows["chair"]["instances"] == 2 and rows["bed"]["instances"] == 0 and rows["bed"]["ap"] is None and len(rows) == 18
    printed = capsys.readouterr().out
    assert "ScanNet v2: 1 scans, 10 cm voxels" in printed and "| chair | 1.000 |" in printed and "s/scene" in printed
    untrained = evaluate(tmp_path, "scannet", root, "--weights", weights, "--split", "train")[1]["figures"]
    assert untrained["scannet_ap50"] < 0.5


def test_chairs_of_fewer_than_100_vertices_do_not_count(tmp_path, weights, capsys):
    write_scannet_scan(tmp_path / "raw" / "scene0000_00", steps=(11, 9, 15, 5))
    found = evaluate(tmp_path, "scannet", tmp_path / "raw", "--weights", weights, *PERFECT)[1]
    assert [row["instances"] for row in found["rows"] if row["row"] == "class" and row["class"] == "chair"] == [1]
    assert found["figures"]["scannet_ap"] == 1.0  # the small one that was found is ignored


def test_the_submission_holds_what_was_measured(tmp_path, weights, capsys):
    root = scannet(tmp_path / "raw")
    for split, name in (("validation", "scene0001_00"), ("test", "scene0707_00")):
        status, _ = evaluate(
            tmp_path, "scannet", root, "--weights", weights, "--split", split, "--export", tmp_path / "out", "--grouping.min-voxels", 1,
            "--grouping.min-score", 0.0)
        assert status == 0
        vertices = 21 * 21 + 2 * 15 * 15 + 25
        predictions = read_submission(tmp_path / "out" / f"{name}.txt", vertices)
        assert predictions.members.size == 0 or predictions.members.max() < vertices
    assert "nothing is measured" in capsys.readouterr().out
    perfect = tmp_path / "perfect"
    evaluate(tmp_path, "scannet", root, "--weights", weights, *PERFECT, "--export", perfect)
    predictions = read_submission(perfect / "scene0001_00.txt", vertices)
    part = np.repeat([0, 1, 2, 3], [21 * 21, 225, 225, 25])
    assert sorted(predictions.members[predictions.owner == 0].tolist()) == np.flatnonzero(part == 1).tolist()
    truth = Scan(np.array([1, CHAIR, CHAIR, 255], np.uint8)[part], np.array([-1, 0, 1, -1], np.int32)[part], predictions)
    assert average_precision([truth], min_region=100).ap == 1.0
    both = evaluate(tmp_path, "scannet", root, "--compare", "--entry", f"mine={weights}", "--export", tmp_path / "c", "--out", tmp_path / "o")
    assert both[0] == 0 and (tmp_path / "c" / "mine" / "scene0001_00.txt").is_file()  # the baselines submit nothing
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["mine"]


def test_s3dis_counts_points_by_area_and_together(tmp_path, weights, capsys):
    status, found = evaluate(tmp_path, "s3dis", s3dis(tmp_path / "raw"), "--weights", weights, *PERFECT)
    assert status == 0
    figures, said = found["figures"], capsys.readouterr()
    rows = {row["class"]: row for row in found["rows"] if row["row"] == "class"}
    assert list(rows) == list(S3DIS_CLASSES)
    for name in ("floor", "chair", "table"):  # the floor's instance is a component of its voxels
        assert rows[name]["precision"] == rows[name]["recall"] == 1.0
    assert rows["chair"]["instances"] == 6 and rows["ceiling"]["recall"] == 0.0 and rows["sofa"]["recall"] is None
    # nothing is said of ceiling and clutter; the ceiling is one of our walls, which S3DIS's is not
    assert rows["wall"]["precision"] == 0.0 and rows["wall"]["recall"] is None
    assert figures["s3dis_mprec"] == pytest.approx(3 / 6) and figures["s3dis_mrec"] == pytest.approx(3 / 5)
    assert figures["s3dis_mrec_known"] == pytest.approx(3 / 4) and figures["s3dis_mprec_area_2"] == pytest.approx(3 / 6)
    assert figures["s3dis_scenes"] == 3 and [row["area"] for row in found["rows"] if row["row"] == "area"] == ["Area_1", "Area_2"]
    assert "the same weights are asked about all areas" in said.err and "only Area_1, Area_2" in said.err
    assert "| Area 2 | 0.500 / 0.600 |" in said.out


def test_every_area_has_weights_of_its_own(tmp_path, capsys):
    root = s3dis(tmp_path / "raw")
    save_net(tmp_path / "fold_1.safetensors", min_voxels=1)
    save_net(tmp_path / "fold_2.safetensors", min_voxels=100_000)  # finds no object
    oracles = PERFECT[:4]
    status, found = evaluate(tmp_path, "s3dis", root, "--weights", tmp_path / "fold_{area}.safetensors", *oracles)
    assert status == 0 and "the same weights" not in capsys.readouterr().err
    assert found["figures"]["s3dis_mrec_area_1"] == pytest.approx(3 / 5) and found["figures"]["s3dis_mrec_area_2"] == pytest.approx(1 / 5)
    entry = f"folds={tmp_path}/fold_{{area}}.safetensors,oracle=semantic+grouping"
    status, found = evaluate(tmp_path, "s3dis", root, "--compare", "--entry", entry, "--out", tmp_path / "o")
    assert status == 0 and found["figures"]["s3dis_mrec_area_2"]["folds"] == pytest.approx(1 / 5)
    assert list(found["figures"]["s3dis_mprec"]) == ["segmentation_as_instances", "connected_components", "folds"]
    (tmp_path / "fold_2.safetensors").unlink()
    assert evaluate(tmp_path, "s3dis", root, "--weights", tmp_path / "fold_{area}.safetensors")[0] == 2
    assert "fold_2.safetensors" in capsys.readouterr().err
    assert evaluate(tmp_path, "s3dis", root / "Area_1", "--weights", tmp_path / "fold_{area}.safetensors", *oracles)[0] == 0


def test_nyuv2_is_measured_on_the_test_frames(tmp_path, weights):
    pytest.importorskip("h5py")
    root = nyuv2(tmp_path / "raw")
    status, found = evaluate(tmp_path, "nyuv2", root, "--splits", root / "splits.mat", "--weights", weights, *PERFECT)
    assert status == 0 and found["figures"]["nyuv2_scenes"] == 2
    assert found["figures"]["nyuv2_ap25"] == found["figures"]["nyuv2_ap25_known"] == 1.0  # of a chair and what is beside it
    assert found["figures"]["nyuv2_points"] == 2 * (24 * 32 - 9)
    assert evaluate(tmp_path, "nyuv2", root, "--weights", weights, *PERFECT)[1]["figures"]["nyuv2_scenes"] == 3  # no splits: all


def test_scenenn_has_instances_of_the_floor_too(tmp_path, weights):
    status, found = evaluate(tmp_path, "scenenn", scenenn(tmp_path / "raw"), "--weights", weights, *PERFECT)
    rows = {row["class"]: row for row in found["rows"] if row["row"] == "class"}
    assert status == 0 and rows["floor"]["ap50"] == rows["chair"]["ap50"] == 1.0
    assert rows["prop"]["ap50"] == 0.0 and rows["prop"]["instances"] == 2 and rows["wall"]["ap50"] is None  # none of our classes means prop
    assert found["figures"]["scenenn_ap50"] == pytest.approx(2 / 3) and found["figures"]["scenenn_ap50_known"] == 1.0
    (tmp_path / "list.txt").write_text("016\n")
    assert evaluate(tmp_path, "scenenn", tmp_path / "raw", "--list", tmp_path / "list.txt", "--weights", weights)[1]["figures"]["scenenn_scenes"] == 1


@pytest.mark.parametrize(("dataset", "write"), [("scannet", scannet), ("s3dis", s3dis), ("nyuv2", nyuv2), ("scenenn", scenenn)])
def test_comparisons_and_converted_scans(tmp_path, weights, dataset, write):
    if dataset == "nyuv2":
        pytest.importorskip("h5py")
    root = write(tmp_path / "raw")
    more = ["--splits", str(root / "splits.mat")] if dataset == "nyuv2" else []
    entries = ("--entry", f"untrained={weights}", "--entry", f"perfect={weights},oracle=semantic+grouping,grouping.min_voxels=1,rotations=2")
    status, raw = evaluate(tmp_path, dataset, root, *more, "--compare", *entries, "--baseline-classes", "true", "--out", tmp_path / "o")
    names = ["segmentation_as_instances", "connected_components", "untrained", "perfect"]
    assert status == 0 and list(raw["figures"][f"{dataset}_seconds_per_scene"]) == names
    assert all(value > 0 for value in raw["figures"][f"{dataset}_seconds_per_scene"].values())
    text = (tmp_path / "o" / "comparison.md").read_text()
    assert "s/scene" in text and all(f"| {name} |" in text for name in names)
    assert json.loads((tmp_path / "o" / "comparison.json").read_text()) == raw
    assert (tmp_path / "o" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    key = {"scannet": "ap50", "s3dis": "mrec", "nyuv2": "ap25", "scenenn": "ap50"}[dataset]
    best = raw["figures"][f"{dataset}_{key}"]
    assert best["perfect"] >= best["connected_components"] > best["untrained"]
    assert cli.main(["convert", dataset, str(root), *more, "--out", str(tmp_path / "converted"), "--voxel-size", "0.1"]) == 0
    status, converted = evaluate(
        tmp_path, dataset, tmp_path / "converted", "--compare", *entries, "--baseline-classes", "true", "--out", tmp_path / "o")
    assert status == 0
    for report in (raw, converted):
        report["figures"].pop(f"{dataset}_seconds_per_scene")
    assert converted["figures"] == raw["figures"]


def test_refusals_name_the_cure(tmp_path, weights, capsys):
    root = scannet(tmp_path / "raw")
    given = ("--weights", weights)
    mesh = root / "scans" / "scene0001_00" / "scene0001_00_vh_clean_2.ply"
    for arguments, cure in (
        (("scannet",), "instseg evaluate scannet FOLDER"),
        (("scannet", tmp_path / "none"), "is missing"),
        (("scannet", tmp_path), "name the folder with the scans"),
        (("scannet", root, "--split", "test"), "--export them"),
        (("scannet", root, "--online"), "--online"),
        (("scannet", root, "--min-region", 9), "--min-region"),
        (("scannet", root, "--compare", "--oracle", "semantic"), "oracle=PART"),
        (("scannet", root, "--voxel-size-m", 0.05), "voxels of 0.1"),
        (("scannet", root, "--list", tmp_path / "none.txt"), "one scan a line"),
        (("scannet", root, "--list", root / "scannetv2_train.txt"), "named by the list"),
        (("scenenn", root, "--export", tmp_path / "x"), "scenenn has none"),
    ):
        assert evaluate(tmp_path, *arguments, *given)[0] == 2, arguments
        assert cure in capsys.readouterr().err
    assert evaluate(tmp_path, "scannet", root, "--weights", tmp_path / "w{area}.safetensors")[0] == 2
    assert "S3DIS area" in capsys.readouterr().err
    for content, cure in ((LFS_POINTER, "git lfs pull"), (None, "is missing")):
        mesh.unlink()
        if content:
            mesh.write_text(content)
        assert evaluate(tmp_path, "scannet", root, *given)[0] == 2
        assert cure in capsys.readouterr().err


def test_converted_folders_of_something_else_are_refused(tmp_path, weights, capsys):
    root, out = scannet(tmp_path / "raw"), tmp_path / "converted"
    assert cli.main(["convert", "scannet", str(root), "--out", str(out), "--voxel-size", "0.1"]) == 0
    given = ("--weights", weights)
    assert evaluate(tmp_path, "s3dis", out, *given)[0] == 2 and "is of scannet, not of s3dis" in capsys.readouterr().err
    shutil.copy(out / "points" / "train" / "scene0000_00.npz", out / "points" / "validation" / "scene0001_00.npz")
    assert evaluate(tmp_path, "scannet", out, *given)[0] == 0  # the same mesh
    (out / "points" / "validation" / "scene0001_00.npz").unlink()
    assert evaluate(tmp_path, "scannet", out, *given)[0] == 2 and "instseg convert" in capsys.readouterr().err
    shutil.rmtree(out / "validation")
    assert evaluate(tmp_path, "scannet", out, *given)[0] == 2 and "1 in train, 1 in test" in capsys.readouterr().err


def test_points_decide_and_not_voxels():
    """An instance of seven voxels, in one of which ten of its sixteen points lie: whoever finds the other six has not found it."""
    points = ScanPoints(np.array([0] * 10 + [1, 2, 3, 4, 5, 6]), np.full(16, 5), np.zeros(16, np.int32), {5: "chair"})
    six = Predictions(np.arange(1, 7), np.zeros(6, np.int64), np.array([CHAIR], np.uint8), np.ones(1))
    one = Predictions(np.array([0]), np.zeros(1, np.int64), six.class_index, six.score)
    protocol = PROTOCOLS["scenenn"]
    for mask, iou in ((six, 6 / 16), (one, 10 / 16)):
        overlaps = protocol.overlaps(protocol.scan(mask, points, 7))
        assert overlaps.pair_iou.tolist() == [iou]
        assert protocol.measure([overlaps]).means["ap50"] == float(iou >= 0.5)


def test_jobs_and_their_results_can_be_sent_to_other_processes(tmp_path, weights):
    source, = scan_sources(PROTOCOLS["s3dis"], s3dis(tmp_path / "raw", [("Area_1", "office_1")]), ConvertOptions(voxel_size_m=0.1))
    config = SegmenterConfig(voxel_size_m=0.1, weights=str(weights), device="cpu", threads=1)
    folds = FoldEntry("folds", {"Area_1": SegmenterEntry("folds", config), "Area_2": BaselineEntry("folds", "connected_components")})
    job = pickle.loads(pickle.dumps(ScanJob(source, "s3dis", (BaselineEntry("parts", "connected_components"), folds), {})))
    scores = pickle.loads(pickle.dumps(run_job(job)))
    assert list(scores) == ["parts", "folds"] and scores["parts"].scan == "Area_1_office_1" and scores["folds"].seconds > 0
    case = scene_case("Area_3_office_1", source.read()[0])
    with pytest.raises(ConfigError, match="only for Area_1, Area_2"):
        folds.answer(case, True)
    assert list(folds.scores(replace(case, name="Area_2_office_1"), ("offline",))) == ["offline"]


def test_overlapping_masks_go_to_the_points_of_their_voxels():
    rng = np.random.default_rng(0)
    voxel_of_point = rng.integers(0, 9, 60)
    masks = [rng.random(10) < 0.4 for _ in range(4)]  # voxel 9 holds no point
    found = onto_points(Predictions.from_masks(masks, np.arange(4), np.ones(4)), voxel_of_point, 10)
    for number, mask in enumerate(masks):
        assert sorted(found.members[found.owner == number].tolist()) == np.flatnonzero(mask[voxel_of_point]).tolist()


def test_our_classes_by_the_names_of_the_data_sets():
    points = ScanPoints(np.arange(3), np.zeros(3, np.int32), np.zeros(3, np.int32), {})
    ours = [CLASS_NAMES.index(name) for name in ("bookshelf", "desk", "toilet")]
    predictions = Predictions(np.arange(3), np.arange(3), np.array(ours, np.uint8), np.arange(3.0))

    def names(dataset):
        protocol = PROTOCOLS[dataset]
        return [protocol.classes[c] for c in protocol.scan(predictions, points, 3).predictions.class_index]

    assert names("s3dis") == ["bookcase", "table", "clutter"] and names("nyuv2") == ["bookshelf", "desk", "toilet"]
    assert names("scenenn") == ["desk"] and names("scannet") == ["bookshelf", "desk", "toilet"]
    assert PROTOCOLS["s3dis"].sayable() == ("floor", "wall", "window", "door", "table", "chair", "sofa", "bookcase", "clutter")
    assert "prop" not in PROTOCOLS["scenenn"].sayable() and area_of("Area_5_office_1") == "Area_5" and area_of("scene0000_00") == ""
