from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.bouts import Times
from laughstore.errors import ConfigError
from train.evaluation.events.collar import Collar, EventCounts
from train.evaluation.events.psds import DetectionCurve, Tolerance, covered, detection_curves
from train.evaluation.events.segments import Segments


@st.composite
def stretches(draw, most: int = 6) -> Times:
    edges = sorted(draw(st.lists(st.integers(0, 40), max_size=2 * most, unique=True)))
    pairs = np.array(edges[: len(edges) // 2 * 2], np.int64).reshape(-1, 2)
    return Times(pairs[:, 0], pairs[:, 1])


def segments_of(times: Times) -> Segments:
    return Segments(*times, np.zeros(len(times.start_us), np.float32))


def pairs_of(times: Times) -> list[tuple[int, int]]:
    return list(zip(times.start_us.tolist(), times.end_us.tolist(), strict=True))


@given(ours=stretches(), reference=stretches(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_as_many_pairs_are_made_as_there_can_be(ours, reference, data):
    collar = Collar(
        onset_us=data.draw(st.integers(0, 8)),
        offset_us=data.draw(st.integers(0, 8)),
        offset_share=data.draw(st.sampled_from([0.0, 0.2, 1.0])),
    )

    def near(segment: tuple[int, int], bout: tuple[int, int]) -> bool:
        allowed = max(collar.offset_us, collar.offset_share * (bout[1] - bout[0]))
        return abs(segment[0] - bout[0]) <= collar.onset_us and abs(segment[1] - bout[1]) <= allowed

    mine, theirs = pairs_of(ours), pairs_of(reference)
    few, many, swapped = (mine, theirs, False) if len(mine) <= len(theirs) else (theirs, mine, True)
    most = max(
        sum(near(*((b, a) if swapped else (a, b))) for a, b in zip(few, order, strict=False))
        for order in permutations(many, len(few))
    )
    counts = EventCounts.of(segments_of(ours), reference, collar)
    assert counts == EventCounts(most, len(mine) - most, len(theirs) - most)


def test_counts_of_streams_add_up_and_what_is_undefined_is_none():
    total = sum([EventCounts(2, 1, 0), EventCounts(0, 3, 4)], EventCounts())
    assert total == EventCounts(2, 4, 4)
    assert (total.precision, total.recall, total.f1) == (2 / 6, 2 / 6, 4 / 12)
    assert EventCounts().to_json() == {
        "hits": 0,
        "false_alarms": 0,
        "misses": 0,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    assert EventCounts(0, 0, 3).f1 == 0
    assert EventCounts(0, 3, 0).precision == 0


@given(
    ours=stretches(),
    reference=stretches(),
    detection=st.sampled_from([0.1, 0.5, 1.0]),
    truth=st.sampled_from([0.1, 0.5, 1.0]),
)
@settings(max_examples=120, deadline=None)
def test_coverage_is_counted_moment_by_moment(ours, reference, detection, truth):
    mine = [set(range(*pair)) for pair in pairs_of(ours)]
    theirs = [set(range(*pair)) for pair in pairs_of(reference)]
    every = set().union(*theirs)
    counting = [moments for moments in mine if len(moments & every) >= detection * len(moments)]
    by_ours = set().union(*counting)
    found = sum(len(moments & by_ours) >= truth * len(moments) for moments in theirs)
    tolerance = Tolerance(detection, truth)
    expected = (found, len(mine) - len(counting))
    assert covered(segments_of(ours), reference, tolerance) == expected


def test_the_score_is_the_area_under_the_best_recall_so_far():
    curve = DetectionCurve(np.array([0.9, 0.2, 0.1, 0.5]), np.array([50.0, 0.0, 10.0, 20.0]))
    # 0.2 up to 20 an hour, though a threshold with 10 an hour finds less; then 0.5, then 0.9.
    assert curve.score(100) == pytest.approx((0.2 * 20 + 0.5 * 30 + 0.9 * 50) / 100)
    assert curve.score(40) == pytest.approx((0.2 * 20 + 0.5 * 20) / 40)
    assert DetectionCurve(np.array([1.0]), np.array([30.0])).score(100) == pytest.approx(0.7)
    assert DetectionCurve(np.array([1.0]), np.array([130.0])).score(100) == 0


def test_a_curve_counts_all_streams_and_their_hours():
    bouts = Times(np.array([0, 100]), np.array([50, 150]))
    right = segments_of(bouts)
    wrong = segments_of(Times(np.array([60]), np.array([70])))
    none = segments_of(Times(np.empty(0, np.int64), np.empty(0, np.int64)))

    def one(threshold: float) -> Segments:
        return right if threshold < 0.5 else none

    def two(threshold: float) -> Segments:
        return wrong if threshold < 0.8 else none

    thresholds = np.array([0.1, 0.6, 0.9], np.float32)
    tolerances = [Tolerance(), Tolerance(detection=1e-9)]
    curve, lax = detection_curves(
        [(one, bouts), (two, bouts)], thresholds, hours=2.0, tolerances=tolerances
    )
    assert lax.recall.tolist() == [0.5, 0, 0]
    assert curve.recall.tolist() == [0.5, 0, 0]
    assert curve.false_alarms_per_hour.tolist() == [0.5, 0.5, 0]
    nothing = Times(np.empty(0, np.int64), np.empty(0, np.int64))
    with pytest.raises(ConfigError, match="no bouts"):
        detection_curves([(one, nothing)], thresholds, hours=2.0, tolerances=tolerances)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Collar(onset_us=-1),
        lambda: Collar(offset_share=float("nan")),
        lambda: Tolerance(detection=0),
        lambda: Tolerance(ground_truth=1.1),
        lambda: Tolerance(max_false_alarms_per_hour=0),
    ],
)
def test_settings_that_cannot_work_are_refused(make):
    with pytest.raises(ConfigError):
        make()
