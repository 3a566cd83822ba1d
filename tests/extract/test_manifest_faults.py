import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.datasets import open_dataset
from extract.json_records import MAX_JSON_BYTES
from laughstore.errors import BadRecording, ConfigError, LaughstoreError

from .manifests import EVENT, Corpus, changed, line, small


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no recording"),
        (["{"], "line 1: not readable as JSON"),
        ([small(), "[]"], "line 2: is no JSON object"),
        ([small(), "", small()], "line 3: the name 'a' stands in line 1, too"),
        ([small("Cafe\u0301"), small("Caf\u00e9")], "stands in line 1, too"),
        ([{"nmae": "a"}], "line 1: no key 'name'"),
        ([small() | {"name": None}], "key 'name' is no name"),
        ([small() | {"name": 3}], "key 'name' is no text (3)"),
        ([small(" ")], "key 'name' is no name"),
        ([small("a\nb")], "holds line ends or control"),
        ([small("\ud800")], "key 'name' is no text"),
        ([small(split="my split")], "key 'split' cannot be a split"),
        ([small(split="../x")], "key 'split' cannot be a split"),
        ([{"name": "a"}], "no key 'split'"),
        (["[" * 100_000], "not readable as JSON"),
        (['{"name": ' + '{"a": ' * 50_000], "not readable as JSON"),
        (['{"name": "a", "split": "s", "x": 1e400}'], "1e400 is too large a number"),
        (['{"name": "a", "split": "s", "x": NaN}'], "NaN is no JSON"),
        (['{"name": "a", "split": "s", "x": -Infinity}'], "-Infinity is no JSON"),
        (['{"name": "a", "split": "s", "x": ' + "1" * 5_000 + "}"], "not readable as JSON"),
        (['{"name": "a", "split": "s", "name": "b"}'], "key 'name' stands twice"),
    ],
)
def test_a_line_that_cannot_be_named_stops_everything(corpus, lines, said):
    corpus.write(*lines)
    with pytest.raises(ConfigError) as caught:
        open_dataset(corpus.path)
    assert said in str(caught.value)
    assert str(corpus.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_manifest_that_is_no_utf_8_or_too_large_is_told(corpus):
    corpus.path.write_bytes(json.dumps(small()).encode() + b"\n\xff\n")
    with pytest.raises(ConfigError, match="line 2: not readable as JSON"):
        open_dataset(corpus.path)
    with corpus.path.open("r+b") as file:
        file.truncate(MAX_JSON_BYTES + 1)  # sparse
    with pytest.raises(ConfigError, match="at most 256 MiB"):
        open_dataset(corpus.path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"events": "LEFT OUT"}, "no key 'events'; without events every frame"),
        ({"events": None}, "no key 'events'"),
        ({"event": []}, "unknown key 'event'; is it 'events'?"),
        ({"duration": 3}, "unknown key 'duration'; known are audio, events"),
        ({"group": 3}, "key 'group' is no text"),
        ({"group": ""}, "key 'group' is no name"),
        ({"audio": None, "speakers": [{"name": "Ann"}, {"name": "Bo"}]}, "no 'audio', and none in"),
        ({"audio": 3}, "key 'audio' is no object (3)"),
        ({"audio": ""}, "key 'audio' is no path"),
        ({"audio": "http://x/y.wav"}, "is a URL; fetch the file"),
        ({"audio": "a\0b"}, "holds a NUL"),
        ({"audio": {"path": "x", "chanel": 1}}, "unknown key 'audio.chanel'; is it 'channel'?"),
        ({"audio": {"channel": 1}}, "no key 'audio.path'"),
        ({"audio": {"path": "x", "channel": -1}}, "'audio.channel' is no channel"),
        ({"audio": {"path": "x", "channel": True}}, "'audio.channel' is no channel"),
        ({"audio": {"path": "x", "channel": 1.0}}, "'audio.channel' is no channel"),
        ({"speakers": {"Ann": "x"}}, "key 'speakers' is no list"),
        ({"speakers": ["Ann"]}, "key 'speakers' holds something else than objects"),
        (changed("speakers", name=None), "key 'speakers[0].name' is no name"),
        (changed("speakers", name="Ann"), "lists 'Ann' twice"),
        (changed("speakers", total=3), "unknown key 'speakers[0].total'; is it 'total_s'?"),
        (changed("speakers", total_s=-3), "key 'speakers[0].total_s' is less than 0"),
        (changed("speakers", total_s="3"), "key 'speakers[0].total_s' is no number"),
    ],
)
def test_a_fault_of_a_line_is_a_problem_of_its_recording(corpus, changes, said):
    corpus.write(small("other"), line(**changes))
    bad, other = sorted(open_dataset(corpus.path).recordings, key=lambda item: item.name)
    assert other.problem is None
    problem = str(bad.problem)
    assert said in problem
    assert "line 2: " in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"events": {}}, "key 'events' is no list"),
        ({"events": [1]}, "key 'events' holds something else"),
        ({"events": 3}, "key 'events' is no list"),
        ({"events": "missing.json"}, "missing.json: cannot be read"),
        ({"events": "mix.wav"}, "mix.wav: not readable as JSON"),
        ({"events": "https://x/y.json"}, "is a URL"),
        (changed("events", start=1), "unknown key 'events[0].start'; is it 'start_s'?"),
        (changed("events", start_s=None), "key 'events[0].start_s' is no number (None)"),
        (changed("events", start_s="1"), "key 'events[0].start_s' is no number ('1')"),
        (changed("events", start_s=True), "key 'events[0].start_s' is no number"),
        (changed("events", end_s=1e300), "is no time in a recording"),
        (changed("events", label=3), "key 'events[0].label' is no text"),
        (changed("events", speaker="ann"), "is not one of the listed speakers, Ann, Bo, Cy"),
        (changed("events", speaker=""), "key 'events[0].speaker' is no name"),
        (changed("events", confidence=1.5), "is not between 0 and 1"),
        (changed("events", confidence=""), "key 'events[0].confidence' is no number"),
        (changed("events", start_s="None"), "key 'events[0].start_s' is no number"),
        (changed("speakers", name="*"), "key 'speakers[0].name' stands for a mix"),
        (changed("segments", speaker="*") | {"speakers": None}, "stands for a mix"),
        ({"events": [{"start_s": 1, "end_s": 2}]}, "no key 'events[0].label'"),
        ({"events": [{"end_s": 2, "label": "a"}]}, "no key 'events[0].start_s'"),
        (changed("segments", speaker=None), "key 'segments[0].speaker' is nobody"),
        (changed("segments", end_s=-1), "key 'segments[0].end_s' is before start_s"),
        (changed("turns", end_s=-1), "key 'turns[0].end_s' is before start_s"),
        (changed("intervals", speaker="Dee"), "is not one of the listed speakers"),
        (changed("intervals", start_s=1), "unknown key 'intervals[0].start_s'"),
        (changed("words", text=" "), "key 'words[0].text' is empty"),
        (changed("words", end_s=0), "key 'words[0].end_s' is before start_s"),
    ],
)
def test_a_fault_of_an_annotation_is_a_bad_recording_that_names_line_and_key(corpus, changes, said):
    recording = corpus.write(line(**changes)).only
    with pytest.raises(BadRecording) as caught:
        recording.annotations()
    assert said in str(caught.value)
    assert "line 1: " in str(caught.value) or ".json" in said or ".wav" in said
    assert "\n" not in str(caught.value)


