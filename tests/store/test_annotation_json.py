"""Annotation files are written and read in pieces; what is written and accepted is of the whole."""

import hashlib
import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore import annotations as module
from laughstore import layout
from laughstore.annotations import (
    Annotations,
    Event,
    Interval,
    Segment,
    Speaker,
    Word,
    read_annotations,
    write_annotations,
)
from laughstore.errors import CorruptData
from laughstore.folders import LocalFolder
from laughstore.sealed import canonical_json

TIMES = st.integers(-(10**12), 10**12)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
NOBODY = st.none() | NAMES
SEGMENTS = st.lists(st.builds(Segment, TIMES, TIMES, NAMES), max_size=5).map(tuple)
ANY = st.builds(
    Annotations,
    recording=NAMES,
    duration_us=st.integers(0, 10**12),
    speakers=st.lists(st.builds(Speaker, NAMES, TIMES), max_size=5).map(tuple),
    events=st.lists(
        st.builds(Event, TIMES, TIMES, NAMES, NAMES, NOBODY, st.floats(0, 1) | st.integers(0, 1)),
        max_size=5,
    ).map(tuple),
    segments=SEGMENTS,
    turns=st.none() | SEGMENTS,
    intervals=st.none()
    | st.lists(st.builds(Interval, NAMES, TIMES, TIMES, TIMES), max_size=5).map(tuple),
    words=st.none() | st.lists(st.builds(Word, TIMES, TIMES, NAMES, NOBODY), max_size=5).map(tuple),
)
SPOKEN = Annotations(
    recording="talk",
    duration_us=9_000_000,
    speakers=(Speaker("a", 5), Speaker("b", 3)),
    words=(Word(0, 1, "so", "a"), Word(1, 2, "so", None), Word(2, 3, "what", "b")),
)


def write_json(store: Path, data: bytes, annotations_id: str) -> None:
    path = store / layout.annotations(annotations_id, "train", "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def id_of(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:8]


@given(ANY, st.integers(1, 6))
def test_pieces_are_those_of_the_whole_json(notes: Annotations, num_items: int) -> None:
    whole = canonical_json(notes.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ITEMS_A_PIECE", num_items)
        assert notes.to_bytes() == whole + b"\n"
        assert notes.content_id() == hashlib.sha256(whole).hexdigest()[:8]


@given(ANY)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, notes) -> None:
    folder = tmp_path_factory.mktemp("store")
    annotations_id = write_annotations(folder, notes, "train", "x")
    assert read_annotations(LocalFolder(folder), annotations_id, "train", "x") == notes


def test_spaces_and_the_order_of_keys_are_free(tmp_path: Path) -> None:
    value = SPOKEN.to_json()
    turned = {name: value[name] for name in reversed(value)}
    turned["words"] = [dict(reversed(list(word.items()))) for word in value["words"]]
    for data in (json.dumps(turned, indent=1).encode(), canonical_json(value)):
        write_json(tmp_path, data, id_of(value))
        assert read_annotations(LocalFolder(tmp_path), id_of(value), "train", "x") == SPOKEN


@pytest.mark.parametrize("version", [1.0, True])
def test_the_name_is_of_the_json_that_was_read(tmp_path: Path, version: object) -> None:
    value = SPOKEN.to_json() | {"version": version}
    write_json(tmp_path, json.dumps(value).encode(), id_of(value))
    assert read_annotations(LocalFolder(tmp_path), id_of(value), "train", "x") == SPOKEN
    write_json(tmp_path, json.dumps(value).encode(), SPOKEN.content_id())
    with pytest.raises(CorruptData, match="content is not what its name says"):
        read_annotations(LocalFolder(tmp_path), SPOKEN.content_id(), "train", "x")


WORD = SPOKEN.to_json()["words"][0]
SPEAKER = {"name": "a", "total_us": 5}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([], "not a JSON object"),
        (SPEAKER, "format None version None is not readable"),
        ({"recording": SPEAKER}, "recording is dict, not a string"),
        ({"words": WORD}, "words is dict, not a list"),
        ({"words": [WORD, SPEAKER]}, "words 1: a field is missing or unknown"),
        ({"words": [WORD, WORD | {"more": 1}]}, "words 1: a field is missing or unknown"),
        ({"words": [WORD, [WORD]]}, "words 1: a field is missing or unknown"),
        ({"words": [WORD, WORD | {"text": SPEAKER}]}, "words: a text is of another kind"),
        ({"words": [WORD, WORD | {"end_us": 1.0}]}, "words: a end_us is of another kind"),
        ({"words": [WORD, WORD | {"speaker": "\ud800"}]}, "words: a speaker is of another kind"),
    ],
)
def test_an_odd_object_is_named_wherever_it_stands(
    tmp_path: Path, value: object, fault: str
) -> None:
    if isinstance(value, dict) and value is not SPEAKER:
        value = SPOKEN.to_json() | value
    data = json.dumps(value).encode()
    # Named as its bytes are, so that nothing but the fault itself can refuse it.
    annotations_id = hashlib.sha256(data).hexdigest()[:8]
    write_json(tmp_path, data + b"\n", annotations_id)
    with pytest.raises(CorruptData, match=fault):
        read_annotations(LocalFolder(tmp_path), annotations_id, "train", "x")


def test_thousands_of_words_are_never_held_as_dictionaries(tmp_path: Path) -> None:
    num_words = 4_000
    words = tuple(Word(i * 10**6, i * 10**6 + 300, f"word{i % 100}", "b") for i in range(num_words))
    notes = Annotations("talk", 10**10, SPOKEN.speakers, words=words)
    annotations_id = write_annotations(tmp_path, notes, "train", "x")

    def peak_bytes_a_word(work) -> float:
        tracemalloc.start()
        work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak / num_words

    # A word takes 150 bytes, its JSON 80 (read: as bytes and as text), its dictionary 350.
    assert peak_bytes_a_word(notes.content_id) < 80
    assert peak_bytes_a_word(lambda: write_annotations(tmp_path, notes, "train", "y")) < 150
    read = peak_bytes_a_word(
        lambda: read_annotations(LocalFolder(tmp_path), annotations_id, "train", "x")
    )
    assert read < 150 + 2 * 80 + 80


def test_errors_show_the_json_of_the_file_however_deep(tmp_path: Path) -> None:
    deep = b'{"total_us":1,"name":' * 600 + b"1" + b"}" * 600
    for odd, shown in ((b'{"total_us":5,"name":"a"}', "{'total_us': 5, 'name': 'a'}"), (deep, "")):
        data = SPOKEN.to_bytes().replace(b'"laughstore-annotations"', odd)
        write_json(tmp_path, data, "00000000")
        with pytest.raises(CorruptData, match=re.escape(f"format {shown}") + ".*is not readable"):
            read_annotations(LocalFolder(tmp_path), "00000000", "train", "x")
