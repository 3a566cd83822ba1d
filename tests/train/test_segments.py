import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.bouts import Times
from laughstore.errors import ConfigError
from laughstore.timebase import FRAME_US
from train.evaluation.events.segments import SegmentRule, Segments, find_segments, judged, touches


def slow_segments(row, score, rule: SegmentRule, lead: int) -> list[tuple[int, int, float]]:
    """The definition, row by row."""
    stretches: list[list[int]] = []
    for place in range(len(row)):
        if place and row[place] == row[place - 1] + 1:
            stretches[-1].append(place)
        else:
            stretches.append([place])
    smooth = {}
    half = rule.median_rows // 2
    for stretch in stretches:
        for at in range(len(stretch)):
            near = [stretch[min(max(at + k, 0), len(stretch) - 1)] for k in range(-half, half + 1)]
            smooth[stretch[at]] = float(np.float32(sorted(score[near].tolist())[half]))
    low = rule.threshold if rule.low is None else rule.low
    runs = []
    for stretch in stretches:
        run: list[int] = []
        for place in [*stretch, None]:
            if place is not None and smooth[place] >= low:
                run.append(place)
            elif run:
                runs.append(run)
                run = []
    found: list[tuple[int, int, float]] = []
    for run in runs:
        peak = max(smooth[place] for place in run)
        if peak < rule.threshold:
            continue
        start = (int(row[run[0]]) + lead) * FRAME_US
        end = (int(row[run[-1]]) + 1 + lead) * FRAME_US
        if found and start - found[-1][1] <= rule.merge_gap_us:
            found[-1] = (found[-1][0], end, max(peak, found[-1][2]))
        else:
            found.append((start, end, peak))
    return [item for item in found if item[1] - item[0] >= rule.min_duration_us]


def listed(segments: Segments) -> list[tuple[int, int, float]]:
    return list(
        zip(
            segments.start_us.tolist(),
            segments.end_us.tolist(),
            segments.score.tolist(),
            strict=True,
        )
    )


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_segments_are_those_of_the_definition(data):
    rows = sorted(data.draw(st.sets(st.integers(0, 40), max_size=35)))
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    score = [data.draw(st.sampled_from(levels)) for _ in rows]
    threshold = data.draw(st.sampled_from([0.25, 0.5, 0.6, 1.0, 1.5]))
    rule = SegmentRule(
        threshold,
        low=data.draw(st.sampled_from([None, 0.25, threshold])),
        median_rows=data.draw(st.sampled_from([1, 3, 5])),
        merge_gap_us=data.draw(st.sampled_from([0, FRAME_US - 1, FRAME_US, 3 * FRAME_US])),
        min_duration_us=data.draw(st.sampled_from([0, FRAME_US, FRAME_US + 1, 4 * FRAME_US])),
    )
    lead = data.draw(st.integers(-3, 3))
    row, score = np.array(rows, np.int64), np.array(score, np.float32)
    assert listed(find_segments(row, score, rule, lead=lead)) == slow_segments(
        row, score, rule, lead
    )


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_segments_that_touch_unknown_events_alone_are_not_judged(data):
    def times(disjoint: bool) -> Times:
        edges = data.draw(st.lists(st.integers(0, 60), max_size=8, unique=True))
        edges = sorted(edges[: len(edges) // 2 * 2])
        pairs = np.array(edges, np.int64).reshape(-1, 2)
        if not disjoint:
            longer = [data.draw(st.integers(0, 20)) for _ in pairs]
            pairs[:, 1] += np.array(longer, np.int64)
        return Times(pairs[:, 0], pairs[:, 1])

    ours, reference, unknown = times(True), times(True), times(False)
    segments = Segments(ours.start_us, ours.end_us, np.zeros(len(ours.start_us), np.float32))

    def touch(number: int, others: Times) -> bool:
        start, end = int(ours.start_us[number]), int(ours.end_us[number])
        moments = set(range(start, end))
        return any(
            moments & set(range(int(first), int(last))) for first, last in zip(*others, strict=True)
        )

    numbers = range(len(segments))
    assert touches(segments, unknown).tolist() == [touch(i, unknown) for i in numbers]
    kept = [i for i in numbers if touch(i, reference) or not touch(i, unknown)]
    assert judged(segments, reference, unknown).start_us.tolist() == ours.start_us[kept].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": float("nan")}, "threshold"),
        ({"low": 0.6}, "low is 0.6"),
        ({"low": float("nan")}, "low is nan"),
        ({"median_rows": 2}, "must be odd"),
        ({"median_rows": 0}, "must be odd"),
        ({"merge_gap_us": -1}, "merge_gap_us"),
        ({"min_duration_us": -1}, "min_duration_us"),
    ],
)
def test_rules_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        SegmentRule(**{"threshold": 0.5, **changes})
