"""An export is a store of its own: complete, the same features, and nothing more than asked for."""

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore import layout, open_rows, open_shards, open_store
from laughstore.annotations import Annotations, Interval, Segment, Word
from laughstore.codec import Codec
from laughstore.commit import commit_annotations
from laughstore.errors import ConfigError, CorruptData, LaughstoreError, NotFound
from laughstore.evolution.export import export
from laughstore.evolution.gc import collect_garbage
from laughstore.files import sha256_file
from laughstore.locks import StoreLocks
from laughstore.naming import recording_id
from laughstore.progress import NoProgress
from laughstore.unit import read_unit
from tests.store.evolutions import (
    BLOCK,
    DIM,
    FEATURES,
    FIRST,
    SHARD,
    add_more,
    annotate_one,
    copy_store,
    write_first,
)
from tests.stores import write_store


def tree(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != layout.LOCK
    }


def check_whole(store: Path) -> None:
    """Every name is named, every name has its bytes, everything opens."""
    opened = open_store(store)
    expected: dict[str, str] = {}
    for item in opened.manifest.all_files(opened.folder):
        expected[item.path] = item.sha256
        assert (store / item.path).stat().st_size == item.num_bytes
        if item.also is not None:
            expected[item.also] = item.sha256
    found = tree(store)
    assert found.pop(layout.STORE_JSON) == found.pop(layout.generation(1))
    assert found.pop(layout.CURRENT_INDEX) == found[layout.index(1)]
    assert found == expected
    for recording in opened.recordings:
        opened.annotations(recording.id)
        for stream in recording.streams:
            opened.frames(recording.id, stream.assignment)
            codes = np.asarray(opened.codes(recording.id, stream.assignment)[:])
            assert codes.shape == (stream.num_frames, 17)
    assert collect_garbage(store).removed == ()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = write_first(tmp_path_factory.mktemp("written") / "store")
    annotate_one(store)
    add_more(store)
    return store


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    return copy_store(written, tmp_path / "store")


