"""Average precision against the rules of ScanNet's benchmark written down one by one, slowly, on sets of voxels.

What ScanNet's own script makes of the same files was compared as well, outside of this repository: docs/evaluation.md.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instseg_ros.evaluation.instances import EVALUATED_CLASSES, Predictions, Scan, average_precision
from instseg_ros.labels import CLASS_NAMES, IGNORE

CHAIR, TABLE, BED = (CLASS_NAMES.index(name) for name in ("chair", "table", "bed"))


def truth_instances(scan):
    """{class: [set of voxels]}; and the voxels that are void."""
    found, void = {}, set()
    for v, (c, i) in enumerate(zip(scan.class_index.tolist(), scan.instance.tolist(), strict=True)):
        if c in EVALUATED_CLASSES and i >= 0:
            found.setdefault(c, {}).setdefault(i, set()).add(v)
        else:
            void.add(v)
    return {c: [named[i] for i in sorted(named)] for c, named in found.items()}, void


def detections(scan, c, threshold, min_region):
    """[(score, is it true)] of one class in one scan, and the number of instances asked for."""
    every, void = truth_instances(scan)
    instances = every.get(c, [])
    asked = [g for g in instances if len(g) >= min_region]
    small = set().union(*(g for g in instances if len(g) < min_region), void)
    predictions = []
    for p, (kind, score) in enumerate(zip(scan.predictions.class_index, scan.predictions.score, strict=True)):
        mask = set(scan.predictions.members[scan.predictions.owner == p].tolist())
        if kind == c and len(mask) >= max(min_region, 1):
            predictions.append((mask, float(score)))

    def iou(a, b):
        return len(a & b) / len(a | b)

    outcome, taken = [], set()
    for instance in asked:
        score_of_instance = None
        for p, (mask, score) in enumerate(predictions):
            if p in taken or not iou(instance, mask) > threshold:
                continue
            if score_of_instance is None:
                score_of_instance = score
                taken.add(p)
            else:  # a second one on the same instance: the lower score of the two is a false positive
                outcome.append((min(score_of_instance, score), False))
                score_of_instance = max(score_of_instance, score)
        if score_of_instance is not None:
            outcome.append((score_of_instance, True))
    for mask, score in predictions:
        if not any(iou(instance, mask) > threshold for instance in instances) and len(mask & small) / len(mask) <= threshold:
            outcome.append((score, False))
    return outcome, len(asked)


def area(outcome, asked):
    """Sum of precision times half the distance of the neighbouring recalls, over every distinct score and the point (0, 1)."""
    if not asked:
        return float("nan")
    if not outcome:
        return 0.0
    curve = []
    for cut in sorted({score for score, _ in outcome}):
        kept = [true for score, true in outcome if score >= cut]
        curve.append((sum(kept) / len(kept), sum(kept) / asked))
    curve.append((1.0, 0.0))
    recall = [curve[0][1], *(r for _, r in curve), 0.0]
    return sum(precision * 0.5 * (recall[k] - recall[k + 2]) for k, (precision, _) in enumerate(curve))


def slow_class(scans, c, threshold, min_region):
    found = [detections(scan, c, threshold, min_region) for scan in scans]
    return area([one for outcome, _ in found for one in outcome], sum(asked for _, asked in found))


@st.composite
def adversarial_scans(draw):
    """Equal scores, overlapping and repeated masks, masks over void and over two instances, instances in two classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scans = []
    for _ in range(draw(st.integers(1, 3))):
        count = int(rng.integers(20, 90))
        instance = np.searchsorted(np.sort(rng.integers(0, count, 6)), np.arange(count), side="right").astype(np.int32) - 1
        pool = rng.choice([CHAIR, TABLE, BED, 0, IGNORE] if draw(st.booleans()) else [CHAIR, TABLE], 7)
        class_index = pool[instance + 1].astype(np.uint8)
        class_index[rng.random(count) < draw(st.sampled_from([0.0, 0.1]))] = CHAIR
        instance[rng.random(count) < draw(st.sampled_from([0.0, 0.2]))] = -1
        masks = []
        for _ in range(draw(st.integers(0, 8))):
            one = instance == rng.integers(-1, 6)
            masks.append([
                one, one & (rng.random(count) < 0.7), one | (rng.random(count) < 0.2), one | (instance == rng.integers(-1, 6)),
                rng.random(count) < 0.5, masks[int(rng.integers(len(masks)))] if masks else one,
            ][int(rng.integers(6))])
        score = rng.integers(0, 3, len(masks)) / 2.0 if draw(st.booleans()) else rng.random(len(masks))
        classes = rng.choice([CHAIR, CHAIR, TABLE, BED, 1], len(masks))
        scans.append(Scan(class_index, instance, Predictions.from_masks(masks, classes, score)))
    return scans


@settings(deadline=None, max_examples=60)
@given(adversarial_scans(), st.sampled_from([1, 3, 10, 20]))
def test_average_precision_is_the_written_down_rules(scans, min_region):
    overlaps = (0.5, 0.7, 0.25)
    result = average_precision(scans, min_region=min_region, overlaps=overlaps)
    for c in EVALUATED_CLASSES:
        one = result.per_class[CLASS_NAMES[c]]
        if c not in (CHAIR, TABLE, BED):
            assert np.isnan(one.ap)
            continue
        slow = {t: slow_class(scans, c, t, min_region) for t in overlaps}
        expected = [(slow[0.5] + slow[0.7]) / 2, slow[0.5], slow[0.25]]
        np.testing.assert_allclose([one.ap, one.ap50, one.ap25], expected, rtol=0, atol=1e-12)


def two_beds_and_one_over_both(first, second):
    """Beds of 100 and 101 voxels; a prediction over both (IoU about one half with each) and one on the first bed."""
    masks = {"both": np.ones(201, bool), "first": np.arange(201) < 60}
    instance = np.repeat([0, 1], [100, 101]).astype(np.int32)
    predictions = Predictions.from_masks([masks[first], masks[second]], np.array([BED, BED]), np.array([0.5, 0.9]))
    return average_precision([Scan(np.full(201, BED, np.uint8), instance, predictions)])


def test_below_one_half_the_order_given_decides_what_a_prediction_on_two_instances_hits():
    # given first, the one over both takes the first bed (the other one's higher score counts), nothing is left for the second bed:
    # one of two found, then a false positive below it
    assert two_beds_and_one_over_both("both", "first").ap25 == pytest.approx(0.25 + 0.25)
    # given second, it is the better one of two on the first bed and still free for the second one
    assert two_beds_and_one_over_both("first", "both").ap25 == pytest.approx(1.0)
