from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker
from laughstore.cli.evaluate import report
from laughstore.errors import ConfigError
from laughstore.index import Stream
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec, frame_targets
from laughstore.naming import MIX
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.timebase import FRAME_US, Span
from train import evaluate, train
from train.evaluation.event_metrics import event_metrics
from train.evaluation.laugh_traits import ANSWER_US, TRAITS, LaughMoments
from train.evaluation.strata import strata_of
from train.scoring.score import StreamScores
from train.streaming.selection import select

from .conftest import config_for

NUM_FRAMES = 120
STEP = FRAME_US // 4
NAMES = tuple(TRAITS)


def stream_of(main: str = "A", other: str | None = "B") -> Stream:
    return Stream(
        recording_id="r", assignment="a--b", main=main, other=other, split="test",
        num_frames=NUM_FRAMES, first_block=0, first_shard=0, num_blocks=1, num_shards=1,
    )  # fmt: skip


def tables_of(
    events: Sequence[Event],
    segments: Sequence[Segment] = (),
    turns: Sequence[Segment] | None = None,
    intervals: Sequence[Interval] | None = None,
) -> RecordingTables:
    found = Annotations(
        "r",
        NUM_FRAMES * FRAME_US,
        speakers=tuple(Speaker(name, 1) for name in "ABC"),
        events=tuple(events),
        segments=tuple(segments),
        turns=None if turns is None else tuple(turns),
        intervals=None if intervals is None else tuple(intervals),
    )
    vocabulary = Vocabulary.of([found])
    return recording_tables(found, replace(vocabulary, labels=("Laughter", "Breath")))


@st.composite
def annotated(draw) -> tuple[list[Event], list[Segment]]:
    def stretch(most: int) -> tuple[int, int]:
        start = draw(st.integers(0, NUM_FRAMES * 4 - 1))
        return start * STEP, min(start + draw(st.integers(1, most)), NUM_FRAMES * 4) * STEP

    events = [
        Event(
            *stretch(40),
            "Laughter" if draw(st.integers(0, 5)) else "Breath",
            "",
            draw(st.sampled_from(["A", "A", "B", "C", None])),
            draw(st.sampled_from([0.2, 0.5, 0.7, 0.75, 1.0])),
        )
        for _ in range(draw(st.integers(1, 8)))
    ]
    # No two are the same: the second would be dropped.
    events = list({(item.start_us, item.end_us): item for item in events}.values())
    segments = [
        Segment(*stretch(80), draw(st.sampled_from("ABC"))) for _ in range(draw(st.integers(0, 6)))
    ]
    return events, segments


class SlowLaugh:
    """One bout of the definition, event by event and moment by moment."""

    def __init__(
        self, bout: list[Event], events: list[Event], segments: list[Segment], least: float
    ) -> None:
        self.start = min(item.start_us for item in bout)
        self.end = max(item.end_us for item in bout)
        self.traits = {
            "laugh_length": self._length(),
            "confidence": self._confidence(max(item.confidence for item in bout)),
            "speaking_at_onset": self._speaking(segments),
            "first_or_answer": self._first(bout[0].speaker, events, least),
        }

    def _length(self) -> str:
        seconds = (self.end - self.start) / 1e6
        for most, name in ((0.5, "<0.5 s"), (1, "0.5-1 s"), (2, "1-2 s")):
            if seconds < most:
                return name
        return ">=2 s"

    def _confidence(self, surest: float) -> str:
        if surest == 1:
            return "1"
        return "<0.5" if surest < 0.5 else "0.5-0.75" if surest < 0.75 else "0.75-1"

    def _speaking(self, segments: list[Segment]) -> str | None:
        if not segments:
            return None
        main, other = (
            any(
                item.speaker == name and item.start_us < self.start <= item.end_us
                for item in segments
            )
            for name in "AB"
        )
        return {(1, 1): "both", (1, 0): "main", (0, 1): "other", (0, 0): "neither"}[main, other]

    def _first(self, laugher: str | None, events: list[Event], least: float) -> str | None:
        if laugher is None:
            return None
        near = [
            item
            for item in events
            if item.label == "Laughter"
            and item.start_us < self.start
            and item.end_us >= self.start - ANSWER_US
            and item.speaker != laugher
        ]
        if any(item.speaker is not None and item.confidence >= least for item in near):
            return "answer"
        return None if near else "first"


def slow_laughs(events: list[Event], segments: list[Segment], label: LabelSpec) -> list[SlowLaugh]:
    targets = sorted(
        (
            item
            for item in events
            if item.label == "Laughter"
            and (label.whose == "any" or item.speaker == "A")
            and item.confidence >= label.min_confidence
        ),
        key=lambda item: item.start_us,
    )
    bouts: list[list[Event]] = []
    for item in targets:
        if bouts and item.start_us - max(e.end_us for e in bouts[-1]) <= label.merge_gap.us:
            bouts[-1].append(item)
        else:
            bouts.append([item])
    return [SlowLaugh(bout, events, segments, label.min_confidence) for bout in bouts]


