"""Names that are safe in paths, and differ when recordings differ."""

import tarfile
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from laughstore.naming import assignment_name, block_key, is_path_part, recording_id

names = st.text(min_size=1, max_size=200)


@given(names)
def test_an_id_is_short_ascii_and_stable_under_unicode_forms(name):
    found = recording_id(name)
    assert is_path_part(found)
    assert len(found) <= 48 + 1 + 8
    assert found == found.lower()
    assert recording_id(unicodedata.normalize("NFD", name)) == found


def test_ids_keep_what_they_can_of_a_name():
    name = 'The "Best" Show, Ep. 3 (2021)'
    assert recording_id(name).startswith("the-best-show-ep-3-2021-")
    assert recording_id(name) != recording_id(name + " ")


@given(names, names)
def test_the_two_assignments_of_a_recording_have_two_names(main, other):
    if main == other:
        return
    one, two = assignment_name(main, other), assignment_name(other, main)
    assert one != two
    for name in (one, two):
        assert is_path_part(name)
        assert name.count("--") == 1


def test_assignments_of_the_usual_speakers():
    assert assignment_name("SPEAKER_00", "SPEAKER_01") == "speaker-00--speaker-01"
    assert assignment_name("SPEAKER_00", None) == "speaker-00--silence"


@given(names, names, names, st.integers(0, 999_999))
def test_a_key_with_its_suffix_fits_a_ustar_name_and_has_no_dot(name, main, other, block):
    key = block_key(recording_id(name), assignment_name(main, other), block)
    assert "." not in key
    header = tarfile.TarInfo(f"{key}.json").tobuf(tarfile.USTAR_FORMAT)
    assert header[345:500] == bytes(155), "no prefix is needed"


def test_hostile_path_parts_are_told_apart():
    for bad in ("..", ".", "a/b", "/abs", "pipe:cat", "a\0b", "", "a b", "x" * 100, None, 3):
        assert not is_path_part(bad)
