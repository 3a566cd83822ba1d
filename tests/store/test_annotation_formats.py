"""Annotation files of other tools are read exactly.

The sample files in `annotation_files` were written by hand.
"""

from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.annotation_formats import LabelledSpan, read_annotation_file, spans

from .annotating import FILES, seconds, textgrid, times_of, write_file


def test_a_long_textgrid():
    item = read_annotation_file(FILES / "Show, no. 1.TextGrid")
    assert item.recording == "Show, no. 1"
    assert times_of(item.spans) == [
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
    assert times_of(item.spans) == [(4_500_000, 5_125_000, "hearty")]
    assert item.spans[0].tier == "Laughter"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_textgrids_in_the_encodings_of_praat(tmp_path, encoding, line_end):
    written = (FILES / "Show, no. 1.TextGrid").read_text().replace("cough", "Räuspern ћ")
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    data = (mark + written).replace("\n", line_end).encode(encoding)
    item = read_annotation_file(write_file(tmp_path, "a.textgrid", data))
    assert item.recording == "a"
    assert item.spans[3].label == "Räuspern ћ"
    assert len(item.spans) == 5


def test_an_elan_document():
    item = read_annotation_file(FILES / "panel.eaf")
    assert [(*times_of([span])[0], span.tier, span.speaker) for span in item.spans] == [
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
    assert times_of(item.spans) == [
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
    assert times_of(item.spans) == [
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
    path = write_file(tmp_path, "show.csv", "start,end,duration,label\n" + rows)
    found = read_annotation_file(path)
    assert times_of(found.spans) == [
        (1_000_000, 1_500_000, "a"),
        (2_000_000, 4_000_000, "b"),
        (3_000_000, 4_000_000, "c"),
    ]
    assert [row.line for row in found.dropped] == [5, 6]


def test_a_lone_quote_inside_a_cell_is_a_character(tmp_path):
    item = read_annotation_file(write_file(tmp_path, "a.csv", 'start,end,label\n1,2,x"y\n'))
    assert item.spans[0].label == 'x"y'


def test_a_table_of_onsets_and_durations():
    item = read_annotation_file(FILES / "events.tsv")
    assert times_of(item.spans) == [(1_500_000, 1_750_000, "laughter")]
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
    item = read_annotation_file(write_file(tmp_path, "a.csv", f"{header}\n{row}\n"))
    assert times_of(item.spans) == [(1_500_000, 2_000_000, "x")]


def test_rttm():
    item = read_annotation_file(FILES / "meeting.rttm")
    assert [(s.recording, s.kind, *times_of([s])[0], s.speaker) for s in item.spans] == [
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


def _round_trip(tmp_path_factory, name: str, content: str) -> list[tuple[int, int, str]]:
    folder = tmp_path_factory.mktemp("formats")
    return times_of(read_annotation_file(write_file(folder, name, content)).spans)


@settings(max_examples=50, deadline=None)
@given(rows=rows, short=st.booleans())
def test_textgrids_keep_every_time_and_label(tmp_path_factory, rows, short):
    expected = [(start, start + length, label) for start, length, label in rows]
    found = _round_trip(tmp_path_factory, "a.TextGrid", textgrid(expected, short=short))
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
    content = "".join(f"{seconds(a)}\t{seconds(b)}\t{label}\n" for a, b, label in expected)
    assert _round_trip(tmp_path_factory, "a.txt", content) == expected


@settings(max_examples=50, deadline=None)
@given(rows=rows, separator=st.sampled_from(",;\t"))
def test_tables_keep_every_time_and_label(tmp_path_factory, rows, separator):
    expected = [(start, start + length, label) for start, length, label in rows]
    content = separator.join(["start", "duration_us", "label"]) + "\r\n"
    for start, end, label in expected:
        quoted = '"' + label.replace('"', '""') + '"'
        content += separator.join([seconds(start), str(end - start), quoted]) + "\r\n"
    nothing = {"", "nan", "none", "null", "na", "n/a", "<na>"}
    assert _round_trip(tmp_path_factory, "a.csv", content) == [
        (start, end, "" if label.casefold() in nothing else label) for start, end, label in expected
    ]


@settings(max_examples=50, deadline=None)
@given(rows=rows)
def test_rttm_keeps_every_time(tmp_path_factory, rows):
    content = "".join(
        f"SPEAKER a 1 {seconds(start)} {seconds(length)} <NA> <NA> s{k} <NA> <NA>\n"
        for k, (start, length, _) in enumerate(rows)
    )
    assert _round_trip(tmp_path_factory, "a.rttm", content) == [
        (start, start + length, "") for start, length, _ in rows
    ]
