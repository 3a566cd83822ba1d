import json
import logging
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.annotation_files import MAX_JSON_BYTES, Diarization, read_events, word_speakers
from extract.datasets import (
    DIARIZATIONS,
    EVENTS,
    INTERVALS,
    TRANSCRIPTS,
    TURNS,
    load_annotations,
    open_dataset,
)
from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker, Word
from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.naming import recording_id

NAME = 'Dr. Who, "live"_Ep 1. Chelle B.'


def diarization(**changes):
    return {
        "original_duration": 3.0,
        "speaker_statistics": {
            "SPEAKER_00": {"total_time": 1.2},
            "SPEAKER_01": {"total_time": 1.5},
        },
        "segments": [
            {"start": 0.0, "end": 1.2, "speaker_id": "SPEAKER_00"},
            {"start": 1.0, "end": 2.5, "speaker_id": "SPEAKER_01"},
        ],
    } | changes


def event(start=0.5, end=0.8, **changes):
    return {
        "label_consolidated_vocab": "Laughter",
        "label_full_vocab": "Laughter",
        "event_start_inepisode": start,
        "event_end_inepisode": end,
        "speaker_id": "SPEAKER_01",
        "confidence": 0.75,
    } | changes


CONTENT = {
    DIARIZATIONS: diarization(),
    EVENTS: {"events": [event()]},
    TRANSCRIPTS: {
        "segments": [
            {
                "speaker": 7,
                "nbest": [
                    {"words": [{"text": " so ", "offset": 1_000_000, "duration": 2_000_005}]},
                    {"words": [{"text": "sow", "offset": 0, "duration": 0}]},
                ],
            },
            {"nbest": []},
        ]
    },
    TURNS: {"turns": [{"start": 0, "end": 1.2, "speaker_id": "SPEAKER_00"}, {"end": 2.5}]},
    INTERVALS: {
        "intervals": [
            {
                "speaker_id": "SPEAKER_01",
                "event_start_inepisode": 0.5,
                "current_turn_start": 0.0,
                "prediction_interval_end": 0.5,
            }
        ]
    },
}


class Tree:
    """A data set on disk that a test changes before it opens it."""

    def __init__(self, root):
        self.root = root

    def annotation(self, kind, name=NAME, split="train", *, folder="metadata"):
        if kind == DIARIZATIONS:
            return self.root / folder / kind / split / name / "metadata.json"
        return self.root / folder / kind / split / f"{name}.json"

    def write(self, kind, content, **where):
        path = self.annotation(kind, **where)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def track(self, speaker, name=NAME, split="train", seconds=3.0, suffix=".wav"):
        folder = self.root / "audio" / "episode_wav_dial" / split / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{speaker}{suffix}"
        soundfile.write(path, np.zeros(int(24_000 * seconds), np.float32), 24_000)
        return path

    def episode(self, name=NAME, split="train"):
        for speaker in ("SPEAKER_00", "SPEAKER_01"):
            self.track(speaker, name, split, seconds=0.1)
        for kind, content in CONTENT.items():
            self.write(kind, content, name=name, split=split)
        return self

    @property
    def only(self):
        (recording,) = open_dataset(self.root).recordings
        return recording


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "data").episode()


def test_a_whole_episode_is_read_to_the_microsecond(tree):
    recording = tree.only
    assert recording.name == NAME
    assert recording.id == recording_id(NAME)
    assert recording.group == 'Dr. Who, "live"'
    assert recording.problem is None
    assert recording.notes == ()
    assert sorted(recording.tracks) == ["SPEAKER_00", "SPEAKER_01"]
    assert load_annotations(recording) == Annotations(
        recording=NAME,
        duration_us=3_000_000,
        speakers=(Speaker("SPEAKER_01", 1_500_000), Speaker("SPEAKER_00", 1_200_000)),
        events=(Event(500_000, 800_000, "Laughter", "Laughter", "SPEAKER_01", 0.75),),
        segments=(
            Segment(0, 1_200_000, "SPEAKER_00"),
            Segment(1_000_000, 2_500_000, "SPEAKER_01"),
        ),
        turns=(Segment(0, 1_200_000, "SPEAKER_00"), Segment(2_500_000, 2_500_000, "")),
        intervals=(Interval("SPEAKER_01", 500_000, 0, 500_000),),
        words=(Word(100_000, 300_000, "so", "SPEAKER_00"),),
    )


