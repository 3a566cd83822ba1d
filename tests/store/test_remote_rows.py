"""Stores read over HTTP through rows, frames, blocks, epochs and arrays: the same as at home."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from laughstore import (
    ConfigError,
    CorruptData,
    IncompleteStore,
    LaughstoreError,
    open_rows,
    open_shards,
    open_store,
)
from laughstore.store import Store
from tests.stores import Episode, laugh, random_features, write_store

from .loopback import FileServer

DIM = 64
EPISODES = [
    Episode("a", "train", 700, [laugh(5, 6), laugh(30, 31)]),
    Episode("b", "test", 129),
]
FEATURES = random_features(DIM)


@pytest.fixture(params=["none", "zstd"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Path, Store, FileServer]]:
    """(the folder, its store opened over HTTP, the server)."""
    path = tmp_path / "files" / "store"
    write_store(path, EPISODES, FEATURES, dim=DIM, shard_frames=256, codec=request.param)
    # As it was pushed: shards once, no chunks under their Zarr names.
    for chunks in (path / "features.zarr").glob("*/*/*/c"):
        shutil.rmtree(chunks)
    server = FileServer(tmp_path / "files")
    with server:
        yield path, open_store(f"http://127.0.0.1:{server.port}/store"), server


def test_everything_reads_as_at_home(served):
    path, store, server = served
    home = open_store(path)
    assert (store.folder.local, home.folder.local) == (None, path)
    for recording, episode in zip(store.recordings, EPISODES, strict=True):
        for number, stream in enumerate(recording.streams):
            bits = FEATURES(episode.name, number, episode.num_frames)
            where = recording.id, stream.assignment
            np.testing.assert_array_equal(store.frames(*where).view(np.uint16), bits)
            array = store.array(*where)
            assert array.shape == bits.shape
            np.testing.assert_array_equal(np.asarray(array[100:129]).view(np.uint16), bits[100:129])
            np.testing.assert_array_equal(store.codes(*where)[:], home.codes(*where)[:])
        assert store.annotations(recording.id) == home.annotations(recording.id)
    for ours, theirs in zip(store.blocks(), home.blocks(), strict=True):
        assert ours[:3] == theirs[:3]
        np.testing.assert_array_equal(ours.frames.view(np.uint16), theirs.frames.view(np.uint16))
    mine, same = store.epochs("Laughter", "1s", "1s"), home.epochs("Laughter", "1s", "1s")
    assert mine.events == same.events
    np.testing.assert_array_equal(mine.stack().view(np.uint16), same.stack().view(np.uint16))
    assert server.count() > 0


def test_rows_are_a_window_on_the_shards(served):
    path, store, _ = served
    bits = FEATURES("a", 1, 700)
    assignment = store.assignments("a")[1]
    with open_rows(store.index, "train") as rows:
        blocks = rows.blocks_of("a", assignment)
        rows.prepare_once(blocks)
        here = rows.rows_of("a", assignment)
        np.testing.assert_array_equal(rows.matrix[here], bits)
        rows.release(blocks)
        with pytest.raises(ConfigError, match="not ready"):
            rows.rows_of("a", assignment)
    index = open_shards(store.where + "/shards")
    assert index.index_id == open_shards(path).index_id


def test_neighbouring_blocks_are_one_request_and_kept_blocks_none(served):
    _, store, server = served
    store.frames("a", stop=1)
    before = server.count("GET", "train-000000")
    store.frames("a", start=1, stop=128)
    assert server.count("GET", "train-000000") == before
    with open_rows(store.index, "train") as rows:
        rows.prepare_once(np.array([0, 1]))
        assert server.count("GET", "train-000000") == before + 1


def test_damage_on_the_far_side_is_found(served):
    path, store, _ = served
    shard = path / "shards" / "train-000000.tar"
    shard.chmod(0o644)
    good = shard.read_bytes()
    data = bytearray(good)
    sizes = store.index.block_bytes[:2].astype(np.int64)
    data[int(store.index.geometry.block_offsets(sizes)[1]) + 77] ^= 8
    shard.write_bytes(data)
    with pytest.raises(CorruptData, match=r"http://.*train-000000\.tar, sample .*/000001"):
        store.frames("a", start=200, stop=201)
    shard.write_bytes(good[:-512])
    with pytest.raises(CorruptData, match=r"has .* bytes, the index says"):
        open_store(store.where).frames("a", start=200, stop=201)
    shard.unlink()
    with pytest.raises(IncompleteStore, match=r"train-000000\.tar is missing"):
        open_store(store.where).frames("a", start=200, stop=201)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_and_does_not_hang(served):
    _, store, _ = served
    store.frames("a", stop=1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.frames("a", start=600)
        except LaughstoreError as error:
            os.write(writer, str(error).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 10_000).decode()
    os.waitpid(child, 0)
    os.close(reader)
    assert "forked" in said
