"""Annotation files that cannot be meant are refused by one line that says where, in no time."""

import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.annotation_formats import elan, read_annotation_file, spans, text
from laughstore.annotation_formats.numbers import MAX_US
from laughstore.errors import BadRecording, NotFound

from .annotating import FILES, textgrid, write_file

LONG = textgrid([(0, 1, "x"), (1, 2, "y")], short=False)


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
    path = write_file(tmp_path, name, content)
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
        read_annotation_file(write_file(tmp_path, "a.csv", "start,end\n" + "1,2\n" * 4))
    with pytest.raises(BadRecording, match="more than 3 labels"):
        read_annotation_file(write_file(tmp_path, "a.txt", "1\t2\n" + "2\t1\n" * 3))
    monkeypatch.setattr(text, "MAX_LINES", 3)
    with pytest.raises(BadRecording, match="more than 3 lines"):
        read_annotation_file(write_file(tmp_path, "a.txt", "\n" * 4))
    monkeypatch.setattr(elan, "MAX_SPANS", 3)
    many = "".join(f'<TIME_SLOT TIME_SLOT_ID="{k}"/>' for k in range(7))
    with pytest.raises(BadRecording, match="too many time slots"):
        read_annotation_file(
            write_file(tmp_path, "a.eaf", f"<ANNOTATION_DOCUMENT>{many}</ANNOTATION_DOCUMENT>")
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
    assert len(read_annotation_file(write_file(tmp_path, "a.eaf", document)).spans) == 10_001
    assert read_annotation_file(write_file(tmp_path, "a.TextGrid", tiers)).spans == ()
    with pytest.raises(BadRecording, match="not closed"):
        read_annotation_file(write_file(tmp_path, "b.TextGrid", '"ooTextFile" "' + "a" * 4_000_000))
    many = read_annotation_file(write_file(tmp_path, "a.csv", bad_rows))
    assert "30000 of 30001 rows dropped" in many.notes[0]
    with pytest.raises(BadRecording, match="it was cut"):
        read_annotation_file(write_file(tmp_path, "c.TextGrid", '"ooTextFile"' + " a" * 2_000_000))
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
    path = write_file(tmp_path_factory.mktemp("altered"), name, bytes(data))
    try:
        item = read_annotation_file(path)
    except BadRecording as error:
        said = str(error)
        assert str(path) in said
    else:
        assert all(0 <= span.start_us <= span.end_us <= MAX_US for span in item.spans)