def named(name: str, number: int) -> str | None:
    return None if number < 0 else TRAITS[name][number]


LABELS = [
    LabelSpec(),
    LabelSpec(lead=Span("-2f"), whose="any"),
    LabelSpec("shift:3f", min_confidence=0.5),
    LabelSpec("onset:8f", guard=Span("2f"), min_confidence=0.7),
    LabelSpec("onset:15f", whose="any", merge_gap=Span("0s")),
]


@given(scene=annotated(), label=st.sampled_from(LABELS))
@settings(max_examples=100, deadline=None)
def test_traits_of_laughs_are_those_of_the_definition(scene, label):
    events, segments = scene
    slow = slow_laughs(events, segments, label)
    found = LaughMoments.of(label, tables_of(events, segments), stream_of())
    assert found.moment_us.tolist() == [laugh.start for laugh in slow]
    for name in NAMES:
        traits = [named(name, number) for number in found.traits[name].tolist()]
        assert traits == [laugh.traits[name] for laugh in slow]


@given(scene=annotated(), label=st.sampled_from(LABELS))
@settings(max_examples=100, deadline=None)
def test_every_positive_row_is_about_a_laugh_that_makes_it_positive(scene, label):
    events, segments = scene
    tables = tables_of(events, segments)
    slow = slow_laughs(events, segments, label)
    moments = LaughMoments.of(label, tables, stream_of())
    y = frame_targets(label, tables, main="A", other="B", num_frames=NUM_FRAMES).y
    rows = np.flatnonzero(y)
    for row, number in zip(rows.tolist(), moments.of_rows(rows).tolist(), strict=True):
        if label.kind == "onset":
            can_be = [
                k
                for k, laugh in enumerate(slow)
                if laugh.start // FRAME_US - label.rules.span
                <= row
                < laugh.start // FRAME_US - label.rules.guard
            ]
            assert number == can_be[0]
        else:
            frame = row + label.rules.lead
            can_be = [
                k
                for k, laugh in enumerate(slow)
                if laugh.start // FRAME_US <= frame < -(-laugh.end // FRAME_US)
            ]
            assert number == can_be[-1]


def test_rows_before_the_end_of_an_interval_are_about_the_laugh_of_its_event():
    events = [Event(20 * FRAME_US, 30 * FRAME_US, "Laughter", "", "A")]
    intervals = [
        Interval("A", 20 * FRAME_US, 15 * FRAME_US, 40 * FRAME_US),
        Interval("A", 60 * FRAME_US, 55 * FRAME_US, 70 * FRAME_US),  # of no laugh
        Interval("A", 90 * FRAME_US, 0, 80 * FRAME_US),
    ]
    label = LabelSpec("interval:10f", limit=Span("5s"))
    found = LaughMoments.of(label, tables_of(events, intervals=intervals), stream_of())
    assert found.moment_us.tolist() == [40 * FRAME_US, 70 * FRAME_US]
    assert found.traits["laugh_length"].tolist() == [1, -1]
    assert found.of_rows(np.array([29, 30, 39, 40, 59, 60, 69, 70])).tolist() == [
        -1, 0, 0, -1, -1, 1, 1, -1
    ]  # fmt: skip


def test_what_nobody_wrote_down_is_unknown():
    laughs = [Event(20 * FRAME_US, 30 * FRAME_US, "Laughter", "", "A")]
    turns = [Segment(0, 25 * FRAME_US, "B")]
    label = LabelSpec()
    assert LaughMoments.of(label, tables_of(laughs), stream_of()).traits[
        "speaking_at_onset"
    ].tolist() == [-1]
    by_turns = LaughMoments.of(label, tables_of(laughs, turns=turns), stream_of())
    assert by_turns.traits["speaking_at_onset"].tolist() == [1]
    # Of a mix, all laughs are meant, and there are no sides.
    mix = LaughMoments.of(label, tables_of(laughs, turns=turns), stream_of(MIX, None))
    assert mix.traits["speaking_at_onset"].tolist() == [-1]
    assert mix.traits["first_or_answer"].tolist() == [0]
    alone = LaughMoments.of(label, tables_of(laughs, turns=turns), stream_of("A", None))
    assert alone.traits["speaking_at_onset"].tolist() == [3]
    with pytest.raises(ConfigError, match="no event stands behind"):
        LaughMoments.of(LabelSpec("regression:2s"), tables_of(laughs), stream_of())


