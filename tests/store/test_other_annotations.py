"""Labels from other annotations than the store's: the tables, and the store left as it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker
from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.evolution.annotate import Revised
from laughstore.index import Index
from laughstore.labels import LabelSpec, check_event
from laughstore.other_annotations import (
    annotations_of,
    read_other_annotations,
    tables_digest,
    with_annotations,
)
from laughstore.store import open_shards
from laughstore.tables import Vocabulary, recording_tables
from tests.stores import SPEAKERS, Episode, laugh, random_features, write_store
from train.streaming.selection import select

ANN, BOB = SPEAKERS
COUGH = Event(1_000_000, 2_000_000, "Cough", "Cough", ANN, 0.7)
EPISODES = (
    Episode("first", "train", 300, [laugh(2, 3), COUGH]),
    Episode("second", "train", 200, [laugh(4, 6, BOB)]),
    Episode("third", "validation", 200, [laugh(1, 2)]),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "store"
    return write_store(path, EPISODES, random_features(64), dim=64, block_frames=32)


@pytest.fixture
def index(store: Path) -> Index:
    return open_shards(store)


def table(folder: Path, *rows: str, name: str = "laughs.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["recording,start,end,label,speaker", *rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def positives(index: Index, split: str = "train") -> list[int]:
    selection = select(index, split, LabelSpec(), may_be_empty=True)
    return selection.frames[selection.targets > 0].tolist()


def test_tables_become_annotations_and_the_same_tables_again(index):
    for recording, tables, episode in zip(
        index.recordings, index.all_tables, EPISODES, strict=True
    ):
        back = annotations_of(recording, tables)
        assert back.events == tuple(
            replace(item, confidence=float(np.float32(item.confidence))) for item in episode.events
        )
        assert back.segments == episode.annotations.segments
        again = recording_tables(back, index.vocabulary)
        for name in ("start_us", "end_us", "label", "full_label", "speaker", "confidence"):
            ours, theirs = getattr(again.events, name), getattr(tables.events, name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


def test_turns_and_intervals_come_back_too(index):
    whole = Annotations(
        "first",
        24_000_000,
        (Speaker(BOB, 0), Speaker(ANN, 0)),
        events=(laugh(2, 3, None),),
        segments=(Segment(0, 5, "third person"),),
        turns=(Segment(1, 2, ANN), Segment(3, 4, BOB)),
        intervals=(Interval(BOB, 5, 6, 7),),
    )
    tables = recording_tables(whole, Vocabulary.of([whole]))
    back = annotations_of(index.recordings[0], tables)
    assert (back.events, back.segments) == (whole.events, whole.segments)
    assert (back.turns, back.intervals) == (whole.turns, whole.intervals)
    assert [item.name for item in back.speakers] == [BOB, ANN, "third person"]


def test_labels_change_where_the_source_speaks_and_stay_elsewhere(index, tmp_path):
    folder = table(tmp_path / "mine", f"first,8,10,Laughter,{ANN}")
    other = read_other_annotations(index, folder)
    first = index.recording("first").streams[0].first_block * index.block_frames
    second = index.recording("second").streams[1].first_block * index.block_frames
    assert positives(other) == [
        *range(first + 100, first + 125),
        *range(second + 50, second + 75),
    ]
    assert positives(other, "validation") == positives(index, "validation")
    # Classes of which the source says nothing stay, with their codes in the new vocabulary.
    coughs = select(other, "train", LabelSpec(event="Cough"))
    assert coughs.counts == select(index, "train", LabelSpec(event="Cough")).counts
    # The features are the same.
    assert other.index_id == index.index_id
    assert np.array_equal(other.block_crc32c, index.block_crc32c)
    assert select(other, "train", LabelSpec()).features_digest == (
        select(index, "train", LabelSpec()).features_digest
    )


def test_a_class_that_is_gone_occurs_nowhere_and_a_new_one_does(index):
    def revise(name: str, old: Annotations) -> Revised:
        return Revised(replace(old, events=(Event(0, 80_000, "Sigh", "Sigh", ANN),)))

    other = with_annotations(index, ["first", "second", "third"], revise, where="here")
    assert other.vocabulary == Vocabulary(("Sigh",), ("Sigh",))
    check_event(LabelSpec(event="Sigh"), other.vocabulary)
    with pytest.raises(ConfigError, match="occurs nowhere"):
        select(other, "train", LabelSpec())
    partly = with_annotations(index, ["first"], revise, where="here")
    assert partly.vocabulary.labels == ("Laughter", "Sigh")
    assert select(partly, "train", LabelSpec(event="Sigh")).counts.positives == 1
    assert select(partly, "train", LabelSpec()).counts.positives == 25


def test_identity_follows_the_content_and_not_the_path(index, tmp_path):
    rows = (f"first,8,10,Laughter,{ANN}", f"second,1,2,Laughter,{BOB}")
    here = read_other_annotations(index, table(tmp_path / "a", *rows))
    there = read_other_annotations(index, table(tmp_path / "b", *rows, name="x.csv"))
    moved = read_other_annotations(index, table(tmp_path / "c", rows[0], "second,1,2.5,Laughter,x"))

    def digests(index: Index) -> tuple[str, str]:
        return select(index, "train", LabelSpec()).targets_digest, tables_digest(index)

    assert digests(here) == digests(there)
    for a, b in ((here, index), (here, moved), (moved, index)):
        assert digests(a)[0] != digests(b)[0]
        assert digests(a)[1] != digests(b)[1]
    # What the store says itself is no other content.
    same = [
        f"{item.name},{event.start_us / 1e6},{event.end_us / 1e6},Laughter,{event.speaker}"
        for item in EPISODES
        for event in item.events
        if event.label == "Laughter"
    ]
    again = read_other_annotations(index, table(tmp_path / "d", *same))
    assert digests(again)[0] == digests(index)[0]


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        (("nobody,1,2,Laughter,x",), ConfigError, "names no recording"),
        (("first,2,1,Laughter,x", "first,2,3,Laughter,x"), BadRecording, "first.*ends before"),
        ((), ConfigError, "names no recording"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(rows, error, said, index, tmp_path):
    with pytest.raises(error, match=said) as caught:
        read_other_annotations(index, table(tmp_path / "bad", *rows))
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there_is_not_found(index, tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        read_other_annotations(index, tmp_path / "nowhere")