def test_recordings_are_sorted_by_split_then_name(tree):
    for split, name in [("test", "a"), ("extra", "b"), ("validation", "c"), ("train", "A")]:
        tree.episode(name, split)
    dataset = open_dataset(tree.root)
    assert [(r.split, r.name) for r in dataset.recordings] == [
        ("train", "A"),
        ("train", NAME),
        ("validation", "c"),
        ("test", "a"),
        ("extra", "b"),
    ]
    assert dataset.splits == ("train", "validation", "test", "extra")


def test_folders_are_found_whatever_their_case_and_under_meta_data(tree):
    (tree.root / "metadata").rename(tree.root / "Meta_Data")
    (tree.root / "audio" / "episode_wav_dial").rename(tree.root / "audio" / "Episode_WAV_dial")
    assert tree.only.problem is None


def test_a_diarization_may_be_a_file_of_the_episodes_name(tree):
    inner = tree.annotation(DIARIZATIONS)
    inner.rename(inner.parent.parent / f"{NAME}.json.new")
    inner.parent.rmdir()
    (inner.parent.parent / f"{NAME}.json.new").rename(inner.parent.parent / f"{NAME}.json")
    assert load_annotations(tree.only).duration_us == 3_000_000


def test_one_name_in_two_unicode_forms_is_one_recording(tmp_path):
    tree = Tree(tmp_path).episode("Café_1")
    folder = tree.root / "audio/episode_wav_dial/train"
    (folder / "Café_1").rename(folder / unicodedata.normalize("NFD", "Café_1"))
    assert tree.only.problem is None


def test_hidden_files_are_not_episodes(tree):
    for path in (tree.annotation(EVENTS), tree.root / "audio/episode_wav_dial/train/x"):
        (path.parent / f"._{path.name}").write_text("junk")
        (path.parent / ".DS_Store").write_text("junk")
    assert tree.only.name == NAME


def test_optional_files_that_are_missing_are_noted_and_load_as_none(tree):
    for kind in (TRANSCRIPTS, TURNS, INTERVALS):
        tree.annotation(kind).unlink()
    recording = tree.only
    annotations = load_annotations(recording)
    assert recording.problem is None
    assert [note.partition(":")[0] for note in recording.notes] == [
        "no transcript",
        "no turns",
        "no prediction intervals",
    ]
    assert annotations.words is annotations.turns is annotations.intervals is None


@pytest.mark.parametrize("kind", CONTENT)
def test_an_episode_known_from_one_annotation_only_is_seen_as_a_gap(tree, kind):
    tree.write(kind, CONTENT[kind], name="lost", split="test")
    lost = open_dataset(tree.root).recordings[-1]
    assert (lost.name, lost.split) == ("lost", "test")
    assert lost.problem is not None
    assert "no audio tracks" in lost.problem


def test_an_episode_with_audio_only_is_seen_as_a_gap(tree):
    tree.track("SPEAKER_00", "lost")
    assert "no file episode_event_speaker_mapping/train/lost.json; without events every" in str(
        open_dataset(tree.root).recordings[-1].problem
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.annotation(DIARIZATIONS).unlink(), "no file episode_diarizations/train/"),
        (lambda t: t.annotation(EVENTS).unlink(), "every frame would count as negative"),
        (lambda t: t.write(DIARIZATIONS, "{"), "not readable as JSON"),
        (lambda t: t.write(DIARIZATIONS, diarization(speaker_statistics={})), "no speaker"),
        (lambda t: t.track("SPEAKER_01").unlink(), "no track of SPEAKER_01, who speak most"),
        (lambda t: t.track("SPEAKER_00", suffix=".flac"), "both tracks of SPEAKER_00"),
    ],
)
def test_what_a_build_cannot_do_without_is_one_line_that_names_the_recording(tree, change, said):
    change(tree)
    problem = tree.only.problem
    assert said in problem
    assert NAME in problem
    assert "\n" not in problem


