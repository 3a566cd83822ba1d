"""What an audit measures: laughs in tracks and mixes, gaps between laughs, copies of sound."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.audit.copies import Copies, SoundUse
from extract.audit.dataset import audit_dataset
from extract.audit.report import GAP_EDGES_US, MERGE_GAP_US, LaughGaps
from extract.sound.tracks import AudioFile
from laughstore.bouts import Times

from .audit_trees import PLANTS, RATE, A, B, Tree, clean_corpus, finding, kinds


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return clean_corpus(tmp_path_factory.mktemp("audit") / "clean")


@pytest.fixture
def tree(clean, tmp_path):
    return Tree(shutil.copytree(clean, tmp_path / "data"))


def test_a_silent_laugh_is_looked_for_in_the_other_track_and_the_mix(tree):
    event, place = tree.laugh()
    sound = tree.sound(event["speaker_id"])[place]
    tree.write_mix()
    PLANTS["laughs-silent"](tree)
    report = tree.audit()
    assert report.audibility.silent == 1
    assert (report.audibility.heard_in_mix, report.audibility.heard_nowhere) == (1, 0)
    assert finding(report, "laughs-silent").examples[0].endswith("heard in the mix")

    other = tree.spoil(lambda x: sound, B if event["speaker_id"] == A else A)
    report = tree.audit()
    assert report.audibility.heard_in_other_track == 1
    (example,) = finding(report, "laughs-silent").examples
    assert example.endswith(f"heard in {other}'s track and in the mix")
    assert f"{event['event_start_inepisode']:.3f} s ({event['speaker_id']})" in example

    tree.mix().unlink()
    tree.spoil(lambda x: 0 * x, other)
    report = tree.audit()
    assert report.audibility.heard_nowhere == 1
    assert finding(report, "laughs-silent").examples[0].endswith("heard nowhere else either")


def test_a_constant_offset_and_dither_are_no_sound(tree):
    dither = np.random.default_rng(1).uniform(-1, 1, RATE).astype("f4") / 2**15
    tree.spoil(lambda x: np.float32(0.25) + dither[: len(x)])
    assert kinds(tree.audit()) == {"laughs-silent"}


def test_a_laugh_behind_the_end_of_a_short_track_is_silent(tree):
    event, place = tree.laugh()
    tree.write(tree.track(event["speaker_id"]), tree.sound(event["speaker_id"])[: place.start])
    assert "laughs-silent" in kinds(tree.audit())


def test_a_channel_of_a_file_is_listened_to_alone(tree):
    event, _ = tree.laugh()
    silent = 0 * tree.sound()
    loud = tree.sound(event["speaker_id"])
    both = tree.root / "both.wav"
    tree.write(both, np.stack([silent, loud], axis=1))
    for channel, expected in [(0, {"laughs-silent", "track-silent"}), (1, set())]:
        line = {
            "name": "x",
            "split": "train",
            "speakers": [{"name": "a", "audio": {"path": "both.wav", "channel": channel}}],
            "segments": [{"start_s": 0, "end_s": 15, "speaker": "a"}],
            "events": [
                {
                    "start_s": event["event_start_inepisode"],
                    "end_s": event["event_end_inepisode"],
                    "label": "Laughter",
                    "speaker": "a",
                }
            ],
        }
        manifest = tree.root / "one.jsonl"
        manifest.write_text(json.dumps(line))
        found = kinds(audit_dataset(manifest))
        assert found & {"laughs-silent", "track-silent", "laughs-cut", "laughs-quiet"} == expected
        assert {"missing-split", "no-words", "no-intervals", "no-turns", "one-speaker"} <= found


def test_tracks_that_are_added_up_to_a_mix_are_heard_together(tree):
    speaker = tree.laugh()[0]["speaker_id"]
    tree.change_laugh(speaker_id=None)
    report = tree.audit(speakers="mix")
    assert report.audibility.audible == report.audibility.laughs
    tree.spoil(lambda x: 0 * x, speaker)
    tree.spoil(lambda x: 0 * x, B if speaker == A else A)
    assert kinds(tree.audit(speakers="mix")) == {"laughs-silent-in-mix"}


# Gaps between laughs


def _gaps(*spans):
    gaps = LaughGaps()
    pairs = np.array(spans, np.int64).reshape(-1, 2)
    gaps.add(Times(pairs[:, 0], pairs[:, 1]))
    return gaps


def test_gaps_are_counted_to_the_largest_end_so_far_and_edges_are_inclusive():
    ms = 1_000
    gaps = _gaps(
        (0, 900 * ms), (100 * ms, 200 * ms), (1_400 * ms, 1_500 * ms), (2_000_001, 2_100_000)
    )
    assert gaps.counts[0] == 1  # inside the first
    assert gaps.counts[GAP_EDGES_US.index(MERGE_GAP_US)] == 1  # exactly half a second
    assert gaps.counts[GAP_EDGES_US.index(MERGE_GAP_US) + 1] == 1  # a microsecond more
    assert (gaps.num_gaps, gaps.num_merged, gaps.num_laughs, gaps.num_bouts) == (3, 2, 4, 2)
    assert _gaps().num_gaps == 0
    assert _gaps((5, 6)).num_laughs == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 10**8), st.integers(1, 3 * 10**6)).map(
            lambda item: (item[0], item[0] + item[1])
        ),
        max_size=30,
    )
)
def test_laughs_less_merged_gaps_are_bouts_in_any_order(spans):
    gaps = _gaps(*spans)
    assert gaps.num_laughs - gaps.num_merged == gaps.num_bouts
    assert gaps.num_gaps == max(len(spans) - 1, 0)
    assert gaps.counts == _gaps(*reversed(spans)).counts


# Copies


def _use(path, recording, split="train", speaker: str | None = "a", channel=None, group="show"):
    return SoundUse(AudioFile(path, channel), recording, split, group, speaker)


def test_copies_are_files_of_equal_bytes_wherever_they_are(tmp_path):
    masked = np.zeros(200_000, np.uint8)
    for name, value in {"a": 0, "b": 1, "c": 0}.items():
        masked[50_000] = value  # neither at the start, nor in the middle, nor at the end
        (tmp_path / name).write_bytes(masked.tobytes())
    copies = Copies()
    assert copies.add(_use(tmp_path / "a", "x")) is None
    assert copies.add(_use(tmp_path / "b", "y")) is None
    found = copies.add(_use(tmp_path / "c", "z", "test"))
    assert found is not None
    assert found.recording == "x"
    assert copies.add(_use(tmp_path / "a", "x", channel=1)) is None
    assert copies.add(_use(tmp_path / "a", "y", channel=1)) is not None
    assert copies.add(_use(tmp_path / "absent", "y")) is None
    # Of one the system cannot read (EIO) nobody knows.
    for name in ("d", "e"):
        (tmp_path / name).symlink_to("/proc/self/mem")
    assert copies.add(_use(tmp_path / "d", "x")) is None
    with pytest.raises(OSError, match=f"Input/output error: .{tmp_path}/[de]"):
        copies.add(_use(tmp_path / "e", "y"))


CHANNELS = [None, 0, 1]


@pytest.mark.parametrize("second", CHANNELS)
@pytest.mark.parametrize("first", CHANNELS)
@pytest.mark.parametrize("other_name", ["a", "b"])
def test_the_channel_does_not_hide_a_copy_in_another_split_or_group(
    tmp_path, first, second, other_name
):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"sound")
    path, other = tmp_path / "a", tmp_path / other_name

    def is_copy(**second_use):
        copies = Copies()
        assert copies.add(_use(path, "x", channel=first)) is None
        return copies.add(_use(other, channel=second, **second_use)) is not None

    assert is_copy(recording="y", split="test")
    assert is_copy(recording="y", split="test", speaker=None)
    assert is_copy(recording="y", group="other show")
    # Two recordings of one show may be channels of one file, and so may two speakers.
    assert is_copy(recording="y") == (first == second or None in (first, second))
    assert is_copy(recording="x", speaker="b") == (first == second)


def test_a_stereo_file_in_two_splits_is_an_error_of_the_check(tree):
    both = np.stack([tree.sound(A), tree.sound(B)], axis=1)
    tree.write(tree.root / "both.wav", both)
    manifest = tree.root / "manifest.jsonl"
    lines = [
        {"name": f"talk_{k}", "split": split, "events": [], "audio": {"path": "both.wav"} | channel}
        for k, (split, channel) in enumerate([("train", {}), ("test", {"channel": 1})])
    ]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    report = audit_dataset(manifest)
    assert finding(report, "sound-in-two-splits").level == "error"


def test_samples_that_no_sound_has_are_found_before_a_build_finds_them(tree):
    tree.spoil(lambda x: x + np.float32(2e3), subtype="FLOAT")
    (example,) = finding(tree.audit(), "sound-damaged").examples
    assert "where full scale is 1" in example


def test_tracks_of_nobody_are_not_listened_to_as_the_mix(tree):
    _, place = tree.laugh()
    everybody = tree.sound(A) + tree.sound(B)
    for speaker in (A, B):
        tree.spoil(lambda x: 0 * x, speaker)
    assert place.stop > place.start
    tree.write(tree.track("everybody"), everybody)
    report = tree.audit(speakers="mix")
    assert {"laughs-silent-in-mix", "tracks-of-nobody"} <= kinds(report)


def test_the_mix_of_a_recording_may_be_its_only_track(tmp_path):
    (tmp_path / "a").write_bytes(b"sound")
    copies = Copies()
    assert copies.add(_use(tmp_path / "a", "x")) is None
    assert copies.add(_use(tmp_path / "a", "x", speaker=None)) is None
    assert copies.add(_use(tmp_path / "a", "y", speaker=None)) is not None
