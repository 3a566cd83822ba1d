"""Annotation files of other tools: read exactly, refused clearly, joined as the rules say.

The rules are those of the docstring of `laughstore.annotation_formats`; the sample files beside
this one were written by hand.
"""

import os
import random
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from laughstore.annotation_formats import (
    AnnotationSource,
    EventRule,
    LabelledSpan,
    annotate_recording,
    elan,
    match_recordings,
    read_annotation_file,
    read_annotation_source,
    source_files,
    spans,
    text,
    to_events,
    to_segments,
)
from laughstore.annotation_formats.numbers import MAX_US, read_number, to_us, total
from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker
from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.naming import recording_id

FILES = Path(__file__).parent / "annotation_files"
SPEAKERS = ("SPEAKER_00", "SPEAKER_01")


def _times(found: Sequence[LabelledSpan]) -> list[tuple[int, int, str]]:
    return [(span.start_us, span.end_us, span.label) for span in found]


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _old(**changes: object) -> Annotations:
    laugh, breath = _event(1, 2, "Laughter"), _event(4, 5, "Breath")
    plain = Annotations(
        recording="show",
        duration_us=60_000_000,
        speakers=(Speaker("SPEAKER_00", 30_000_000), Speaker("SPEAKER_01", 20_000_000)),
        events=(laugh, breath),
        segments=(Segment(0, 9_000_000, "SPEAKER_00"),),
    )
    return replace(plain, **changes)  # pyright: ignore[reportArgumentType]


def _event(start_s: int, end_s: int, label: str, speaker: str | None = "SPEAKER_00") -> Event:
    return Event(start_s * 1_000_000, end_s * 1_000_000, label, label, speaker)


def _span(start_s: int, end_s: int, label: str, **fields: object) -> LabelledSpan:
    found = LabelledSpan(None, start_s * 1_000_000, end_s * 1_000_000, label)
    return replace(found, **fields)  # pyright: ignore[reportArgumentType]


def _source(folder: Path, *found: LabelledSpan) -> AnnotationSource:
    item = read_annotation_file(_file(folder, "show.txt", ""))
    return AnnotationSource((replace(item, spans=found),))


# Times


def _exact(written: str) -> Fraction:
    return Fraction(re.sub(r"\.(?=[eE]|$)", ".0", written))


def _half_even(value: Fraction) -> int:
    return round(value)  # of a Fraction: exact, half to even


decimals = st.builds(
    lambda sign, whole, part, exponent: f"{sign}{whole}.{part}{exponent}",
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 10**7 - 1),
    st.text("0123456789", max_size=40),
    st.sampled_from(["", "e0", "E-1", "e-3", "e-40"]),
)


@given(decimals, st.sampled_from([0, 3, 6]))
def test_times_are_the_written_decimals_rounded_once(written, unit):
    assert to_us(read_number(written), unit) == _half_even(_exact(written) * 10**unit)


@given(decimals, decimals)
def test_a_start_and_a_duration_are_added_before_rounding(start, length):
    exact = _exact(start) + _exact(length)
    assert to_us(total(read_number(start), read_number(length))) == _half_even(exact * 10**6)


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("0.0000005", 0),
        ("0.0000015", 2),
        ("2.0000005", 2_000_000),
        ("0.30000000000000004", 300_000),
        (" 7 ", 7_000_000),
        (".5", 500_000),
        ("-0", 0),
    ],
)
def test_halves_of_a_microsecond_go_to_the_even_one(written, us):
    assert to_us(read_number(written)) == us


@pytest.mark.parametrize(
    "written",
    ["", "nan", "inf", "-Infinity", "1_000", "0x10", "1e", "٣", "1,5", "1e9999", "1" * 101, "--1"],
)
def test_what_is_no_finite_decimal_is_no_number(written):
    assert read_number(written) is None


@pytest.mark.parametrize("written", ["1e999", "-1e999", "9" * 90, "1e30"])
def test_huge_numbers_cost_nothing_and_are_beyond_every_recording(written):
    start = time.perf_counter()
    found = to_us(total(read_number(written), read_number("1")))
    assert found is not None
    assert abs(found) > MAX_US
    assert time.perf_counter() - start < 0.1


# Formats, by the sample files


def test_a_long_textgrid():
    item = read_annotation_file(FILES / "Show, no. 1.TextGrid")
    assert item.recording == "Show, no. 1"
    assert _times(item.spans) == [
        (1_250_000, 2_000_000, "x"),
        (10_000_000, 10_300_000, 'he said "ha! ha" and laughed'),
        (5_000_000, 6_000_000, "[laughs]"),
        (7_000_000, 7_500_000, "cough"),
        (3_500_000, 3_500_000, "click"),
    ]
    assert [span.tier for span in item.spans][::2] == [
        "SPEAKER_00 Laughter",
        "SPEAKER_01",
        "clicks",
    ]
    assert item.notes == ()


