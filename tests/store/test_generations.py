"""Other annotations make a new generation: features stay, the old generation stays."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore import layout, open_rows, open_shards, open_store
from laughstore.annotations import Annotations
from laughstore.commit import commit_annotations
from laughstore.errors import ConfigError, CorruptData, NotFound
from laughstore.evolution.annotate import Revised, annotate, merge_events
from laughstore.evolution.generations import kept_generations
from laughstore.files import sha256_file
from laughstore.manifest import read_manifest
from laughstore.naming import recording_id
from tests.store.evolutions import copy_store
from tests.stores import Episode, laugh, random_features, write_store

EPISODES = (
    Episode("one", num_frames=200, events=(laugh(1, 2), laugh(4, 5))),
    Episode("two", "validation", num_frames=150, events=(laugh(3, 4),)),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    return write_store(
        folder / "store", EPISODES, random_features(64), block_frames=32, shard_frames=64
    )


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    return copy_store(written, tmp_path / "store")


def features_of(store: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time and SHA-256 of every file that annotating must not touch."""
    found: dict[str, tuple[int, int, str]] = {}
    for pattern in ("features.zarr/**/*", "codes.zarr/**/*", "shards/*.tar", "units/*", "plans/*"):
        for path in store.glob(pattern):
            if path.is_file():
                status = path.stat()
                name = str(path.relative_to(store))
                found[name] = (status.st_ino, status.st_mtime_ns, sha256_file(path))
    return found


def add_laugh(start_s: float):
    def revise(name: str, old: Annotations) -> Revised:
        return Revised(replace(old, events=(*old.events, laugh(start_s, start_s + 1))))

    return revise


def test_a_new_generation_touches_no_feature_and_the_old_one_still_opens(store):
    before, old = features_of(store), open_store(store)
    result = annotate(store, ["one"], add_laugh(7))
    assert (result.generation, result.was_published) == (2, True)
    assert features_of(store) == before
    new, first = open_store(store), open_store(store, generation=1)
    assert [len(new.annotations(n).events) for n in ("one", "two")] == [3, 1]
    assert [len(first.annotations(n).events) for n in ("one", "two")] == [2, 1]
    assert first.index.index_id == old.index.index_id != new.index.index_id
    assert kept_generations(store) == (1, 2)
    # What a shards folder alone says is the newest.
    assert open_shards(store / layout.SHARDS).index_id == new.index.index_id
    assert new.index.recordings[1] == first.index.recordings[1]
    ours, theirs = (item.frames("one").view(np.uint16) for item in (first, new))
    np.testing.assert_array_equal(ours, theirs)


def test_what_changes_is_told_by_class(store):
    def revise(name: str, old: Annotations) -> Revised:
        events = (replace(old.events[0], label="Breath", full_label="Breath"), *old.events[1:])
        return Revised(replace(old, events=events, turns=()), ("odd",))

    result = annotate(store, ["one", "three", "two"], lambda n, old: revise(n, old))
    change = result.changes[0]
    assert change.events_before == {"Laughter": 2}
    assert change.events_after == {"Breath": 1, "Laughter": 1}
    assert (change.num_added, change.num_removed, change.also) == (1, 1, ("turns",))
    assert result.unmatched == ("three",)
    assert result.notes == ("odd", "odd")


def test_nothing_changed_publishes_nothing_but_repairs_the_current_index(store):
    before = read_manifest(store)
    (store / layout.CURRENT_INDEX).unlink()
    result = annotate(store, ["one", "two"], lambda name, old: Revised(old))
    assert not result.was_published
    assert (result.generation, result.changes, result.num_unchanged) == (1, (), 2)
    assert read_manifest(store).to_bytes() == before.to_bytes()
    assert open_shards(store / layout.SHARDS).generation == 1


def test_a_dry_run_writes_nothing_at_all(store):
    def files() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in store.rglob("*")
        }

    (store / layout.LOCK).unlink(missing_ok=True)
    before = files()
    result = annotate(store, ["one"], add_laugh(7), dry_run=True)
    assert (result.generation, result.was_published, len(result.changes)) == (1, False, 1)
    assert files() == before


