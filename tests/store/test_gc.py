"""Garbage: what no kept generation names goes, all else stays, and nothing foreign is touched."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from laughstore import layout, open_store
from laughstore.errors import ConfigError, CorruptData, IncompleteStore, LaughstoreError, NotFound
from laughstore.evolution.gc import collect_garbage
from laughstore.evolution.generations import kept_generations, next_shards, withdraw_addition
from laughstore.files import sha256_file
from laughstore.locks import StoreLocks
from laughstore.manifest import read_manifest
from laughstore.naming import recording_id
from tests.store.evolutions import (
    MORE,
    add_episodes,
    add_more,
    annotate_both,
    annotate_one,
    begin_and_stop,
    copy_store,
    write_first,
)
from tests.stores import Episode


def tree(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != layout.LOCK
    }


def named(store: Path, *generations: int) -> set[str]:
    """Every name that a store of these generations has."""
    found = {layout.STORE_JSON, layout.CURRENT_INDEX}
    for number in generations:
        found.add(layout.generation(number))
        for item in read_manifest(store, number).all_files(open_store(store).folder):
            found.update(path for path in (item.path, item.also) if path is not None)
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_first(tmp_path_factory.mktemp("written") / "store")


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    return copy_store(written, tmp_path / "store")


def test_a_store_of_one_generation_has_no_garbage(store):
    before = tree(store)
    result = collect_garbage(store)
    assert (result.removed, result.left_alone, result.num_bytes) == ((), (), 0)
    assert tree(store) == before


@pytest.mark.parametrize("keep", [1, 2, 3, 99])
def test_exactly_what_kept_generations_name_stays(store, keep):
    annotate_one(store)
    annotate_one(store)
    kept = [1, 2, 3][-keep:]
    before, expected = tree(store), named(store, *kept)
    result = collect_garbage(store, keep=keep)
    assert set(tree(store)) == expected
    assert set(before) - expected == set(result.removed)
    assert list(result.kept) == kept == list(kept_generations(store))
    for path, digest in tree(store).items():
        assert before[path] == digest
    for number in kept:
        assert open_store(store, generation=number).manifest.generation == number
    with pytest.raises(NotFound):
        open_store(store, generation=4)


def test_bytes_are_those_that_the_disk_gets_back(store):
    annotate_one(store)
    begin_and_stop(store)

    def used() -> int:
        inodes = {}
        for path in store.rglob("*"):
            if path.is_file():
                inodes[path.stat().st_ino] = path.stat().st_size
        return sum(inodes.values())

    before = used()
    # A file that an export links as well is not freed.
    shard = next((store / layout.SHARDS).glob("train-000004.tar"))
    os.link(shard, store.parent / "elsewhere.tar")
    result = collect_garbage(store, unfinished=True)
    assert shard.name in {Path(path).name for path in result.removed}
    freed = before - used()
    assert result.num_bytes == freed - (store.parent / "elsewhere.tar").stat().st_size > 0


def test_a_dry_run_tells_the_same_and_removes_nothing(store):
    annotate_one(store)
    begin_and_stop(store)
    before = tree(store)
    told = collect_garbage(store, unfinished=True, dry_run=True)
    assert tree(store) == before
    assert collect_garbage(store, unfinished=True) == told


def test_an_unfinished_addition_stays_and_goes_on(store, tmp_path):
    undisturbed = copy_store(store, tmp_path / "undisturbed")
    add_more(undisturbed)
    begin_and_stop(store)
    result = collect_garbage(store)
    assert result.unfinished == ("three", "four")
    # Only what was half written.
    assert [path for path in result.removed if ".partial-" not in path] == []
    assert len(result.removed) == 1
    add_more(store)
    assert tree(store) == tree(undisturbed)


def test_an_unfinished_addition_goes_when_asked_for(store):
    before = tree(store)
    begin_and_stop(store)
    result = collect_garbage(store, unfinished=True)
    assert tree(store) == before
    assert result.removed[-1] == layout.plan(2)
    assert result.left_alone == ()
    # Not even empty folders stay.
    assert not list(store.rglob("*four*"))
    assert not [path for path in store.rglob("*") if path.is_dir() and not list(path.iterdir())]


def test_withdrawing_an_addition_leaves_the_store_as_it_was(store):
    before = tree(store)
    begin_and_stop(store)
    for path in store.rglob("*.partial-*"):
        path.unlink()
    withdraw_addition(store, read_manifest(store))
    assert tree(store) == before
    withdraw_addition(store, read_manifest(store))
    assert tree(store) == before


FOREIGN: dict[str, Callable[[Path], object]] = {
    "notes.txt": lambda path: path.write_text("mine"),
    "store.json.bak": lambda path: path.write_text("mine"),
    ".DS_Store": lambda path: path.write_text("mine"),
    "notes.partial-0123456789ab": lambda path: path.write_text("mine"),
    "mine/": lambda path: (path.mkdir(), (path / "deep.json").write_text("mine"))[0],
    "shards/train-000099.tar": lambda path: path.write_text("never planned"),
    "shards/mine.tar": lambda path: path.write_text("mine"),
    "shards/index-000001.json.bak": lambda path: path.write_text("mine"),
    "shards/index-000009.json": lambda path: path.write_text("of no generation"),
    "generations/000009.json": lambda path: path.write_text("of no generation"),
    "generations/readme.json": lambda path: path.write_text("mine"),
    "plans/000007.json": lambda path: path.write_text("of no addition"),
    "units/somebody-01234567.json": lambda path: path.write_text("of no plan"),
    "annotations/mine.csv": lambda path: path.write_text("mine"),
    "annotations/01234567/train/somebody-01234567.json": lambda path: (
        path.parent.mkdir(parents=True),
        path.write_text("of no plan"),
    )[0],
    "stats/plot.png": lambda path: (path.parent.mkdir(), path.write_text("mine"))[0],
    "features.zarr/train/.zattrs": lambda path: path.write_text("{}"),
    "features.zarr/link": lambda path: path.symlink_to("/etc"),
    "units/link.json": lambda path: path.symlink_to("/etc/hostname"),
}


def test_what_is_not_ours_is_told_of_and_left_alone(store):
    annotate_one(store)
    for name, make in FOREIGN.items():
        make(store / name)
    result = collect_garbage(store)
    assert set(result.left_alone) == set(FOREIGN)
    assert result.dropped == (1,)
    assert all((store / name).exists() for name in FOREIGN)
    assert (store / "mine/deep.json").read_text() == "mine"
    assert Path("/etc/hostname").exists()


def test_a_linked_folder_is_never_walked(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    left = outside / "x.partial-0123456789ab"
    left.write_text("mine")
    (store / layout.STATS).symlink_to(outside)
    result = collect_garbage(store)
    assert result.left_alone == (layout.STATS,)
    assert left.exists()


def test_statistics_stay_with_their_recording_whatever_the_generation(store):
    kept = store / layout.stats(open_store(store).index.recordings[0].id)
    kept.parent.mkdir()
    kept.write_text("{}")
    foreign = store / layout.stats("somebody-01234567")
    foreign.write_text("of no plan")
    annotate_one(store)
    young = store / layout.STATS / "x.json.partial-0123456789ab"
    young.write_text("a training writes it now")
    grown = store / layout.STATS / "x.json.partial-0123456789ac"
    grown.write_text("left over")
    hours_ago = time.time() - 7200
    os.utime(grown, (hours_ago, hours_ago))
    result = collect_garbage(store)
    assert result.dropped == (1,)
    assert [path.exists() for path in (kept, young, grown)] == [True, True, False]
    assert result.left_alone == ("stats/somebody-01234567.json",)


def test_leftovers_of_killed_writers_go_everywhere(store):
    names = [
        f"{name}.partial-0123456789ab"
        for name in (
            "store.json",
            "quarantine.json",
            "plans/000002.json",
            "generations/000002.json",
            "shards/index.json",
            "shards/train-000000.tar",
        )
    ]
    array = next((store / layout.CODES).rglob("c"))
    names.append(str((array / "0" / "0.partial-0123456789ab").relative_to(store)))
    before = tree(store)
    for name in names:
        (store / name).write_bytes(b"half")
    assert set(collect_garbage(store).removed) == set(names)
    assert tree(store) == before


def test_what_a_killed_commit_has_left_goes(store):
    before = tree(store)
    for path in (layout.generation(2), layout.index(2), layout.columns(2)):
        (store / path).write_bytes((store / layout.STORE_JSON).read_bytes())
    result = collect_garbage(store)
    assert result.removed[0] == layout.generation(2)
    assert tree(store) == before


def test_an_index_that_a_killed_commit_kept_old_is_renewed_before_its_columns_go(store):
    old = (store / layout.CURRENT_INDEX).read_bytes()
    annotate_one(store)
    new = (store / layout.CURRENT_INDEX).read_bytes()
    (store / layout.CURRENT_INDEX).write_bytes(old)
    collect_garbage(store)
    assert (store / layout.CURRENT_INDEX).read_bytes() == new


def test_an_unfinished_store_is_refused(tmp_path):
    store = write_first(tmp_path / "store")
    (store / layout.STORE_JSON).unlink()
    before = tree(store)
    with pytest.raises(IncompleteStore, match="the same `laughstore build` or `laughstore export`"):
        collect_garbage(store)
    with pytest.raises(NotFound):
        collect_garbage(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert tree(store) == before


def test_no_generation_is_no_number_to_keep(store):
    with pytest.raises(ConfigError, match="keep is 0"):
        collect_garbage(store, keep=0)


def test_nothing_is_removed_while_another_process_writes(store):
    annotate_one(store)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with StoreLocks(store) as locks, locks.shared():
            os.write(writer, b"x")
            time.sleep(60)
        os._exit(0)
    try:
        os.read(reader, 1)
        before = tree(store)
        with pytest.raises(LaughstoreError, match="another process is writing"):
            collect_garbage(store)
        assert tree(store) == before
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    assert collect_garbage(store).dropped == (1,)


@pytest.mark.parametrize("how", ["gone", "cut", "altered unit"])
def test_nothing_is_removed_from_a_store_that_needs_repair(store, how):
    annotate_one(store)
    index = open_store(store).index
    path = store / layout.shard("train", index.shards[0].number)
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.chmod(0o644)
        os.truncate(path, path.stat().st_size - 1)
    else:
        path = store / layout.unit(recording_id("one"))
        path.write_bytes(path.read_bytes().replace(b"done", b"dune"))
    with pytest.raises(CorruptData, match="restore it"):
        collect_garbage(store)
    assert kept_generations(store) == (1, 2)
    assert open_store(store, generation=1).annotations("one").events


def test_numbers_of_quarantined_recordings_are_never_given_again(store):
    assert next_shards(store, 1) == {"train": 4, "validation": 2}
    add_episodes(store, MORE, failing=["three"])
    manifest = read_manifest(store)
    assert [item["name"] for item in manifest.quarantined] == ["three"]
    assert json.loads((store / layout.QUARANTINE_JSON).read_bytes())["recordings"]
    assert next_shards(store, 2) == {"train": 6, "validation": 2, "test": 1}
    collect_garbage(store)
    # It comes back, behind its hole.
    add_episodes(store, [MORE[0], Episode("five", num_frames=10, speakers=("A",))])
    opened = open_store(store)
    assert opened.index.recording("three").streams[0].first_shard == 6
    assert opened.index.recording("five").streams[0].first_shard == 8
    assert opened.manifest.quarantined == ()
    assert not (store / layout.QUARANTINE_JSON).exists()


def test_an_addition_moves_nothing_that_was_there(store):
    before, old = tree(store), open_store(store)
    annotate_both(store)
    generation = add_more(store)
    assert generation == 3
    new = open_store(store)
    for recording in old.recordings:
        found = new.index.recording(recording.id)
        assert found.streams == recording.streams
        assert (new.frames(recording.id) == old.frames(recording.id)).all()
    assert [item.name for item in new.recordings] == ["one", "two", "three", "four"]
    assert new.index.recordings[2].streams[0].first_block == old.index.num_blocks
    after = tree(store)
    moved = {path for path in before if after.get(path) != before[path]}
    assert moved == {layout.STORE_JSON, layout.CURRENT_INDEX}
    assert [len(open_store(store, g).recordings) for g in (1, 2, 3)] == [2, 2, 4]


def test_an_addition_goes_on_behind_what_was_annotated_and_collected_meanwhile(store, tmp_path):
    undisturbed = copy_store(store, tmp_path / "undisturbed")
    annotate_one(undisturbed)
    add_more(undisturbed)
    collect_garbage(undisturbed)
    begin_and_stop(store)
    annotate_one(store)
    collect_garbage(store)
    assert add_more(store) == 3
    assert open_store(store).manifest.num_plans == 2
    collect_garbage(store)
    assert tree(store) == tree(undisturbed)
