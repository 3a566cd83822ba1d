"""What is written for other tools is read back as it was."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.annotation_formats import (
    LabelledSpan,
    match_recordings,
    read_annotation_file,
)
from laughstore.annotation_formats.writers import (
    WrittenSpan,
    audacity_text,
    rttm_text,
    score_text,
    seconds_text,
    table_text,
    textgrid_text,
)
from laughstore.errors import ConfigError

DURATION_US = 20_000_001
NAME = "A talk, live: no. 1"


@st.composite
def some_spans(draw: st.DrawFn) -> list[WrittenSpan]:
    """Disjoint spans in order, some of which touch."""
    edges = draw(st.lists(st.integers(0, DURATION_US), max_size=12, unique=True).map(sorted))
    touching = draw(st.booleans())
    pairs = list(pairwise(edges))[:: 1 if touching else 2]
    label = st.sampled_from(["Laughter", 'say "ha"', "Laughter-within-0.8s", "Händeklatschen"])
    score = st.floats(0, 1, width=32)
    return [WrittenSpan(a, b, draw(label), draw(score)) for a, b in pairs]


def texts(spans: list[WrittenSpan]) -> dict[str, str]:
    return {
        f"{NAME}.txt": audacity_text(spans),
        f"{NAME}.csv": table_text(NAME, spans),
        f"{NAME}.rttm": rttm_text(NAME, spans),
        f"{NAME}.TextGrid": textgrid_text("Laughter", spans, DURATION_US),
    }


@settings(max_examples=30)
@given(some_spans())
def test_every_format_is_read_back_to_the_microsecond(tmp_path_factory, spans):
    folder = tmp_path_factory.mktemp("written")
    for name, text in texts(spans).items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        found = read_annotation_file(path)
        assert not found.dropped, name
        assert len(found.spans) == len(spans), name
        for span, written in zip(found.spans, spans, strict=True):
            assert_same(span, written, name)
        if not name.endswith((".csv", ".rttm")):
            assert found.recording == NAME


def assert_same(span: LabelledSpan, written: WrittenSpan, name: str) -> None:
    assert (span.start_us, span.end_us) == (written.start_us, written.end_us)
    label, recording = written.label, None
    if name.endswith(".csv"):
        recording = NAME
    if name.endswith(".rttm"):
        label = {"Laughter": "laugh"}.get(label, label.replace(" ", "_"))
        recording = NAME.replace(" ", "_")
    assert (span.label, span.recording) == (label, recording)
    if name.endswith((".csv", ".rttm")):
        assert np.float32(span.confidence) == np.float32(written.score)


def test_a_textgrid_is_as_praat_writes_it():
    spans = [WrittenSpan(500_000, 1_250_000, "Laughter", 0.75)]
    assert (
        textgrid_text("Laughter", spans, 2_000_000)
        == Path(__file__).with_name("annotation_files").joinpath("written.TextGrid").read_text()
    )


def test_a_textgrid_has_no_place_for_spans_that_overlap_or_lie_outside():
    overlapping = [WrittenSpan(0, 2_000, "a"), WrittenSpan(1_000, 3_000, "b")]
    for spans in (overlapping, [WrittenSpan(0, 9_000, "a")]):
        with pytest.raises(ConfigError, match="no place"):
            textgrid_text("tier", spans, 5_000)
    with pytest.raises(ConfigError, match="end behind its start"):
        WrittenSpan(5, 4, "a")
    with pytest.raises(ConfigError, match="begin at 0"):
        WrittenSpan(-1, 4, "a")


def test_lines_of_rttm_have_ten_fields_whatever_the_names_hold():
    spans = [WrittenSpan(0, 1, "a b\tc"), WrittenSpan(1, 2, "Music", 0.5, speaker="Ann B.")]
    lines = rttm_text(" odd  name ", spans).splitlines()
    assert [len(line.split(" ")) for line in lines] == [10, 10]
    assert lines[0].startswith("NON-LEX odd_name 1 0.000000 0.000001 <NA> a_b_c <NA> <NA> <NA>")
    assert lines[1] == "NON-SPEECH odd_name 1 0.000001 0.000001 <NA> music Ann_B. 0.5 <NA>"


@given(st.floats(0, 1, width=32))
def test_scores_are_the_shortest_decimals_of_their_number(score):
    assert np.float32(score_text(score)) == np.float32(score)
    assert len(score_text(np.float32(0.1))) == 3


def test_times_have_all_their_microseconds():
    assert [seconds_text(us) for us in (0, 1, 80_000, 3_600_000_001)] == [
        "0.000000",
        "0.000001",
        "0.080000",
        "3600.000001",
    ]


@pytest.mark.parametrize("name", ["none", "None", "NA", "n/a", "nan", "null", "<NA>", "007", "1e5"])
def test_a_recording_called_like_nothing_or_like_a_number_is_read_back(tmp_path, name):
    path = tmp_path / "all.csv"
    path.write_text(table_text(name, [WrittenSpan(0, 1_000_000, "Laughter", 0.5)]))
    found = read_annotation_file(path)
    assert not found.dropped
    assert [span.recording for span in found.spans] == [name]
    assert match_recordings([name], [("x-0", "7"), ("a-1", name)]).recording_ids == {name: "a-1"}
