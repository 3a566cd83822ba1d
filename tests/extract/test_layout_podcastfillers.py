import logging
import re
import unicodedata

import pytest

from extract.datasets import open_dataset
from extract.sound.tracks import AudioFile
from laughstore.annotations import Annotations, Event, Word
from laughstore.errors import BadRecording, ConfigError
from laughstore.naming import recording_id

from .trees import COLUMNS, NAME, Published, row


@pytest.fixture
def tree(tmp_path):
    return Published(tmp_path / "PodcastFillers").episode()


def test_a_whole_episode_is_read_to_the_microsecond(tree):
    dataset = open_dataset(tree.root)
    assert dataset.layout == "podcastfillers"
    assert any("--whose any" in note for note in dataset.notes)
    recording = tree.only
    assert recording.name == NAME
    assert recording.id == recording_id(NAME)
    assert recording.group == 'Dr. Who, "live"'
    assert recording.problem is None
    assert recording.notes == ()
    assert recording.tracks == {}
    assert recording.mix == AudioFile(tree.root / f"audio/episode_wav/train/{NAME}.wav")
    assert recording.speakers == ()
    assert recording.has_words
    assert not recording.has_segments
    assert not recording.has_event_speakers
    assert recording.annotations() == Annotations(
        recording=NAME,
        duration_us=3_000_000,
        speakers=(),
        events=(Event(1_000_000, 1_500_000, "Laughter", "Laughter", None, 0.75),),
        words=(Word(100_000, 300_000, "so", None),),
    )


def test_without_its_own_table_the_table_of_all_has_the_events(tree):
    tree.own([]).unlink()
    tree.table([row(2.0, 2.25), row(name="other_1", split="test"), row(1.0, 1.25)])
    recording = open_dataset(tree.root).recordings[0]
    assert recording.problem is None
    expected = [(2_000_000, 2_250_000), (1_000_000, 1_250_000)]
    assert [(item.start_us, item.end_us) for item in recording.events()] == expected


def test_an_episode_of_the_table_of_all_without_sound_is_seen_as_a_gap(tree):
    tree.table([row(), row(name="lost, Ep. 2", split="test")])
    lost = open_dataset(tree.root).recordings[1]
    assert (lost.name, lost.split) == ("lost, Ep. 2", "test")
    assert "no sound in audio/episode_wav/test or audio/episode_mp3" in str(lost.problem)
    assert len(lost.events()) == 1


@pytest.mark.parametrize("folder", ["", "metadata", "Meta_Data"])
def test_the_table_of_all_is_found_where_it_is_usually_put(tree, folder):
    tree.own([]).unlink()
    table = tree.table([row()], folder=folder)
    table.rename(table.parent / "podcastfillers.CSV")
    assert len(tree.only.events()) == 1


def test_two_tables_of_all_are_one_when_they_are_equal_and_refused_when_not(tree):
    tree.table([row()])
    tree.table([row()], folder="")
    assert tree.only.problem is None
    tree.table([row(), row()], folder="")
    with pytest.raises(ConfigError, match="differ; keep the right one"):
        open_dataset(tree.root)


def test_folders_are_found_whatever_their_case_and_under_meta_data(tree):
    (tree.root / "metadata").rename(tree.root / "META_data")
    (tree.root / "META_data/episode_annotations").rename(
        tree.root / "META_data/Episode_Annotations"
    )
    (tree.root / "audio").rename(tree.root / "Audio")
    (tree.root / "Audio/episode_wav").rename(tree.root / "Audio/Episode_WAV")
    assert tree.only.problem is None
    assert tree.only.notes == ()


def test_the_wav_is_used_where_there_is_an_mp3_too(tree):
    for split in ("train", "."):
        mp3 = tree.sound(folder="episode_mp3", split=split, suffix=".mp3")
        assert tree.only.mix.path.suffix == ".wav"
        mp3.unlink()


