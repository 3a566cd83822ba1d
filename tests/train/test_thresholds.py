import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix

from laughstore.errors import ConfigError
from train.evaluation.calibration import log_loss
from train.evaluation.events.collar import EventCounts
from train.evaluation.events.segments import SegmentRule
from train.evaluation.false_alarms import FalseAlarms, OperatingCurve
from train.evaluation.postprocess import PostProcessing, candidates, choose_post_processing
from train.evaluation.temperature import Temperature
from train.evaluation.thresholds import (
    ChosenThreshold,
    ThresholdRule,
    asked_rule,
    choose_threshold,
)
from train.scoring.confusion import Confusion

LEVELS = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]


@st.composite
def scored_rows(draw) -> tuple[np.ndarray, np.ndarray]:
    """Few levels, so that scores are tied."""
    rows = draw(
        st.lists(st.tuples(st.booleans(), st.sampled_from(LEVELS)), min_size=1, max_size=25)
    )
    return np.array([a for a, _ in rows]), np.array([b for _, b in rows], np.float32)


def counts_at(y: np.ndarray, score: np.ndarray, threshold: float) -> tuple[int, int, int, int]:
    alarm = [float(s) >= threshold for s in score]
    tp = sum(a and p for a, p in zip(alarm, y, strict=True))
    fp = sum(a and not p for a, p in zip(alarm, y, strict=True))
    return tp, fp, int(y.sum()) - tp, int((~y).sum()) - fp


def goodness(rule: ThresholdRule, tp: int, fp: int, fn: int, tn: int) -> float:
    """Of one threshold, or -1 where it does not do. Written once more, from the definitions."""
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    least = rule.at or 0.0
    match rule.name:
        case "f1":
            return 2 * tp / (2 * tp + fp + fn)
        case "youden":
            return recall - fp / (fp + tn)
        case "precision":
            return recall if precision >= least else -1
        case _:
            return precision if recall >= least else -1


@given(
    rows=scored_rows(),
    text=st.sampled_from(
        ["f1", "youden"]
        + [f"{name}@{x}" for name in ("precision", "recall") for x in (0.3, 0.5, 2 / 3, 0.9, 1)]
    ),
)
@settings(max_examples=200, deadline=None)
def test_a_threshold_is_the_best_of_all_distinct_scores_and_of_equals_the_highest(rows, text):
    y, score = rows
    rule = ThresholdRule.parse(text)
    found = choose_threshold(rule, y, score)
    if not y.any() or (text == "youden" and y.all()):
        assert found.threshold is None
        assert f"no {'negative' if y.any() else 'positive'} rows" in (found.reason or "")
        return
    all_scores = sorted({float(s) for s in score}, reverse=True)
    goods = [goodness(rule, *counts_at(y, score, threshold)) for threshold in all_scores]
    best = max(goods)
    if text.startswith(("precision", "recall")) and best < 0:
        assert found.threshold is None
        assert "no threshold has a precision of" in (found.reason or "")
        return
    highest = next(
        threshold
        for threshold, good in zip(all_scores, goods, strict=True)
        if math.isclose(good, best, abs_tol=1e-12)
    )
    assert found.threshold == highest
    assert found.confusion == Confusion(*counts_at(y, score, highest))
    assert ChosenThreshold.from_json(found.to_json()) == found


def test_counts_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, score = rng.random(500) < 0.2, rng.random(500).astype(np.float32).round(1)
    found = Confusion.of(y, score, 0.3)
    (tn, fp), (fn, tp) = confusion_matrix(y, score >= np.float32(0.3))
    assert found == Confusion(tp, fp, fn, tn)
    assert (found.precision, found.recall) == (tp / (tp + fp), tp / (tp + fn))
    nothing = Confusion.of(y[:0], score[:0], 0.3)
    assert (nothing.precision, nothing.recall) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F1", "must be one of f1, youden"),
        ("f1@0.5", "f1 takes no number"),
        ("precision", "precision needs a number"),
        ("precision@", "'' is no number"),
        ("precision@90%", "'90%' is no number"),
        ("precision@0", "above 0 and at most 1"),
        ("recall@1.01", "above 0 and at most 1"),
        ("recall@nan", "above 0 and at most 1"),
        ("fa-per-hour@-1", "0 or more"),
        ("fa-per-hour@inf", "0 or more"),
        ("", "must be one of"),
    ],
)
def test_rules_that_cannot_be_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        ThresholdRule.parse(text)


@pytest.mark.parametrize("text", ["f1", "youden", "precision@0.875", "recall@1", "fa-per-hour@60"])
def test_a_rule_is_written_as_it_is_read(text):
    assert str(ThresholdRule.parse(text)) == text


def test_a_rule_or_a_threshold_is_asked_for():
    assert asked_rule(None, None) == ThresholdRule("f1")
    assert asked_rule(None, "recall@0.5") == ThresholdRule("recall", 0.5)
    with pytest.raises(ConfigError, match="give one of them"):
        asked_rule(0.5, "f1")
    for bad in (-0.1, 1.5, math.nan):
        with pytest.raises(ConfigError, match="must be 0 to 1"):
            asked_rule(bad, None)


