"""Whose words those of a transcript are."""

import json
from pathlib import Path, PurePath

import pytest

from extract.roles import SILENT, Pair, Side
from extract.sound.files import AudioFile
from laughstore.cli.prediction.heard import Heard
from laughstore.cli.prediction.transcript import read_transcript
from laughstore.errors import BadRecording, NotFound


def heard(other: str | None = None) -> Heard:
    one = Side("main", (AudioFile(Path("talk/SPEAKER_00.wav")),))
    two = SILENT if other is None else Side("other", (AudioFile(Path(f"talk/{other}.wav")),))
    return Heard("SPEAKER_00", PurePath(), Pair((one, two), 1), num_frames=100, duration_us=1)


def table(path: Path, *speakers: str) -> Path:
    rows = [f"{i},{i + 0.5},word{i},{who}" for i, who in enumerate(speakers)]
    path.write_text("\n".join(["start,end,text,speaker", *rows]))
    return path


def said(path: Path, of: Heard) -> list[tuple[str, str | None]]:
    return [(word.text, word.speaker) for word in read_transcript(path, of)]


def test_words_are_told_apart_by_role_or_by_the_name_of_the_file(tmp_path):
    path = table(tmp_path / "w.csv", "speaker_00", "Ann", "OTHER", "main")
    expected = [("word0", "main"), ("word2", "other"), ("word3", "main")]
    assert said(path, heard("B")) == expected
    path = table(tmp_path / "v.csv", "b", "SPEAKER_00")
    assert said(path, heard("B")) == [("word0", "other"), ("word1", "main")]


def test_a_transcript_of_nobody_or_of_one_is_mains_if_nobody_else_is_heard(tmp_path):
    for path in (table(tmp_path / "a.csv", "", ""), table(tmp_path / "b.csv", "Ann", "Ann")):
        assert said(path, heard()) == [("word0", "main"), ("word1", "main")]
        with pytest.raises(BadRecording, match="name them main and other"):
            read_transcript(path, heard("B"))
    with pytest.raises(BadRecording, match="Ann, Bo"):
        read_transcript(table(tmp_path / "c.csv", "Ann", "Bo"), heard())


def test_the_transcripts_of_podcastfillers_are_read(tmp_path):
    words = [{"text": "hello", "offset": 10_000_000, "duration": 2_000_000}]
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"segments": [{"nbest": [{"words": words}]}]}))
    (word,) = read_transcript(path, heard())
    assert (word.start_us, word.end_us, word.text) == (1_000_000, 1_200_000, "hello")
    path.write_text("{")
    with pytest.raises(BadRecording, match="JSON"):
        read_transcript(path, heard())
    with pytest.raises(NotFound):
        read_transcript(tmp_path / "none.csv", heard())


def test_a_name_that_both_tracks_have_is_of_neither(tmp_path):
    sides = [Side(who, (AudioFile(Path(who, "Gespra\u0308ch.wav")),)) for who in ("main", "other")]
    both = Heard("x", PurePath(), Pair((sides[0], sides[1]), 1), num_frames=100, duration_us=1)
    path = table(tmp_path / "w.csv", "Gespr\u00e4ch", "main")
    assert said(path, both) == [("word1", "main")]
    with pytest.raises(BadRecording, match="none of those that are heard"):
        read_transcript(table(tmp_path / "v.csv", "Gespr\u00e4ch"), both)
    alone = Heard("x", PurePath(), Pair((sides[0], SILENT), 1), num_frames=100, duration_us=1)
    assert said(path, alone) == [("word0", "main"), ("word1", "main")]
