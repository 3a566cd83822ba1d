"""What a report calls a false alarm or a miss, against plain counting and what metrics count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore.index import Index
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec, target_bouts
from laughstore.timebase import FRAME_US
from train.evaluation.event_metrics import event_metrics
from train.report.marks import LEFT_OUT, RIGHT, WRONG, StreamMarks, stream_marks
from train.report.timeline import EXCERPT_US, choose_recordings, packed, timeline_json
from train.report.worst import worst_spots
from train.scoring.score import StreamScores, by_stream
from train.streaming.selection import FrameFilter, select


def random_streams(index: Index, label: LabelSpec, seed: int = 0) -> list[StreamScores]:
    """Every row of the split validation with a score that hangs together with its neighbours'."""
    selection = select(index, "validation", label)
    every = replace(selection, eligible=selection.eligible | selection.ignored)
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.random(len(every.frames) + 3), np.ones(4) / 4, mode="valid")
    y, eligible = selection.y[every.eligible], selection.eligible[every.eligible]
    return by_stream(every, noise.astype(np.float32), y, eligible, label)


def marks_of(
    index: Index, streams: list[StreamScores], label: LabelSpec, threshold: float | None
) -> list[StreamMarks]:
    return [stream_marks(index, item, label, threshold) for item in streams]


@pytest.fixture(scope="module")
def index(planted_shards: Path) -> Index:
    return read_index(planted_shards)


@pytest.mark.parametrize("label", ["detection", "shift:4f"])
def test_segments_are_false_that_touch_no_laugh_and_laughs_missed_that_none_touches(index, label):
    spec = LabelSpec(label)
    streams = random_streams(index, spec)
    seen = {RIGHT: 0, WRONG: 0}
    for scores, marks in zip(streams, marks_of(index, streams, spec, 0.62), strict=True):
        stream = scores.stream
        tables = index.tables(index.recording(stream.recording_id))
        bouts = target_bouts(spec, tables, main=stream.main, other=stream.other)
        laughs = list(zip(bouts.start_us.tolist(), bouts.end_us.tolist(), strict=True))
        found = list(
            zip(marks.predicted.start_us.tolist(), marks.predicted.end_us.tolist(), strict=True)
        )
        # Segments from the rows, one after another.
        inside = [
            (row + spec.lead_frames) * FRAME_US
            for row, score in zip(scores.row.tolist(), scores.score.tolist(), strict=True)
            if score >= np.float32(0.62)
        ]
        plain: list[list[int]] = []
        for start_us in inside:
            if plain and start_us - plain[-1][1] <= spec.merge_gap.us:
                plain[-1][1] = start_us + FRAME_US
            else:
                plain.append([start_us, start_us + FRAME_US])
        assert found == [tuple(item) for item in plain]

        def meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
            return a[0] < b[1] and b[0] < a[1]

        for segment, verdict in zip(found, marks.predicted.verdict.tolist(), strict=True):
            assert verdict == (RIGHT if any(meet(segment, item) for item in laughs) else WRONG)
            seen[verdict] += 1
        for laugh, verdict in zip(laughs, marks.awaited.verdict.tolist(), strict=True):
            assert verdict == (RIGHT if any(meet(laugh, item) for item in found) else WRONG)
            seen[verdict] += 1
    assert min(seen.values()) > 5


def test_a_laugh_some_of_whose_rows_were_not_scored_is_neither_found_nor_missed(index):
    label = LabelSpec()
    streams = random_streams(index, label)
    cut = [
        replace(
            item,
            row=item.row[100:],
            score=item.score[100:],
            y=item.y[100:],
            eligible=item.eligible[100:],
        )
        for item in streams
    ]
    num_begun = 0
    for scores, marks in zip(cut, marks_of(index, cut, label, 2.0), strict=True):
        begins = marks.events.start_us // FRAME_US < scores.row[0]
        num_begun += np.count_nonzero(begins)
        assert (marks.awaited.verdict[begins] == LEFT_OUT).all()
        assert (marks.awaited.verdict[~begins] == WRONG).all()
        assert len(marks.predicted) == 0
    assert num_begun > 2


@pytest.mark.parametrize("threshold", [0.3, 0.55, 0.7])
def test_alarms_and_windows_are_judged_as_metrics_count_them(index, threshold):
    label = LabelSpec("onset:0.8s")
    streams = random_streams(index, label)
    marks = marks_of(index, streams, label, threshold)
    counted = event_metrics(index, streams, label, threshold=threshold).foreseen
    assert counted is not None
    awaited = np.concatenate([item.awaited.verdict for item in marks])
    predicted = np.concatenate([item.predicted.verdict for item in marks])
    assert np.count_nonzero(awaited == RIGHT) == len(counted.lead_s)
    assert np.count_nonzero(awaited != LEFT_OUT) == counted.num_onsets
    assert np.count_nonzero(predicted == WRONG) == counted.false_alarms > 0
    # An alarm shortly before a window keeps it quiet: scores in a missed one may be high.
    for scores, item in zip(streams, marks, strict=True):
        for start_us, end_us, score, verdict in zip(
            item.awaited.start_us, item.awaited.end_us, item.awaited.score, item.awaited.verdict,
            strict=True,
        ):  # fmt: skip
            rows = (scores.row * FRAME_US >= start_us) & (scores.row * FRAME_US < end_us)
            inside = scores.score[rows & scores.eligible]
            assert (verdict == LEFT_OUT) == (not len(inside))
            assert verdict == LEFT_OUT or score == inside.max()


