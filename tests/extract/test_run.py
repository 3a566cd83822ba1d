"""A build of a finished store only looks, and gives back what was lost."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from extract import run
from extract.config import BuildConfig
from laughstore import layout, open_shards
from laughstore.errors import CorruptData
from laughstore.evolution.annotate import annotate
from laughstore.manifest import read_manifest
from laughstore.progress import NoProgress
from tests.store.evolutions import revise, write_first


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
    assert run._check_finished(config, NoProgress()) == ()
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    assert read_manifest(store).generation == 2
    assert open_shards(store / layout.SHARDS).generation == 2


def test_a_cut_shard_ends_the_build_of_a_finished_store(store):
    config = BuildConfig(dataset=store, store=store)
    assert run._check_finished(config, NoProgress()) == ()
    shard = sorted((store / "shards").glob("*.tar"))[0]
    shard.chmod(0o644)
    os.truncate(shard, 4096)
    with pytest.raises(CorruptData, match="has 4096 bytes"):
        run._check_finished(config, NoProgress())