def test_a_short_textgrid():
    item = read_annotation_file(FILES / "short.TextGrid")
    assert _times(item.spans) == [(4_500_000, 5_125_000, "hearty")]
    assert item.spans[0].tier == "Laughter"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_textgrids_in_the_encodings_of_praat(tmp_path, encoding, line_end):
    written = (FILES / "Show, no. 1.TextGrid").read_text().replace("cough", "Räuspern ћ")
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    data = (mark + written).replace("\n", line_end).encode(encoding)
    item = read_annotation_file(_file(tmp_path, "a.textgrid", data))
    assert item.recording == "a"
    assert item.spans[3].label == "Räuspern ћ"
    assert len(item.spans) == 5


def test_an_elan_document():
    item = read_annotation_file(FILES / "panel.eaf")
    assert [(*_times([span])[0], span.tier, span.speaker) for span in item.spans] == [
        (1_200_000, 2_050_000, "Laughter", "kind@Ann", "Ann"),
        (1_200_000, 2_050_000, "hearty & loud", "kind@Ann", "Ann"),
        (1_200_000, 2_050_000, "laugh", "events@Ann", "Ann"),
        (9_000_000, 9_400_000, "", "Laughter SPEAKER_01", None),
    ]
    (note,) = item.notes
    assert "4 of 8 annotations dropped" in note
    assert "line 25: refers to an annotation that is not there" in note


def test_an_audacity_label_track():
    item = read_annotation_file(FILES / "episode.txt")
    assert _times(item.spans) == [
        (1_000_000, 1_500_000, "Laughter"),
        (2_150_000, 2_150_000, "a point"),
        (3_250_000, 3_750_000, "breath"),
        (10_000_000, 10_500_000, ""),
        (11_000_000, 11_500_000, ""),
    ]
    (note,) = item.notes
    assert "2 of 7 labels dropped (line 5: starts before 0; line 6: ends before it starts)" in note


def test_the_table_of_podcastfillers():
    item = read_annotation_file(FILES / "PodcastFillers.csv")
    assert not item.is_of_one_recording
    first, agree, words = item.spans
    assert first == LabelledSpan(
        'Show_Ep. 1, "the first"', 12_340_000, 12_640_000, "Laughter", full_label="Laughter"
    )
    assert (agree.label, agree.full_label, agree.confidence) == ("", "Agree", 0.6666666666666666)
    assert (words.label, words.full_label, words.recording) == ("Words", "Repetitions", "Other_Ep")
    assert "line 5: a time is no finite number" in item.notes[0]


def test_a_table_with_semicolons_milliseconds_and_decimal_commas():
    item = read_annotation_file(FILES / "semicolon.csv")
    assert _times(item.spans) == [
        (1_000_500, 1_500_000, "laugh"),
        (2_000_000, 2_500_000, 'a "quoted"; label'),
    ]
    assert [(span.speaker, span.confidence) for span in item.spans] == [
        ("speaker_00", 0.5),
        (None, 1.0),
    ]
    assert item.is_of_one_recording
    assert item.recording == "semicolon"
    assert (
        "line 6: confidence is no number from 0 to 1; line 7: 3 cells, the header has 5"
        in (item.notes[0])
    )


def test_a_row_without_an_end_has_its_duration(tmp_path):
    rows = "1,,0.5,a\n2,4,0.5,b\n3,n/a,1,c\n4,x,1,d\n5,,,e\n"
    path = _file(tmp_path, "show.csv", "start,end,duration,label\n" + rows)
    found = read_annotation_file(path)
    assert _times(found.spans) == [
        (1_000_000, 1_500_000, "a"),
        (2_000_000, 4_000_000, "b"),
        (3_000_000, 4_000_000, "c"),
    ]
    assert [row.line for row in found.dropped] == [5, 6]


def test_a_lone_quote_inside_a_cell_is_a_character(tmp_path):
    item = read_annotation_file(_file(tmp_path, "a.csv", 'start,end,label\n1,2,x"y\n'))
    assert item.spans[0].label == 'x"y'


def test_a_table_of_onsets_and_durations():
    item = read_annotation_file(FILES / "events.tsv")
    assert _times(item.spans) == [(1_500_000, 1_750_000, "laughter")]
    assert item.spans[0].recording == "audio/Show_Ep1.WAV"
    assert "line 3: ends before it starts; line 4: names no recording" in item.notes[0]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("start,end,label", "1.5,2,x"),
        ("START_S;END_S;Event", "1,5;2;x"),
        ("Begin Time (s)\tEnd Time (s)\tAnnotation", "1.5\t2\tx"),
        ("start_us,duration_ms,text", "1500000,500,x"),
        ("label,offset,onset", "x,2,1.5"),
        ("end_time,start_time,class,text,id", "2,1.5,x,words,7"),
    ],
)
def test_columns_are_found_by_name(tmp_path, header, row):
    item = read_annotation_file(_file(tmp_path, "a.csv", f"{header}\n{row}\n"))
    assert _times(item.spans) == [(1_500_000, 2_000_000, "x")]


