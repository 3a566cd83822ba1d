import shutil
import subprocess
import sys

import pytest

from extract.datasets import is_dataset, open_dataset
from extract.sound.tracks import AudioFile
from laughstore.errors import ConfigError, NotFound

from .trees import Published, Tree, row


def manifest(folder):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.jsonl"
    path.write_text('{"name": "a", "split": "train", "events": []}\n')
    return path


def test_a_missing_folder_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no such folder or file"):
        open_dataset(tmp_path / "none")
    assert not is_dataset(tmp_path / "none")


EXPECTED = r"expected audio/episode_wav_dial/<split>/<episode>/<SPEAKER>\.wav or audio/episode_wav"


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], EXPECTED + ".* found nothing$"),
        (["audio/clip_wav/train/", "x"], r"found audio/clip_wav, x$"),
        (["a", "b", "c", "d", "e", "f"], r"found a, b, c, d, e, \.\.\.$"),
        (["audio/episode_wav_dial/train/"], "found audio/episode_wav_dial$"),
        (["audio/episode_wav/train/"], "found audio/episode_wav$"),
        (["Pod/audio/episode_wav_dial/"], r"no data set here, but in Pod/; give .*Pod$"),
        (["Pod/metadata/episode_annotations/", "a"], r"but in Pod/; give .*Pod$"),
        (["PodcastFillers.zip", "a"], r"holds PodcastFillers\.zip, a part of an archive; join"),
        (["PodcastFillers.z01"], r"holds PodcastFillers\.z01, a part of an archive; join"),
    ],
)
def test_a_folder_without_a_layout_is_told_what_was_expected_and_found(tmp_path, paths, said):
    for path in paths:
        folder = tmp_path / path
        (folder if path.endswith("/") else folder.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            folder.write_text("")
    with pytest.raises(ConfigError, match=said):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PodcastFillers.zip", "is a part of an archive; join and unpack it"),
        ("PodcastFillers.Z03", "is a part of an archive; join and unpack it"),
        ("PodcastFillers.csv", r"is no manifest \(\*\.jsonl\) and no folder; give the folder"),
    ],
)
def test_a_file_that_is_no_manifest_is_told_what_to_do(tmp_path, name, said):
    (tmp_path / name).write_text("")
    assert not is_dataset(tmp_path / name)
    with pytest.raises(ConfigError, match=said):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize("part", ["audio", "metadata"])
def test_a_part_of_a_data_set_is_told_of_the_whole(tmp_path, part, monkeypatch):
    Tree(tmp_path).episode()
    with pytest.raises(ConfigError, match="is a part of a data set; give "):
        open_dataset(tmp_path / part)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"give {tmp_path}$"):
        open_dataset((tmp_path / part).relative_to(tmp_path))


def test_tracks_go_before_a_manifest_before_mixes_and_it_is_said(tmp_path):
    Published(tmp_path).episode("show_1")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "podcastfillers"
    assert not any("too (--layout)" in note for note in dataset.notes)

    manifest(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "manifest"
    assert "read as layout manifest; it has podcastfillers, too (--layout)" in dataset.notes[0]

    Tree(tmp_path).episode("show_2")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "per-speaker"
    assert "it has manifest and podcastfillers, too (--layout)" in dataset.notes[0]
    names = {
        layout: [recording.name for recording in open_dataset(tmp_path, layout).recordings]
        for layout in ("per-speaker", "manifest", "podcastfillers")
    }
    # Both trees have their transcripts in one place.
    both = ["show_1", "show_2"]
    assert names == {"per-speaker": both, "manifest": ["a"], "podcastfillers": both}


@pytest.mark.parametrize("layout", ["per-speaker", "manifest", "podcastfillers"])
def test_a_layout_that_is_not_there_is_told_with_what_was_expected(tmp_path, layout):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match=rf"expected .* \(layout {layout}\), found x$"):
        open_dataset(tmp_path, layout)


def test_the_table_of_all_beside_tracks_is_no_other_layout_to_build_from(tmp_path):
    Tree(tmp_path).episode()
    Published(tmp_path).table([row()])
    assert open_dataset(tmp_path).notes == ()


def test_metadata_alone_is_enough_where_no_audio_is_needed(tmp_path):
    Tree(tmp_path).episode()
    shutil.rmtree(tmp_path / "audio")
    assert is_dataset(tmp_path)
    with pytest.raises(ConfigError, match="annotations of layout per-speaker and no audio"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, needs_audio=False)
    assert dataset.layout == "per-speaker"
    assert dataset.recordings[0].annotations().events


def test_events_with_speakers_beside_mixes_are_per_speaker_only_when_asked_for(tmp_path):
    tree = Tree(tmp_path).episode()
    shutil.rmtree(tmp_path / "audio")
    mix = tree.mix()
    Published(tmp_path).own([row()])
    for needs_audio in (True, False):
        assert open_dataset(tmp_path, needs_audio=needs_audio).layout == "podcastfillers"
    (recording,) = open_dataset(tmp_path, "per-speaker").recordings
    assert recording.problem is None
    assert recording.mix == AudioFile(mix)
    assert [speaker.name for speaker in recording.speakers] == ["SPEAKER_01", "SPEAKER_00"]


def test_two_folders_of_one_name_are_refused(tmp_path):
    tree = Tree(tmp_path).episode()
    (tmp_path / "Audio").mkdir()
    if len(list(tmp_path.iterdir())) == 2:
        pytest.skip("names of any case are one here")
    with pytest.raises(ConfigError, match="holds Audio and audio, which is one folder here"):
        open_dataset(tree.root)


def test_looking_at_a_data_set_loads_no_torch():
    code = "import sys, extract.datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
