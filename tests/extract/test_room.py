"""A build asks for the room that is still missing: what is on the disk is not asked for again."""

import errno
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from extract.room import check_disk, room_for, store_bytes
from laughstore.buildplan import begin_plan, check_store_folder
from laughstore.errors import ConfigError, LaughstoreError
from laughstore.files import can_link, temporary_sibling
from laughstore.unitwriter import UnitWriter
from tests.stores import (
    Episode,
    numbered_codes,
    plan_for,
    random_features,
    spec_for,
    write_recording,
    write_store,
)

DIM, BLOCK_FRAMES = 64, 128
LONG, SHORT = Episode("long", num_frames=3000), Episode("short", num_frames=500)
PLAN = plan_for([LONG, SHORT], spec_for(DIM, shard_frames=512))
TOTAL, OF_LONG = (
    store_bytes(items, PLAN.geometry) for items in (PLAN.recordings, PLAN.recordings[:1])
)


@pytest.fixture
def free(monkeypatch):
    """Sets the bytes that the disk says are free."""

    def free(num_bytes):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=num_bytes))

    return free


@pytest.fixture
def no_links(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)


def test_what_a_process_has_written_of_an_unfinished_recording_is_not_asked_for_again(
    tmp_path, free
):
    """As it stands there while another process writes, or when one was killed."""
    store = tmp_path / "store"
    free(TOTAL)
    check_disk(store, PLAN)
    free(TOTAL - 1)
    with pytest.raises(LaughstoreError, match=r"GB are needed and .* GB are free"):
        check_disk(store, PLAN)
    begin_plan(store, PLAN)
    rows = np.stack([random_features(DIM)(LONG.name, i, 2000) for i in range(2)])
    with UnitWriter(store, PLAN, PLAN.recordings[0], LONG.annotations) as writer:
        writer.write(rows, numbered_codes(2, 2000))
        whole_blocks = 2 * (2000 // BLOCK_FRAMES) * BLOCK_FRAMES * 2 * DIM
        free(TOTAL - whole_blocks)
        check_disk(store, PLAN)
        room = room_for(store, PLAN.recordings, PLAN.geometry)
        assert (room.num_bytes, room.is_enough) == (TOTAL, True)
        free(TOTAL - OF_LONG)
        with pytest.raises(LaughstoreError, match="GB are needed"):
            check_disk(store, PLAN)
    write_recording(store, PLAN, PLAN.recordings[0], LONG, random_features(DIM))
    free(TOTAL - OF_LONG)
    check_disk(store, PLAN)


def test_a_finished_store_needs_no_room(tmp_path, free):
    free(0)
    store = write_store(tmp_path / "store", [SHORT], random_features(DIM))
    room = room_for(store, PLAN.recordings[1:], PLAN.geometry)
    assert room.num_bytes > 0
    assert (room.missing_bytes, room.is_enough) == (0, True)


def test_where_a_file_has_one_name_shards_count_twice(tmp_path, free, no_links):
    free(TOTAL)
    with pytest.raises(LaughstoreError, match="shards twice"):
        check_disk(tmp_path / "store", PLAN)
    room = room_for(tmp_path / "store", PLAN.recordings, PLAN.geometry)
    shards = sum(2 * PLAN.geometry.stream_bytes(item.num_frames) for item in PLAN.recordings)
    assert room.num_bytes == TOTAL + shards
    assert (room.has_links, room.is_enough) == (False, False)
    assert list(tmp_path.iterdir()) == []


def test_links_are_tried_out_without_a_trace(tmp_path):
    assert can_link(tmp_path)
    assert can_link(tmp_path / "no folder")
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_leaves_that_is_killed_while_it_tries_is_in_nobodys_way(tmp_path):
    temporary_sibling(tmp_path / "link").touch()
    check_store_folder(tmp_path)
    (tmp_path / "link").touch()
    with pytest.raises(ConfigError, match="is no laughstore store"):
        check_store_folder(tmp_path)