def test_loading_without_events_or_diarization_is_an_error(tree):
    for kind in (EVENTS, DIARIZATIONS):
        tree.annotation(kind).unlink()
        with pytest.raises(BadRecording, match=kind):
            load_annotations(tree.only)


def test_only_the_two_who_speak_most_are_the_speakers_and_ties_go_by_name(tree):
    totals = {"B": 2.0, "A": 2.0, "C": 1.0, "silent": 0, "unknown": None}
    statistics = {name: {"total_time": total} for name, total in totals.items()}
    tree.write(DIARIZATIONS, diarization(speaker_statistics=statistics))
    assert [speaker.name for speaker in load_annotations(tree.only).speakers] == ["A", "B"]
    assert tree.only.problem is not None


def test_a_recording_of_one_speaker_is_fine(tree):
    tree.write(DIARIZATIONS, diarization(speaker_statistics={"SPEAKER_00": {"total_time": 1}}))
    assert tree.only.problem is None
    assert len(tree.only.main_speakers) == 1


def test_without_a_stated_duration_the_longest_track_tells_it(tree):
    content = diarization()
    del content["original_duration"]
    tree.write(DIARIZATIONS, content)
    tree.track("SPEAKER_01", seconds=4.5)
    assert load_annotations(tree.only).duration_us == 4_500_000


@pytest.mark.parametrize("nothing", [None, float("nan"), "None", "", " "])
def test_null_nan_none_and_empty_text_all_mean_no_label_and_no_speaker(tree, nothing):
    odd = event(label_consolidated_vocab=nothing, label_full_vocab=nothing, speaker_id=nothing)
    tree.write(EVENTS, {"events": [odd | {"confidence": float("nan")}]})
    assert load_annotations(tree.only).events == (Event(500_000, 800_000, "", "", None, 1.0),)


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_events_without_times_are_dropped_and_counted_the_rest_stays_as_it_is(
    tree, nothing, caplog
):
    untidy = [event(2.0, 1.0), event(nothing, 1), event(9, 10), event(9, 10), event(1, nothing)]
    missing = event()
    del missing["event_end_inepisode"]
    tree.write(EVENTS, {"events": [*untidy, missing]})
    with caplog.at_level(logging.WARNING, logger="extract"):
        events = load_annotations(tree.only).events
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
        load_annotations(tree.only)
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
    assert load_annotations(tree.only).words == (Word(2, 2, "c", "SPEAKER_00"),)
    assert "3 words dropped" in caplog.text


def test_the_spoken_word_none_is_a_word(tree):
    words = [{"text": text, "offset": 0, "duration": 1} for text in ("None", "of", "us")]
    tree.write(TRANSCRIPTS, {"segments": [{"nbest": [{"words": words}]}]})
    found = load_annotations(tree.only).words
    assert found is not None
    assert [word.text for word in found] == ["None", "of", "us"]


def spoken(*segments):
    names = sorted({segment.speaker for segment in segments})
    return Diarization(tuple(Speaker(name, 1) for name in names), segments, None)


def speakers_of(words, diarized):
    times = np.array(words, np.int64).reshape(-1, 2)
    return word_speakers(times[:, 0], times[:, 1], diarized)


def test_a_word_belongs_to_the_largest_overlap_and_one_of_no_length_to_its_middle():
    diarized = spoken(Segment(0, 10, "A"), Segment(8, 20, "B"), Segment(30, 40, "A"))
    words = [(5, 9), (7, 14), (20, 30), (9, 9), (20, 20), (40, 40), (19, 31), (8, 10)]
    assert speakers_of(words, diarized) == ["A", "B", None, "A", None, None, "A", "A"]
    assert speakers_of([], diarized) == []
    assert speakers_of(words, spoken()) == [None] * len(words)


