"""The order of writes: whatever a power cut may take, a reader finds a whole generation."""

import pytest

from laughstore import layout, open_store
from laughstore.files import TEMPORARY_MARK

from .durability import Disk
from .harness import Arm, Call, FaultServer

WRITERS = "tests.faults.writers"


def named_files(store) -> set[str]:
    """Every file that store.json names, directly or through units, under all its names."""
    opened = open_store(store)
    records = list(opened.manifest.all_files(opened.folder))
    names = {name for item in records for name in (item.path, item.also) if name is not None}
    return names | {layout.generation(opened.manifest.generation)}


def assert_lasting_order(disk: Disk, calls: tuple[Call, ...], named: set[str]) -> None:
    """Check every final name that is given, and above all that of store.json."""
    num_commits = 0
    for call in disk.final_names(calls):
        assert disk.content_lasts(call.path), f"{call.second} gets its name before its sync"
        if call.second == layout.STORE_JSON:
            num_commits += 1
            for path in sorted(named):
                assert disk.content_lasts(path), f"store.json is committed before {path} is synced"
                assert disk.name_lasts(path), f"store.json is committed before {path}'s folder"
        if call.second == layout.CURRENT_INDEX:
            assert num_commits, "index.json is replaced before store.json"
            assert disk.name_lasts(layout.STORE_JSON), "index.json is replaced too early"
    assert num_commits == 1
    for path in (layout.STORE_JSON, layout.CURRENT_INDEX):
        assert disk.content_lasts(path)
        assert disk.name_lasts(path)


@pytest.mark.parametrize("function", ["build_tiny", "build_pair"])
def test_store_json_is_renamed_when_all_it_names_would_outlive_a_power_cut(
    function, server: FaultServer, tmp_path
):
    store = tmp_path / "store"
    done = server.run(f"{WRITERS}:{function}", store)
    assert done.status == 0, done.message
    assert_lasting_order(Disk(), done.calls, named_files(store))


def test_the_calls_of_one_shard_are_in_the_order_that_the_format_demands(
    server: FaultServer, tmp_path
):
    store = tmp_path / "store"
    done = server.run(f"{WRITERS}:build_tiny", store)
    shard = layout.shard("train", 0)
    chunk = next(c.path for c in done.calls if c.name == "link" and shard in c.second)
    folder = chunk.rpartition("/")[0]
    seen = [
        (call.name, TEMPORARY_MARK in call.path)
        for call in done.calls
        if not call.error
        and (call.path.startswith(chunk) or (call.name == "fsync" and call.path == folder))
    ]
    told = [item for i, item in enumerate(seen) if i == 0 or item != seen[i - 1]]
    assert told == [
        ("open", True),
        ("write", True),
        ("chmod", True),
        ("fsync", True),
        ("rename", True),
        ("fsync", False),
        ("link", False),
    ]


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_a_power_cut_after_a_kill_and_a_rerun_finds_a_whole_generation(
    step, server: FaultServer, tmp_path
):
    """What a killed process had not synced must not be taken for lasting by the next."""
    whole = server.run(f"{WRITERS}:build_tiny", tmp_path / "whole")
    named = named_files(tmp_path / "whole")
    # Just before a sync, something is there that would not last.
    syncs = [number for number, call in enumerate(whole.calls, 1) if call.name == "fsync"]
    for number in syncs[::-step]:
        store = tmp_path / f"store-{number}" / "store"
        store.parent.mkdir()
        disk = Disk()
        killed = server.run(f"{WRITERS}:build_tiny", store, Arm("kill before", number))
        assert killed.killed
        for _ in disk.replay(killed.calls):
            pass
        done = server.run(f"{WRITERS}:build_tiny", store)
        assert done.status == 0, done.message
        if any(call.second == layout.STORE_JSON for call in done.calls):
            assert_lasting_order(disk, done.calls, named)
        else:
            for _ in disk.replay(done.calls):
                pass
            assert disk.name_lasts(layout.STORE_JSON)
            assert disk.name_lasts(layout.CURRENT_INDEX)
