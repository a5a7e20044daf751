"""S3DIS, NYUv2, SceneNN and OccuSeg's occupancy: each protocol against its rules written down slowly, and cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.errors import InputError
from instseg_ros.evaluation.instances import Predictions, Scan
from instseg_ros.evaluation.nyuv2 import NYUV2_CLASSES, nyuv2_ap25
from instseg_ros.evaluation.occupancy import occupancy_curve, occupancy_errors, occupancy_within, save_occupancy_plot
from instseg_ros.evaluation.overlap import instance_overlaps
from instseg_ros.evaluation.s3dis import S3DIS_CLASSES, precision_recall
from instseg_ros.evaluation.scenenn import SCENENN_CLASSES, scenenn_map50
from instseg_ros.evaluation.voc import ELEVEN_RECALLS, TEN_RECALLS, voc_average_precision
from instseg_ros.labels import IGNORE


@st.composite
def small_scans(draw, classes=3):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scans = []
    for _ in range(draw(st.integers(1, 4))):
        count = int(rng.integers(4, 60))
        instance = np.sort(rng.integers(-1, 6, count)).astype(np.int32)
        class_of = rng.integers(0, classes, 7)
        class_index = class_of[instance + 1].astype(np.uint8)
        noisy = rng.random(count) < 0.2
        class_index[noisy] = rng.choice([*range(classes), IGNORE], noisy.sum())
        masks = []
        for _ in range(draw(st.integers(0, 7))):
            one = instance == rng.integers(-1, 6)
            kind = rng.integers(4)
            masks.append([one, one & (np.arange(count) % 2 == 0), one | (rng.random(count) < 0.2), rng.random(count) < 0.4][kind])
        score = rng.integers(0, 3, len(masks)) / 2.0
        predictions = Predictions.from_masks(masks, rng.integers(0, classes, len(masks)), score)
        scans.append(Scan(class_index, instance, predictions))
    return scans


def truth(scan):
    """[(class, set of voxels)]."""
    found = []
    for i in sorted(set(scan.instance.tolist()) - {-1}):
        members = [v for v in range(len(scan.instance)) if scan.instance[v] == i]
        named = [c for c in scan.class_index[members].tolist() if c != IGNORE]
        if named:
            found.append((min(set(named), key=lambda c: (-named.count(c), c)), set(members)))
    return found


def predicted(scan):
    """[(class, score, set of voxels)]."""
    p = scan.predictions
    every = [(int(c), float(s), set(p.members[p.owner == k].tolist()))
             for k, (c, s) in enumerate(zip(p.class_index, p.score, strict=True))]
    return [one for one in every if one[2]]


def iou(a, b):
    return len(a & b) / len(a | b)


def slow_precision_recall(scans, c):
    true = false = instances = 0
    for scan in scans:
        of_class = [g for k, g in truth(scan) if k == c]
        instances += len(of_class)
        for k, _, mask in predicted(scan):
            if k != c:
                continue
            if max([iou(mask, g) for g in of_class], default=0.0) >= 0.5:
                true += 1
            else:
                false += 1
    precision = true / (true + false) if true + false else 0.0 if instances else float("nan")
    return precision, true / instances if instances else float("nan")


@settings(deadline=None, max_examples=80)
@given(small_scans())
def test_s3dis_is_the_written_down_rules(scans):
    result = precision_recall(scans)
    slow = np.array([slow_precision_recall(scans, c) for c in range(13)])
    np.testing.assert_allclose(list(result.precision.values()), slow[:, 0], atol=1e-12)
    np.testing.assert_allclose(list(result.recall.values()), slow[:, 1], atol=1e-12)
    for mean, column in ((result.mean_precision, slow[:, 0]), (result.mean_recall, slow[:, 1])):
        known = column[~np.isnan(column)]
        assert np.isnan(mean) if not len(known) else mean == pytest.approx(known.mean())


def strip(classes, masks, found, scores=None):
    """Instances of ten voxels each, in a row, of the given classes; predictions as (start, stop)."""
    instance = np.repeat(np.arange(len(classes)), 10).astype(np.int32)
    full = [(np.arange(len(instance)) >= a) & (np.arange(len(instance)) < b) for a, b in masks]
    scores = np.ones(len(masks)) if scores is None else np.array(scores)
    return Scan(np.repeat(classes, 10).astype(np.uint8), instance, Predictions.from_masks(full, np.array(found), scores))


def test_s3dis_counts_over_all_areas():
    # ceiling: 1 of 2 found, nothing wrong in area 1; one found and one wrong in area 2
    rooms = [strip([0, 0], [(0, 10)], [0]), strip([0, 1], [(0, 10), (10, 14)], [0, 0])]
    result = precision_recall(rooms)
    kept = precision_recall([instance_overlaps(room) for room in rooms])  # all that is kept of a room
    assert (kept.mean_precision, kept.mean_recall) == (result.mean_precision, result.mean_recall)
    assert result.precision["ceiling"] == pytest.approx(2 / 3) and result.recall["ceiling"] == pytest.approx(2 / 3)
    assert result.precision["floor"] == 0.0 and result.recall["floor"] == 0.0  # there, and never predicted
    assert result.mean_precision == pytest.approx(1 / 3) and np.isnan(result.precision["wall"])
    assert result.instances["ceiling"] == 3 and S3DIS_CLASSES[12] == "clutter"
    # exactly one half is enough, for both halves
    both = precision_recall([strip([0], [(0, 5), (5, 10)], [0, 0])])
    assert both.precision["ceiling"] == 1.0 and both.recall["ceiling"] == 2.0
    with pytest.raises(InputError, match="map classes to ceiling"):
        precision_recall([strip([13], [], [])])


def slow_voc(scans, c, threshold, recalls):
    instances = sum(k == c for scan in scans for k, _ in truth(scan))
    if not instances:
        return float("nan")
    # of equal scores the earlier one first, scan by scan
    every = [(s, number, mask) for number, scan in enumerate(scans) for k, s, mask in predicted(scan) if k == c]
    every.sort(key=lambda one: (-one[0], one[1]))
    taken, flags = set(), []
    for _, number, mask in every:
        candidates = [(g, members) for g, (k, members) in enumerate(truth(scans[number])) if k == c]
        best, overlap = None, 0.0
        for g, members in candidates:
            if iou(mask, members) > overlap:
                best, overlap = g, iou(mask, members)
        true = best is not None and overlap >= threshold and (number, best) not in taken
        if true:
            taken.add((number, best))
        flags.append(true)
    curve = [(sum(flags[: n + 1]) / instances, sum(flags[: n + 1]) / (n + 1)) for n in range(len(flags))]
    if recalls is not None:
        return sum(max([p for r, p in curve if r >= t - 1e-12], default=0.0) for t in recalls) / len(recalls)
    area, before = 0.0, 0.0
    for recall, _ in curve:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area


@settings(deadline=None, max_examples=80)
@given(small_scans(), st.sampled_from([0.25, 0.5]), st.sampled_from([None, TEN_RECALLS, ELEVEN_RECALLS]))
def test_voc_average_precision_is_the_written_down_rules(scans, threshold, recalls):
    result = voc_average_precision(scans, ("a", "b", "c"), threshold, recalls)
    slow = np.array([slow_voc(scans, c, threshold, recalls) for c in range(3)])
    np.testing.assert_allclose(list(result.per_class.values()), slow, atol=1e-12)
    assert np.isnan(slow).all() or result.mean == pytest.approx(np.nanmean(slow))


def test_nyuv2_and_scenenn():
    bed = NYUV2_CLASSES.index("bed")
    scan = strip([bed, bed], [(0, 10), (0, 9), (10, 13)], [bed] * 3, [0.9, 0.8, 0.7])
    # true, duplicate, true (IoU 0.3): precision 1 up to recall 0.5, then 2/3
    assert nyuv2_ap25([scan]).per_class["bed"] == pytest.approx((6 * 1.0 + 4 * 2 / 3) / 10)
    assert nyuv2_ap25([scan]).mean == nyuv2_ap25([scan]).per_class["bed"] and len(NYUV2_CLASSES) == 19
    wall, prop = SCENENN_CLASSES.index("wall"), SCENENN_CLASSES.index("prop")
    scan = strip([wall, wall, prop], [(0, 10), (10, 15)], [wall, wall], [0.5, 0.9])
    result = scenenn_map50([scan])
    assert result.per_class["wall"] == 1.0 and result.per_class["prop"] == 0.0 and result.mean == 0.5
    with pytest.raises(InputError, match="television"):
        scenenn_map50([strip([10], [], [])])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_occupancy_error_is_equation_11(seed, min_voxels):
    rng = np.random.default_rng(seed)
    instance = rng.integers(-1, 6, int(rng.integers(0, 60)))
    log_occupancy = rng.normal(2.0, 1.0, (len(instance), 1)).astype(np.float32)
    slow = []
    for c in sorted(set(instance.tolist()) - {-1}):
        o = [float(log_occupancy[v, 0]) for v in range(len(instance)) if instance[v] == c]
        if len(o) >= min_voxels:
            slow.append(abs(len(o) - np.exp(sum(o) / len(o))) / len(o))
    errors = occupancy_errors(instance, log_occupancy, min_voxels)
    np.testing.assert_allclose(errors, slow, rtol=1e-10)
    limits, share = occupancy_curve(errors)
    assert share[30] == pytest.approx(sum(e < limits[30] for e in slow) / max(len(slow), 1))
    if slow:
        assert occupancy_within(errors) == pytest.approx(np.mean([e < 0.3 for e in slow]))


def test_occupancy_plot_and_refusals(tmp_path):
    instance = np.repeat([0, 1, -1], [10, 20, 5])
    errors = occupancy_errors(instance, np.log(np.repeat([10.0, 10.0, 99.0], [10, 20, 5])))
    assert errors == pytest.approx([0.0, 0.5]) and occupancy_within(errors) == 0.5
    assert np.isnan(occupancy_within(np.zeros(0)))
    save_occupancy_plot(tmp_path / "sub" / "occupancy.png", {"one": errors, "none": np.zeros(0)})
    assert (tmp_path / "sub" / "occupancy.png").stat().st_size > 5000
    with pytest.raises(InputError, match="one entry per voxel"):
        occupancy_errors(instance, np.zeros(3))