def test_an_mp3_in_no_split_is_in_that_of_the_table(tree):
    (tree.root / f"audio/episode_wav/train/{NAME}.wav").unlink()
    mp3 = tree.sound(folder="episode_mp3", split=".", suffix=".MP3")
    assert (tree.only.mix, tree.only.split) == (AudioFile(mp3), "train")
    for kind in ("annotations", "transcripts"):
        for path in (tree.root / f"metadata/episode_{kind}/train").iterdir():
            path.unlink()
    tree.table([row(split="validation")])
    assert (tree.only.split, tree.only.problem) == ("validation", None)
    tree.table([row(split="")])
    assert tree.only.split == "unknown"
    assert "nothing tells its split" in tree.only.problem
    tree.table([row(split="../x")])
    assert "cannot be a split" in tree.only.problem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.table([row(split="test")]), "in split train by .* and in test by PodcastF"),
        (lambda t: t.table([row(), row(split="test")]), "and in test by PodcastFillers.csv"),
        (
            lambda t: t.transcript().rename(t.transcript(split="test")),
            "in split train by .* and in test by .*transcripts",
        ),
        (lambda t: t.own([row(split="test")]), "says split test, its folder train"),
        (lambda t: t.transcript(split="test"), "in split train by .* and in test by"),
        (lambda t: t.sound(split="test"), "are of one recording; keep one"),
        (lambda t: t.sound(suffix=".flac"), "are of one recording; keep one"),
        (
            lambda t: t.sound(split="test", folder="episode_mp3", suffix=".mp3"),
            "are of one recording in two splits",
        ),
        (lambda t: t.own([row()], split="test"), "in split train by .* and in test by"),
        (lambda t: t.own([]).unlink(), "no file episode_annotations/train/.*every frame would"),
        (lambda t: t.own([]).write_text(""), "no column event_start_inepisode"),
        (lambda t: t.own([row(name="x")]), r"line 2: is of episode 'x'; the table is of 'Dr\."),
        (lambda t: (t.own([]), t.table([row()])), "holds no events, PodcastFillers.csv has 1"),
        (
            lambda t: (t.own([]).unlink(), t.table([row(event_start_inepisode="soon")])),
            "line 2: event_start_inepisode is no number",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line_that_names_the_recording(tree, change, said):
    change(tree)
    problem = str(tree.only.problem)
    assert re.search(said, problem), problem
    assert NAME in problem
    assert "\n" not in problem


def test_other_recordings_stand_beside_one_with_a_problem(tree):
    tree.episode("other_2", "test")
    tree.own([]).unlink()
    problems = [recording.problem for recording in open_dataset(tree.root).recordings]
    assert problems[0] is not None
    assert problems[1] is None


def test_a_bad_row_is_a_fault_of_its_episode_alone(tree):
    tree.own([]).unlink()
    tree.sound("other_1")
    tree.table([row(), row(name="other_1", confidence=2), row(end=1.75)])
    good, bad = open_dataset(tree.root).recordings
    assert len(good.events()) == 2
    assert "line 3: confidence is not between 0 and 1 ('2')" in str(bad.problem)
    with pytest.raises(BadRecording, match="line 3"):
        bad.annotations()


@pytest.mark.parametrize("ending", ['a,"b\n', "1,2,3\n", '"a"b,c\n'])
def test_a_broken_table_of_all_stops_only_those_who_need_it(tree, ending):
    tree.sound("needs_it")
    table = tree.table([row(), row(name="needs_it")])
    table.write_text(table.read_text() + ending)
    dataset = open_dataset(tree.root)
    own, needs = dataset.recordings
    assert own.problem is None
    assert f"{table}, line 4" in str(needs.problem)
    assert any(f"{table}, line 4" in note for note in dataset.notes)
    table.write_text("a,b\n")
    assert "no column podcast_filename nor event_start" in open_dataset(tree.root).notes[-1]


def test_another_number_of_events_in_the_table_of_all_is_noted(tree):
    tree.table([row(), row(2.0, 2.5)])
    assert tree.only.notes == ("its own table has 1 events, PodcastFillers.csv 2; its own is used",)
    assert len(tree.only.events()) == 1


def test_rows_of_nobody_are_counted(tree):
    tree.table([row(), row(name=""), row(name=" ")])
    assert any("2 rows name no episode" in note for note in open_dataset(tree.root).notes)


def test_an_own_table_without_events_is_an_episode_without_events(tree):
    tree.own([])
    assert tree.only.problem is None
    assert tree.only.events() == ()


@pytest.mark.parametrize("nothing", ["", "NaN", "nan", "None", " "])
def test_empty_nan_and_none_all_mean_nothing(tree, nothing, caplog):
    tree.own(
        [
            row(label_consolidated_vocab=nothing, confidence=nothing, pitch_cent=nothing),
            row(start=nothing),
            row(end=nothing, label_full_vocab=nothing),
        ]
    )
    with caplog.at_level(logging.WARNING, logger="extract"):
        assert tree.only.events() == (Event(1_000_000, 1_500_000, "", "Laughter", None, 1.0),)
    assert "2 events dropped" in caplog.text


def test_a_table_of_the_columns_that_are_read_is_enough(tree):
    tree.own([row()], columns=["event_end_inepisode", "label_consolidated_vocab", *COLUMNS[5:6]])
    assert tree.only.events() == (Event(1_000_000, 1_500_000, "Laughter", "", None, 1.0),)


def test_one_name_in_two_unicode_forms_is_one_recording(tmp_path):
    tree = Published(tmp_path)
    name = "Café_1"
    tree.sound(unicodedata.normalize("NFD", name))
    tree.own([row(name=unicodedata.normalize("NFD", name))], name)
    tree.table([row(name=name)])
    assert tree.only.name == name
    assert tree.only.problem is None
    tree.sound(name)
    assert "are of one recording; keep one of them" in str(tree.only.problem)


def test_hidden_files_are_not_episodes(tree):
    for folder in ("audio/episode_wav/train", "metadata/episode_annotations/train"):
        (tree.root / folder / f"._{NAME}.wav").write_text("junk")
        (tree.root / folder / f"._{NAME}.csv").write_text("junk")
    assert tree.only.name == NAME


def test_annotations_without_audio_end_with_the_last_of_them(tree):
    tree.own([row(1.0, 5.0), row(2.0, 3.0)])
    for folder in sorted((tree.root / "audio").rglob("*"), reverse=True):
        folder.unlink() if folder.is_file() else folder.rmdir()
    with pytest.raises(ConfigError, match="annotations of layout podcastfillers and no audio"):
        open_dataset(tree.root)
    (recording,) = open_dataset(tree.root, needs_audio=False).recordings
    assert recording.annotations().duration_us == 5_000_000


def test_a_file_in_both_metadata_folders_may_be_there_twice_and_must_be_the_same(tree):
    twin = tree.root / "meta_data/episode_transcripts/train" / f"{NAME}.json"
    twin.parent.mkdir(parents=True)
    twin.write_bytes(tree.transcript().read_bytes())
    assert tree.only.problem is None
    twin.write_text("{}")
    assert "are of one recording and differ" in str(tree.only.problem)
    with pytest.raises(BadRecording):
        tree.only.events()


def test_a_folder_of_annotations_that_cannot_be_a_split_is_passed_over_and_told(tree):
    tree.own([row()], split="old ones")
    tree.transcript(split="x.y")
    dataset = open_dataset(tree.root)
    assert [item.problem for item in dataset.recordings] == [None]
    assert sum("cannot be splits" in note for note in dataset.notes) == 2


def test_missing_transcripts_are_noted(tree):
    tree.transcript().unlink()
    recording = tree.only
    assert recording.problem is None
    assert recording.transcript is None
    assert recording.notes[0].startswith("no transcript")
    assert recording.annotations().words is None


def test_sound_and_events_whose_names_differ_in_punctuation_are_told(tmp_path):
    tree = Published(tmp_path)
    tree.sound("Who_ When__1")
    tree.sound("other")
    tree.table([row(name="Who? When?_1"), row(name="another")])
    dataset = open_dataset(tmp_path)
    assert len(dataset.recordings) == 4
    assert all(recording.problem for recording in dataset.recordings)
    (note,) = [note for note in dataset.notes if "if they are one episode" in note]
    assert note.startswith("'Who_ When__1' has sound and no events, 'Who? When?_1' events")
