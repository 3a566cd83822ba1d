"""Labels at their edges, by hand: targets, cleaning, bouts, and what a `LabelSpec` refuses."""

from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.bouts import EventFaults, clean_events
from laughstore.errors import ConfigError, CorruptData
from laughstore.kinds import Targets
from laughstore.label_counts import LabelCounts, count
from laughstore.labels import (
    LabelSpec,
    check_event,
    check_whose,
    frame_targets,
    target_bouts,
)
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.timebase import FRAME_US, Span

NUM_FRAMES = 40
END_US = NUM_FRAMES * FRAME_US


def laugh(start_us: int, end_us: int, speaker: str | None = "ann", sure: float = 1.0) -> Event:
    return Event(start_us, end_us, "Laughter", "Laughter", speaker, sure)


def frames(first: float, stop: float, speaker: str | None = "ann", sure: float = 1.0) -> Event:
    """A laugh from one frame's start (a fraction is inside it) to another's."""
    return laugh(round(first * FRAME_US), round(stop * FRAME_US), speaker, sure)


def recording(*events: Event) -> Annotations:
    return Annotations("an episode", END_US, (Speaker("ann", 2), Speaker("bob", 1)), events)


def tables_of(annotations: Annotations) -> RecordingTables:
    return recording_tables(annotations, Vocabulary.of([annotations]))


def rows(spec: LabelSpec, *events: Event, other: str | None = "bob") -> str:
    tables = tables_of(recording(*events))
    return drawn(frame_targets(spec, tables, main="ann", other=other, num_frames=NUM_FRAMES))


def drawn(targets: Targets) -> str:
    """Runs of rows with their lengths, `+` positive, `-` negative, `.` ignored: "-5 +2 .33"."""
    pairs = zip(targets.y, targets.ignored, strict=True)
    marks = ["." if ignored else "-+"[y] for y, ignored in pairs]
    return " ".join(f"{mark}{len(list(run))}" for mark, run in groupby(marks))


DETECTION = LabelSpec()
ONSET = LabelSpec(label="onset:5f")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([frames(10, 12)], "-10 +2 -28", id="on frame boundaries"),
        pytest.param([frames(10.5, 11.5)], "-10 +2 -28", id="every frame it touches"),
        pytest.param([laugh(800_000, 800_001)], "-10 +1 -29", id="1 us after a boundary"),
        pytest.param([laugh(799_999, 800_000)], "-9 +1 -30", id="1 us before a boundary"),
        pytest.param([laugh(799_999, 800_001)], "-9 +2 -29", id="across a boundary"),
        pytest.param([frames(0, 2)], "+2 -38", id="at frame 0"),
        pytest.param([frames(-3, 2)], "+2 -38", id="from before the recording"),
        pytest.param([frames(38, 60)], "-38 +2", id="past the end"),
        pytest.param([frames(40, 42)], "-40", id="after the end"),
        pytest.param([frames(10, 10), frames(12, 11)], "-40", id="no length"),
        pytest.param([frames(10, 12), frames(10, 12)], "-10 +2 -28", id="written twice"),
        pytest.param([frames(10, 20), frames(12, 14)], "-10 +10 -20", id="one inside another"),
        pytest.param([frames(10, 12), frames(15, 16)], "-10 +2 .3 +1 -24", id="gap in a bout"),
        pytest.param([frames(10, 12), frames(20, 21)], "-10 +2 -8 +1 -19", id="two bouts"),
        pytest.param([frames(10, 14), frames(12, 16, None)], "-10 +2 .4 -24", id="unknown wins"),
        pytest.param([frames(10, 14), frames(12, 16, "bob")], "-10 +4 -26", id="other is a cue"),
        pytest.param([frames(10, 14, "cyd")], "-40", id="third speaker"),
    ],
)
def test_detection_by_hand(events, expected):
    assert rows(DETECTION, *events) == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([], "-35 .5", id="the last n rows are not known"),
        pytest.param([frames(10, 12)], "-5 +5 .2 -23 .5", id="the n rows before"),
        pytest.param([frames(10.99, 12)], "-5 +5 .2 -23 .5", id="late in its frame"),
        pytest.param([laugh(799_999, 900_000)], "-4 +5 .3 -23 .5", id="1 us before a boundary"),
        pytest.param([frames(0, 2)], ".2 -33 .5", id="s = 0 has no rows before"),
        pytest.param([frames(2, 4)], "+2 .2 -31 .5", id="fewer than n rows before"),
        pytest.param([frames(38, 60)], "-33 +5 .2", id="positive among the last n rows"),
        pytest.param([frames(36, 37)], "-31 +5 .4", id="last rows after a bout"),
        pytest.param([frames(10, 11), frames(20, 21)], "-5 +5 .1 -4 +5 .1 -14 .5", id="two bouts"),
        pytest.param([frames(10, 11), frames(13, 14)], "-5 +5 .4 -21 .5", id="one bout, one onset"),
        pytest.param([frames(10, 12), frames(9, 14, "bob")], "-5 +5 .2 -23 .5", id="cue kept"),
        pytest.param([frames(20, 22, None)], "-15 .7 -13 .5", id="unknown event"),
        pytest.param(
            [frames(10, 12), frames(8, 9, None)], "-3 .2 +3 .1 +1 .2 -23 .5", id="unknown before"
        ),
        pytest.param([frames(10, 14), frames(11, 12, None)], "-5 +5 .4 -21 .5", id="and inside"),
        pytest.param(
            [frames(10, 12), frames(13, 14, None)], "-5 +5 .4 -21 .5", id="unknown just after"
        ),
    ],
)
def test_onset_by_hand(events, expected):
    assert rows(ONSET, *events) == expected


