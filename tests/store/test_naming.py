"""Names that are safe in paths, and differ when recordings differ."""

import tarfile
import unicodedata
from itertools import permutations

from hypothesis import example, given
from hypothesis import strategies as st

from laughstore.naming import (
    MIX,
    assignment_name,
    assignment_names,
    block_key,
    is_path_part,
    recording_id,
)

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


def test_a_mix_is_silence_and_everybody():
    assert assignment_name(MIX, None) == "silence--mix"
    assert assignment_names([(MIX, None)]) == ["silence--mix"]


def test_names_of_a_recording_that_are_equal_once_cut_are_told_apart():
    assert assignment_names([("Ann", "Bo"), ("Bo", "Ann")]) == ["ann--bo", "bo--ann"]
    long = "Alexander of Aphrodisias"
    found = assignment_names([(long, "Bo"), (f"{long} II", "Bo"), ("Bo", long), ("Bo", None)])
    assert found[2:] == ["bo--alexander-of", "bo--silence"]
    assert [name[:-8] for name in found[:2]] == ["alexand--bo-"] * 2
    # A name does not depend on how many others there are, nor on their order.
    assert assignment_names([(f"{long} II", "Bo"), (long, "Bo")]) == [found[1], found[0]]


crowds = st.lists(names, min_size=2, max_size=4, unique_by=lambda name: name.strip())


@given(crowds)
@example(["\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER BETA}", "Ann"])
@example(["Alexander of A", "Alexander of B", "silence", "mix"])
@example(["x" * 12 + "1", "x" * 12 + "2", "x" * 12 + "3", "x" * 200])
def test_all_assignments_of_a_recording_have_names_of_their_own_that_fit_a_path(speakers):
    speakers = [unicodedata.normalize("NFC", name) for name in speakers if name != MIX]
    roles = [*permutations(dict.fromkeys(speakers), 2), *[(name, None) for name in speakers[:1]]]
    found = assignment_names(roles)
    assert len(set(found)) == len(roles)
    for name in found:
        assert is_path_part(name)
        assert name.count("--") == 1
        assert "---" not in name
        assert_fits_ustar(block_key(recording_id("x" * 200), name, 999_999))


@given(names, names, names, st.integers(0, 999_999))
def test_a_key_with_its_suffix_fits_a_ustar_name_and_has_no_dot(name, main, other, block):
    assert_fits_ustar(block_key(recording_id(name), assignment_name(main, other), block))


def assert_fits_ustar(key):
    assert "." not in key
    for suffix in ("json", "bf16", "bf16.zst"):
        header = tarfile.TarInfo(f"{key}.{suffix}").tobuf(tarfile.USTAR_FORMAT)
        assert header[345:500] == bytes(155), "no prefix is needed"


def test_hostile_path_parts_are_told_apart():
    for bad in ("..", ".", "a/b", "/abs", "pipe:cat", "a\0b", "", "a b", "x" * 100, None, 3):
        assert not is_path_part(bad)