def test_an_export_of_a_whole_store_is_that_store(tmp_path):
    store = write_first(tmp_path / "store")
    result = export(open_store(store), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(store)
    assert result.num_copied == 0
    for name in (
        "shards/train-000000.tar",
        f"codes.zarr/validation/{recording_id('two')}/zarr.json",
    ):
        assert (store / name).samefile(tmp_path / "out" / name)


@pytest.mark.parametrize("copy", [False, True])
def test_a_part_has_its_own_numbers_and_the_newest_annotations(store, tmp_path, copy):
    out = tmp_path / "out"
    old = open_store(store)
    result = export(old, out, split="train", copy=copy)
    check_whole(out)
    new = open_store(out)
    assert [item.name for item in new.recordings] == ["one", "three"]
    assert new.manifest.generation == 1
    assert [shard.number for shard in new.index.shards] == [0, 1, 2, 3, 4, 5]
    assert (result.num_recordings, result.num_shards) == (2, 6)
    assert result.num_shard_bytes == new.index.shard_bytes.sum()
    for name in ("one", "three"):
        assert new.annotations(name) == old.annotations(name)
        for stream in new.index.recording(name).streams:
            ours, theirs = (item.frames(name, stream.assignment) for item in (new, old))
            np.testing.assert_array_equal(ours.view(np.uint16), theirs.view(np.uint16))
    assert (result.num_linked == 0, result.num_copied == 0) == (copy, not copy)
    inodes = {path.stat().st_ino for path in store.rglob("*") if path.is_file()}
    linked = [p for p in out.rglob("*") if p.is_file() and p.stat().st_ino in inodes]
    assert bool(linked) is not copy
    # The two names of a shard are one file in both ways, and as safe from being written.
    for item in new.manifest.all_files(new.folder):
        if item.also is not None:
            assert (out / item.path).samefile(out / item.also)
            assert (out / item.path).stat().st_mode & 0o777 == 0o444
    with open_rows(open_shards(out / layout.SHARDS), "train") as rows:
        assert rows.matrix.shape[1] == DIM


def test_a_file_system_without_links_and_modes_takes_a_store_and_an_export(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for name in ("link", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    store = write_first(tmp_path / "store")
    assert export(open_store(store), tmp_path / "out").num_linked == 0
    check_whole(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(store)


def test_links_whose_answer_was_lost_are_links_and_the_store_stays_whole(
    store, tmp_path, monkeypatch
):
    make, before = os.link, tree(store)

    def asked_twice(*names: Path, **options: bool) -> None:
        make(*names, **options)
        make(*names, **options)

    monkeypatch.setattr(os, "link", asked_twice)
    assert export(open_store(store), tmp_path / "out").num_copied == 0
    assert tree(store) == before
    check_whole(tmp_path / "out")


def test_recordings_are_chosen_by_name_or_id(store, tmp_path):
    export(open_store(store), tmp_path / "a", recordings="t*")
    assert [item.name for item in open_store(tmp_path / "a").recordings] == ["two", "three"]
    export(open_store(store), tmp_path / "b", recordings=recording_id("four"))
    assert [item.name for item in open_store(tmp_path / "b").recordings] == ["four"]
    for split, pattern in (("dev", None), (None, "nobody"), ("test", "o*")):
        with pytest.raises(ConfigError, match=r"split|matches"):
            export(open_store(store), tmp_path / "c", split=split, recordings=pattern)
        assert not (tmp_path / "c").exists()


def test_the_old_store_may_go_and_the_new_one_stays(store, tmp_path):
    out = tmp_path / "out"
    export(open_store(store), out)
    before = tree(out)
    store.rename(tmp_path / "moved")
    check_whole(out)
    annotate_one(out)
    collect_garbage(out)
    assert open_store(out).manifest.generation == 2
    assert tree(out) != before
    # What was linked is as it was in the old store.
    assert open_store(tmp_path / "moved").frames("one").shape == (100, DIM)


def test_an_older_generation_can_be_exported(store, tmp_path):
    export(open_store(store, generation=1), tmp_path / "out")
    check_whole(tmp_path / "out")
    fresh = write_first(tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(fresh)


SECRETS = ("Giggle", "giggle-full", "Whispered", "Guest-77", "Wheeze")


def secret_annotations(old: Annotations) -> Annotations:
    """Annotations whose every word can be searched for."""
    event = replace(old.events[0], label="Giggle", full_label="giggle-full", speaker="Guest-77")
    return replace(
        old,
        events=(event, replace(event, label="Wheeze")),
        segments=(Segment(0, 123_456_789, "Guest-77"),),
        turns=(Segment(987_654_321, 987_654_999, "Guest-77"),),
        intervals=(Interval("Guest-77", 3_333_333, 2_222_222, 3_111_111),),
        words=(Word(1_212_121, 1_313_131, "Whispered", "Guest-77"),),
    )


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_without_annotations_no_byte_of_them_goes_along(tmp_path, codec: Codec):
    store, out = tmp_path / "store", tmp_path / "out"
    # As of the build: these stand in the tar members too.
    episodes = [replace(item, events=secret_annotations(item.annotations).events) for item in FIRST]
    write_store(
        store, episodes, FEATURES, dim=DIM, block_frames=BLOCK, shard_frames=SHARD, codec=codec
    )
    keys = [recording_id(item.name) for item in FIRST]
    old = open_store(store)
    commit_annotations(store, {key: secret_annotations(old.annotations(key)) for key in keys})
    old = open_store(store)
    all_bytes = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    times = [b"123456789", b"987654321", b"2222222", b"1212121", b'"total_us":4000000']
    searched = [word.encode() for word in SECRETS] + times
    assert all(item in all_bytes for item in searched), "the search would find them"
    export(old, out, with_annotations=False)
    check_whole(out)
    for path in out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [item for item in searched if item in data], path
            # Arrays of the index hold times as integers.
            for number in (123_456_789, 987_654_321, 2_222_222, 1_212_121):
                assert number.to_bytes(8, "little") not in data, path
    new = open_store(out)
    assert new.index.vocabulary.labels == ()
    for item in new.recordings:
        notes = new.annotations(item.id)
        assert (notes.events, notes.segments, notes.turns) == ((), (), None)
        assert (notes.intervals, notes.words) == (None, None)
        assert notes.duration_us == old.annotations(item.id).duration_us
    # The features are the same to the bit, in both files that know.
    np.testing.assert_array_equal(new.index.block_crc32c, old.index.block_crc32c)
    np.testing.assert_array_equal(new.index.block_bytes, old.index.block_bytes)
    for key in keys:
        for stream in new.index.recording(key).streams:
            ours, theirs = (item.frames(key, stream.assignment) for item in (new, old))
            np.testing.assert_array_equal(ours.view(np.uint16), theirs.view(np.uint16))
            ours, theirs = (item.codes(key, stream.assignment)[:] for item in (new, old))
            np.testing.assert_array_equal(ours, theirs)


def test_running_it_again_changes_nothing(store, tmp_path):
    out = tmp_path / "out"
    export(open_store(store), out, split="train")
    before = tree(out)
    (out / layout.CURRENT_INDEX).unlink()
    assert export(open_store(store), out, split="train").num_linked == 0
    assert tree(out) == before


def test_copies_are_forced_also_behind_links_of_an_earlier_run(store, tmp_path):
    out = tmp_path / "out"
    export(open_store(store), out, split="test")
    (out / layout.STORE_JSON).unlink()
    assert export(open_store(store), out, split="test", copy=True).num_copied > 0
    inodes = {path.stat().st_ino for path in store.rglob("*") if path.is_file()}
    assert not [p for p in out.rglob("*") if p.is_file() and p.stat().st_ino in inodes]
    check_whole(out)


def test_a_folder_that_is_something_else_is_refused(store, tmp_path):
    source = open_store(store)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no unfinished export; give another --out"):
        export(source, other)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    out = tmp_path / "out"
    export(source, out, split="train")
    before = tree(out)
    with pytest.raises(ConfigError, match="another store or export"):
        export(source, out, split="test")
    with pytest.raises(ConfigError, match="another store or export"):
        export(source, out, split="train", with_annotations=False)
    annotate_one(out)
    with pytest.raises(ConfigError, match="changed since"):
        export(source, out, split="train")
    assert {path: tree(out)[path] for path in before if "generations" in path}
    for inside in (store, store / "part", store.parent):
        with pytest.raises(ConfigError, match=r"lie in one another"):
            export(source, inside)


def test_two_exports_do_not_write_one_folder(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with StoreLocks(out) as locks, locks.exclusive():
            os.write(writer, b"x")
            time.sleep(60)
        os._exit(0)
    try:
        os.read(reader, 1)
        with pytest.raises(LaughstoreError, match="another process is writing"):
            export(open_store(store), out)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    export(open_store(store), out)
    check_whole(out)


class _Collecting(NoProgress):
    """Annotates and collects garbage, as another process, when the export is under way."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.said = ""

    def begin(self, task: str, total: int, unit: str) -> None:
        words = [sys.executable, "-m", "laughstore", "gc", str(self.store)]
        self.said = subprocess.run(words, check=False, capture_output=True, text=True).stderr


def test_garbage_is_not_collected_while_a_store_is_exported(store, tmp_path):
    source = open_store(store, generation=1)
    progress = _Collecting(store)
    export(source, tmp_path / "out", copy=True, progress=progress)
    assert "another process is writing or exporting it" in progress.said
    check_whole(tmp_path / "out")
    # Afterwards it may, and a generation that is gone leaves no folder behind.
    collect_garbage(store)
    with pytest.raises(NotFound, match="no generation 1"):
        export(source, tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_a_store_that_may_only_be_read_is_exported(store, tmp_path, monkeypatch):
    (store / layout.LOCK).unlink(missing_ok=True)
    source = open_store(store)
    opened = os.open

    def read_only(path, flags, *more, **settings):
        if Path(path) == store / layout.LOCK:
            raise PermissionError(errno.EACCES, "denied", str(path))
        return opened(path, flags, *more, **settings)

    monkeypatch.setattr(os, "open", read_only)
    export(source, tmp_path / "out")
    check_whole(tmp_path / "out")
    assert not (store / layout.LOCK).exists()


@pytest.mark.parametrize(
    ("how", "what"),
    [
        *((how, what) for how in ("copy", "bare") for what in ("shard", "codes", "unit", "gone")),
        # A link is the same bytes: `verify` reads them.
        ("link", "unit"),
        ("link", "gone"),
    ],
)
def test_altered_files_are_found_while_they_are_copied(store, tmp_path, how, what):
    unit = read_unit(store, recording_id("one"))
    assert unit is not None
    shard = store / next(item.path for item in unit.files if item.also is not None)
    codes = store / next(item.path for item in unit.files if item.path.startswith(layout.CODES))
    path = {"codes": codes, "unit": store / layout.unit(recording_id("one"))}.get(what, shard)
    if what == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        at = open_store(store).index.geometry.data_offset(0) + 5 if what == "shard" else 20
        data[at] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
    with pytest.raises(LaughstoreError) as error:
        export(
            open_store(store), tmp_path / "out", copy=how == "copy", with_annotations=how != "bare"
        )
    assert isinstance(error.value, CorruptData) or what == "gone"
    assert not (tmp_path / "out" / layout.STORE_JSON).exists()
    assert not (tmp_path / "out" / layout.unit(recording_id("one"))).exists()


def test_an_export_says_as_of_which_spec(store, tmp_path):
    export(open_store(store), tmp_path / "out", split="test")
    plan = json.loads((tmp_path / "out" / layout.FIRST_PLAN).read_bytes())
    first = json.loads((store / layout.FIRST_PLAN).read_bytes())
    assert (plan["spec"], plan["device_kind"]) == (first["spec"], first["device_kind"])
