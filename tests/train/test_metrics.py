import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec
from train.scoring.metrics import METRICS, FrameMetrics, choice_for, frame_metrics

REGRESSION = LabelSpec("regression:2s")
LEAST = 1 / 3  # the target at the reach of 2 s


def test_metrics_of_a_case_worked_out_by_hand():
    # By falling score: + - + (tied with -) ; AP = 1/2 * 1 + 1/2 * 2/4
    y = np.array([1, 0, 1, 0], np.uint8)
    score = np.array([0.9, 0.8, 0.5, 0.5], np.float32)
    metrics = frame_metrics(y, score)
    assert metrics.base_rate == 0.5
    assert metrics.average_precision == pytest.approx(0.75)
    assert metrics.lift == pytest.approx(1.5)
    assert metrics.auroc == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    # At .9: 1 of 1 alarms, 1 of 2 positives; at .8: 1 of 2, 1 of 2; at .5: 2 of 4, 2 of 2.
    found = [metrics.values[name] for name in ("threshold", "f1", "precision", "recall")]
    assert found == [np.float32(0.9), pytest.approx(2 / 3), 1.0, 0.5]  # of equal ones the higher
    assert metrics.undefined == {}


AT_THRESHOLD = ("f1", "precision", "recall", "threshold")
CLASSES = ("base_rate", "average_precision", "lift", "auroc", *AT_THRESHOLD)


@pytest.mark.parametrize(
    ("y", "values", "reasons"),
    [
        ([], (None,) * 8, dict.fromkeys(CLASSES, "no rows")),
        ([0, 0], (0.0, *(None,) * 7), dict.fromkeys(CLASSES[1:], "no positive rows")),
        ([1, 1], (1.0, 1.0, 1.0, None, 1.0, 1.0, 1.0, 0.0), {"auroc": "no negative rows"}),
    ],
)
def test_what_is_undefined_is_null_with_the_reason(y, values, reasons):
    metrics = frame_metrics(np.array(y, np.uint8), np.linspace(0, 1, len(y), dtype=np.float32))
    assert metrics.values == dict(zip(CLASSES, values, strict=True))
    assert metrics.undefined == reasons
    assert "NaN" not in json.dumps(metrics.to_json(), allow_nan=False)


NUMBERS = [name for name in METRICS if name not in AT_THRESHOLD]


@pytest.mark.parametrize(
    ("y", "score", "undefined"),
    [
        ([], [], dict.fromkeys(NUMBERS, "no rows")),
        (
            [0, 0],
            [0.1, 0.2],
            {"spearman": "all targets are equal"}
            | dict.fromkeys(
                ("wait_mae_s", "average_precision", "lift", "auroc"), "no positive rows"
            ),
        ),
        ([0, 0.5], [0.1, 0.1], {"spearman": "all scores are equal"}),
        ([0.4, 0.5], [0.1, 0.2], {"auroc": "no negative rows"}),
    ],
)
def test_what_is_undefined_of_numbers_is_null_with_the_reason(y, score, undefined):
    metrics = frame_metrics(np.array(y, np.float32), np.array(score, np.float32), REGRESSION)
    assert metrics.undefined == undefined
    assert set(metrics.values) == set(NUMBERS)
    assert {name for name, value in metrics.values.items() if value is None} == set(undefined)
    again = FrameMetrics.from_json(json.loads(json.dumps(metrics.to_json(), allow_nan=False)))
    assert again == metrics