def test_two_onsets_closer_than_n_have_windows_cut_at_the_bout_between():
    close = replace(ONSET, merge_gap=Span("0f"))
    assert rows(close, frames(10, 11), frames(13, 14)) == "-5 +5 .1 +2 .1 -21 .5"
    guarded = replace(close, guard=Span("1f"))
    assert rows(guarded, frames(10, 11), frames(13, 14)) == "-5 +4 .2 +1 .2 -21 .5"


def test_the_merge_gap_is_inclusive_to_the_microsecond():
    first = laugh(800_000, 900_000)
    joined, apart = laugh(1_400_000, 1_500_000), laugh(1_400_001, 1_500_000)
    for second, num_bouts in ((joined, 1), (apart, 2)):
        tables = tables_of(recording(second, first))
        assert len(target_bouts(ONSET, tables, main="ann", other="bob").start_us) == num_bouts


def test_the_gap_counts_from_the_largest_end_so_far_and_not_from_the_last_event():
    long, inside, after = frames(5, 20), frames(6, 7), frames(24, 25)
    tables = tables_of(recording(long, inside, after))
    bouts = target_bouts(DETECTION, tables, main="ann", other="bob")
    assert (bouts.start_us // FRAME_US).tolist() == [5]
    assert (bouts.end_us // FRAME_US).tolist() == [25]


def test_bouts_are_pooled_over_speakers_for_pair_and_any_alone():
    events = [frames(10, 12), frames(14, 16, "bob"), frames(18, 20, "cyd"), frames(22, 24, None)]
    assert rows(DETECTION, *events) == "-10 +2 -10 .2 -16"
    assert rows(replace(DETECTION, whose="other"), *events) == "-14 +2 -6 .2 -16"
    assert rows(replace(DETECTION, whose="pair"), *events) == "-10 +2 .2 +2 -6 .2 -16"
    assert rows(replace(DETECTION, whose="any"), *events) == "-10 +2 .2 +2 .2 +2 .2 +2 -16"


def test_the_other_of_a_lone_speaker_laughs_never():
    other = replace(DETECTION, whose="other")
    assert rows(other, frames(10, 12), other=None) == "-40"


def test_low_confidence_makes_an_event_unknown_only_when_its_speaker_is_asked_for():
    picky = replace(DETECTION, min_confidence=0.7)
    assert rows(picky, frames(10, 12, sure=0.69)) == "-10 .2 -28"
    assert rows(picky, frames(10, 12, "bob", sure=0.1)) == "-40"
    assert rows(picky, frames(10, 12, "cyd", sure=0.1)) == "-40"
    assert rows(replace(picky, whose="any"), frames(10, 12, None, sure=0.1)) == "-10 .2 -28"


def test_an_event_of_exactly_the_least_confidence_counts_though_it_is_kept_in_float32():
    for confidence in (0.1, 0.7, 0.9):
        assert float(np.float32(confidence)) != confidence
        spec = replace(DETECTION, min_confidence=confidence)
        assert rows(spec, frames(10, 12, sure=confidence)) == "-10 +2 -28"


def test_lead_asks_each_row_about_a_later_or_an_earlier_frame():
    event = frames(10, 12)
    ahead, behind = replace(DETECTION, lead=Span("3f")), replace(DETECTION, lead=Span("-3f"))
    assert rows(ahead, event) == "-7 +2 -28 .3"
    assert rows(behind, event) == ".3 -10 +2 -25"
    assert (ahead.lead_frames, behind.lead_frames, ONSET.lead_frames) == (3, -3, 0)


def test_edge_ignores_rows_outside_a_bout_even_where_another_bout_lies():
    edge = replace(DETECTION, edge=Span("3f"), merge_gap=Span("0f"))
    assert rows(edge, frames(10, 12)) == "-7 .3 +2 .3 -25"
    assert rows(edge, frames(10, 14), frames(15, 18)) == "-7 .3 +2 .5 +1 .3 -19"


def test_fill_gaps_makes_gaps_positive_but_not_what_is_unknown_in_them():
    filled = replace(DETECTION, fill_gaps=True)
    gap = [frames(10, 12), frames(16, 18)]
    assert rows(filled, *gap) == "-10 +8 -22"
    assert rows(filled, *gap, frames(13, 14, None)) == "-10 +3 .1 +4 -22"


def test_a_class_of_the_full_vocabulary_is_another_class_than_its_consolidated_namesake():
    words = Event(10 * FRAME_US, 12 * FRAME_US, "Words", "Repetitions", "ann")
    assert rows(replace(DETECTION, event="Words"), words) == "-10 +2 -28"
    assert rows(replace(DETECTION, event="full:Repetitions"), words) == "-10 +2 -28"
    assert rows(replace(DETECTION, event="full:Words"), words) == "-40"
    assert rows(DETECTION, words) == "-40"


def test_cleaning_counts_every_fault_once_and_keeps_file_order():
    events = [
        frames(30, 50),  # cut
        frames(10, 12),
        frames(10, 12, sure=0.5),  # not equal in every column
        frames(10, 12),  # again
        frames(10, 12),  # and again
        frames(45, 44),  # ends before its start, and starts past the end: counted as the first
        frames(40, 41),  # begins at the end
        frames(5, 5),
        frames(5, 5),
    ]
    cleaned, faults = clean_events(tables_of(recording(*events)))
    assert faults == EventFaults(empty=3, past_end=1, duplicates=2, cut=1)
    assert faults.dropped == 6
    assert (cleaned.start_us // FRAME_US).tolist() == [30, 10, 10]
    assert (cleaned.end_us // FRAME_US).tolist() == [40, 12, 12]
    assert cleaned.confidence.tolist() == [1.0, 1.0, 0.5]


def test_cleaning_a_recording_without_events_finds_nothing():
    cleaned, faults = clean_events(tables_of(recording()))
    assert len(cleaned) == 0
    assert faults == EventFaults()


def test_counts_add_up_and_the_base_rate_leaves_ignored_rows_out():
    tables = tables_of(recording(frames(10, 12)))
    counts = count(frame_targets(ONSET, tables, main="ann", other="bob", num_frames=NUM_FRAMES))
    assert counts == LabelCounts(rows=40, positives=5, ignored=7)
    assert counts.negatives == 28
    assert counts.base_rate == 5 / 33
    assert counts + counts == LabelCounts(rows=80, positives=10, ignored=14)
    assert LabelCounts(rows=3, ignored=3).base_rate is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": "shift:1f", "lead": Span("1f")}, ["lead 1f", "shift:1f has no lead", "drop it"]),
        ({"label": "shift"}, ["shift", "needs a span"]),
        ({"label": "laughing"}, ["'laughing'", "detection, shift, onset, interval, regression"]),
        ({"label": ""}, ["detection, shift, onset, interval, regression"]),
        ({"limit": Span("5s")}, ["limit 5s", "only interval has"]),
        ({"label": "interval", "limit": Span("0s")}, ["limit 0s", "longer than 0"]),
        ({"label": "interval", "until": "interval"}, ["until interval", "only regression has"]),
        ({"label": "regression:10s", "until": "noon"}, ["until 'noon'", "onset, interval"]),
        ({"label": "regression:0s"}, ["regression:0s", "longer than 0"]),
        ({"label": "interval:5s", "legacy": True}, ["interval:5s", "write interval:10s"]),
        ({"label": "regression:5s", "legacy": True}, ["regression:5s", "write regression:10s"]),
        ({"legacy": True, "merge_gap": Span("0s")}, ["merge_gap 0s", "legacy", "drop it"]),
        ({"legacy": True, "min_confidence": 0.5}, ["min_confidence 0.5", "legacy"]),
        ({"legacy": True, "fill_gaps": True}, ["fill_gaps True", "legacy"]),
        (
            {"label": "regression", "legacy": True, "until": "interval"},
            ["until interval", "legacy labels have no until", "drop it"],
        ),
        ({"label": "onset"}, ["onset", "needs a span", "onset:0.8s", "onset:10f"]),
        ({"label": "onset:"}, ["needs a unit"]),
        ({"label": "onset:10"}, ["10", "unit", "10s", "10f"]),
        ({"label": "onset:0f"}, ["onset:0f", "longer than 0"]),
        ({"label": "onset:-3f"}, ["onset:-3f", "longer than 0"]),
        ({"label": "detection:3f"}, ["detection:3f", "no span"]),
        ({"label": "onset:5f", "guard": Span("5f")}, ["guard 5f", "less than the 5 rows"]),
        ({"label": "onset:5f", "guard": Span("-1f")}, ["guard -1f", "at least 0"]),
        ({"label": "onset:5f", "lead": Span("1f")}, ["lead 1f", "only detection has", "drop it"]),
        ({"label": "onset:5f", "edge": Span("1f")}, ["edge 1f", "only detection"]),
        ({"label": "onset:5f", "fill_gaps": True}, ["fill_gaps", "only detection"]),
        ({"guard": Span("1f")}, ["guard 1f", "only onset"]),
        ({"merge_gap": Span("-0.1s")}, ["merge_gap -0.1s", "0 or more"]),
        ({"edge": Span("-1f")}, ["edge -1f", "0 or more"]),
        ({"whose": "ours"}, ["whose 'ours'", "main, other, pair, any"]),
        ({"min_confidence": 1.5}, ["min_confidence 1.5", "0 to 1"]),
        ({"min_confidence": float("nan")}, ["min_confidence nan"]),
        ({"event": ""}, ["event ''", "full:NAME"]),
        ({"event": "full:"}, ["event 'full:'", "full:NAME"]),
    ],
)
def test_a_setting_that_cannot_work_is_refused_in_one_line_that_names_it(fields, words):
    with pytest.raises(ConfigError) as caught:
        LabelSpec(**fields)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_one_identity_for_one_label_however_its_spans_are_written():
    in_seconds = LabelSpec(label="onset:0.8s", guard=Span("0.16s"), merge_gap=Span("0.48s"))
    in_frames = LabelSpec(label="onset:10f", guard=Span("2f"), merge_gap=Span("6f"))
    assert in_seconds.identity() == in_frames.identity()
    assert in_seconds.identity() == {
        "kind": "onset",
        "span_frames": 10,
        "event": "Laughter",
        "whose": "main",
        "merge_gap_us": 480_000,
        "guard_frames": 2,
        "lead_frames": 0,
        "min_confidence": 0.0,
        "edge_frames": 0,
        "fill_gaps": False,
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"span_frames": "10"}, "span_frames"),
        ({"fill_gaps": 1}, "fill_gaps"),
        ({"guard_frames": True}, "guard_frames"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_identity_that_was_altered_is_corrupt_and_the_field_is_named(change, field):
    with pytest.raises(CorruptData, match=f"^run/config.json: .*field {field} "):
        LabelSpec.from_identity(LabelSpec().identity() | change, where="run/config.json")


def test_an_identity_with_a_field_missing_is_corrupt_and_one_of_another_kind_is_refused():
    identity = LabelSpec().identity()
    with pytest.raises(ConfigError, match="detection, shift, onset"):
        LabelSpec.from_identity(identity | {"kind": "noon", "span_frames": 125})
    del identity["whose"]
    with pytest.raises(CorruptData, match=r"field whose "):
        LabelSpec.from_identity(identity)


def test_the_description_tells_how_many_rows_each_span_became():
    assert LabelSpec().describe() == ("detection of Laughter, whose: main, bouts merged over 0.5s")
    spec = LabelSpec(label="onset:0.8s", guard=Span("0.05s"), whose="any", min_confidence=0.5)
    assert spec.describe() == (
        "onset:0.8s (10 rows) of Laughter, whose: any, bouts merged over 0.5s,"
        " guard 0.05s (1 row), confidence at least 0.5"
    )
    spec = LabelSpec(lead=Span("-2f"), edge=Span("0.3s"), fill_gaps=True)
    assert spec.describe().endswith("lead -2f (-2 rows), edge 0.3s (4 rows), gaps filled")


def test_a_class_that_occurs_nowhere_is_an_error_that_lists_those_there_are():
    vocabulary = Vocabulary(labels=("", "Breath", "Laughter"), full_labels=("Agree", "Laughter"))
    check_event(LabelSpec(), vocabulary)
    check_event(LabelSpec(event="full:Agree"), vocabulary)
    with pytest.raises(ConfigError, match=r"'Music' .* there are: Breath, Laughter$"):
        check_event(LabelSpec(event="Music"), vocabulary)
    with pytest.raises(ConfigError, match=r"there are: Breath, Laughter, full:Agree$"):
        check_event(LabelSpec(event="Agree"), vocabulary)
    with pytest.raises(ConfigError, match=r"there are: full:Agree, full:Laughter$"):
        check_event(LabelSpec(event="full:Breath"), vocabulary)
    with pytest.raises(ConfigError, match="no events"):
        check_event(LabelSpec(), Vocabulary((), ()))


def test_asking_for_a_speaker_where_no_event_has_one_is_an_error_that_names_whose_any():
    nameless = tables_of(recording(frames(1, 2, None), frames(3, 4, None)))
    named = tables_of(recording(frames(1, 2, "cyd")))
    for whose in ("main", "other", "pair"):
        check_whose(LabelSpec(whose=whose), [nameless, named])
        with pytest.raises(ConfigError, match=rf"whose {whose}: .* 4 events .*--whose any"):
            check_whose(LabelSpec(whose=whose), [nameless, nameless])
    check_whose(LabelSpec(whose="any"), [nameless])
    check_whose(LabelSpec(), [tables_of(recording())])