@pytest.mark.parametrize(
    "label", [LabelSpec(), LabelSpec("onset:8f", whose="any")], ids=["detection", "onset"]
)
def test_strata_are_metrics_of_their_positives_among_all_negatives(planted_shards, label):
    index = read_index(planted_shards)
    selection = select(index, "validation", label)
    rng = np.random.default_rng(0)
    streams = []
    for number in range(0, len(selection.streams), 2 if label.whose == "any" else 1):
        y, counts = selection.stream_targets(number)
        score = (rng.random(len(y)) + 0.5 * y).round(2).astype(np.float32)
        stream = selection.streams[number]
        streams.append(StreamScores(stream, "", np.arange(len(y)), score, y, counts))
    events = event_metrics(index, streams, label, threshold=0.9)
    assert events.outcomes is not None
    found = strata_of(index, streams, label, threshold=0.9, outcomes=events.outcomes)
    assert found.keys() == {*NAMES, "show"}
    moments = [
        LaughMoments.of(label, index.tables(index.recording(s.stream.recording_id)), s.stream)
        for s in streams
    ]
    for name in NAMES:
        parts = {title: ([], []) for title in TRAITS[name]}
        negative, unknown = [], 0
        for item, each in zip(streams, moments, strict=True):
            laugh = each.of_rows(item.row)
            for t in np.flatnonzero(item.eligible).tolist():
                if not item.y[t]:
                    negative.append(item.score[t])
                    continue
                title = named(name, int(each.traits[name][laugh[t]]))
                if title is None:
                    unknown += 1
                else:
                    parts[title][0].append(item.score[t])
        for item, each in zip(events.outcomes, moments, strict=True):
            for moment, is_found in zip(item.moment_us.tolist(), item.found.tolist(), strict=True):
                place = each.moment_us.tolist().index(moment)
                title = named(name, int(each.traits[name][place]))
                if title is not None:
                    parts[title][1].append(is_found)
        assert found[name].num_unknown == unknown
        assert list(found[name].strata) == list(parts)
        for title, (positive, outcomes) in parts.items():
            stratum = found[name].strata[title]
            values = stratum.metrics.values
            assert stratum.metrics.num_positives == len(positive)
            assert stratum.metrics.num_rows == len(positive) + len(negative)
            assert stratum.num_events == len(outcomes)
            assert stratum.num_found == sum(outcomes)
            if not positive:
                assert values["average_precision"] is None
                assert stratum.metrics.undefined["recall"] == "no positive rows"
                continue
            y = [1] * len(positive) + [0] * len(negative)
            score = np.array(positive + negative)
            assert values["average_precision"] == pytest.approx(average_precision_score(y, score))
            assert values["auroc"] == pytest.approx(roc_auc_score(y, score))
            assert values["base_rate"] == pytest.approx(len(positive) / len(score))
            recall = np.mean(np.array(positive) >= np.float32(0.9))
            assert values["recall"] == pytest.approx(recall)
        if name in ("laugh_length", "first_or_answer"):
            assert (
                sum(stratum.metrics.num_positives > 0 for stratum in found[name].strata.values())
                >= 2
            )
            assert any(stratum.num_found for stratum in found[name].strata.values())


def test_without_a_threshold_there_is_no_recall(planted_shards):
    index, label = read_index(planted_shards), LabelSpec()
    selection = select(index, "validation", label)
    y, counts = selection.stream_targets(0)
    score = np.arange(len(y), dtype=np.float32)
    streams = [StreamScores(selection.streams[0], "", np.arange(len(y)), score, y, counts)]
    found = strata_of(index, streams, label, threshold=None, outcomes=None)
    strata = found["laugh_length"].strata.values()
    first = next(item for item in strata if item.metrics.num_positives).to_json()
    assert first["undefined"]["recall"] == "no threshold was chosen on validation"
    assert (first["events"], first["event_recall"]) == (None, None)
    assert first["average_precision"] is not None


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (LabelSpec("regression:2s"), "targets are numbers"),
        (LabelSpec(legacy=True), "legacy rules know no bouts"),
    ],
)
def test_labels_without_laughs_behind_rows_have_shows_alone(
    planted_shards, tmp_path, label, reason, capsys
):
    config = config_for(planted_shards, tmp_path / "run", label=label, epochs=1)
    train(config)
    found = evaluate(config.out, device="cpu", timelines=0, bootstrap=0, null=0)
    for name in NAMES:
        content = found.strata[name].to_json()
        assert content["strata"] == {}
        assert content["reason"].startswith(reason)
    shows = found.strata["show"].strata
    assert len(shows) == 2
    assert sum(item.metrics.num_rows for item in shows.values()) == found.metrics.num_rows
    report(found, as_json=False)
    said = capsys.readouterr().out
    assert "by show: lift from " in said
    assert "by length" not in said


def test_an_evaluation_tells_strata_in_its_file_and_on_the_terminal(trained, capsys):
    config, _, _ = trained
    found = evaluate(config.out, device="cpu", timelines=0)
    events = found.events.segments
    assert events is not None
    assert events.counts is not None
    for name in ("laugh_length", "confidence"):
        strata = found.strata[name].strata.values()
        assert sum(item.num_events or 0 for item in strata) == events.num_bouts
        assert sum(item.num_found or 0 for item in strata) == events.counts.hits
        assert sum(item.metrics.num_positives for item in strata) == found.metrics.num_positives
    shows = found.strata["show"].strata
    # Each recording is a show of its own here.
    assert [item.metrics for item in shows.values()] == [
        item.metrics for item in sorted(found.recordings, key=lambda item: item.name)
    ]
    report(found, as_json=False)
    said = capsys.readouterr().out
    assert "by length of the laugh: 0.5-1 s AP " in said
    assert "by who speaks at the onset: main AP " in said