def test_rttm():
    item = read_annotation_file(FILES / "meeting.rttm")
    assert [(s.recording, s.kind, *_times([s])[0], s.speaker) for s in item.spans] == [
        ("show", "segment", 500_000, 4_750_000, "", "speaker_00"),
        ("show", "segment", 5_000_000, 6_000_000, "", "B"),
        ("show", "event", 2_100_000, 2_433_333, "laugh", "A"),
        ("show", "event", 3_000_000, 3_500_000, "cough", None),
        ("other", "event", 1_000_000, 3_000_000, "music", None),
    ]
    assert item.spans[2].confidence == 0.75
    assert item.notes[0] == "meeting.rttm: lines of other types left out: 1 LEXEME, 1 SPKR-INFO"
    assert "4 of 9 lines dropped (line 9: a time is no finite number" in item.notes[1]


# Formats, by generated text

labels = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Mn", "Lm")), max_size=12
).map(spans.tidy)
rows = st.lists(
    st.tuples(st.integers(0, 10**12), st.integers(1, 10**9), labels), min_size=1, max_size=8
)


def _seconds(us: int) -> str:
    return f"{us // 10**6}.{us % 10**6:06d}"


def _round_trip(tmp_path_factory, name: str, content: str) -> list[tuple[int, int, str]]:
    folder = tmp_path_factory.mktemp("formats")
    return _times(read_annotation_file(_file(folder, name, content)).spans)


def _textgrid(found: Sequence[tuple[int, int, str]], *, short: bool) -> str:
    def value(name: str, written: object) -> str:
        return f"{written}\n" if short else f"        {name} = {written} \n"

    def quoted(label: str) -> str:
        return '"' + label.replace('"', '""') + '"'

    content = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + value("xmin", 0)
    content += value("xmax", 10**9) + ("<exists>\n" if short else "tiers? <exists> \n")
    content += value("size", 1) + value("class", '"IntervalTier"') + value("name", '"a"')
    content += value("xmin", 0) + value("xmax", 10**9) + value("intervals: size", len(found))
    for number, (start, end, label) in enumerate(found):
        content += "" if short else f"    intervals [{number + 1}]:\n"
        content += value("xmin", _seconds(start)) + value("xmax", _seconds(end))
        content += value("text", quoted(label))
    return content


@settings(max_examples=50, deadline=None)
@given(rows=rows, short=st.booleans())
def test_textgrids_keep_every_time_and_label(tmp_path_factory, rows, short):
    expected = [(start, start + length, label) for start, length, label in rows]
    found = _round_trip(tmp_path_factory, "a.TextGrid", _textgrid(expected, short=short))
    assert found == [row for row in expected if row[2]]