def test_largest_errors_of_numbers_are_apart_and_the_largest(index):
    label = LabelSpec("regression:3s")
    streams = random_streams(index, label)
    span = label.rules.span
    for scores, marks in zip(streams, marks_of(index, streams, label, None), strict=True):
        for stretches, sign in ((marks.predicted, 1), (marks.awaited, -1)):
            error = np.where(scores.eligible, sign * (scores.score.astype(float) - scores.y), 0)
            taken: list[int] = []
            for place in sorted(range(len(error)), key=lambda place: (-error[place], place)):
                row = int(scores.row[place])
                if error[place] > 0 and all(abs(row - other) > span for other in taken):
                    taken.append(row)
            assert (stretches.start_us // FRAME_US).tolist() == sorted(taken[:20])


def test_nothing_is_judged_without_a_threshold(index):
    label = LabelSpec()
    streams = random_streams(index, label)
    marks = marks_of(index, streams, label, None)
    assert all(len(item.predicted) == len(item.awaited) == 0 for item in marks)
    assert any(len(item.events.start_us) for item in marks)
    found = worst_spots(streams, marks, label)
    assert (found.false_alarms, found.misses) == ((), ())


@pytest.mark.parametrize("whole", [0, 1, 9])
def test_what_is_listed_is_the_worst_and_every_place_of_it_is_shown(index, whole):
    label = LabelSpec()
    streams = random_streams(index, label)
    marks = marks_of(index, streams, label, 0.6)
    found = worst_spots(streams, marks, label, most=7)
    wrong = [item.predicted.score[item.predicted.verdict == WRONG].tolist() for item in marks]
    every = sorted((score for scores in wrong for score in scores), reverse=True)
    assert [spot.score for spot in found.false_alarms] == every[:7]
    assert found.num_false_alarms == len(every)
    missed = [item.awaited.score[item.awaited.verdict == WRONG].tolist() for item in marks]
    every = sorted(score for scores in missed for score in scores)
    assert [spot.score for spot in found.misses] == every[:7]
    shown = choose_recordings(index, streams, found, whole)
    assert sum(item.excerpts is None for item in shown) == min(whole, 2)
    for spot in (*found.false_alarms, *found.misses):
        (place,) = (item for item in shown if spot.stream in item.streams)
        stretches = place.excerpts or ((0, place.recording.duration_us),)
        assert any(a <= spot.start_us and spot.end_us <= b for a, b in stretches)
        for a, b in place.excerpts or ():
            assert b - a >= min(EXCERPT_US, place.recording.duration_us)


def test_a_timeline_holds_every_score_where_it_speaks_of(index):
    import base64

    label = LabelSpec("shift:4f")
    streams = random_streams(index, label)
    marks = marks_of(index, streams, label, 0.6)
    shown = choose_recordings(index, streams, worst_spots(streams, marks, label), 2)
    for item in shown:
        told = timeline_json(item, streams, marks, label, "probability")
        assert len(told["streams"]) == len(item.streams)
        for number, drawn in zip(item.streams, told["streams"], strict=True):
            ((first, text),) = drawn["scores"]
            values = np.frombuffer(base64.b64decode(text), "<u2") / 65535
            assert first == streams[number].row[0] + 4
            assert values == pytest.approx(streams[number].score, abs=1e-5)
            assert sum(b - a for a, b in drawn["ignored"]) == pytest.approx(
                np.count_nonzero(~streams[number].eligible) * 0.08
            )


def test_runs_of_frames_are_apart_where_frames_are_missing():
    frame = np.array([3, 4, 5, 9, 12, 13])
    runs = packed(frame, np.linspace(0, 1, 6, dtype=np.float32), 0.0, 1.0)
    assert [first for first, _ in runs] == [3, 9, 12]
    assert packed(frame[:0], np.empty(0, np.float32), 0.0, 1.0) == []


def test_a_filter_that_leaves_rows_out_leaves_gaps_in_the_line(index):
    label = LabelSpec()
    selection = select(index, "validation", label, FrameFilter())
    assert selection.eligible.any()
    streams = random_streams(index, label)
    gap = np.ones(len(streams[0].row), np.bool_)
    gap[40:60] = False
    thin = replace(
        streams[0],
        row=streams[0].row[gap],
        score=streams[0].score[gap],
        y=streams[0].y[gap],
        eligible=streams[0].eligible[gap],
    )
    marks = marks_of(index, [thin, *streams[1:]], label, 0.6)
    shown = choose_recordings(index, [thin, *streams[1:]], worst_spots(streams, marks, label), 2)
    item = next(item for item in shown if 0 in item.streams)
    told = timeline_json(item, [thin, *streams[1:]], marks, label, "probability")
    assert [first for first, _ in told["streams"][0]["scores"]] == [0, 60]
