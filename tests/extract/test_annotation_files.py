import json
import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.annotation_files import TranscriptLength, read_events, transcript_lengths
from extract.datasets import DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS
from extract.json_records import MAX_JSON_BYTES, parse_json
from laughstore.annotations import Event, Word
from laughstore.errors import BadRecording

from .trees import Tree, diarization, event


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "data").episode()


@pytest.mark.parametrize("nothing", [None, float("nan"), "None", "", " "])
def test_null_nan_none_and_empty_text_all_mean_no_label_and_no_speaker(tree, nothing):
    odd = event(label_consolidated_vocab=nothing, label_full_vocab=nothing, speaker_id=nothing)
    tree.write(EVENTS, {"events": [odd | {"confidence": nothing}]})
    assert tree.only.annotations().events == (Event(500_000, 800_000, "", "", None, 1.0),)


@pytest.mark.parametrize(
    "nothing", [None, float("nan"), float("inf"), "", " ", "None", "nan", "NaN", "null"]
)
def test_events_without_times_are_dropped_and_counted_the_rest_stays_as_it_is(
    tree, nothing, caplog
):
    untidy = [event(2.0, 1.0), event(nothing, 1), event(9, 10), event(9, 10), event(1, nothing)]
    missing = event()
    del missing["event_end_inepisode"]
    tree.write(EVENTS, {"events": [*untidy, missing]})
    with caplog.at_level(logging.WARNING, logger="extract"):
        events = tree.only.annotations().events
    assert [(item.start_us, item.end_us) for item in events] == [
        (2_000_000, 1_000_000),
        (9_000_000, 10_000_000),
        (9_000_000, 10_000_000),
    ]
    assert "3 events dropped" in caplog.text


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        (EVENTS, "", "not readable as JSON"),
        (EVENTS, b"\xff\xfe".decode("latin-1"), "not readable as JSON"),
        (EVENTS, "[" * 100_000, "not readable as JSON"),
        (EVENTS, '{"events": [' + "1" * 5_000 + "]}", "not readable as JSON"),
        (EVENTS, "[]", "no JSON object"),
        (EVENTS, {}, "no key 'events'"),
        (EVENTS, {"events": {}}, "key 'events' is no list"),
        (EVENTS, {"events": [1]}, "key 'events' holds something else"),
        (EVENTS, {"events": [event(), {}]}, "no key 'events[1].label_consolidated_vocab'"),
        (
            EVENTS,
            {"events": [event() | {"event_start_inepisode": "1.0"}]},
            "'events[0].event_start_inepisode' is no number",
        ),
        (EVENTS, {"events": [event(True)]}, "is no number (True)"),
        (EVENTS, {"events": [event(10**400)]}, "is no time in a recording"),
        (EVENTS, {"events": [event(1e300)]}, "is no time in a recording (1e+300)"),
        (EVENTS, {"events": [event(confidence=2)]}, "is not between 0 and 1"),
        (EVENTS, {"events": [event(speaker_id=3)]}, "'events[0].speaker_id' is no text"),
        (DIARIZATIONS, {"segments": []}, "no key 'speaker_statistics'"),
        (DIARIZATIONS, diarization(segments=[{"start": 0}]), "no key 'segments[0].end'"),
        (
            DIARIZATIONS,
            diarization(speaker_statistics={"A": {}}),
            "no key 'speaker_statistics.A.total_time'",
        ),
        (TURNS, {"turns": [{"start": 0}]}, "no key 'turns[0].end'"),
        (INTERVALS, {"intervals": [{}]}, "no key 'intervals[0].event_start_inepisode'"),
        (
            TRANSCRIPTS,
            {"segments": [{"nbest": [{"words": [{"text": "a", "offset": 0}]}]}]},
            "no key 'segments[0].nbest[0].words[0].duration'",
        ),
    ],
)
def test_a_broken_file_is_a_bad_recording_that_names_file_and_key(tree, kind, content, said):
    path = tree.write(kind, content)
    with pytest.raises(BadRecording) as caught:
        tree.only.annotations()
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_json_file_of_more_than_256_mib_is_not_read(tree):
    path = tree.annotation(EVENTS)
    with path.open("r+b") as file:
        file.truncate(MAX_JSON_BYTES + 1)  # sparse
    with pytest.raises(BadRecording, match="256 MiB"):
        read_events(path)