def test_metrics_of_numbers_worked_out_by_hand():
    y = np.array([1, 0.5, 0, 0], np.float32)
    score = np.array([0.5, 0.0, -0.5, 1.5], np.float32)
    found = frame_metrics(y, score, REGRESSION).values
    assert found["mae"] == pytest.approx((0.5 + 0.5 + 0.5 + 1.5) / 4)
    assert found["rmse"] == pytest.approx(math.sqrt((0.25 * 3 + 2.25) / 4))
    # Waits of 0 s and 1 s; told were 1 s, and 0.0, which means the reach.
    assert found["wait_mae_s"] == pytest.approx((1 + 1) / 2)
    assert found["base_rate"] == 0.5
    assert found["average_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)


@given(
    st.lists(
        st.tuples(
            st.just(0.0) | st.floats(0.34375, 1, width=32),
            st.sampled_from([-0.5, 0.0, 0.25, 0.5]) | st.floats(-2, 3, width=32),
        ),
        min_size=2,
        max_size=60,
    )
)
def test_metrics_of_numbers_are_those_of_slow_references(rows):
    y, score = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    found = frame_metrics(y, score, REGRESSION).values
    pairs = [(float(target), float(answer)) for target, answer in zip(y, score, strict=True)]
    errors = [answer - target for target, answer in pairs]
    assert found["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors))
    rmse = math.sqrt(sum(error**2 for error in errors) / len(errors))
    assert found["rmse"] == pytest.approx(rmse)
    if len(set(y)) > 1 and len(set(score)) > 1:
        # Of scipy's result, whose type says nothing.
        expected: Any = spearmanr(y, score)
        assert found["spearman"] == pytest.approx(expected.statistic, abs=1e-9)
    positive = [(target, answer) for target, answer in pairs if target > 0]
    if positive:
        waits = []
        for target, answer in positive:
            told = 2.0 if answer <= LEAST else max(0.0, 1 / answer - 1)
            waits.append(abs(told - (1 / target - 1)))
        assert found["wait_mae_s"] == pytest.approx(sum(waits) / len(waits), rel=1e-5, abs=1e-5)
        expected = average_precision_score(y > 0, score)
        assert found["average_precision"] == pytest.approx(expected, rel=1e-12)
        if len(positive) < len(pairs):
            assert found["auroc"] == pytest.approx(roc_auc_score(y > 0, score), rel=1e-12)


@given(st.lists(st.booleans(), min_size=2, max_size=50), st.integers(0, 99))
def test_metrics_of_classes_are_those_of_scikit_learn(classes, seed):
    assume(any(classes) and not all(classes))
    y = np.array(classes, np.uint8)
    score = np.random.default_rng(seed).integers(0, 9, len(y)).astype(np.float32)
    found = frame_metrics(y, score).values
    assert list(found) == ["average_precision", "base_rate", "lift", "auroc", *AT_THRESHOLD]
    # Sums in another order: the last digit may differ.
    expected = average_precision_score(y, score)
    assert found["average_precision"] == pytest.approx(expected, rel=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(y, score), rel=1e-12)


rows_of_classes = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40)


@given(rows_of_classes)
def test_the_threshold_is_the_best_of_all_and_of_equal_ones_the_highest(rows):
    assume(any(is_positive for is_positive, _ in rows))
    y = np.array([is_positive for is_positive, _ in rows], np.uint8)
    score = np.array([score / 7 for _, score in rows], np.float32)
    points = []
    for threshold in set(score.tolist()):
        alarms = [
            is_positive for is_positive, mine in zip(y, score, strict=True) if mine >= threshold
        ]
        hits = Fraction(int(sum(alarms)))
        precision, recall = hits / len(alarms), hits / int(y.sum())
        f1 = 2 * precision * recall / (precision + recall) if hits else Fraction(0)
        points.append((f1, threshold, precision, recall))
    f1, threshold, precision, recall = max(points)
    found = frame_metrics(y, score).values
    assert found["threshold"] == threshold
    expected = [float(f1), float(precision), float(recall)]
    assert [found[name] for name in AT_THRESHOLD[:3]] == pytest.approx(expected)


@given(rows_of_classes, st.none() | st.integers(0, 8))
def test_a_threshold_that_was_chosen_elsewhere_is_applied_as_it_is(rows, chosen):
    y = np.array([is_positive for is_positive, _ in rows], np.uint8)
    score = np.array([score / 7 for _, score in rows], np.float32)
    threshold = None if chosen is None else float(np.float32(chosen / 7))
    metrics = frame_metrics(y, score, threshold=threshold)
    values = metrics.values
    if threshold is None:
        assert [values[name] for name in AT_THRESHOLD] == [None] * 4
        missing = "no positive rows" if not y.any() else "no threshold was chosen on validation"
        assert metrics.undefined["f1"] == missing
        return
    assert values["threshold"] == threshold
    truth, alarm = y.astype(bool), score >= threshold
    if not truth.any():
        assert [metrics.undefined[name] for name in AT_THRESHOLD[:3]] == ["no positive rows"] * 3
        return
    assert values["f1"] == pytest.approx(f1_score(truth, alarm))
    assert values["recall"] == pytest.approx(recall_score(truth, alarm))
    if alarm.any():
        assert values["precision"] == pytest.approx(precision_score(truth, alarm))
    else:
        assert metrics.undefined["precision"] == "no score reaches the threshold"
        assert (values["precision"], values["f1"], values["recall"]) == (None, 0, 0)


def some_metrics(**values: float | None) -> FrameMetrics:
    return FrameMetrics(9, 3, values, {})


def test_better_is_higher_or_lower_as_the_metric_has_it_and_undefined_is_never_better():
    for by, name, good, bad in (
        ("val_ap", "average_precision", 0.5, 0.4),
        ("val_rmse", "rmse", 0.4, 0.5),
    ):
        better, worse, undefined = (some_metrics(**{name: v}) for v in (good, bad, None))
        assert better.beats(None, by)
        assert undefined.beats(None, by)
        assert better.beats(worse, by)
        assert better.beats(undefined, by)
        assert not worse.beats(better, by)
        assert not better.beats(better, by)
        assert not undefined.beats(worse, by)


def test_the_choice_fits_the_label():
    assert choice_for("auto", LabelSpec()) == "val_ap"
    assert choice_for("auto", REGRESSION) == "val_rmse"
    assert choice_for("val_spearman", REGRESSION) == "val_spearman"
    assert choice_for("val_auroc", LabelSpec()) == "val_auroc"
    for wrong in ("val_rmse", "val_lift", "ap"):
        with pytest.raises(ConfigError, match=r"it must be auto, val_ap, val_auroc, val_f1$"):
            choice_for(wrong, LabelSpec())