@settings(max_examples=50, deadline=None)
@given(rows=rows)
def test_elan_documents_keep_every_time_and_label(tmp_path_factory, rows):
    expected = [
        (start // 1000 * 1000, (start + length * 1000) // 1000 * 1000, label)
        for start, length, label in rows
    ]
    slots, found = "", ""
    for k, (start, end, label) in enumerate(expected):
        for name, us in (("s", start), ("e", end)):
            slots += f'<TIME_SLOT TIME_SLOT_ID="{name}{k}" TIME_VALUE="{us // 1000}"/>'
        found += (
            f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{k}" TIME_SLOT_REF1="s{k}"'
            f' TIME_SLOT_REF2="e{k}"><ANNOTATION_VALUE>{escape(label)}</ANNOTATION_VALUE>'
            "</ALIGNABLE_ANNOTATION></ANNOTATION>"
        )
    document = (
        f"<ANNOTATION_DOCUMENT><TIME_ORDER>{slots}</TIME_ORDER><TIER TIER_ID={quoteattr('a<b')}>"
        f"{found}</TIER></ANNOTATION_DOCUMENT>"
    )
    assert _round_trip(tmp_path_factory, "a.eaf", document) == expected


@settings(max_examples=50, deadline=None)
@given(rows=rows)
def test_label_tracks_keep_every_time_and_label(tmp_path_factory, rows):
    expected = [(start, start + length, label) for start, length, label in rows]
    content = "".join(f"{_seconds(a)}\t{_seconds(b)}\t{label}\n" for a, b, label in expected)
    assert _round_trip(tmp_path_factory, "a.txt", content) == expected


@settings(max_examples=50, deadline=None)
@given(rows=rows, separator=st.sampled_from(",;\t"))
def test_tables_keep_every_time_and_label(tmp_path_factory, rows, separator):
    expected = [(start, start + length, label) for start, length, label in rows]
    content = separator.join(["start", "duration_us", "label"]) + "\r\n"
    for start, end, label in expected:
        quoted = '"' + label.replace('"', '""') + '"'
        content += separator.join([_seconds(start), str(end - start), quoted]) + "\r\n"
    nothing = {"", "nan", "none", "null", "na", "n/a", "<na>"}
    assert _round_trip(tmp_path_factory, "a.csv", content) == [
        (start, end, "" if label.casefold() in nothing else label) for start, end, label in expected
    ]


@settings(max_examples=50, deadline=None)
@given(rows=rows)
def test_rttm_keeps_every_time(tmp_path_factory, rows):
    content = "".join(
        f"SPEAKER a 1 {_seconds(start)} {_seconds(length)} <NA> <NA> s{k} <NA> <NA>\n"
        for k, (start, length, _) in enumerate(rows)
    )
    assert _round_trip(tmp_path_factory, "a.rttm", content) == [
        (start, start + length, "") for start, length, _ in rows
    ]


# Files that are refused

LONG = _textgrid([(0, 1, "x"), (1, 2, "y")], short=False)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.TextGrid", b"ooBinaryFile\x08TextGrid", "Save as text file"),
        ("a.TextGrid", "hello", "line 1: the file ends where a text in double quotes"),
        ("a.TextGrid", '"RIFF"', "does not begin as a Praat text file"),
        ("a.TextGrid", '"ooTextFile" "Collection" 2', "holds a 'Collection'"),
        ("a.TextGrid", LONG[: LONG.index('"y"')], "line 20: the file ends where a text"),
        ("a.TextGrid", LONG.replace('"y"', '"y'), "line 20: a double quote is not closed"),
        ("a.TextGrid", LONG.replace("0.000001", "abc", 1), "expected a number, found"),
        ("a.TextGrid", LONG.replace("size = 2", "size = 999999"), "it was cut"),
        ("a.TextGrid", LONG.replace("size = 2", "size = 99999999"), "more than 1,000,000 inter"),
        ("a.TextGrid", LONG.replace("size = 2", "size = 9999999999999"), "is no number of tiers"),
        ("a.TextGrid", LONG.replace("size = 1", "size = 100000", 1), "at most 10,000 are read"),
        ("a.TextGrid", LONG.replace("IntervalTier", "Tier"), "expected IntervalTier or TextTier"),
        ("a.TextGrid", LONG.encode("utf-16-le"), "line 1: holds a NUL character"),
        ("a.TextGrid", LONG.encode().replace(b'"y"', b'"\xe9"'), "line 20: is no UTF-8 text"),
        ("a.eaf", "", "no element found"),
        ("a.eaf", "<html/>", "is <html>, no ELAN document"),
        ("a.eaf", "<ANNOTATION_DOCUMENT>\n<TIER>", "line 2: TIER_ID is missing"),
        ("a.eaf", "<ANNOTATION_DOCUMENT>\n", "line 2: is not readable as XML"),
        (
            "a.eaf",
            '<?xml version="1.0" encoding="no-such"?><ANNOTATION_DOCUMENT/>',
            "readable as XML",
        ),
        ("a.eaf", "<ANNOTATION_DOCUMENT>&b;</ANNOTATION_DOCUMENT>", "undefined entity"),
        ("a.eaf", "<ANNOTATION_DOCUMENT>" + "<x>" * 100_000, "more than 64 deep"),
        (
            "a.eaf",
            '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><ANNOTATION_DOCUMENT>&c;',
            "has a DOCTYPE",
        ),
        (
            "a.eaf",
            '<!DOCTYPE a SYSTEM "file:///etc/passwd"><ANNOTATION_DOCUMENT/>',
            "line 1: has a DOCTYPE",
        ),
        (
            "a.eaf",
            '<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="PAL-frames"/></ANNOTATION_DOCUMENT>',
            "only milliseconds are read",
        ),
        ("a.txt", "Dear reader,\n", "line 1: expected start, end and label with tabs"),
        ("a.txt", "nan\t1\tx\ninf\t1\tx\n", "none of its 2 labels can be used"),
        ("a.csv", "", "is empty"),
        ("a.csv", "0.5,1.0,x\n", "no header with start and end"),
        ("a.csv", "offset,duration,label\n1,2,x\n", "no header with start and end"),
        ("a.csv", 'start,end,label\n1,2,x\n1,2,"y\n', "line 4: is no row of a table"),
        ("a.csv", "start,end\n1\0,2\n", "line 2: holds a NUL character"),
        ("a.csv", f'start,end,label\n1,2,"{"x" * 200_000}"\n', "field larger than field limit"),
        ("a.csv", "start,end," + "x" * 1_100_000, "line 1: more than 1,000,000 characters"),
        ("a.csv", "start,end\n1,nan\n1,1e999\n-1,2\n", "none of its 3 rows"),
        ("a.rttm", "hello world\n", "line 1: 'hello' is no type of RTTM"),
        ("a.rttm", "SPEAKER a 1 0 1\n", "none of its 1 lines can be used"),
    ],
)
def test_malformed_files_are_errors_that_say_where(tmp_path, name, content, said):
    path = _file(tmp_path, name, content)
    with pytest.raises(BadRecording, match=said) as caught:
        read_annotation_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_large_files_are_refused_before_they_are_parsed(tmp_path, monkeypatch):
    path = tmp_path / "a.TextGrid"
    with path.open("wb") as file:
        file.truncate(text.MAX_FILE_BYTES + 1)
    with pytest.raises(BadRecording, match="larger than 32 MiB"):
        read_annotation_file(path)
    monkeypatch.setattr(spans, "MAX_SPANS", 3)
    with pytest.raises(BadRecording, match="more than 3 rows"):
        read_annotation_file(_file(tmp_path, "a.csv", "start,end\n" + "1,2\n" * 4))
    with pytest.raises(BadRecording, match="more than 3 labels"):
        read_annotation_file(_file(tmp_path, "a.txt", "1\t2\n" + "2\t1\n" * 3))
    monkeypatch.setattr(text, "MAX_LINES", 3)
    with pytest.raises(BadRecording, match="more than 3 lines"):
        read_annotation_file(_file(tmp_path, "a.txt", "\n" * 4))
    monkeypatch.setattr(elan, "MAX_SPANS", 3)
    many = "".join(f'<TIME_SLOT TIME_SLOT_ID="{k}"/>' for k in range(7))
    with pytest.raises(BadRecording, match="too many time slots"):
        read_annotation_file(
            _file(tmp_path, "a.eaf", f"<ANNOTATION_DOCUMENT>{many}</ANNOTATION_DOCUMENT>")
        )


