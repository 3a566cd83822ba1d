import json
import shutil
import subprocess
import sys
import unicodedata

import pytest

from extract.audit.dataset import audit_dataset
from extract.datasets import DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS, open_dataset
from extract.sound.tracks import AudioFile
from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker, Word
from laughstore.errors import BadRecording, ConfigError
from laughstore.naming import recording_id

from .trees import CONTENT, NAME, Tree, diarization


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "data").episode()


def test_a_whole_episode_is_read_to_the_microsecond(tree):
    recording = tree.only
    assert recording.name == NAME
    assert recording.id == recording_id(NAME)
    assert recording.group == 'Dr. Who, "live"'
    assert recording.problem is None
    assert recording.notes == ()
    assert sorted(recording.tracks) == ["SPEAKER_00", "SPEAKER_01"]
    assert recording.annotations() == Annotations(
        recording=NAME,
        duration_us=3_000_000,
        speakers=(Speaker("SPEAKER_01", 1_500_000), Speaker("SPEAKER_00", 1_200_000)),
        events=(Event(500_000, 800_000, "Laughter", "Laughter", "SPEAKER_01", 0.75),),
        segments=(
            Segment(0, 1_200_000, "SPEAKER_00"),
            Segment(1_000_000, 2_500_000, "SPEAKER_01"),
        ),
        turns=(Segment(0, 1_200_000, "SPEAKER_00"), Segment(2_500_000, 2_500_000, "")),
        intervals=(Interval("SPEAKER_01", 500_000, 0, 500_000),),
        words=(Word(100_000, 300_000, "so", "SPEAKER_00"),),
    )


def test_recordings_are_sorted_by_split_then_name(tree):
    for split, name in [("test", "a"), ("extra", "b"), ("validation", "c"), ("train", "A")]:
        tree.episode(name, split)
    dataset = open_dataset(tree.root)
    assert [(r.split, r.name) for r in dataset.recordings] == [
        ("train", "A"),
        ("train", NAME),
        ("validation", "c"),
        ("test", "a"),
        ("extra", "b"),
    ]
    assert dataset.splits == ("train", "validation", "test", "extra")


def test_folders_are_found_whatever_their_case_and_under_meta_data(tree):
    (tree.root / "metadata").rename(tree.root / "Meta_Data")
    (tree.root / "audio" / "episode_wav_dial").rename(tree.root / "audio" / "Episode_WAV_dial")
    assert tree.only.problem is None


def test_a_diarization_may_be_a_file_of_the_episodes_name(tree):
    inner = tree.annotation(DIARIZATIONS)
    inner.rename(inner.parent.parent / f"{NAME}.json.new")
    inner.parent.rmdir()
    (inner.parent.parent / f"{NAME}.json.new").rename(inner.parent.parent / f"{NAME}.json")
    assert tree.only.annotations().duration_us == 3_000_000


def test_one_name_in_two_unicode_forms_is_one_recording(tmp_path):
    tree = Tree(tmp_path).episode("Café_1")
    folder = tree.root / "audio/episode_wav_dial/train"
    (folder / "Café_1").rename(folder / unicodedata.normalize("NFD", "Café_1"))
    assert tree.only.problem is None


@pytest.mark.parametrize("odd", ["track", *(kind for kind in CONTENT if kind != TRANSCRIPTS)])
def test_a_speaker_in_two_unicode_forms_is_one_speaker(tmp_path, odd):
    def named(what):
        return unicodedata.normalize("NFD" if what == odd else "NFC", "José")

    tree = Tree(tmp_path).episode()
    tree.track("SPEAKER_01").unlink()
    tree.track(named("track"))
    for kind, content in CONTENT.items():
        tree.write(kind, json.dumps(content).replace("SPEAKER_01", named(kind)))
    tree.write(TURNS, {"turns": [{"start": 0, "end": 1.2, "speaker_id": named(TURNS)}]})
    recording = tree.only
    assert (recording.problem, recording.track_problem(["José", "SPEAKER_00"])) == (None, None)
    found = recording.annotations()
    assert [speaker.name for speaker in found.speakers] == ["José", "SPEAKER_00"]
    assert [item.speaker for item in (*found.events, *(found.intervals or ()))] == ["José"] * 2
    assert [item.speaker for item in found.segments] == ["SPEAKER_00", "José"]
    assert [item.speaker for item in found.turns or ()] == ["José"]