def test_words_without_text_or_times_are_left_out(tree, caplog):
    words = [
        {"text": "", "offset": 0, "duration": 1},
        {"text": "a", "offset": None, "duration": 1},
        {"text": "b", "offset": 50, "duration": -20},
        {"text": "c", "offset": 16, "duration": 0},
    ]
    tree.write(TRANSCRIPTS, {"segments": [{"nbest": [{"words": words}]}]})
    assert tree.only.annotations().words == (Word(2, 2, "c", "SPEAKER_00"),)
    assert "3 words dropped" in caplog.text


def test_the_spoken_word_none_is_a_word(tree):
    words = [{"text": text, "offset": 0, "duration": 1} for text in ("None", "of", "us")]
    tree.write(TRANSCRIPTS, {"segments": [{"nbest": [{"words": words}]}]})
    found = tree.only.annotations().words
    assert found is not None
    assert [word.text for word in found] == ["None", "of", "us"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (EVENTS, '{"events": [], "events": []}'),
        (TRANSCRIPTS, '{"segments": [{"nbest": [], "nbest": []}]}'),
    ],
)
def test_a_key_that_stands_twice_is_refused(tree, kind, content):
    tree.write(kind, content)
    with pytest.raises(BadRecording, match="stands twice in one object"):
        tree.only.annotations()


@pytest.mark.parametrize("key", ["speaker_id", "label_consolidated_vocab"])
def test_half_a_surrogate_pair_is_no_text(tree, key):
    tree.write(EVENTS, {"events": [event() | {key: "\ud800"}]})
    with pytest.raises(BadRecording, match="is no text"):
        tree.only.annotations()
    tree.write(EVENTS, {"events": []})
    tree.write(DIARIZATIONS, diarization(speaker_statistics={"\udfff": {"total_time": 1}}))
    assert "is no text" in tree.only.problem


def transcript(tmp_path, duration, *words):
    path = tmp_path / "transcript.json"
    items = [{"text": "a", "offset": offset, "duration": length} for offset, length in words]
    content = {"duration": duration, "segments": [{"nbest": [{"words": items}]}]}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("digits", "unit"), [(7, "100 ns"), (6, "us"), (3, "ms"), (0, "s"), (5, None), (9, None)]
)
def test_the_audios_length_tells_a_transcripts_unit(tmp_path, digits, unit):
    audio_us = 2_282_000_000
    length = 2_282 * 10**digits
    stated = transcript(tmp_path, length)
    assert transcript_lengths(stated, audio_us) == (TranscriptLength(length, True, unit),)
    spoken = transcript(tmp_path, None, (0, 5), (9 * length // 10 - 7, 7), (3, 4))
    last = TranscriptLength(9 * length // 10, False, unit)
    assert transcript_lengths(spoken, audio_us) == (last,)
    # Whatever else stands there is no length, and nothing else reads it.
    for nothing in ("PT10S", True, [], {}, -1, 0, float("nan")):
        spoken = transcript(tmp_path, nothing, (0, 9 * length // 10))
        assert transcript_lengths(spoken, audio_us) == (last,)
    both = transcript(tmp_path, 2_282 * 10**7, (0, 9 * length // 10))
    assert [item.unit for item in transcript_lengths(both, audio_us)] == ["100 ns", unit]


@settings(max_examples=200)
@given(audio_us=st.integers(1_000_000, 10**11), share=st.floats(0.91, 1.09))
def test_at_most_one_unit_fits_a_stated_length(tmp_path_factory, audio_us, share):
    path = transcript(tmp_path_factory.mktemp("t"), int(audio_us * 10 * share) + 1)
    assert [item.unit for item in transcript_lengths(path, audio_us)] == ["100 ns"]


def test_a_transcript_without_any_time_has_no_length(tmp_path):
    assert transcript_lengths(transcript(tmp_path, None), 1_000_000) == ()


def test_a_key_that_stands_twice_among_many_is_found_at_once():
    keys = ", ".join(f'"{k}": 0' for k in [*range(50_000), 49_999])
    start = time.monotonic()
    with pytest.raises(BadRecording, match="key '49999' stands twice"):
        parse_json(f"{{{keys}}}".encode(), where="x")
    assert time.monotonic() - start < 5
