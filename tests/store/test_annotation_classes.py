"""Which spans of a source are events, of which class, and whose."""

import unicodedata
from dataclasses import replace

import pytest

from laughstore.annotation_formats import (
    AnnotationSource,
    EventRule,
    read_annotation_source,
    to_events,
)
from laughstore.annotations import Event
from laughstore.errors import ConfigError

from .annotating import FILES, SPEAKERS, a_source, a_span, write_file


def test_classes_of_the_sample_textgrid():
    source = read_annotation_source(FILES / "Show, no. 1.TextGrid")
    rule = EventRule.of(source)
    events = to_events(source.spans, rule, SPEAKERS)
    assert [(event.label, event.speaker) for event in events] == [
        ("Laughter", "SPEAKER_00"),
        ("Laughter", "SPEAKER_00"),
        ("Laughter", "SPEAKER_01"),
        ("cough", "SPEAKER_01"),
    ]
    assert rule.classes == {"Laughter", "cough"}
    assert rule.notes == ("1 points left out: they have no length",)


def test_one_class_is_chosen_when_it_occurs_and_given_when_not():
    source = read_annotation_source(FILES / "Show, no. 1.TextGrid")
    rule = EventRule.of(source, event="laughter")
    assert rule.classes == {"Laughter"}
    assert len(to_events(source.spans, rule, SPEAKERS)) == 3
    assert "left out, not Laughter: 1 cough" in rule.notes
    with pytest.raises(ConfigError, match="no span is labelled Laugther, but some are Laughter;"):
        EventRule.of(source, event="Laugther")


def test_labels_that_are_no_classes_need_no_renaming():
    source = read_annotation_source(FILES / "Show, no. 1.TextGrid")
    spans_of_tier = [replace(span, tier="notes", label="ha ha") for span in source.spans]
    source = AnnotationSource((replace(source.files[0], spans=tuple(spans_of_tier)),))
    rule = EventRule.of(source, event="Sigh")
    events = to_events(source.spans, rule, SPEAKERS)
    assert {event.label for event in events} == {event.full_label for event in events} == {"Sigh"}
    assert len(events) == 4
    assert rule.classes == {"Sigh"}
    assert "no span is labelled Sigh: every span is taken as one" in rule.notes


def test_tiers_can_be_chosen():
    source = read_annotation_source(FILES / "Show, no. 1.TextGrid")
    rule = EventRule.of(source, tiers=["speaker_01"])
    assert [event.start_us for event in to_events(source.spans, rule, SPEAKERS)] == [
        5_000_000,
        7_000_000,
    ]
    with pytest.raises(ConfigError, match="no labelled tier 'speaker_02'; tiers with labels: SPEA"):
        EventRule.of(source, tiers=["SPEAKER_02"])


def test_spans_without_labels_need_a_class(tmp_path):
    path = write_file(tmp_path, "show.csv", "start,end,speaker\n1,2,speaker_01\n")
    source = read_annotation_source(path)
    with pytest.raises(ConfigError, match="none of the 1 spans has a label"):
        EventRule.of(source)
    (event,) = to_events(source.spans, EventRule.of(source, event="Laughter"), SPEAKERS)
    assert event == Event(1_000_000, 2_000_000, "Laughter", "Laughter", "SPEAKER_01")
    with pytest.raises(ConfigError, match="is no class"):
        EventRule.of(source, event="full:Agree")


def test_transcripts_are_no_events(tmp_path):
    source = a_source(tmp_path, *(a_span(k, k + 1, f"word {k}") for k in range(300)))
    with pytest.raises(ConfigError, match="300 different labels: this looks like a transcript"):
        EventRule.of(source)


@pytest.mark.parametrize(
    "labels",
    [
        ("hello", "so what do you do"),
        ("yes", "no", "maybe", "hello", "well", "so"),
    ],
)
def test_words_of_a_transcript_are_not_taken_for_one_class(tmp_path, labels):
    found = [a_span(k, k + 1, label) for k, label in enumerate(labels)]
    with pytest.raises(ConfigError, match="look like a transcript; label each Laughter"):
        EventRule.of(a_source(tmp_path, *found), event="Laughter")
    # With a label of the class there is no doubt which are meant.
    rule = EventRule.of(a_source(tmp_path, *found, a_span(20, 21, "laugh")), event="Laughter")
    assert not rule.takes_every_span


@pytest.mark.parametrize(
    "labels", [("x",), ("ha ha", "x"), [f"laugh{k}" for k in range(20)], [str(k) for k in range(9)]]
)
def test_a_few_labels_of_ones_own_are_one_class(tmp_path, labels):
    found = [a_span(k, k + 1, label) for k, label in enumerate(labels)]
    rule = EventRule.of(a_source(tmp_path, *found), event="Laughter")
    assert rule.takes_every_span
    assert len(to_events(found, rule, ())) == len(labels)


@pytest.mark.parametrize("label", ["laugh", "ha ha", ""])
def test_points_alone_are_no_sign_that_there_is_nothing(tmp_path, label):
    path = write_file(tmp_path, "show.txt", f"1.0\t1.0\t{label}\n3.0\t3.0\t{label}\n")
    with pytest.raises(ConfigError, match="all 2 labels are points, which have no length"):
        EventRule.of(read_annotation_source(path), event="Laughter")


def test_both_vocabularies_of_podcastfillers():
    source = read_annotation_source(FILES / "PodcastFillers.csv")
    rule = EventRule.of(source)
    assert rule.classes == {"Laughter", "Words", "full:Agree"}
    events = to_events(source.spans, rule, ())
    assert [(event.label, event.full_label) for event in events] == [
        ("Laughter", "Laughter"),
        ("", "Agree"),
        ("Words", "Repetitions"),
    ]


@pytest.mark.parametrize(
    ("tier", "speaker"),
    [
        ("SPEAKER_00", "SPEAKER_00"),
        ("speaker_00:Laughter", "SPEAKER_00"),
        ("Laughter SPEAKER_00", "SPEAKER_00"),
        ("laugh@Mary-Ann", "Mary-Ann"),
        ("laugh@Ann", "Ann"),
        ("SPEAKER_001", None),
        ("Annual", None),
        ("Laughter", None),
        ("", None),
    ],
)
def test_tiers_named_after_speakers(tmp_path, tier, speaker):
    found = a_span(1, 2, "laugh", tier=tier)
    rule = EventRule.of(a_source(tmp_path, found))
    (event,) = to_events([found], rule, ("SPEAKER_00", "Ann", "Mary-Ann"))
    assert event.speaker == speaker


def test_a_named_speaker_counts_before_the_tier(tmp_path):
    both = a_span(1, 2, "laugh", tier="SPEAKER_00", speaker="speaker_01")
    new = a_span(1, 2, "laugh", tier="SPEAKER_00", speaker="Bob")
    stranger = a_span(1, 2, "laugh", speaker="Bob")
    rule = EventRule.of(a_source(tmp_path, both))
    events = to_events([both, new, stranger], rule, SPEAKERS)
    assert [event.speaker for event in events] == ["SPEAKER_01", "SPEAKER_00", "Bob"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_speaker_is_the_stores_one_in_any_unicode_form(tmp_path, form):
    stored = unicodedata.normalize(form, "José")
    named = a_span(1, 2, "laugh", speaker="José")  # readers give form NFC
    tier = a_span(3, 4, "laugh", tier="Laughter JOSÉ")
    rule = EventRule.of(a_source(tmp_path, named))
    events = to_events([named, tier], rule, (stored, "SPEAKER_00"))
    assert [event.speaker for event in events] == [stored, stored]