def test_a_speaker_listed_in_both_unicode_forms_is_a_problem(tree):
    forms = [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]
    totals = {name: {"total_time": 1.0} for name in forms}
    tree.write(DIARIZATIONS, diarization(speaker_statistics=totals))
    assert "speaker 'José' stands twice in 'speaker_statistics'" in str(tree.only.problem)


def test_hidden_files_are_not_episodes(tree):
    for path in (tree.annotation(EVENTS), tree.root / "audio/episode_wav_dial/train/x"):
        (path.parent / f"._{path.name}").write_text("junk")
        (path.parent / ".DS_Store").write_text("junk")
    assert tree.only.name == NAME


def test_optional_files_that_are_missing_are_noted_and_load_as_none(tree):
    for kind in (TRANSCRIPTS, TURNS, INTERVALS):
        tree.annotation(kind).unlink()
    recording = tree.only
    annotations = recording.annotations()
    assert recording.problem is None
    assert [note.partition(":")[0] for note in recording.notes] == [
        "no transcript",
        "no turns",
        "no prediction intervals",
    ]
    assert annotations.words is annotations.turns is annotations.intervals is None


@pytest.mark.parametrize("kind", CONTENT)
def test_an_episode_known_from_one_annotation_only_is_seen_as_a_gap(tree, kind):
    tree.write(kind, CONTENT[kind], name="lost", split="test")
    lost = open_dataset(tree.root).recordings[-1]
    assert (lost.name, lost.split) == ("lost", "test")
    assert lost.problem is not None
    assert "no audio tracks" in lost.problem


def test_an_episode_with_audio_only_is_seen_as_a_gap(tree):
    tree.track("SPEAKER_00", "lost")
    assert "no file episode_event_speaker_mapping/train/lost.json; without events every" in str(
        open_dataset(tree.root).recordings[-1].problem
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.annotation(EVENTS).unlink(), "every frame would count as negative"),
        (lambda t: t.write(DIARIZATIONS, "{"), "not readable as JSON"),
        (lambda t: t.write(DIARIZATIONS, diarization(speaker_statistics={})), "no speaker"),
        (lambda t: t.track("SPEAKER_00", suffix=".flac"), "both tracks of SPEAKER_00"),
    ],
)
def test_what_a_build_cannot_do_without_is_one_line_that_names_the_recording(tree, change, said):
    change(tree)
    problem = tree.only.problem
    assert said in problem
    assert NAME in problem
    assert "\n" not in problem


def test_loading_without_events_is_an_error(tree):
    tree.annotation(EVENTS).unlink()
    for read in (tree.only.annotations, tree.only.events):
        with pytest.raises(BadRecording, match=EVENTS):
            read()


def test_without_a_diarization_nobody_is_main_and_the_mix_is_still_there(tree):
    tree.annotation(DIARIZATIONS).unlink()
    mix = tree.mix(seconds=4.0)
    recording = tree.only
    with pytest.raises(BadRecording, match=r"no file episode_diarizations/.*nobody's track"):
        _ = recording.speakers
    assert recording.problem is None
    assert recording.mix == AudioFile(mix)
    assert not recording.has_segments
    assert "no diarization: nobody knows who speaks" in recording.notes
    annotations = recording.annotations()
    assert (annotations.speakers, annotations.segments) == ((), ())
    assert annotations.duration_us == 4_000_000
    assert [word.speaker for word in annotations.words] == [None]


def test_a_speaker_without_a_track_is_named_when_they_would_be_main(tree):
    tree.track("SPEAKER_01").unlink()
    recording = tree.only
    assert recording.problem is None
    assert recording.track_problem(["SPEAKER_00"]) is None
    problem = recording.track_problem(["SPEAKER_01", "SPEAKER_00"])
    assert problem.startswith(f"{NAME}: no track of SPEAKER_01, who would be main")
    assert "(tracks: SPEAKER_00)" in problem
    assert "\n" not in problem