def test_a_pipe_and_a_folder_are_no_annotation_files(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(BadRecording, match="no plain file"):
        read_annotation_file(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(BadRecording, match="no plain file"):
        read_annotation_file(tmp_path / "b.csv")
    with pytest.raises(NotFound, match="no such file"):
        read_annotation_file(tmp_path / "c.csv")


def test_bombs_take_no_time(tmp_path):
    """Each is a few MB that a careless reader takes quadratic time or a deep stack for."""
    chain = "".join(
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a{k}" ANNOTATION_REF="a{k + 1}"/></ANNOTATION>'
        for k in range(10_000)
    )
    aligned = (
        '<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="s" TIME_VALUE="1"/></TIME_ORDER>'
        '<TIER TIER_ID="t">{}<ALIGNABLE_ANNOTATION ANNOTATION_ID="a10000" TIME_SLOT_REF1="s"'
        ' TIME_SLOT_REF2="s"/></TIER>'
    )
    document = f"<ANNOTATION_DOCUMENT>{aligned.format(chain)}</ANNOTATION_DOCUMENT>"
    tiers = '"ooTextFile" "TextGrid" 0 1 <exists> 9999 ' + '"IntervalTier" "" 0 1 0 ' * 9999
    bad_rows = "start,end\n1,2\n" + "1,x\n" * 30_000
    start = time.perf_counter()
    assert len(read_annotation_file(_file(tmp_path, "a.eaf", document)).spans) == 10_001
    assert read_annotation_file(_file(tmp_path, "a.TextGrid", tiers)).spans == ()
    with pytest.raises(BadRecording, match="not closed"):
        read_annotation_file(_file(tmp_path, "b.TextGrid", '"ooTextFile" "' + "a" * 4_000_000))
    many = read_annotation_file(_file(tmp_path, "a.csv", bad_rows))
    assert "30000 of 30001 rows dropped" in many.notes[0]
    with pytest.raises(BadRecording, match="it was cut"):
        read_annotation_file(_file(tmp_path, "c.TextGrid", '"ooTextFile"' + " a" * 2_000_000))
    assert time.perf_counter() - start < 20


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(path.name for path in FILES.iterdir())),
    seed=st.integers(0, 2**32),
)
def test_altered_files_are_read_or_refused_and_nothing_else(tmp_path_factory, name, seed):
    rng = random.Random(seed)
    data = bytearray((FILES / name).read_bytes())
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                del data[place : place + rng.randint(1, 200)]
            case _:
                data[place:place] = rng.choice([b'"', b"\n", b"<", b"\0", b"1e999", b"\t", b","])
        if not data:
            break
    path = _file(tmp_path_factory.mktemp("altered"), name, bytes(data))
    try:
        item = read_annotation_file(path)
    except BadRecording as error:
        said = str(error)
        assert str(path) in said
    else:
        assert all(0 <= span.start_us <= span.end_us <= MAX_US for span in item.spans)


# Sources