@given(
    rates=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    most=st.integers(0, 6),
    repeats=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_the_lowest_threshold_is_that_from_which_on_all_keep_false_alarms_rare(
    rates, most, repeats
):
    """Rates of falling thresholds in any order: lower ones may have fewer again."""
    thresholds = np.linspace(1, 0, len(rates)).astype(np.float32)
    by_threshold = dict(zip(thresholds.tolist(), map(float, rates), strict=True))
    found = FalseAlarms(np.repeat(thresholds, repeats), by_threshold.__getitem__).lowest(most)
    rare = [rate <= most for rate in rates]
    if not rare[0]:
        assert isinstance(found, str)
        assert f"as few as {most} false alarms an hour" in found
        return
    first_bad = rare.index(False) if False in rare else len(rare)
    assert found == (thresholds[first_bad - 1], rates[first_bad - 1])


@given(seed=st.integers(0, 99), tried=st.integers(2, 12), most=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_thresholds_between_those_that_are_tried_are_found_by_halves(seed, tried, most):
    score = np.random.default_rng(seed).random(300).astype(np.float32)

    def rate(threshold: float) -> float:
        return float((score >= np.float32(threshold)).sum())

    found = FalseAlarms(score, rate, tried=tried).lowest(most)
    assert found == (float(np.sort(score)[::-1][most - 1]), most)


def test_without_scores_or_hours_there_is_no_lowest_threshold():
    none = np.empty(0, np.float32)
    assert FalseAlarms(none, lambda threshold: 0.0).lowest(5) == "validation has no scores"
    some = np.ones(3, np.float32)
    assert FalseAlarms(some, lambda threshold: None).lowest(5) == (
        "validation has no rows that count"
    )


def test_a_curve_needs_something_to_be_found():
    class Point:
        def __init__(self, recall: float | None) -> None:
            self.recall, self.false_alarms_per_hour = recall, 3.0

    assert OperatingCurve.of([0.5], lambda threshold: Point(None)) is None
    assert OperatingCurve.of([], lambda threshold: Point(1)) is None
    found = OperatingCurve.of([0.5, 0.25], lambda threshold: Point(1 - threshold))
    assert found is not None
    assert found.to_json() == {
        "threshold": [0.5, 0.25],
        "false_alarms_per_hour": [3.0, 3.0],
        "recall": [0.5, 0.75],
    }


@pytest.mark.parametrize("sureness", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_one_with_the_least_log_loss(sureness):
    rng = np.random.default_rng(3)
    logit = rng.normal(-2, 2, 4000)
    y = rng.random(4000) < 1 / (1 + np.exp(-logit))
    score = (1 / (1 + np.exp(-sureness * logit))).astype(np.float32)
    found = Temperature.fit(y, score)
    assert found.value is not None
    assert found.value == pytest.approx(sureness, rel=0.1)
    slow: Any = minimize_scalar(
        lambda t: log_loss(y, Temperature(float(t)).applied(score)),
        bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6},
    )  # fmt: skip
    assert found.value == pytest.approx(slow.x, rel=2e-3)
    after = found.applied(score)
    assert log_loss(y, after) <= log_loss(y, score) + 1e-9
    assert (np.diff(after[np.argsort(score)]) >= 0).all()  # the order stays
    assert Temperature.from_json(found.to_json()) == found


def test_without_errors_or_without_sense_there_is_no_temperature():
    y = np.array([False, False, True, True])
    up = np.array([0.1, 0.2, 0.8, 0.9], np.float32)
    for positive, score, reason in (
        (y, up, "scores never err"),
        (~y, up, "scores tell nothing"),
        (y & False, up, "no positive rows"),
        (y | True, up, "no negative rows"),
        (y[:0], up[:0], "no rows that count"),
    ):
        found = Temperature.fit(positive, score)
        assert found.value is None
        assert reason in (found.reason or "")


def test_segments_are_made_in_the_way_with_the_best_f1_and_of_equals_the_plainest():
    each = candidates(500_000)
    assert each[0] == PostProcessing(500_000)
    assert len(set(each)) == len(each) == 72
    assert len(candidates(0)) == 36  # twice no gap is none
    wanted = each[50].at(0.4), each[60].at(0.4)

    def counts(rule: SegmentRule) -> EventCounts:
        return EventCounts(3, 1, 1) if rule in wanted else EventCounts(2, 2, 2)

    assert choose_post_processing(counts, 0.4, 500_000) == each[50]
    assert choose_post_processing(lambda rule: EventCounts(), 0.4, 500_000) == each[0]
    for one, two in pairwise(each):
        assert PostProcessing.from_json(one.to_json()) == one != two
    with pytest.raises(ConfigError, match="low_share is 0"):
        PostProcessing(low_share=0)
    with pytest.raises(ConfigError, match="must be odd"):
        PostProcessing(median_rows=2)
