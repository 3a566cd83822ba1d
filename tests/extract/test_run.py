"""A build of a finished store only looks, and gives back what was lost."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from extract import run
from extract.config import BuildConfig
from extract.survey import settle, survey
from laughstore import layout, open_shards
from laughstore.errors import ConfigError, CorruptData
from laughstore.evolution.annotate import annotate
from laughstore.manifest import read_manifest
from laughstore.progress import NoProgress
from tests.store.evolutions import revise, write_first

from .manifests import Corpus, line, small


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
