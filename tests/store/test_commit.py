"""What a commit leaves, and what a later run gives back: nothing that is damaged is copied."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from laughstore import layout, open_shards, open_store, sealed
from laughstore.columns import Columns, encode_columns
from laughstore.commit import commit_annotations, refresh_copies, restore_names
from laughstore.errors import CorruptData, IncompleteStore, LaughstoreError
from laughstore.folders import LocalFolder
from laughstore.manifest import FileRecord, read_manifest
from laughstore.sealed import seal, unseal
from laughstore.unit import read_unit
from tests.stores import Episode, laugh, random_features, write_store

from .whole_store import (
    LEFT_OUT,
    copy_store,
    file_of_kind,
    names_of_tar,
    other_content,
    write_whole_store,
)

INDEX = "shards/index-000003.json"
CURRENT = "shards/index.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests must not change."""
    return write_whole_store(tmp_path_factory.mktemp("commit") / "store")


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A store that the test may damage."""
    return copy_store(sound, tmp_path / "store")


def test_a_damaged_index_never_replaces_the_good_copy(store):
    good = (store / CURRENT).read_bytes()
    damaged = bytearray(good)
    damaged[50] ^= 1
    (store / INDEX).write_bytes(damaged)
    manifest = read_manifest(store)
    for run in (refresh_copies, restore_names):
        with pytest.raises(CorruptData, match=r"seal says.*shards/index.json is intact: copy it"):
            run(store, manifest)
        assert (store / CURRENT).read_bytes() == good
    # Neither does a sound one of another generation.
    (store / INDEX).write_bytes((store / "shards/index-000001.json").read_bytes())
    with pytest.raises(CorruptData, match=r"not the index that store.json names.*is intact"):
        refresh_copies(store, manifest)
    assert (store / CURRENT).read_bytes() == good
    (store / INDEX).unlink()
    with pytest.raises(CorruptData, match=r"does not exist.*is intact"):
        refresh_copies(store, manifest)
    (store / INDEX).write_bytes(good)
    assert refresh_copies(store, manifest) == 0


def test_without_a_good_copy_the_error_does_not_promise_one(store):
    for path in (INDEX, CURRENT):
        (store / path).write_bytes(b"{}")
    with pytest.raises(CorruptData, match="no seal") as caught:
        refresh_copies(store, read_manifest(store))
    assert "intact" not in str(caught.value)
    assert (store / CURRENT).read_bytes() == b"{}"


@pytest.mark.parametrize("path", [INDEX, "shards"])
def test_nothing_behind_a_link_is_published(store, tmp_path, path):
    (store / path).rename(tmp_path / "elsewhere")
    (store / path).symlink_to(tmp_path / "elsewhere")
    (store / CURRENT).unlink()
    with pytest.raises(CorruptData, match="symbolic link"):
        refresh_copies(store, read_manifest(store))
    assert not (store / CURRENT).exists()


def test_a_link_in_the_place_of_the_copy_is_replaced_and_not_followed(store, tmp_path):
    good, canary = (store / CURRENT).read_bytes(), tmp_path / "canary"
    canary.write_text("alive")
    (store / CURRENT).unlink()
    (store / CURRENT).symlink_to(canary)
    assert refresh_copies(store, read_manifest(store)) == 1
    assert canary.read_text() == "alive"
    assert not (store / CURRENT).is_symlink()
    assert (store / CURRENT).read_bytes() == good


def test_a_killed_commits_list_of_what_is_left_out_is_written_by_the_next_run(store):
    path, manifest = store / layout.QUARANTINE_JSON, read_manifest(store)
    whole = path.read_bytes()
    path.unlink()
    assert restore_names(store, manifest) == 1
    assert path.read_bytes() == whole
    assert refresh_copies(store, manifest) == 0
    nothing = replace(manifest, quarantined=())
    assert [refresh_copies(store, nothing) for _ in range(2)] == [1, 0]
    assert not path.exists()
    assert LEFT_OUT["name"] in whole.decode()


def test_a_lost_name_is_given_back_only_from_the_right_bytes(store):
    tar, chunk = names_of_tar(store)
    manifest = read_manifest(store)
    (store / tar).unlink()
    data = bytearray((store / chunk).read_bytes())
    data[5000] ^= 1
    with (
        other_content(store / chunk, bytes(data)),
        pytest.raises(CorruptData, match="sha256 is not what"),
    ):
        restore_names(store, manifest)
    assert not (store / tar).exists()
    assert restore_names(store, manifest) == 1
    assert (store / tar).stat().st_ino == (store / chunk).stat().st_ino
    (store / tar).unlink()
    (store / chunk).unlink()
    with pytest.raises(IncompleteStore, match="is missing"):
        restore_names(store, manifest)


@pytest.mark.parametrize("kind", ["shard", "codes", "columns", "annotations"])
def test_a_cut_file_of_a_finished_store_is_told(store, kind):
    path = store / file_of_kind(store, kind)
    manifest = read_manifest(store)
    assert restore_names(store, manifest) == 0
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CorruptData, match=rf"{path.name} has \d+ bytes, \d+ were written"):
        restore_names(store, manifest)


def test_no_name_is_given_back_through_a_linked_folder(store, tmp_path):
    _, chunk = names_of_tar(store)
    (store / chunk).unlink()
    folder = (store / chunk).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    with pytest.raises(CorruptData, match="symbolic link"):
        restore_names(store, read_manifest(store))
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == before


def test_a_unit_that_is_not_what_the_manifest_names_names_no_files(store):
    """Sealed and sound in itself, with other sizes of the same files."""
    name = file_of_kind(store, "unit")
    content, _ = unseal((store / name).read_bytes(), where=name)
    content["files"][0]["sha256"] = "0" * 64
    assert len(seal(content)) == (store / name).stat().st_size
    (store / name).write_bytes(seal(content))
    assert read_unit(store, Path(name).stem) is not None
    with pytest.raises(CorruptData, match=r"not what .*store.json says"):
        list(read_manifest(store).all_files(LocalFolder(store)))


def test_what_no_reader_would_take_is_not_published(tmp_path, monkeypatch):
    store = tmp_path / "store"
    episode = Episode("a", num_frames=40, events=[laugh(0, 1)], speakers=("A",))
    write_store(store, [episode], random_features(8), dim=8, block_frames=32, shard_frames=64)
    recording = open_store(store).recordings[0].id
    before = (store / layout.STORE_JSON).read_bytes()
    many = replace(episode.annotations, events=[laugh(i / 10, i / 10 + 0.1) for i in range(9)])
    monkeypatch.setattr(sealed, "MAX_BYTES", (store / layout.index(1)).stat().st_size)
    with pytest.raises(LaughstoreError, match=r"readers take .* fewer recordings"):
        commit_annotations(store, {recording: many})  # the names of its columns are longer
    monkeypatch.undo()
    monkeypatch.setattr("laughstore.columns.MAX_BYTES", 200)
    with pytest.raises(LaughstoreError, match=r"index-000002.columns: .* fewer recordings"):
        commit_annotations(store, {recording: many})
    monkeypatch.undo()
    monkeypatch.setattr("laughstore.annotations.MAX_BYTES", 200)
    with pytest.raises(LaughstoreError, match="bytes of annotations"):
        commit_annotations(store, {recording: many})
    monkeypatch.undo()
    assert (store / layout.STORE_JSON).read_bytes() == before
    assert open_shards(store / layout.SHARDS).generation == 1
    assert commit_annotations(store, {recording: many}).generation == 2
    assert open_shards(store / layout.SHARDS).generation == 2


def test_sealed_json_of_the_largest_size_is_written_and_read(tmp_path, monkeypatch):
    data = seal({"a": "x" * 100})
    (tmp_path / "a.json").write_bytes(data)
    monkeypatch.setattr(sealed, "MAX_BYTES", len(data))
    assert sealed.read_sealed(LocalFolder(tmp_path), "a.json")[0] == {"a": "x" * 100}
    assert seal({"a": "x" * 100}) == data
    with pytest.raises(LaughstoreError, match="readers take"):
        seal({"a": "x" * 101})


def test_columns_with_a_gap_are_refused(tmp_path):
    name = "index-000001.columns"
    arrays = {"a": np.arange(3, dtype=np.int64), "b": np.arange(4, dtype=np.int64)}
    data, header = encode_columns(name, arrays)
    (tmp_path / name).write_bytes(data)
    folder = LocalFolder(tmp_path)
    read = Columns(folder, header, where="index").read(["a", "b"])
    assert {key: value.tolist() for key, value in read.items()} == {
        "a": [0, 1, 2],
        "b": [0, 1, 2, 3],
    }
    directory = header["arrays"]
    assert isinstance(directory, dict)
    # Eight bytes that no column owns could hold anything, in the middle or at the end.
    gap = data[:24] + bytes(8) + data[24:]
    (tmp_path / name).write_bytes(gap)
    moved = directory | {"b": directory["b"] | {"offset": 32}}
    facts = {"num_bytes": len(gap), "sha256": FileRecord.of(tmp_path, name).sha256}
    # Together as long as the file: one lies over another, and eight bytes are still nobody's.
    crc = f"{crc32c(bytes(8)):08x}"
    over = moved | {"c": {"dtype": "<i8", "offset": 0, "count": 1, "crc32c": crc}}
    for arrays_json in (moved, directory, over):
        with pytest.raises(CorruptData, match=r"leave gaps|columns end at"):
            Columns(folder, header | facts | {"arrays": arrays_json}, where="index")