def test_a_folder_is_read_with_what_is_below_it(tmp_path, caplog):
    (tmp_path / "train").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.eaf", "train/a.TEXTGRID", "x.wav", ".a.csv", ".hidden/c.csv"):
        _file(tmp_path, name, "")
    _file(tmp_path, "README.txt", "Dear reader\n")
    _file(tmp_path, "labels.txt", "1\t2\tLaughter\n")
    assert [path.name for path in source_files(tmp_path)] == ["b.eaf", "labels.txt", "a.TEXTGRID"]
    assert "README.txt: left out" in caplog.text


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path):
    _file(tmp_path, "show.txt", "1\t2\tlaugh\n")
    # Deeper than any path may be long: no rights are needed to be refused, not even those of root.
    name, here = "d" * 250, os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        with pytest.raises(BadRecording, match=r"cannot be read \(File name too long\)"):
            source_files(tmp_path)
    finally:
        os.close(here)
        shutil.rmtree(tmp_path / name)


def test_sources_that_cannot_be_meant_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no annotation file in it"):
        source_files(tmp_path)
    with pytest.raises(NotFound, match="no such file"):
        source_files([tmp_path / "a.csv"])
    with pytest.raises(ConfigError, match="no annotation files given"):
        source_files([])
    with pytest.raises(ConfigError, match=r"is no annotation file; known are \.TextGrid"):
        source_files(_file(tmp_path, "a.wav", ""))
    with pytest.raises(ConfigError, match="is no annotation file"):
        read_annotation_file(tmp_path / "a.wav")
    _file(tmp_path, "a.txt", "1\t2\tx\n")
    _file(tmp_path, "a.csv", "start,end,label\n1,2,x\n")
    with pytest.raises(ConfigError, match="are both of recording 'a'"):
        read_annotation_source(tmp_path)


def test_a_source_is_ordered_by_recording_and_keeps_empty_files(tmp_path):
    _file(tmp_path, "quiet.txt", "")
    table = "recording,start,end,label\nb,1,2,x\na,1,2,y\nb,3,4,z\n"
    _file(tmp_path, "a_table.csv", table)
    source = read_annotation_source([tmp_path, tmp_path / "quiet.txt"])
    assert {name: len(found) for name, found in source.by_recording.items()} == {
        "b": 2,
        "a": 1,
        "quiet": 0,
    }


def test_names_are_matched_from_strict_to_loose():
    names = ["Show_Ep. 1, “x”", "Café", "Other.Ep"]
    recordings = [(recording_id(name), name) for name in names]
    ids = [recording for recording, _ in recordings]
    nfd = "Cafe\u0301"
    given_names = ["audio/train/show_ep. 1, “X”.WAV", nfd, ids[2], "Unknown"]
    found = match_recordings(given_names, recordings)
    assert list(found.recording_ids.values()) == ids
    assert found.unmatched == ("Unknown",)
    assert match_recordings(["other.ep"], recordings).recording_ids == {"other.ep": ids[2]}
    with pytest.raises(ConfigError, match=r"both mean recording 'Other\.Ep'"):
        match_recordings(["other.ep", "Other.Ep"], recordings)
    twins = [("a-1", "Ep"), ("a-2", "EP")]
    assert match_recordings(["EP"], twins).recording_ids == {"EP": "a-2"}
    with pytest.raises(ConfigError, match="'ep' may mean 'Ep' or 'EP'"):
        match_recordings(["ep"], twins)


# Classes and speakers


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
    path = _file(tmp_path, "show.csv", "start,end,speaker\n1,2,speaker_01\n")
    source = read_annotation_source(path)
    with pytest.raises(ConfigError, match="none of the 1 spans has a label"):
        EventRule.of(source)
    (event,) = to_events(source.spans, EventRule.of(source, event="Laughter"), SPEAKERS)
    assert event == Event(1_000_000, 2_000_000, "Laughter", "Laughter", "SPEAKER_01")
    with pytest.raises(ConfigError, match="is no class"):
        EventRule.of(source, event="full:Agree")


def test_transcripts_are_no_events(tmp_path):
    source = _source(tmp_path, *(_span(k, k + 1, f"word {k}") for k in range(300)))
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
    found = [_span(k, k + 1, label) for k, label in enumerate(labels)]
    with pytest.raises(ConfigError, match="look like a transcript; label each Laughter"):
        EventRule.of(_source(tmp_path, *found), event="Laughter")
    # With a label of the class there is no doubt which are meant.
    rule = EventRule.of(_source(tmp_path, *found, _span(20, 21, "laugh")), event="Laughter")
    assert not rule.takes_every_span


@pytest.mark.parametrize(
    "labels", [("x",), ("ha ha", "x"), [f"laugh{k}" for k in range(20)], [str(k) for k in range(9)]]
)
def test_a_few_labels_of_ones_own_are_one_class(tmp_path, labels):
    found = [_span(k, k + 1, label) for k, label in enumerate(labels)]
    rule = EventRule.of(_source(tmp_path, *found), event="Laughter")
    assert rule.takes_every_span
    assert len(to_events(found, rule, ())) == len(labels)