def test_an_event_that_ends_before_it_begins_stays_as_in_other_layouts(corpus):
    assert corpus.write(line(**changed("events", end_s=0.5))).only.events()[0].end_us == 500_000


def test_a_file_of_another_kind_is_told(corpus):
    (corpus.root / "events.json").write_text('{"events": []}')
    with pytest.raises(BadRecording, match=r"events.json: holds no list of events"):
        corpus.write(line(events="events.json")).only.events()
    (corpus.root / "events.json").write_text('[{"start_s": 1, "end_s": 2, "lable": "x"}]')
    with pytest.raises(BadRecording, match=r"events.json: unknown key 'events\[0\].lable'"):
        corpus.only.events()
    (corpus.root / "events.json").write_text("[NaN]")
    with pytest.raises(BadRecording, match=r"NaN is no JSON"):
        corpus.only.events()


def test_a_manifest_that_changes_while_it_is_read_is_told(corpus):
    recording = corpus.write(small()).only
    corpus.write(small(events=[EVENT]))
    with pytest.raises(BadRecording, match="line 1: changed since the manifest was opened"):
        recording.annotations()
    corpus.path.unlink()
    with pytest.raises(BadRecording, match="line 1: cannot be read"):
        recording.annotations()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200)
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_one_line(tmp_path_factory, data):
    corpus = tmp_path_factory.getbasetemp() / "any.jsonl"
    content = line()
    place, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
    place[key] = data.draw(json_values)
    corpus.write_text(json.dumps(content))
    try:
        (recording,) = open_dataset(corpus).recordings
        said = recording.problem
        _ = recording.speakers
        recording.annotations()
    except LaughstoreError as error:
        said = str(error)
    assert said is None or "\n" not in said