def test_without_audio_and_a_stated_duration_it_ends_with_the_last_thing_annotated(tree):
    shutil.rmtree(tree.root / "audio")
    tree.write(DIARIZATIONS, diarization(original_duration=None))
    (recording,) = open_dataset(tree.root, needs_audio=False).recordings
    assert recording.annotations().duration_us == 2_500_000


def test_a_total_time_that_is_null_is_that_of_the_segments(tree):
    statistics = {"SPEAKER_00": {"total_time": None}, "SPEAKER_01": {"total_time": 1.0}}
    tree.write(DIARIZATIONS, diarization(speaker_statistics=statistics))
    assert tree.only.speakers == (
        Speaker("SPEAKER_00", 1_200_000),
        Speaker("SPEAKER_01", 1_000_000),
    )


def test_everybody_who_speaks_is_a_speaker_and_ties_go_by_name(tree):
    totals = {"B": 2.0, "C": 1.0, "A": 2.0, "silent": 0, "unknown": None}
    statistics = {name: {"total_time": total} for name, total in totals.items()}
    tree.write(DIARIZATIONS, diarization(speaker_statistics=statistics))
    expected = (Speaker("A", 2_000_000), Speaker("B", 2_000_000), Speaker("C", 1_000_000))
    assert tree.only.speakers == expected
    assert tree.only.annotations().speakers == expected


@pytest.mark.parametrize("folder", ["episode_wav", "Episode_MP3"])
def test_the_mix_of_an_episode_is_found_beside_its_tracks(tree, folder):
    mix = tree.mix(folder=folder, suffix=".mp3" if "MP3" in folder else ".wav")
    assert tree.only.mix == AudioFile(mix)
    assert sorted(tree.only.tracks) == ["SPEAKER_00", "SPEAKER_01"]


def test_an_mp3_may_lie_without_a_folder_of_its_split_and_the_wav_goes_first(tree):
    mp3 = tree.mix(folder="episode_mp3", split=".", suffix=".mp3")
    assert tree.only.mix == AudioFile(mp3)
    wav = tree.mix()
    assert tree.only.mix == AudioFile(wav)


def test_an_episode_with_a_mix_and_no_tracks_is_its_mix(tree):
    tree.episode("other_1")
    shutil.rmtree(tree.root / "audio/episode_wav_dial/train" / NAME)
    mix = tree.mix()
    recording = open_dataset(tree.root).recordings[0]
    assert recording.name == NAME
    assert recording.problem is None
    assert recording.tracks == {}
    assert recording.mix == AudioFile(mix)
    assert [speaker.name for speaker in recording.speakers] == ["SPEAKER_01", "SPEAKER_00"]
    assert recording.track_problem(["SPEAKER_01"]) is not None


def test_a_mix_in_another_split_than_its_tracks_is_a_problem(tree):
    tree.mix(split="test")
    assert "is in split test, its other files are in train" in tree.only.problem


def test_two_mixes_of_one_episode_are_a_problem(tree):
    tree.mix()
    tree.mix(suffix=".flac")
    assert "are of one recording; keep one of them" in tree.only.problem


def test_a_mix_without_anything_else_is_no_recording_of_this_layout_and_is_told(tree):
    tree.mix("unseen")
    dataset = open_dataset(tree.root)
    assert [recording.name for recording in dataset.recordings] == [NAME]
    assert any("1 episodes have a mix and no tracks" in note for note in dataset.notes)
    assert any("'unseen'" in note for note in dataset.notes)


def test_a_recording_of_one_speaker_is_fine(tree):
    tree.write(DIARIZATIONS, diarization(speaker_statistics={"SPEAKER_00": {"total_time": 1}}))
    assert tree.only.problem is None
    assert len(tree.only.speakers) == 1


def test_without_a_stated_duration_the_longest_track_tells_it(tree):
    content = diarization()
    del content["original_duration"]
    tree.write(DIARIZATIONS, content)
    tree.track("SPEAKER_01", seconds=4.5)
    assert tree.only.annotations().duration_us == 4_500_000