@settings(max_examples=200)
@given(
    segments=st.lists(
        st.builds(
            lambda start, length, speaker: Segment(start, start + length, speaker),
            st.integers(0, 60),
            st.integers(-2, 20),
            st.sampled_from("ABC"),
        ),
        max_size=8,
    ),
    words=st.lists(
        st.tuples(st.integers(-5, 80), st.integers(0, 15)).map(lambda w: (w[0], w[0] + w[1])),
        max_size=8,
    ),
)
def test_word_speakers_agree_with_counting_every_microsecond(segments, words):
    diarized = spoken(*segments)
    expected = []
    for start, end in words:
        moments = range(start, max(end, start + 1))
        overlap = {
            name: sum(
                any(s.speaker == name and s.start_us <= t < s.end_us for s in segments)
                for t in moments
            )
            for name in sorted({s.speaker for s in segments})
        }
        best = max(overlap, key=lambda name: overlap[name], default=None)
        expected.append(best if best is not None and overlap[best] else None)
    assert speakers_of(words, diarized) == expected


def test_a_missing_folder_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no such folder"):
        open_dataset(tmp_path / "none")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ([], "expected audio/episode_wav_dial/<split>/<episode>/<SPEAKER>.wav .* found nothing"),
        (["audio/episode_wav/train", "x"], r"found audio/episode_wav, x$"),
        (["a", "b", "c", "d", "e", "f"], r"found a, b, c, d, e, \.\.\.$"),
        (["audio/episode_wav_dial/train"], "found audio/episode_wav_dial$"),
        (["Pod/audio/episode_wav_dial"], r"but in Pod/; give .*Pod"),
    ],
)
def test_another_layout_is_named_with_what_was_expected_and_found(tmp_path, folders, said):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ConfigError, match=said):
        open_dataset(tmp_path)


def test_one_recording_in_two_splits_is_refused(tree):
    tree.write(TRANSCRIPTS, CONTENT[TRANSCRIPTS], split="test")
    with pytest.raises(ConfigError, match="is in the splits train and test"):
        open_dataset(tree.root)


def test_two_files_of_one_annotation_are_refused(tree):
    tree.write(EVENTS, CONTENT[EVENTS], folder="meta_data")
    with pytest.raises(ConfigError, match="are of one recording; keep one"):
        open_dataset(tree.root)


def test_a_split_whose_name_cannot_stand_in_a_shards_name_is_refused(tree):
    tree.episode("x", "my split")
    with pytest.raises(ConfigError, match="'my split' cannot be a split"):
        open_dataset(tree.root)


def test_looking_at_a_data_set_loads_no_torch():
    code = "import sys, extract.datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_corpus_of_real_laughs_is_read_whole(minicorpus_script, tmp_path):
    out = tmp_path / "mini"
    arguments = [str(out), "--episodes", "1", "1", "1", "--seconds", "40", "--annotate", "1"]
    subprocess.run([sys.executable, str(minicorpus_script), *arguments], check=True, timeout=120)
    dataset = open_dataset(out)
    assert dataset.splits == ("train", "validation", "test")
    for recording in dataset.recordings:
        assert recording.problem is None
        assert recording.notes == ()
        assert recording.group == f"Mini Show, {recording.split}"
        annotations = load_annotations(recording)
        truth = json.loads((out / "truth" / recording.split / f"{recording.name}.json").read_text())
        laughs = [item for item in annotations.events if item.label == "Laughter"]
        assert len(laughs) == len(truth["laughs"]) == len(annotations.intervals or ())
        for found, made in zip(laughs, truth["laughs"], strict=True):
            assert abs(found.start_us - made["start"] * 1e6) <= 1
            assert found.speaker == made["speaker_id"]
        assert annotations.duration_us == 40_000_000
        assert all(word.speaker is not None for word in annotations.words or ())