def test_a_generation_that_never_counted_cannot_be_opened(store):
    annotate(store, ["one"], add_laugh(7))
    whole = (store / layout.generation(2)).read_bytes()
    (store / layout.generation(3)).write_bytes(whole)
    assert kept_generations(store) == (1, 2)
    for number in (0, 3, 4):
        with pytest.raises(NotFound, match="no generation"):
            open_store(store, generation=number)
    (store / layout.generation(1)).write_bytes(whole)
    with pytest.raises(CorruptData, match="is generation 2"):
        open_store(store, generation=1)


def test_a_commit_removes_the_manifest_that_a_killed_one_has_left(store):
    left = store / layout.generation(2)
    left.write_bytes((store / layout.STORE_JSON).read_bytes())
    annotate(store, ["one"], add_laugh(7))
    assert left.read_bytes() == (store / layout.STORE_JSON).read_bytes()


@pytest.mark.parametrize("which", ["units", "annotations", "plans"])
def test_an_altered_file_is_not_taken_into_a_new_generation(store, which):
    # Of the recording that does not change; sealed or named by its content, and yet another file.
    name = {"units": "two", "annotations": "two", "plans": ""}[which]
    path = next(p for p in (store / which).rglob(f"{name}*.json"))
    path.write_bytes(path.read_bytes().replace(b"\n", b" \n"))
    before = (store / layout.STORE_JSON).read_bytes()
    with pytest.raises(CorruptData):
        annotate(store, ["one"], add_laugh(7))
    assert (store / layout.STORE_JSON).read_bytes() == before


def test_commit_annotations_by_recording_id(store):
    old = open_store(store).annotations("one")
    new = replace(old, events=())
    assert commit_annotations(store, {recording_id("one"): new}).generation == 2
    assert commit_annotations(store, {recording_id("one"): new}).generation == 2
    assert open_store(store).annotations("one") == new
    with pytest.raises(ConfigError, match="no recording 'nobody'"):
        commit_annotations(store, {"nobody": new})


def test_old_annotations_come_back_as_a_third_generation_with_the_first_files(store):
    first = open_store(store)
    old = first.annotations("one")
    annotate(store, ["one"], add_laugh(7))
    files = sorted((store / layout.ANNOTATIONS).rglob("*.json"))
    annotate(store, ["one"], lambda name, _: Revised(old))
    third = open_store(store)
    assert third.manifest.generation == 3
    assert third.index.recordings == first.index.recordings
    assert sorted((store / layout.ANNOTATIONS).rglob("*.json")) == files


def test_open_readers_go_on_with_the_generation_they_opened(store):
    reader = open_store(store)
    index = open_shards(store / layout.SHARDS)
    with open_rows(index, "train") as rows:
        before = rows.matrix.copy()
        annotate(store, ["one"], add_laugh(7))
        np.testing.assert_array_equal(rows.matrix, before)
    # Read lazily, after the new generation was published.
    assert len(index.tables(index.recordings[0]).events.start_us) == 2
    assert len(reader.annotations("one").events) == 2
    assert len(reader.index.block_crc32c) == reader.index.num_blocks


def test_the_second_of_two_builds_on_what_the_first_has_published(store):
    def second(name: str, old: Annotations) -> Revised:
        assert len(old.events) == 3, "computed from what the first one has published"
        return Revised(replace(old, events=merge_events(old.events, [laugh(9, 10)])))

    annotate(store, ["one"], add_laugh(7))
    annotate(store, ["one"], second)
    assert len(open_store(store).annotations("one").events) == 4


def test_merging_keeps_old_duplicates_and_adds_each_new_event_once():
    old = [laugh(1, 2), laugh(1, 2)]
    new = [replace(laugh(1, 2), confidence=0.5), laugh(3, 4), laugh(3, 4)]
    assert merge_events(old, new) == (laugh(1, 2), laugh(1, 2), laugh(3, 4))


def test_every_manifest_names_all_of_its_files_with_their_bytes(store):
    annotate(store, ["one"], add_laugh(7))
    annotate(store, ["two"], add_laugh(7))
    folder = open_store(store).folder
    for number in (1, 2, 3):
        manifest = read_manifest(store, number)
        assert json.loads((store / layout.generation(number)).read_bytes())["generation"] == number
        for item in manifest.all_files(folder):
            assert sha256_file(store / item.path) == item.sha256