def beside(tree, fault):
    """Checks that the recording alone is left out, with its reason."""
    tree.episode("other_1")
    recording, other = open_dataset(tree.root).recordings
    assert (recording.name, recording.split) == (NAME, "train")
    assert other.problem is None
    assert fault in str(recording.problem)
    assert "\n" not in str(recording.problem)
    for read in (recording.events, recording.annotations):  # nor would annotate believe it
        with pytest.raises(BadRecording):
            read()
    report = audit_dataset(tree.root)
    assert [item.name for item in report.left_out] == [NAME]
    assert fault in report.left_out[0].reason


@pytest.mark.parametrize("kind", CONTENT)
def test_a_recording_with_a_file_in_another_split_is_left_out(tree, kind):
    tree.write(kind, CONTENT[kind], split="test")
    beside(tree, "it would be trained on and tested on")


def test_a_recording_that_is_whole_in_two_splits_is_left_out(tree):
    tree.episode(split="test")
    beside(tree, "it would be trained on and tested on")


@pytest.mark.parametrize("kind", CONTENT)
def test_of_two_different_files_of_one_annotation_none_is_believed(tree, kind):
    tree.write(kind, "{}", folder="meta_data")
    beside(tree, "are of one recording and differ")


@pytest.mark.parametrize("kind", CONTENT)
def test_two_equal_files_of_one_annotation_are_one(tree, kind):
    twin = tree.write(kind, CONTENT[kind], folder="meta_data")
    assert tree.only.problem is None
    twin.unlink()
    inner = tree.annotation(kind)
    if kind == DIARIZATIONS:  # both variants, in one folder
        shutil.copy(inner, inner.parent.parent / f"{NAME}.json")
        assert tree.only.problem is None
        (inner.parent.parent / f"{NAME}.json").write_text("{}")
        assert "are of one recording and differ" in str(tree.only.problem)


def test_two_folders_of_tracks_of_one_recording_are_a_problem(tmp_path):
    tree = Tree(tmp_path).episode("Café_1")
    tree.track("SPEAKER_00", unicodedata.normalize("NFD", "Café_1"))
    assert "are of one recording; keep one of them" in str(tree.only.problem)


def test_a_folder_of_annotations_that_cannot_be_a_split_is_passed_over_and_told(tree):
    tree.write(EVENTS, CONTENT[EVENTS], split="old ones")
    dataset = open_dataset(tree.root)
    assert [item.problem for item in dataset.recordings] == [None]
    (note,) = dataset.notes
    assert "passed over 1 folders that cannot be splits" in note
    assert "'old ones'" in note
    assert audit_dataset(tree.root).notes == dataset.notes


def test_nobodys_name_is_that_of_a_mix(tree):
    tree.track("*")
    assert "a speaker is named '*', which stands for a mix" in tree.only.problem


def test_a_split_whose_name_cannot_stand_in_a_shards_name_is_refused(tree):
    tree.episode("x", "my split")
    with pytest.raises(ConfigError, match="'my split' cannot be a split"):
        open_dataset(tree.root)


def test_the_corpus_of_real_laughs_is_read_whole(minicorpus_script, tmp_path):
    out = tmp_path / "mini"
    arguments = [str(out), "--episodes", "1", "1", "1", "--seconds", "40", "--annotate", "1"]
    subprocess.run([sys.executable, str(minicorpus_script), *arguments], check=True, timeout=120)
    dataset = open_dataset(out)
    assert dataset.splits == ("train", "validation", "test")
    for recording in dataset.recordings:
        assert recording.problem is None
        assert recording.notes == ()
        assert recording.group == f"Mini Show, {recording.split}"
        annotations = recording.annotations()
        truth = json.loads((out / "truth" / recording.split / f"{recording.name}.json").read_text())
        laughs = [item for item in annotations.events if item.label == "Laughter"]
        assert len(laughs) == len(truth["laughs"]) == len(annotations.intervals or ())
        for found, made in zip(laughs, truth["laughs"], strict=True):
            assert abs(found.start_us - made["start"] * 1e6) <= 1
            assert found.speaker == made["speaker_id"]
        assert annotations.duration_us == 40_000_000
        assert all(word.speaker is not None for word in annotations.words or ())
