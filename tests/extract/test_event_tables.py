import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.layouts.event_tables import read_event_table
from laughstore.annotations import Event
from laughstore.errors import BadRecording

from .trees import COLUMNS, NAME, row, write_table

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(
            texts.filter(str.strip),
            st.decimals(-10, 10_000, places=6),
            st.decimals(-10, 10_000, places=6),
            texts,
            st.decimals(0, 1, places=3),
        ),
        max_size=8,
    )
)
def test_what_is_written_as_csv_is_read_exactly(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "table.csv"
    rows = [(name.replace("\r", "\n"), *others) for name, *others in rows]
    write_table(
        path,
        [
            row(start, end, name, label_full_vocab=label, confidence=confidence)
            for name, start, end, label, confidence in rows
        ],
    )
    table = read_event_table(path)
    assert (table.fault, table.num_nameless) == (None, 0)
    expected = {}
    for name, start, end, label, confidence in rows:
        label = "" if label.strip().lower() in ("", "nan", "none", "null") else label.strip()
        label = label.replace("\r\n", "\n").replace("\r", "\n")
        label = unicodedata.normalize("NFC", label)
        event = Event(
            int(start * 10**6), int(end * 10**6), "Laughter", label, None, float(confidence)
        )
        expected.setdefault(unicodedata.normalize("NFC", name), []).append(event)
    assert {name: found.events for name, found in table.episodes.items()} == expected
    assert not any(found.fault for found in table.episodes.values())
    counted = read_event_table(path, only_counted=expected).episodes
    assert {name: (found.num_rows, found.events) for name, found in counted.items()} == {
        name: (len(events), []) for name, events in expected.items()
    }


@settings(max_examples=200)
@given(data=st.binary(max_size=200) | texts.map(str.encode))
def test_any_bytes_give_a_table_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("t") / "table.csv"
    path.write_bytes(",".join(COLUMNS).encode() + b"\n" + data)
    try:
        table = read_event_table(path)
    except BadRecording as error:
        said = str(error)
    else:
        said = table.fault or ""
    assert "\n" not in said.replace(str(path), "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "is no UTF-8 text"),
        (b"a\0b", "NUL"),
        (b"a," * 2_000, "columns; this is another table"),
        (b"podcast_filename," * 2 + ",".join(COLUMNS).encode(), "two columns podcast_filename"),
        (b'"a', "is no header"),
        (b"a" * 200_000 + b"\n", "is no header"),
        (",".join(COLUMNS).encode() + b"\n" + b"a" * 200_000, "is no row of a table"),
        (",".join(COLUMNS).encode() + b"\n" + b"a," * 600_000, "more than 1,000,000 characters"),
    ],
)
def test_a_hostile_table_is_one_line(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_bytes(text)
    try:
        found = str(read_event_table(path).fault)
    except BadRecording as error:
        found = str(error)
    assert said in found
    assert "\n" not in found
    assert len(found) < 400


@pytest.mark.parametrize("time", ["1e400", "-1e9", "9" * 99, "1_0", "0x1", "\u0661", "1,5", "true"])
def test_a_time_that_no_recording_has_is_a_fault(tmp_path, time):
    table = write_table(tmp_path / "table.csv", [row(event_start_inepisode=time)])
    fault = str(read_event_table(table).episodes[NAME].fault)
    assert "line 2: event_start_inepisode is no " in fault


def test_a_row_that_goes_over_lines_is_named_by_its_first(tmp_path):
    rows = [row(name="a\nb"), row(name="a\nb"), row(event_start_inepisode="x")]
    table = read_event_table(write_table(tmp_path / "table.csv", rows))
    assert "line 6:" in str(table.episodes[NAME].fault)
    assert len(table.episodes["a\nb"].events) == 2
