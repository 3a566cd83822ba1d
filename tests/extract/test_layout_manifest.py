import errno
import json
import re
import tracemalloc
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.datasets import open_dataset
from extract.sound.tracks import AudioFile
from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker, Word
from laughstore.errors import ConfigError
from laughstore.timebase import microseconds

from .manifests import EVENT, Corpus, line, small
from .trees import silence

DOCUMENT = Path(__file__).parents[2] / "docs/datasets.md"


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


def test_a_whole_line_is_read_to_the_microsecond(corpus):
    recording = corpus.write(line()).only
    root = corpus.root
    assert (recording.name, recording.split, recording.group) == (
        "Talk 1. part, 2",
        "train",
        "Talks",
    )
    assert recording.mix == AudioFile(root / "mix.wav")
    assert recording.tracks == {
        "Bo": AudioFile(root / "both.wav", 1),
        "Ann": AudioFile(root / "ann.wav"),
    }
    assert recording.problem is None
    assert recording.notes == ()
    speakers = (Speaker("Ann", 2_000_001), Speaker("Bo", 1_500_000), Speaker("Cy", 0))
    assert recording.speakers == speakers
    assert recording.track_problem(["Ann", "Cy"]).startswith(
        "Talk 1. part, 2: no track of Cy, who would be main (tracks: Ann, Bo)"
    )
    assert recording.annotations() == Annotations(
        recording="Talk 1. part, 2",
        duration_us=4_000_000,
        speakers=speakers,
        events=(
            Event(1_000_000, 1_500_000, "Laughter", "Giggle", "Ann", 0.5),
            Event(1_000_000, 1_500_000, "Laughter", "", None, 1.0),
        ),
        segments=(Segment(0, 1_250_000, "Ann"), Segment(1_000_000, 2_000_001, "Ann")),
        turns=(Segment(0, 2_500_000, ""), Segment(2_000_000, 3_000_000, "Bo")),
        intervals=(Interval("Ann", 1_000_000, 0, 1_000_000),),
        words=(
            Word(100_000, 300_000, "so", "Ann"),
            Word(100_000, 300_000, "None", "Bo"),
            Word(2_500_000, 2_500_000, "well", None),
        ),
    )


def test_lists_may_stand_in_files_of_their_own(corpus):
    full = line()
    kinds = ("events", "segments", "turns", "intervals", "words")
    (corpus.root / "lists").mkdir()
    for kind in kinds:
        (corpus.root / f"lists/{kind}.json").write_text(json.dumps(full[kind]))
    expected = corpus.write(full).only.annotations()
    pointing = full | {kind: f"lists/{kind}.json" for kind in kinds}
    pointing["words"] = str(corpus.root / "lists/words.json")
    assert corpus.write(pointing).only.annotations() == expected


def test_the_folder_of_a_manifest_and_any_name_of_it_will_do(corpus):
    corpus.write(small())
    assert open_dataset(corpus.root).layout == "manifest"
    other = corpus.path.rename(corpus.root / "other.JSONL")
    assert open_dataset(other).recordings[0].name == "a"
    with pytest.raises(ConfigError, match=r"found ann\.wav"):
        open_dataset(corpus.root)


def test_recordings_are_sorted_and_blank_lines_and_a_mark_at_the_front_are_passed_over(corpus):
    corpus.write(small("b", split="x"), "", small("c", split="test"), " ", small("Z"), small("d"))
    corpus.path.write_bytes(b"\xef\xbb\xbf\n" + corpus.path.read_bytes())
    dataset = open_dataset(corpus.path)
    assert [(item.split, item.name) for item in dataset.recordings] == [
        ("train", "Z"),
        ("train", "d"),
        ("test", "c"),
        ("x", "b"),
    ]
    assert dataset.recordings[0].annotations().duration_us == 4_000_000
    corpus.path.write_bytes(b"\xef\xbb\xbf" + json.dumps(small()).encode())
    assert corpus.only.events() == ()


