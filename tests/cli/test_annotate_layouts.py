"""`annotate` from data sets that tell less than the store knows."""

import json

import pytest

from extract.datasets import DIARIZATIONS, EVENTS
from laughstore import open_store
from laughstore.annotations import Event, Word
from tests.extract.trees import Published, Tree, event, row
from tests.stores import Episode, laugh, random_features, write_store

NAME = "Show, the_1."
A, B = Episode(NAME).speakers


@pytest.fixture
def store(tmp_path):
    # Two at one moment: each keeps its own speaker.
    events = [laugh(1.0, 1.5, A), laugh(2.0, 2.5, B), laugh(2.0, 2.5, A), laugh(4.0, 4.5, A)]
    return write_store(tmp_path / "store", [Episode(NAME, events=events)], random_features(64))


def rows(*starts_s):
    return [row(start, start + 0.5, NAME, confidence=1) for start in starts_s]


def speakers(store):
    return [
        (item.start_us / 1e6, item.speaker) for item in open_store(store).annotations(NAME).events
    ]


def test_the_published_events_keep_the_speakers_that_the_store_knows(run, store, tmp_path):
    published = Published(tmp_path / "data")
    published.own(rows(1.0, 2.0, 2.0, 4.0), NAME)
    assert "nothing changes" in run("annotate", store, "--from", published.root)[1]
    published.own(rows(2.0, 2.0, 3.0, 4.0), NAME)
    published.transcript(NAME)
    code, out, _ = run("annotate", store, "--from", published.root)
    assert code == 0
    assert "1 of 4 events have no speaker" in out
    assert speakers(store) == [(2.0, B), (2.0, A), (3.0, None), (4.0, A)]
    opened = open_store(store)
    new, old = opened.annotations(NAME), Episode(NAME).annotations
    assert (new.segments, new.speakers, new.duration_us) == (
        old.segments,
        old.speakers,
        old.duration_us,
    )
    assert new.words == (Word(100_000, 300_000, "so", A),)


def test_one_class_and_merging_keep_them_too(run, store, tmp_path):
    published = Published(tmp_path / "data")
    published.table(rows(1.0, 6.0))
    code, out, _ = run("annotate", store, "--from", published.root, "--merge")
    assert code == 0
    assert "1 of 2 events have no speaker: labels ignore their frames" in out
    assert speakers(store) == [(1.0, A), (2.0, B), (2.0, A), (4.0, A), (6.0, None)]
    code, _, _ = run("annotate", store, "--from", published.root, "--event", "laughter")
    assert code == 0
    assert speakers(store) == [(1.0, A), (6.0, None)]


def test_metadata_that_tell_no_length_are_enough(run, store, tmp_path):
    tree = Tree(tmp_path / "data")
    speech = {"speaker_statistics": {A: {"total_time": None}}, "segments": []}
    speech["segments"] = [{"start": 0, "end": 2, "speaker_id": A}]
    tree.write(DIARIZATIONS, speech, name=NAME)
    tree.write(EVENTS, {"events": [event(3.0, 3.25, speaker_id=B)]}, name=NAME)
    assert run("annotate", store, "--from", tree.root)[0] == 0
    assert speakers(store) == [(3.0, B)]
    assert open_store(store).annotations(NAME).duration_us == Episode(NAME).annotations.duration_us
    tree.write(EVENTS, "{}", name=NAME, folder="meta_data")
    code, out, _ = run("annotate", store, "--from", tree.root)
    assert code == 3
    assert "are of one recording and differ" in out


def test_a_manifest_is_a_data_set(run, store, tmp_path):
    item = {"start_s": 3.0, "end_s": 3.25, "label": "Laughter", "speaker": B}
    line = {"name": NAME, "split": "train", "events": [item]}
    manifest = tmp_path / "corrected.jsonl"
    manifest.write_text(json.dumps(line))
    code, _, _ = run("annotate", store, "--from", manifest)
    assert code == 0
    new = open_store(store).annotations(NAME)
    assert new.events == (Event(3_000_000, 3_250_000, "Laughter", "", B, 1.0),)
    assert new.segments == Episode(NAME).annotations.segments
    manifest.write_text(json.dumps(line | {"events": [item | {"start": 3}]}))
    code, out, _ = run("annotate", store, "--from", manifest)
    assert code == 3
    assert "unknown key 'events[0].start'" in out
