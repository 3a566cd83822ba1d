"""A recording's files: the same bytes however frames arrive; errors surface; nothing is left."""

import hashlib
import os
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore import layout, unit
from laughstore.buildplan import Assignment, RecordingToPlan, make_plan
from laughstore.codec import CODECS, Codec
from laughstore.commit import commit_annotations
from laughstore.files import TEMPORARY_MARK
from laughstore.naming import recording_id
from laughstore.unit import read_unit, remove_unit_files
from laughstore.unitwriter import UnitWriter
from tests.stores import (
    DEVICE_KIND,
    Episode,
    laugh,
    numbered_codes,
    random_features,
    spec_for,
    write_store,
)

NUM_FRAMES = 2 * 512 + 128 + 37
EPISODE = Episode("episode", "train", NUM_FRAMES, [laugh(1.0, 2.0), laugh(60.0, 61.0)])


def _plan(dim: int = 64, codec: Codec = "none"):
    planned = RecordingToPlan(
        id=recording_id(EPISODE.name),
        name=EPISODE.name,
        split=EPISODE.split,
        group=EPISODE.name,
        num_frames=NUM_FRAMES,
        assignments=EPISODE.assignments,
        annotations_id=EPISODE.annotations.content_id(),
    )
    return make_plan(spec_for(dim, shard_frames=512, codec=codec), DEVICE_KIND, [planned])


def _frames(plan):
    features = random_features(plan.spec.dim)
    rows = np.stack([features(EPISODE.name, number, NUM_FRAMES) for number in range(2)])
    return rows, numbered_codes(2, NUM_FRAMES)


def _begin(store: Path, plan) -> UnitWriter:
    return UnitWriter(store, plan, plan.recordings[0], EPISODE.annotations)


def _write(store: Path, plan, chunk_frames: int):
    rows, codes = _frames(plan)
    buffer, code_buffer = np.empty_like(rows), np.empty_like(codes)
    with _begin(store, plan) as writer:
        for start in range(0, NUM_FRAMES, chunk_frames):
            part = slice(start, start + chunk_frames)
            num_frames = rows[:, part].shape[1]
            # The same two arrays for every call, as whoever computes features has them.
            buffer[:, :num_frames], code_buffer[:, :num_frames] = rows[:, part], codes[:, part]
            writer.write(buffer[:, :num_frames], code_buffer[:, :num_frames])
            buffer[:], code_buffer[:] = 7, 7
        return writer.finish()


def _digests(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "MainThread" not in thread.name]


