"""Which files a source is, and which recordings they are of."""

import os
import shutil

import pytest

from laughstore.annotation_formats import (
    match_recordings,
    read_annotation_file,
    read_annotation_source,
    source_files,
)
from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.naming import recording_id

from .annotating import write_file


def test_a_folder_is_read_with_what_is_below_it(tmp_path, caplog):
    (tmp_path / "train").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.eaf", "train/a.TEXTGRID", "x.wav", ".a.csv", ".hidden/c.csv"):
        write_file(tmp_path, name, "")
    write_file(tmp_path, "README.txt", "Dear reader\n")
    write_file(tmp_path, "labels.txt", "1\t2\tLaughter\n")
    assert [path.name for path in source_files(tmp_path)] == ["b.eaf", "labels.txt", "a.TEXTGRID"]
    assert "README.txt: left out" in caplog.text


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path):
    write_file(tmp_path, "show.txt", "1\t2\tlaugh\n")
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
        source_files(write_file(tmp_path, "a.wav", ""))
    with pytest.raises(ConfigError, match="is no annotation file"):
        read_annotation_file(tmp_path / "a.wav")
    write_file(tmp_path, "a.txt", "1\t2\tx\n")
    write_file(tmp_path, "a.csv", "start,end,label\n1,2,x\n")
    with pytest.raises(ConfigError, match="are both of recording 'a'"):
        read_annotation_source(tmp_path)


def test_a_source_is_ordered_by_recording_and_keeps_empty_files(tmp_path):
    write_file(tmp_path, "quiet.txt", "")
    table = "recording,start,end,label\nb,1,2,x\na,1,2,y\nb,3,4,z\n"
    write_file(tmp_path, "a_table.csv", table)
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
