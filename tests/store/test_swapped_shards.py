"""Shards and chunks in each other's place: sound by themselves, refused by every array."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from laughstore import Store, layout, open_store
from laughstore.codec import Codec
from laughstore.errors import CorruptData
from laughstore.geometry import CRC_BYTES
from laughstore.shard import zarr_index
from tests.stores import Episode, write_store

from .loopback import FileServer

DIM, NUM_FRAMES, SHARD_FRAMES = 64, 512, 256


def _features(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
    """Each frame different, and every block of the same size, compressed too."""
    rows = np.arange(num_frames, dtype=np.uint16)[:, None] + np.zeros((1, DIM), np.uint16)
    rows[:, 0] = 7 + assignment
    return rows + 1000


@pytest.fixture(params=["none", "zstd"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return request.param


@pytest.fixture
def store(tmp_path: Path, codec: Codec) -> Path:
    return write_store(
        tmp_path / "files" / "store",
        [Episode("one", num_frames=NUM_FRAMES)],
        _features,
        dim=DIM,
        shard_frames=SHARD_FRAMES,
        codec=codec,
    )


@pytest.fixture(params=["local", "remote"])
def opened(request: pytest.FixtureRequest, store: Path) -> Iterator[Store]:
    if request.param == "local":
        yield open_store(store)
        return
    with FileServer(store.parent) as server:
        yield open_store(f"{server.url}/store")


def _swap(one: Path, other: Path) -> None:
    """By their bytes: other names of the files see it too."""
    first, second = one.read_bytes(), other.read_bytes()
    assert first != second
    for path, data in ((one, second), (other, first)):
        path.chmod(0o644)
        path.write_bytes(data)


def _shards(store: Path) -> list[Path]:
    return [store / layout.shard("train", number) for number in range(4)]


@pytest.mark.parametrize("pair", [(0, 1), (1, 2)], ids=["of a stream", "of two streams"])
def test_arrays_refuse_shards_that_changed_places(
    store: Path, opened: Store, codec: Codec, pair: tuple[int, int]
) -> None:
    one, other = (_shards(store)[number] for number in pair)
    if codec == "none":
        assert one.stat().st_size == other.stat().st_size
    _swap(one, other)
    start = pair[0] * SHARD_FRAMES
    for stop in (start + 1, start + SHARD_FRAMES):
        with pytest.raises(CorruptData, match=one.name):
            opened.array("one")[start:stop]
    with pytest.raises(CorruptData, match=r"train-00000\d\.tar"):
        opened.array("one")[:]


def test_arrays_refuse_blocks_that_changed_places_in_a_shard(
    store: Path, opened: Store, codec: Codec
) -> None:
    shard = _shards(store)[0]
    index = opened.index
    sizes = index.block_bytes[:2].astype(np.int64)
    offsets = index.geometry.block_offsets(sizes)
    data = bytearray(shard.read_bytes())
    tail = zarr_index(index.geometry, sizes.tolist())
    assert data.endswith(tail)
    # Its Zarr index leads to the other block, with a checksum that is right.
    slots = np.frombuffer(tail[:-CRC_BYTES], "<u8").reshape(-1, 2)
    assert slots[0, 0] == offsets[0]
    import crc32c

    turned = slots[::-1].tobytes()
    data[-len(tail) :] = turned + crc32c.crc32c(turned).to_bytes(CRC_BYTES, "little")
    shard.chmod(0o644)
    shard.write_bytes(data)
    for stop in (1, SHARD_FRAMES):
        with pytest.raises(CorruptData, match=r"train-000000\.tar: its Zarr index is not the one"):
            opened.array("one")[:stop]


def test_arrays_say_where_an_altered_block_is(store: Path, opened: Store) -> None:
    shard = _shards(store)[1]
    data = bytearray(shard.read_bytes())
    sizes = opened.index.block_bytes[2:4].astype(np.int64)
    data[int(opened.index.geometry.block_offsets(sizes)[1]) + 9] ^= 4
    shard.chmod(0o644)
    shard.write_bytes(data)
    array = opened.array("one")
    assert np.array_equal(
        np.asarray(array[:384]).view(np.uint16), _features("one", 0, NUM_FRAMES)[:384]
    )
    with pytest.raises(CorruptData, match=r"train-000001\.tar, sample .*/000003"):
        array[384:390]
    shard.write_bytes(data[:-64])
    with pytest.raises(CorruptData, match=r"train-000001\.tar has \d+ bytes, the index says"):
        opened_again(opened).array("one")[384:390]


def opened_again(store: Store) -> Store:
    return open_store(store.where)


def test_codes_refuse_chunks_that_changed_places(store: Path, opened: Store) -> None:
    home = np.asarray(opened.codes("one")[:])
    assert home.shape == (NUM_FRAMES, 17)
    chunks = sorted(path for path in (store / "codes.zarr").rglob("c/*/0"))
    assert len(chunks) == 4
    _swap(chunks[0], chunks[1])
    for stop in (1, SHARD_FRAMES, NUM_FRAMES):  # both at once: either may be told
        with pytest.raises(CorruptData, match=r"c/[01]/0: its sha256 is not what was written"):
            opened.codes("one")[:stop]
    with pytest.raises(CorruptData, match=r"c/1/0: its sha256"):
        opened.codes("one")[SHARD_FRAMES:]


def test_codes_are_not_believed_from_another_record(store: Path, opened: Store) -> None:
    record = next((store / "units").glob("*.json"))
    kept = record.read_bytes()
    shutil.copyfile(record, record.with_suffix(".old"))
    record.chmod(0o644)
    record.write_bytes(kept.replace(b'"status"', b'"statu5"'))
    with pytest.raises(CorruptData, match=r"units/.*: not what .*store\.json says|no seal"):
        opened.codes("one")
    record.unlink()
    with pytest.raises(CorruptData, match=r"units/.* is missing; restore it"):
        opened_again(opened).codes("one")