@pytest.mark.parametrize("label", ["laugh", "ha ha", ""])
def test_points_alone_are_no_sign_that_there_is_nothing(tmp_path, label):
    path = _file(tmp_path, "show.txt", f"1.0\t1.0\t{label}\n3.0\t3.0\t{label}\n")
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
    found = _span(1, 2, "laugh", tier=tier)
    rule = EventRule.of(_source(tmp_path, found))
    (event,) = to_events([found], rule, ("SPEAKER_00", "Ann", "Mary-Ann"))
    assert event.speaker == speaker


def test_a_named_speaker_counts_before_the_tier(tmp_path):
    both = _span(1, 2, "laugh", tier="SPEAKER_00", speaker="speaker_01")
    new = _span(1, 2, "laugh", tier="SPEAKER_00", speaker="Bob")
    stranger = _span(1, 2, "laugh", speaker="Bob")
    rule = EventRule.of(_source(tmp_path, both))
    events = to_events([both, new, stranger], rule, SPEAKERS)
    assert [event.speaker for event in events] == ["SPEAKER_01", "SPEAKER_00", "Bob"]


# Old and new together


def test_replace_takes_the_place_of_the_classes_of_the_source(tmp_path):
    old = _old()
    found = (_span(10, 11, "laughs", speaker="SPEAKER_01"),)
    rule = EventRule.of(_source(tmp_path, *found))
    done = annotate_recording(old, found, rule)
    assert done.annotations == replace(
        old, events=(old.events[1], _event(10, 11, "Laughter", "SPEAKER_01"))
    )
    assert (done.num_added, done.num_removed, done.has_changed) == (1, 1, True)
    again = annotate_recording(done.annotations, found, rule)
    assert again.annotations == done.annotations
    assert not again.has_changed


def test_points_alone_do_not_replace_the_events_of_their_class(tmp_path):
    point, long = _span(3, 3, "laugh"), _span(10, 11, "laugh")
    for event in (None, "Laughter"):
        rule = EventRule.of(_source(tmp_path, point, long), event=event)
        with pytest.raises(BadRecording, match=r"show: every Laughter in it is a point.*its old"):
            annotate_recording(_old(), [point], rule)
        assert annotate_recording(_old(), [point, long], rule).num_removed == 1
        assert not annotate_recording(_old(), [point], rule, mode="merge").has_changed
        # There is nothing to lose.
        assert not annotate_recording(_old(events=()), [point], rule).has_changed


def test_rows_that_cannot_be_used_do_not_replace_events(tmp_path):
    table = "recording,start,end,label\n"
    table += "show,10,11,laugh\nshow,12,x,laugh\nother,1,2,laugh\nthird,9,1,laugh\n"
    source = read_annotation_source(_file(tmp_path, "all.csv", table))
    assert set(source.by_recording) == {"show", "other", "third"}
    rule = EventRule.of(source, event="Laughter")

    def annotated(name, rule=rule, source=source, **settings):
        dropped = source.dropped_by_recording.get(name, ())
        found = source.by_recording[name]
        return annotate_recording(_old(), found, rule, dropped=dropped, **settings)

    with pytest.raises(BadRecording, match=r"show: .*all\.csv: 1 rows cannot be used \(line 3: a"):
        annotated("show")
    with pytest.raises(BadRecording, match=r"line 5: ends before it starts"):
        annotated("third")
    assert annotated("other").num_removed == 1
    assert annotated("show", mode="merge").num_added == 1
    # A row of another class is not missed; of one that nobody can tell, it may be.
    table = "recording,start,end,label\nshow,1,2,laugh\nshow,3,x,cough\n"
    source = read_annotation_source(_file(tmp_path, "cough.csv", table))
    laughs = EventRule.of(source, event="Laughter")
    assert annotated("show", laughs, source).num_removed == 1
    with pytest.raises(BadRecording, match="line 3"):
        annotated("show", EventRule.of(source), source)
    for row, said in (("show,4", "2 cells"), (",4,5,laugh", "names no recording")):
        table = f"recording,start,end,label\nshow,1,2,laugh\n{row}\n"
        source = read_annotation_source(_file(tmp_path, "unknown.csv", table))
        with pytest.raises(BadRecording, match=said):
            annotated("show", EventRule.of(source), source)


def test_a_class_of_which_no_row_can_be_used_does_occur(tmp_path):
    source = read_annotation_source(_file(tmp_path, "show.txt", "1\tx\tlaugh\n5\t6\tha ha\n"))
    rule = EventRule.of(source, event="Laughter")
    assert not rule.takes_every_span
    assert rule.classes == {"Laughter"}
    with pytest.raises(BadRecording, match="its old events stay"):
        annotate_recording(_old(), (), rule, dropped=source.dropped_by_recording["show"])


def test_a_file_without_laughs_says_that_there_are_none(tmp_path):
    rule = EventRule.of(_source(tmp_path, _span(1, 2, "laugh")))
    done = annotate_recording(_old(), (), rule)
    assert [event.label for event in done.annotations.events] == ["Breath"]
    assert done.num_removed == 1
    merged = annotate_recording(_old(), (), rule, mode="merge")
    assert merged.annotations == _old()
    assert not merged.has_changed


