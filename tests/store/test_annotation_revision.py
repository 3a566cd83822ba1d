"""Annotations of a source and those that were there before, together."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from laughstore.annotation_formats import (
    EventRule,
    annotate_recording,
    read_annotation_source,
    to_events,
    to_segments,
)
from laughstore.annotations import Interval, Segment
from laughstore.errors import BadRecording, ConfigError

from .annotating import FILES, a_source, a_span, an_event, old_notes, write_file


def test_replace_takes_the_place_of_the_classes_of_the_source(tmp_path):
    old = old_notes()
    found = (a_span(10, 11, "laughs", speaker="SPEAKER_01"),)
    rule = EventRule.of(a_source(tmp_path, *found))
    done = annotate_recording(old, found, rule)
    assert done.annotations == replace(
        old, events=(old.events[1], an_event(10, 11, "Laughter", "SPEAKER_01"))
    )
    assert (done.num_added, done.num_removed, done.has_changed) == (1, 1, True)
    again = annotate_recording(done.annotations, found, rule)
    assert again.annotations == done.annotations
    assert not again.has_changed


def test_points_alone_do_not_replace_the_events_of_their_class(tmp_path):
    point, long = a_span(3, 3, "laugh"), a_span(10, 11, "laugh")
    for event in (None, "Laughter"):
        rule = EventRule.of(a_source(tmp_path, point, long), event=event)
        with pytest.raises(BadRecording, match=r"show: every Laughter in it is a point.*its old"):
            annotate_recording(old_notes(), [point], rule)
        assert annotate_recording(old_notes(), [point, long], rule).num_removed == 1
        assert not annotate_recording(old_notes(), [point], rule, mode="merge").has_changed
        # There is nothing to lose.
        assert not annotate_recording(old_notes(events=()), [point], rule).has_changed


def test_rows_that_cannot_be_used_do_not_replace_events(tmp_path):
    table = "recording,start,end,label\n"
    table += "show,10,11,laugh\nshow,12,x,laugh\nother,1,2,laugh\nthird,9,1,laugh\n"
    source = read_annotation_source(write_file(tmp_path, "all.csv", table))
    assert set(source.by_recording) == {"show", "other", "third"}
    rule = EventRule.of(source, event="Laughter")

    def annotated(name, rule=rule, source=source, **settings):
        dropped = source.dropped_by_recording.get(name, ())
        found = source.by_recording[name]
        return annotate_recording(old_notes(), found, rule, dropped=dropped, **settings)

    with pytest.raises(BadRecording, match=r"show: .*all\.csv: 1 rows cannot be used \(line 3: a"):
        annotated("show")
    with pytest.raises(BadRecording, match=r"line 5: ends before it starts"):
        annotated("third")
    assert annotated("other").num_removed == 1
    assert annotated("show", mode="merge").num_added == 1
    # A row of another class is not missed; of one that nobody can tell, it may be.
    table = "recording,start,end,label\nshow,1,2,laugh\nshow,3,x,cough\n"
    source = read_annotation_source(write_file(tmp_path, "cough.csv", table))
    laughs = EventRule.of(source, event="Laughter")
    assert annotated("show", laughs, source).num_removed == 1
    with pytest.raises(BadRecording, match="line 3"):
        annotated("show", EventRule.of(source), source)
    for row, said in (("show,4", "2 cells"), (",4,5,laugh", "names no recording")):
        table = f"recording,start,end,label\nshow,1,2,laugh\n{row}\n"
        source = read_annotation_source(write_file(tmp_path, "unknown.csv", table))
        with pytest.raises(BadRecording, match=said):
            annotated("show", EventRule.of(source), source)


def test_a_class_of_which_no_row_can_be_used_does_occur(tmp_path):
    source = read_annotation_source(write_file(tmp_path, "show.txt", "1\tx\tlaugh\n5\t6\tha ha\n"))
    rule = EventRule.of(source, event="Laughter")
    assert not rule.takes_every_span
    assert rule.classes == {"Laughter"}
    with pytest.raises(BadRecording, match="its old events stay"):
        annotate_recording(old_notes(), (), rule, dropped=source.dropped_by_recording["show"])


def test_a_file_without_laughs_says_that_there_are_none(tmp_path):
    rule = EventRule.of(a_source(tmp_path, a_span(1, 2, "laugh")))
    done = annotate_recording(old_notes(), (), rule)
    assert [event.label for event in done.annotations.events] == ["Breath"]
    assert done.num_removed == 1
    merged = annotate_recording(old_notes(), (), rule, mode="merge")
    assert merged.annotations == old_notes()
    assert not merged.has_changed


def test_the_same_events_in_another_order_are_no_change(tmp_path):
    old = old_notes(events=(an_event(4, 5, "Laughter"), an_event(1, 2, "Laughter")))
    found = (a_span(1, 2, "x", speaker="SPEAKER_00"), a_span(4, 5, "x", speaker="SPEAKER_00"))
    rule = EventRule.of(a_source(tmp_path, *found), event="Laughter")
    assert annotate_recording(old, found, rule).annotations == old


def test_merge_adds_what_is_not_there_once(tmp_path):
    old = old_notes()
    same = a_span(1, 2, "Laughter", speaker="SPEAKER_00", confidence=0.5)
    new = a_span(1, 3, "Laughter", speaker="SPEAKER_00")
    found = (same, new, new)
    rule = EventRule.of(a_source(tmp_path, *found))
    done = annotate_recording(old, found, rule, mode="merge")
    assert done.annotations.events == (*old.events, an_event(1, 3, "Laughter"))
    assert (done.num_added, done.num_removed) == (1, 0)


def test_a_source_without_any_span_can_still_say_that_there_is_nothing(tmp_path):
    nothing = a_source(tmp_path)
    rule = EventRule.of(nothing)
    assert rule.classes == frozenset()
    assert rule.notes[0].startswith("no labelled span: nothing changes; if that says that there")
    assert not annotate_recording(old_notes(), (), rule).has_changed
    rule = EventRule.of(nothing, event="Laughter")
    assert rule.notes == ()
    assert annotate_recording(old_notes(), (), rule).num_removed == 1


some_spans = st.lists(
    st.builds(
        a_span,
        st.integers(0, 3),
        st.integers(3, 5),
        st.sampled_from(["laugh", "Laughter", "cough", ""]),
        speaker=st.sampled_from([None, "speaker_00", "Bob"]),
        kind=st.sampled_from(["event", "event", "segment"]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(found=some_spans, event=st.sampled_from(["Laughter", None]))
def test_annotating_twice_changes_nothing_more(tmp_path_factory, found, event):
    found = [
        replace(span, speaker=span.speaker or "A") if span.kind == "segment" else span
        for span in found
    ]
    # A point is no event, so its label tells no class: spans without one are refused beside it.
    labelled = [span for span in found if span.kind == "event" and span.label]
    assume(event is not None or any(span.end_us > span.start_us for span in labelled))
    lengths = [span.end_us - span.start_us for span in found if span.kind == "event"]
    assume(not lengths or any(lengths))
    # SPEAKER lines alone are refused where a class is asked for.
    assume(event is None or lengths or not found)
    rule = EventRule.of(a_source(tmp_path_factory.mktemp("twice"), *found), event=event)
    # Points alone for a class that has events are refused with replace.
    old = old_notes() if all(lengths) else old_notes(events=(an_event(4, 5, "Breath"),))
    for mode in ("replace", "merge"):
        once = annotate_recording(old, found, rule, mode=mode)
        twice = annotate_recording(once.annotations, found, rule, mode=mode)
        assert twice.annotations == once.annotations
        assert not twice.has_changed
        kept = [item for item in once.annotations.events if item.label == "Breath"]
        assert kept == [an_event(4, 5, "Breath")]
        taken = {item.label for item in once.annotations.events} - {"Breath", "Laughter"}
        assert taken <= rule.classes <= {"Laughter", "cough"}


def test_speaker_lines_replace_the_segments():
    source = read_annotation_source(FILES / "meeting.rttm")
    rule = EventRule.of(source)
    spans_of_show = source.by_recording["show"]
    old = old_notes()
    done = annotate_recording(old, spans_of_show, rule)
    assert done.annotations.segments == (
        Segment(500_000, 4_750_000, "SPEAKER_00"),
        Segment(5_000_000, 6_000_000, "B"),
    )
    assert done.has_new_segments
    assert done.annotations.speakers == old.speakers
    assert [event.label for event in done.annotations.events] == ["Breath", "Laughter", "cough"]
    merged = annotate_recording(old, spans_of_show, rule, mode="merge").annotations
    assert merged.segments == (*old.segments, *done.annotations.segments)
    other = annotate_recording(old, source.by_recording["other"], rule).annotations
    assert other.segments == old.segments


def test_speaker_lines_are_never_events(tmp_path):
    lines = "SPEAKER show 1 1 2 <NA> <NA> SPEAKER_01 <NA> <NA>\n"
    source = read_annotation_source(write_file(tmp_path, "a.rttm", lines))
    with pytest.raises(ConfigError, match="only SPEAKER lines: they tell who speaks when"):
        EventRule.of(source, event="Laughter")
    lines += "NON-LEX show 1 4 1 <NA> other SPEAKER_00 <NA> <NA>\n"
    both = read_annotation_source(write_file(tmp_path, "b.rttm", lines))
    rule = EventRule.of(both, event="Laughter")
    assert to_segments(both.spans, ()) == (Segment(1_000_000, 3_000_000, "SPEAKER_01"),)
    assert to_events(both.spans, rule, ()) == (an_event(4, 5, "Laughter"),)


@pytest.mark.parametrize("event", [None, "Laughter"])
def test_speaker_lines_alone_do_not_say_that_there_are_no_events(tmp_path, event):
    lines = "SPEAKER show 1 1 2 <NA> <NA> SPEAKER_01 <NA> <NA>\n"
    lines += "NON-LEX other 1 4 1 <NA> laugh SPEAKER_00 <NA> <NA>\n"
    source = read_annotation_source(write_file(tmp_path, "a.rttm", lines))
    rule = EventRule.of(source, event=event)
    done = annotate_recording(old_notes(), source.by_recording["show"], rule)
    assert done.annotations.events == old_notes().events
    assert done.annotations.segments == (Segment(1_000_000, 3_000_000, "SPEAKER_01"),)
    assert annotate_recording(old_notes(), source.by_recording["other"], rule).num_removed == 1


def test_what_is_probably_not_meant_is_told(tmp_path):
    old = old_notes(intervals=(Interval("SPEAKER_00", 1, 0, 1),))
    found = (a_span(1000, 1500, "laugh"), a_span(1, 2, "laugh", speaker="Bob"))
    rule = EventRule.of(a_source(tmp_path, *found))
    notes = annotate_recording(old, found, rule).notes
    assert notes == (
        "show: 1 of 2 events start after the recording's end (60.0 s): labels will not use them;"
        " is it this recording?",
        "show: 1 of 2 events have no speaker: labels ignore their frames, but for those of a mix"
        " and --whose any",
        "show: speakers new to the recording: Bob (it has SPEAKER_00, SPEAKER_01)",
        "show: its prediction intervals still belong to the old events",
    )