def _leftovers(store: Path) -> list[Path]:
    return list(store.rglob(f"*{TEMPORARY_MARK}*"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dim", [64, 2048])
def test_the_bytes_do_not_depend_on_how_frames_arrive(tmp_path, dim, codec):
    plan = _plan(dim, codec)
    record = _write(tmp_path / "0", plan, NUM_FRAMES)
    expected = _digests(tmp_path / "0")
    for chunk_frames in (37, 64, 128, 256, 1000):
        assert _write(tmp_path / str(chunk_frames), plan, chunk_frames) == record
        assert _digests(tmp_path / str(chunk_frames)) == expected


@pytest.mark.parametrize("codec", CODECS)
def test_the_record_names_every_file_with_its_bytes(tmp_path, codec):
    plan = _plan(codec=codec)
    record = _write(tmp_path, plan, 100)
    found = _digests(tmp_path)
    del found[layout.unit(record.id)]
    named = {name: item.sha256 for item in record.files for name in (item.path, item.also) if name}
    assert named == found
    assert all((tmp_path / item.path).stat().st_size == item.num_bytes for item in record.files)
    assert read_unit(tmp_path, record.id) == record
    assert len(record.shard_bytes) == 2 * 3
    assert len(record.block_crc32c) == 2 * 10
    if codec == "none":
        assert record.block_bytes is None
    else:
        assert record.block_bytes is not None
        assert len(record.block_bytes) == 2 * 10
        geometry = plan.geometry
        for shard, blocks in enumerate((slice(0, 4), slice(4, 8), slice(8, 10))):
            sizes = record.block_bytes[blocks]
            assert record.shard_bytes[shard] == geometry.encoded_shard_bytes(sizes)


def test_a_finished_unit_leaves_no_thread_and_no_temporary_file(tmp_path):
    before = _threads()
    _write(tmp_path, _plan(2048), 128)
    assert _threads() == before
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("num_frames", [1, 128, 512, 700, 1024, NUM_FRAMES])
def test_an_interrupted_unit_leaves_no_thread_no_temporary_file_and_no_record(tmp_path, num_frames):
    plan = _plan(2048)
    rows, codes = _frames(plan)
    before = _threads()

    def write():
        with _begin(tmp_path, plan) as writer:
            for start in range(0, num_frames, 100):
                part = slice(start, min(start + 100, num_frames))
                writer.write(rows[:, part], codes[:, part])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert _threads() == before
    assert _leftovers(tmp_path) == []
    assert not (tmp_path / layout.unit(plan.recordings[0].id)).exists()
    remove_unit_files(tmp_path, plan, plan.recordings[0])
    assert not list(tmp_path.rglob("*.tar"))
    assert _write(tmp_path, plan, 100) == _write(tmp_path / "again", plan, 100)


def test_what_a_killed_writer_has_left_is_removed_and_nothing_else(tmp_path):
    plan = _plan()
    record = _write(tmp_path, plan, 100)
    recording = plan.recordings[0]
    shards = tmp_path / layout.SHARDS
    mark = f"{TEMPORARY_MARK}0123456789ab"
    (shards / f"train-000005.tar{mark}").touch()
    others = {
        "train-000006.tar",
        f"train-000006.tar{mark}",
        f"test-000001.tar{mark}",
        f"index.json{mark}",
    }
    for name in others:
        (shards / name).touch()
    remove_unit_files(tmp_path, plan, recording)
    assert {path.name for path in shards.iterdir()} == others
    assert not any((tmp_path / name).exists() for item in record.files for name in (item.path,))
    remove_unit_files(tmp_path, plan, recording)


def test_removing_looks_through_the_shards_at_most_once_and_reads_the_manifest_once(
    tmp_path, monkeypatch
):
    plan, looks, reads = _plan(), [], []
    scandir, read_manifest = os.scandir, unit.read_manifest
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or scandir(path))
    monkeypatch.setattr(
        unit, "read_manifest", lambda path: reads.append(path) or read_manifest(path)
    )
    shards = tmp_path / layout.SHARDS

    def num_looks() -> int:
        looks.clear()
        remove_unit_files(tmp_path, plan, plan.recordings[0])
        return sum(item == shards for item in looks)

    shards.mkdir()
    assert num_looks() == 0, "nothing was begun"
    _write(tmp_path, plan, 100)
    assert num_looks() == 1
    assert num_looks() == 0
    other = tmp_path / "other"
    write_store(other, [Episode("other", num_frames=40)], random_features(64))
    for _ in range(3):
        remove_unit_files(other, plan, plan.recordings[0])
    assert reads == [other]
    with pytest.raises(AssertionError, match="never rewritten"):
        remove_unit_files(other, plan, replace(plan.recordings[0], id=recording_id("other")))
    changed = replace(Episode("other", num_frames=40).annotations, events=(laugh(1, 2),))
    commit_annotations(other, {recording_id("other"): changed})
    remove_unit_files(other, plan, plan.recordings[0])
    assert len(reads) == 2, "another generation may name it"


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_what_fails_behind_the_caller_is_raised_in_a_later_call(tmp_path, shard):
    plan = _plan()
    rows, codes = _frames(plan)
    first = plan.recordings[0].first_shards[1]
    in_the_way = tmp_path / layout.shard("train", first + shard)
    in_the_way.mkdir(parents=True)  # no file can get this name
    before = _threads()

    def write():
        with _begin(tmp_path, plan) as writer:
            for start in range(0, NUM_FRAMES, 64):
                writer.write(rows[:, start : start + 64], codes[:, start : start + 64])
            writer.finish()

    with pytest.raises(IsADirectoryError):
        write()
    assert _threads() == before
    assert _leftovers(tmp_path) == []
    assert not (tmp_path / layout.unit(plan.recordings[0].id)).exists()
    in_the_way.rmdir()
    assert _write(tmp_path, plan, 64) == _write(tmp_path / "again", plan, 64)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_a_stream_that_has_all_its_frames_holds_no_file_open(tmp_path, monkeypatch):
    """Of all ordered pairs of many speakers there are more than a process may open files."""
    names = [f"speaker {i}" for i in range(8)]
    roles = [(a, b) for a in names for b in names if a != b]
    assignments = tuple(Assignment(f"a{i}", *who) for i, who in enumerate(roles))
    item = RecordingToPlan(
        id="many",
        name="many",
        split="train",
        group="many",
        num_frames=40,
        assignments=assignments,
        annotations_id=EPISODE.annotations.content_id(),
    )
    plan = make_plan(spec_for(64, block_frames=32, shard_frames=64), DEVICE_KIND, [item])
    rows = random_features(64)("many", 0, 40)[None].repeat(2, 0)
    sync = os.fsync

    def slowly(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.01)  # so that the next streams end before a shard is closed
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slowly)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(item.name) for item in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(limits[0]) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[32], limits[1]))
    try:
        with UnitWriter(tmp_path, plan, plan.recordings[0], EPISODE.annotations) as writer:
            for first in range(0, len(roles), 2):
                writer.write(rows, numbered_codes(2, 40), first)
            record = writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(record.shard_bytes) == len(roles) == 56
