"""A build of a finished store only looks, and gives back what was lost."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from extract import run
from extract.addition import add
from extract.config import AddConfig, BuildConfig
from extract.datasets import EVENTS
from extract.reasons import reason_of
from extract.survey import settle, survey
from laughstore import layout, open_shards
from laughstore.errors import BadRecording, ConfigError, CorruptData
from laughstore.evolution.annotate import annotate
from laughstore.manifest import read_manifest
from laughstore.progress import NoProgress
from laughstore.sealed import seal
from laughstore.sharing import Worker
from tests.store.evolutions import revise, write_first

from .manifests import Corpus, line, small
from .trees import NAME, Tree, silence


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_first(tmp_path / "store")


def test_a_generation_published_meanwhile_keeps_its_current_index(store, monkeypatch):
    """Another process annotates when this one has read the manifest."""
    restore_names, pids = run.restore_names, []
    reader, writer = os.pipe()

    class Told(NoProgress):
        def message(self, text: str) -> None:
            os.write(writer, b"waits")

    def overtaken(*arguments):
        pids.append(os.fork())
        if not pids[0]:
            signal.alarm(60)
            with suppress(BaseException):
                annotate(store, ["one"], revise, progress=Told())
                os.write(writer, b"done")
                os._exit(0)
            os._exit(1)
        os.close(writer)
        assert os.read(reader, 5) in (b"waits", b"done")
        return restore_names(*arguments)

    monkeypatch.setattr(run, "restore_names", overtaken)
    config = BuildConfig(dataset=store, store=store)
    assert run.check_finished(config.store, NoProgress()) == ()
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    assert read_manifest(store).generation == 2
    assert open_shards(store / layout.SHARDS).generation == 2


def test_a_data_set_of_mixes_only_is_a_build_of_mixes_and_is_fed_no_text(tmp_path):
    corpus = Corpus(tmp_path).write(small("a"), small("b", words=[]))
    config = BuildConfig(corpus.path, tmp_path / "store")
    assert settle(config, survey(config)).speakers == "mix"
    config = BuildConfig(corpus.path, tmp_path / "store", text="causal")
    with pytest.raises(ConfigError, match="no main speaker whose words could be fed"):
        settle(config, survey(config))


def test_a_mix_among_others_is_fed_no_text_and_it_is_said(tmp_path):
    two = [{"name": "Ann", "audio": "ann.wav"}, {"name": "Bo", "audio": "both.wav"}]
    words = [{"start_s": 0.1, "end_s": 0.3, "text": "so"}]
    mix = small("mix", words=words)
    corpus = Corpus(tmp_path).write(line(speakers=two, intervals=[]), mix)
    config = BuildConfig(corpus.path, tmp_path / "store", text="causal")
    found = survey(config)
    assert settle(config, found) is config
    told = [note for note in found.notes if "is fed no text" in note]
    assert told == ["mix: the mix is fed no text (1 words are left out)"]
    without = survey(BuildConfig(corpus.path, tmp_path / "store"))
    assert not any("text" in note and "fed" in note for note in without.notes)


def test_a_cut_shard_ends_the_build_of_a_finished_store(store):
    config = BuildConfig(dataset=store, store=store)
    assert run.check_finished(config.store, NoProgress()) == ()
    shard = sorted((store / "shards").glob("*.tar"))[0]
    shard.chmod(0o644)
    os.truncate(shard, 4096)
    with pytest.raises(CorruptData, match="has 4096 bytes"):
        run.check_finished(config.store, NoProgress())


def test_sound_that_is_replaced_while_the_build_runs_leaves_its_recording_out(tmp_path):
    """Its features would end with zeros, or be cut."""
    corpus = Corpus(tmp_path / "data").write(small("a"), small("b", audio="ann.wav"))

    def taken(recording):
        if recording.name == "a":
            silence(tmp_path / "data/mix.wav", 3.5)

    config = BuildConfig(corpus.path, tmp_path / "store", tap="logmel")
    (left_out,) = run.build(config, worker=Worker(taken=taken)).left_out
    assert left_out.name == "a"
    assert left_out.reason.startswith("mix.wav: lasts 3.500 s, and 4.000 s when it was looked at")
    assert [item.name for item in open_shards(tmp_path / "store/shards").recordings] == ["b"]


def test_a_track_may_be_no_other_even_where_the_longest_is_the_same(tmp_path):
    two = [{"name": "Ann", "audio": "ann.wav"}, {"name": "Bo", "audio": "mix.wav"}]
    corpus = Corpus(tmp_path).write(line(speakers=two, audio=None, intervals=[], words=None))
    (recording,) = survey(BuildConfig(corpus.path, tmp_path / "store")).recordings
    (pair,) = recording.roles.pairs
    for track in pair.open(recording.lengths):
        assert track is not None
        track.close()
    silence(tmp_path / "ann.wav", 1.0)
    with pytest.raises(BadRecording, match=r"ann\.wav: lasts 1\.000 s, and 3\.000 s"):
        pair.open(recording.lengths)


def test_a_store_of_logmel_frames_takes_more_recordings_without_a_model(tmp_path):
    corpus, store = Corpus(tmp_path / "data").write(small("a")), tmp_path / "store"
    run.build(BuildConfig(corpus.path, store, tap="logmel"))
    corpus.write(small("a"), small("b"))
    assert add(AddConfig(store, corpus.path)).num_added == 1


def test_annotations_that_no_reader_takes_leave_their_recording_out(tmp_path, monkeypatch):
    monkeypatch.setattr("laughstore.annotations.MAX_BYTES", 2000)
    words = [{"start_s": 0.1, "end_s": 0.3, "text": "o" * 2000}]
    corpus = Corpus(tmp_path).write(small("a"), small("b", words=words))
    found = survey(BuildConfig(corpus.path, tmp_path / "store"))
    assert [item.source.name for item in found.recordings] == ["a"]
    assert "bytes of annotations, readers take" in found.skipped[0].reason


def test_reasons_are_the_same_of_two_copies_of_a_data_set(tmp_path, monkeypatch):
    lines = small("a", audio="gone.wav"), small("b", events="b/gone.json"), small("c", audio=None)
    manifests, trees = [], []
    for folder in (tmp_path / "one", tmp_path / "two/data"):
        corpus = Corpus(folder).write(*lines)
        tree = Tree(folder / "tree").episode()
        tree.write(EVENTS, "{")
        monkeypatch.chdir(folder)
        for dataset in (corpus.path, folder, Path("manifest.jsonl"), tree.root, Path("tree")):
            skipped = survey(BuildConfig(dataset, folder / "store")).skipped
            (trees if dataset.name == "tree" else manifests).append(skipped)
    assert manifests == 6 * manifests[:1]
    assert trees == 4 * trees[:1]
    assert [item.reason.split(":")[0] for item in manifests[0] + trees[0]] == [
        "gone.wav",
        "b/gone.json",
        "manifest.jsonl, line 3",
        f"metadata/{EVENTS}/train/{NAME}.json",
    ]
    assert str(tmp_path) not in str((manifests, trees))


def test_reasons_from_a_folder_whose_name_is_no_utf_8_can_be_written_down(tmp_path):
    Corpus(tmp_path / "data").write(
        small("a"), small("b", audio="gone.wav"), small("c", audio=None)
    )
    folder = (tmp_path / "data").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    found = survey(BuildConfig(folder / "manifest.jsonl", tmp_path / "store"))
    said = [item.reason for item in found.skipped]
    assert seal({"said": said})
    assert [text.split(":")[0] for text in said] == [
        "mix.wav",
        "gone.wav",
        "manifest.jsonl, line 3",
    ]


def test_paths_in_reasons_are_relative_to_the_data_wherever_they_stand(tmp_path):
    def said(text, *places):
        return reason_of(BadRecording(text), *places)

    root = tmp_path / "a"
    assert said(f"{root}/x.wav and {root}/y.wav differ ('{root}/z')", root) == (
        "x.wav and y.wav differ ('z')"
    )
    assert (
        said(f"x: not in {root}; add it, or {root}b/y", root)
        == f"x: not in .; add it, or {root}b/y"
    )
    assert said("a/x: and/or data/x, a", Path("a")) == "x: and/or data/x, a"
    assert said("x/y: is odd", Path()) == "x/y: is odd"
    assert said("caf\udce9: is odd", root) == "caf\\udce9: is odd"


def test_splits_that_differ_in_case_only_are_told_before_anything_is_built(tmp_path):
    corpus = Corpus(tmp_path).write(small("a", split="test"), small("b", split="Test"))
    config = BuildConfig(corpus.path, tmp_path / "store")
    with pytest.raises(ConfigError, match="differ in case only"):
        settle(config, survey(config))