def test_null_stands_for_not_there(corpus):
    nothing = dict.fromkeys(["group", "speakers", "segments", "turns", "intervals", "words"])
    recording = corpus.write(small("Show_1", **nothing)).only
    assert recording.group == "Show"
    assert recording.speakers == ()
    assert not recording.has_words
    assert not recording.has_segments
    assert [note.partition(":")[0] for note in recording.notes] == [
        "no transcript",
        "no turns",
        "no prediction intervals",
    ]
    annotations = recording.annotations()
    assert annotations.words is annotations.turns is annotations.intervals is None


def test_without_listed_speakers_the_segments_tell_who_there_is(corpus):
    spoken = [("B", 0, 1), ("A", 0, 1), ("C", 0, 2), ("D", 1, 1)]
    segments = [{"speaker": name, "start_s": a, "end_s": b} for name, a, b in spoken]
    recording = corpus.write(small(segments=segments, events=[EVENT])).only
    assert [speaker.name for speaker in recording.speakers] == ["C", "A", "B"]
    assert recording.events()[0].speaker == "Ann"


def test_listed_speakers_of_unknown_length_keep_their_order(corpus):
    recording = corpus.write(small(speakers=[{"name": "B"}, {"name": "A"}])).only
    assert recording.speakers == (Speaker("B", 0), Speaker("A", 0))


def test_the_docs_example_is_read(corpus):
    (example,) = re.findall(r"```jsonl\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    corpus.path.write_text(example)
    recordings = open_dataset(corpus.path).recordings
    assert len(recordings) == 2
    for recording in recordings:
        for file in [*recording.tracks.values(), *([recording.mix] if recording.mix else [])]:
            silence(file.path, 60, channels=2)
        lists = corpus.root / "talks/talk-2.words.json"
        lists.write_text('[{"start_s": 0.31, "end_s": 0.52, "text": "hello"}]')
        assert recording.problem is None
        annotations = recording.annotations()
        assert annotations.events
        assert annotations.words
        assert annotations.content_id()


def test_without_audio_a_recording_ends_with_the_last_thing_annotated(corpus):
    recording = corpus.write(small(audio=None, events=[EVENT], turns=[])).only
    assert recording.annotations().duration_us == 1_500_000
    assert "no 'audio'" in recording.problem


@settings(max_examples=100)
@given(times=st.lists(st.decimals(0, 100_000, places=6), min_size=2, max_size=20))
def test_times_are_read_as_the_decimals_that_are_written(tmp_path_factory, times):
    path = tmp_path_factory.getbasetemp() / "times.jsonl"
    events = ", ".join(f'{{"start_s": {t:f}, "end_s": {t:f}, "label": ""}}' for t in times)
    path.write_text(f'{{"name": "a", "split": "train", "events": [{events}]}}')
    (recording,) = open_dataset(path).recordings
    assert [event.start_us for event in recording.events()] == [microseconds(t) for t in times]


def test_names_are_one_in_either_unicode_form(corpus):
    ann = unicodedata.normalize("NFD", "Än")
    content = line(speakers=[{"name": ann}], words=None, turns=None, intervals=None, segments=None)
    event = {"speaker": unicodedata.normalize("NFC", ann), "label": ann, "full_label": ann}
    content["events"] = [EVENT | event]
    (found,) = corpus.write(content).only.events()
    assert {found.speaker, found.label, found.full_label} == {"Än"}


def test_objects_are_dropped_as_they_become_words(corpus):
    num_words = 3_000
    words = [
        {"start_s": 0.4 * i, "end_s": 0.4 * i + 0.3, "text": f"word{i % 99}", "speaker": "Ann"}
        for i in range(num_words)
    ]
    recording = corpus.write(line(words=words)).only
    recording.annotations()
    tracemalloc.start()
    found = recording.annotations()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.words
    assert len(found.words) == num_words
    # Objects and their text take 490 bytes a word; kept beside the words, with the
    # places for messages, they took 580.
    assert peak < 560 * num_words


def test_a_disk_that_fails_while_a_line_is_read_again_is_no_fault_of_its_recording(
    corpus, monkeypatch
):
    recording = corpus.write(line()).only

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="Input/output error") as caught:
        recording.events()
    assert caught.value.filename == str(corpus.path)