def test_the_same_events_in_another_order_are_no_change(tmp_path):
    old = _old(events=(_event(4, 5, "Laughter"), _event(1, 2, "Laughter")))
    found = (_span(1, 2, "x", speaker="SPEAKER_00"), _span(4, 5, "x", speaker="SPEAKER_00"))
    rule = EventRule.of(_source(tmp_path, *found), event="Laughter")
    assert annotate_recording(old, found, rule).annotations == old


def test_merge_adds_what_is_not_there_once(tmp_path):
    old = _old()
    same = _span(1, 2, "Laughter", speaker="SPEAKER_00", confidence=0.5)
    new = _span(1, 3, "Laughter", speaker="SPEAKER_00")
    found = (same, new, new)
    rule = EventRule.of(_source(tmp_path, *found))
    done = annotate_recording(old, found, rule, mode="merge")
    assert done.annotations.events == (*old.events, _event(1, 3, "Laughter"))
    assert (done.num_added, done.num_removed) == (1, 0)


def test_a_source_without_any_span_can_still_say_that_there_is_nothing(tmp_path):
    nothing = _source(tmp_path)
    rule = EventRule.of(nothing)
    assert rule.classes == frozenset()
    assert rule.notes[0].startswith("no labelled span: nothing changes; if that says that there")
    assert not annotate_recording(_old(), (), rule).has_changed
    rule = EventRule.of(nothing, event="Laughter")
    assert rule.notes == ()
    assert annotate_recording(_old(), (), rule).num_removed == 1


some_spans = st.lists(
    st.builds(
        _span,
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
    rule = EventRule.of(_source(tmp_path_factory.mktemp("twice"), *found), event=event)
    # Points alone for a class that has events are refused with replace.
    old = _old() if all(lengths) else _old(events=(_event(4, 5, "Breath"),))
    for mode in ("replace", "merge"):
        once = annotate_recording(old, found, rule, mode=mode)
        twice = annotate_recording(once.annotations, found, rule, mode=mode)
        assert twice.annotations == once.annotations
        assert not twice.has_changed
        kept = [item for item in once.annotations.events if item.label == "Breath"]
        assert kept == [_event(4, 5, "Breath")]
        taken = {item.label for item in once.annotations.events} - {"Breath", "Laughter"}
        assert taken <= rule.classes <= {"Laughter", "cough"}


def test_speaker_lines_replace_the_segments():
    source = read_annotation_source(FILES / "meeting.rttm")
    rule = EventRule.of(source)
    spans_of_show = source.by_recording["show"]
    old = _old()
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
    source = read_annotation_source(_file(tmp_path, "a.rttm", lines))
    with pytest.raises(ConfigError, match="only SPEAKER lines: they tell who speaks when"):
        EventRule.of(source, event="Laughter")
    lines += "NON-LEX show 1 4 1 <NA> other SPEAKER_00 <NA> <NA>\n"
    both = read_annotation_source(_file(tmp_path, "b.rttm", lines))
    rule = EventRule.of(both, event="Laughter")
    assert to_segments(both.spans, ()) == (Segment(1_000_000, 3_000_000, "SPEAKER_01"),)
    assert to_events(both.spans, rule, ()) == (_event(4, 5, "Laughter"),)


@pytest.mark.parametrize("event", [None, "Laughter"])
def test_speaker_lines_alone_do_not_say_that_there_are_no_events(tmp_path, event):
    lines = "SPEAKER show 1 1 2 <NA> <NA> SPEAKER_01 <NA> <NA>\n"
    lines += "NON-LEX other 1 4 1 <NA> laugh SPEAKER_00 <NA> <NA>\n"
    source = read_annotation_source(_file(tmp_path, "a.rttm", lines))
    rule = EventRule.of(source, event=event)
    done = annotate_recording(_old(), source.by_recording["show"], rule)
    assert done.annotations.events == _old().events
    assert done.annotations.segments == (Segment(1_000_000, 3_000_000, "SPEAKER_01"),)
    assert annotate_recording(_old(), source.by_recording["other"], rule).num_removed == 1


def test_what_is_probably_not_meant_is_told(tmp_path):
    old = _old(intervals=(Interval("SPEAKER_00", 1, 0, 1),))
    found = (_span(1000, 1500, "laugh"), _span(1, 2, "laugh", speaker="Bob"))
    rule = EventRule.of(_source(tmp_path, *found))
    notes = annotate_recording(old, found, rule).notes
    assert notes == (
        "show: 1 of 2 events start after the recording's end (60.0 s): labels will not use them;"
        " is it this recording?",
        "show: 1 of 2 events have no speaker: labels ignore their frames, but for those of a mix"
        " and --whose any",
        "show: speakers new to the recording: Bob (it has SPEAKER_00, SPEAKER_01)",
        "show: its prediction intervals still belong to the old events",
    )
