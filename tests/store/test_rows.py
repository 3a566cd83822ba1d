"""Every reader gives the same rows, and none gives damaged ones or rows that are not ready."""

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laughstore.reading.mapped_rows
import laughstore.reading.mapping
import laughstore.reading.rows
from laughstore import ConfigError, CorruptData, IncompleteStore, open_rows, open_shards, open_store
from laughstore.codec import Codec
from laughstore.folders import LocalFolder
from laughstore.index import Index
from laughstore.reading import memory
from laughstore.reading.mapped_rows import MappedRows
from laughstore.reading.rows import Reader, Rows
from laughstore.reading.window_rows import WindowRows
from tests.stores import Episode, random_features, write_store

EPISODES = [
    Episode("a", "train", 700),
    Episode("b", "test", 300),  # its blocks stand between those of the train split
    Episode("c", "train", 129, speakers=("Only One",)),
]
STORES: list[tuple[int, Codec]] = [
    (2, "none"),
    (64, "none"),
    (96, "none"),
    (2048, "none"),
    (64, "zstd"),
    (2, "zstd"),
]
ALL_READERS: list[Reader] = ["map", "window"]
TRUTH = random_features


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, Codec], Path]:
    folder = tmp_path_factory.mktemp("rows")
    paths = {}
    for dim, codec in STORES:
        path = folder / f"{dim}-{codec}"
        write_store(path, EPISODES, TRUTH(dim), dim=dim, shard_frames=256, codec=codec)
        paths[dim, codec] = path
    return paths


@pytest.fixture
def own(stores, tmp_path):
    """A function that copies a store which the test may damage."""

    def copy(dim: int, codec: str) -> Path:
        path = Path(shutil.copytree(stores[dim, codec], tmp_path / f"{dim}-{codec}"))
        for shard in (path / "shards").glob("*.tar"):
            shard.chmod(0o644)
        return path

    return copy


class FarFolder(LocalFolder):
    """Files of this machine behind the face of a remote folder."""

    @property
    def local(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


def readers_of(codec: str) -> list[Reader]:
    return ALL_READERS if codec == "none" else ["window"]


def blocks_of(index: Index, split: str) -> np.ndarray:
    return np.concatenate(
        [np.arange(s.first_block, s.first_block + s.num_blocks) for s in index.streams(split)]
    )


def truth_of(index: Index, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(i64[N] global frame ids, u2[N, dim] what was written) of a split."""
    ids, bits = [], []
    for recording in index.recordings:
        if recording.split == split:
            for number, stream in enumerate(recording.streams):
                first = stream.first_block * index.block_frames
                ids.append(first + np.arange(stream.num_frames))
                bits.append(TRUTH(index.dim)(recording.name, number, stream.num_frames))
    return np.concatenate(ids), np.concatenate(bits)


@pytest.mark.parametrize(("dim", "codec"), STORES)
def test_all_readers_gather_what_was_written(stores, dim, codec):
    index = open_shards(stores[dim, codec])
    order = np.random.default_rng(0).permutation
    for split in index.splits:
        ids, bits = truth_of(index, split)
        shuffled = order(len(ids))
        numbers = []
        for reader in readers_of(codec):
            with open_rows(index, split, reader) as rows:
                rows.prepare_once(blocks_of(index, split))
                numbers.append(rows.row_numbers(ids[shuffled]))
                np.testing.assert_array_equal(rows.matrix[numbers[-1]], bits[shuffled])
        for other in numbers[1:]:
            np.testing.assert_array_equal(other, numbers[0])


@settings(deadline=None)
@given(data=st.data())
def test_any_range_reads_the_same_through_every_reader(stores, data):
    dim, codec = data.draw(st.sampled_from(STORES))
    store = open_store(stores[dim, codec])
    episode = data.draw(st.sampled_from(EPISODES))
    number = data.draw(st.integers(0, len(episode.assignments) - 1))
    assignment = episode.assignments[number].name
    start = data.draw(st.integers(0, episode.num_frames))
    stop = data.draw(st.integers(start, episode.num_frames))
    bits = TRUTH(dim)(episode.name, number, episode.num_frames)[start:stop]
    where = episode.name, assignment, start, stop

    frames = store.frames(*where)
    assert frames.dtype == np.dtype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(frames.view(np.uint16), bits)
    if start < stop:
        array = np.asarray(store.array(episode.name, assignment)[start:stop])
        np.testing.assert_array_equal(array.view(np.uint16), bits)
    for reader in readers_of(codec):
        with open_rows(store.index, episode.split, reader) as rows:
            blocks = rows.blocks_of(*where)
            rows.prepare_once(blocks)
            here = rows.rows_of(*where)
            np.testing.assert_array_equal(rows.matrix[here], bits)
            rows.release(blocks)
            first = store.stream(episode.name, assignment).first_block * 128
            np.testing.assert_array_equal(rows.frames_of(here), first + np.arange(start, stop))
            for row, frame in list(zip(here.tolist(), range(start, stop), strict=True))[:3]:
                place = rows.locate(row)
                assert (place.assignment, place.frame) == (assignment, frame)
                assert store.index.recording(place.recording_id).name == episode.name


@pytest.mark.parametrize("dim", [2, 64, 2048])
def test_rows_that_hold_no_frame_have_no_place(stores, dim):
    index = open_shards(stores[dim, "none"])
    with open_rows(index, "train") as rows:
        ids, _ = truth_of(index, "train")
        real = rows.row_numbers(ids)
        np.testing.assert_array_equal(rows.frames_of(real), ids)
        others = np.setdiff1d(np.arange(-1, len(rows.matrix) + 2), real)
        borders = np.flatnonzero(np.diff(others, prepend=-9, append=others[-1] + 9) > 1)
        near = np.concatenate([borders[:-1], borders[1:] - 1])  # where runs of them begin and end
        for row in np.unique(others[near]).tolist():
            with pytest.raises(ConfigError, match=f"row {row} of .* holds no frame"):
                rows.locate(row)


def test_auto_maps_raw_shards_of_this_machine_and_fetches_all_others(stores):
    raw, zstd = open_shards(stores[64, "none"]), open_shards(stores[64, "zstd"])
    assert type(open_rows(raw, "train")).__name__ == "MappedRows"
    assert type(open_rows(zstd, "train")).__name__ == "WindowRows"
    far = far_index(raw)
    assert type(open_rows(far, "train")).__name__ == "WindowRows"
    with pytest.raises(ConfigError, match="compressed"):
        open_rows(zstd, "train", "map")
    with pytest.raises(ConfigError, match="remote"):
        open_rows(far, "train", "map")
    with pytest.raises(ConfigError, match="no split 'dev'"):
        open_rows(raw, "dev")
    with pytest.raises(ConfigError, match="auto, map or window"):
        open_rows(raw, "train", "fast")  # pyright: ignore[reportArgumentType]


def far_index(index: Index) -> Index:
    assert index.folder.local is not None
    from laughstore.index_file import read_index

    return read_index(FarFolder(index.folder.local), "index.json")


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_remote_folder_is_read_side_by_side(stores, codec):
    index = far_index(open_shards(stores[64, codec]))
    ids, bits = truth_of(index, "train")
    with open_rows(index, "train") as rows:
        rows.prepare(blocks_of(index, "train"), verify=True)
        np.testing.assert_array_equal(rows.matrix[rows.row_numbers(ids)], bits)


@pytest.mark.parametrize("reader", ALL_READERS)
def test_frames_of_another_split_have_no_row(stores, reader):
    index = open_shards(stores[64, "none"])
    foreign, _ = truth_of(index, "test")
    with open_rows(index, "train", reader) as rows:
        rows.prepare_once(blocks_of(index, "train"))
        for frame in (foreign[0], foreign[-1], -1, -(10**6), 10**9):
            with pytest.raises(ConfigError, match="of another split, or of none"):
                rows.row_numbers(np.array([frame]))
        with pytest.raises(ConfigError, match="of another split"):
            rows.prepare_once(foreign[:1] // 128)
        assert rows.row_numbers(np.empty(0, np.int64)).shape == (0,)


def test_a_window_gives_no_rows_that_are_not_ready(stores):
    index = open_shards(stores[64, "zstd"])
    with open_rows(index, "train") as rows:
        frames = np.arange(128)
        with pytest.raises(ConfigError, match="not ready; prepare"):
            rows.row_numbers(frames)
        rows.prepare_once(np.array([0, 1]))
        assert rows.matrix[rows.row_numbers(frames)].any()
        numbers = rows.row_numbers(frames)
        rows.release(np.array([0]))
        with pytest.raises(ConfigError, match="not ready; prepare"):
            rows.row_numbers(frames)
        rows.row_numbers(frames + 128)
        # Whole pages were given back and read as zeros now: 3 of the 4 that the block's rows touch.
        pages = rows.matrix[numbers].reshape(-1, 4096 // 2)
        assert (~pages.any(axis=1)).sum() >= 2
        rows.prepare_once(np.array([0]))
        np.testing.assert_array_equal(
            rows.matrix[rows.row_numbers(frames)], truth_of(index, "train")[1][:128]
        )


def test_a_block_stays_ready_while_anyone_holds_it(stores):
    with open_rows(open_shards(stores[64, "none"]), "train", "window") as rows:
        rows.prepare_once(np.array([0, 1, 0]))
        rows.prepare(np.array([0]), verify=True)
        for _ in range(2):
            rows.release(np.array([0]))
            rows.row_numbers(np.array([0]))
        rows.release(np.array([0, 1]))
        for frame in (0, 128):
            with pytest.raises(ConfigError, match="not ready"):
                rows.row_numbers(np.array([frame]))
        rows.release(np.array([0, 1]))  # held by nobody: nothing to let go
        rows.prepare_once(np.array([0]))
        rows.row_numbers(np.array([0]))


def test_a_window_refuses_to_take_more_memory_than_it_may(stores):
    index = open_shards(stores[64, "none"])
    with open_rows(index, "train", "window", max_bytes=3 * 128 * 64 * 2) as rows:
        rows.prepare_once(np.array([0, 1]))
        with pytest.raises(ConfigError, match=r"4 blocks of 16384 bytes .* 3 may be"):
            rows.prepare_once(np.array([2, 3]))
        with pytest.raises(ConfigError, match="not ready"):
            rows.row_numbers(np.array([2 * 128]))
        rows.release(np.array([0]))
        rows.prepare_once(np.array([2, 3]))


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_window_takes_the_memory_of_what_is_ready_and_gives_it_back(tmp_path):
    dim = 4096
    episode = [Episode("a", "train", 128 * 40, speakers=("Only One",))]
    path = write_store(tmp_path / "s", episode, random_features(dim), dim=dim, chunk_frames=5120)
    index = open_shards(path)
    with open_rows(index, "train", "window") as rows:
        rows.prepare_once(np.array([0]))
        before = _resident_bytes()
        for block in range(1, 40):
            rows.prepare_once(np.array([block]))
            rows.release(np.array([block]))
        assert _resident_bytes() - before < 8 << 20
        rows.prepare_once(np.arange(40))
        assert _resident_bytes() - before > 35 << 20
        rows.release(np.arange(40))
        assert _resident_bytes() - before < 8 << 20


@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_a_flipped_bit_is_found_when_its_block_is_prepared(own, codec, reader):
    path = own(64, codec)
    index = open_shards(path)
    shard = index.split_shards("train")[0]
    file = path / "shards" / shard.name
    data = file.read_bytes()
    sizes = index.block_bytes[:2].astype(np.int64)
    start = int(index.geometry.block_offsets(sizes)[1])
    for position in np.random.default_rng(0).integers(0, sizes[1], 25):
        altered = bytearray(data)
        altered[start + position] ^= 1 << (position % 8)
        file.write_bytes(altered)
        with open_rows(index, "train", reader or "auto") as rows:
            rows.prepare_once(np.array([0]))
            with pytest.raises(CorruptData, match=rf"{shard.name}, sample .*/000001: "):
                rows.prepare_once(np.array([1]))
            if rows.releases:
                with pytest.raises(ConfigError, match="not ready"):
                    rows.row_numbers(np.array([128]))


@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_a_shard_cut_missing_or_a_link_is_found(own, codec, reader):
    path = own(64, codec)
    index = open_shards(path)
    file = path / "shards" / index.split_shards("train")[0].name
    data = file.read_bytes()

    def read() -> None:
        with open_rows(index, "train", reader or "auto") as rows:
            rows.prepare_once(np.array([0, 1]))

    read()
    for cut in (0, 1, 5000, len(data) - 1):
        file.write_bytes(data[:cut])
        with pytest.raises(CorruptData, match=f"{file.name} has {cut} bytes"):
            read()
    file.write_bytes(data + b"x")
    with pytest.raises(CorruptData, match="the index says"):
        read()
    file.unlink()
    with pytest.raises(IncompleteStore, match=f"{file.name} is missing"):
        read()
    elsewhere = path.parent / "elsewhere.tar"
    elsewhere.write_bytes(data)
    file.symlink_to(elsewhere)
    with pytest.raises(CorruptData, match="symbolic link"):
        read()


def test_a_file_cut_after_it_was_prepared_is_an_error_when_it_is_prepared_again(own):
    path = own(64, "none")
    index = open_shards(path)
    shard = index.split_shards("train")[0]
    store = open_store(path)
    with open_rows(index, "train") as rows:
        rows.prepare_once(np.array([0, 1]))
        assert store.frames("a", stop=256).shape == (256, 64)
        os.truncate(path / "shards" / shard.name, 4096)
        for verify in (False, True):
            with pytest.raises(CorruptData, match=r"sample .*/000001: cannot be read"):
                rows.prepare(np.array([1]), verify=verify)
        with pytest.raises(CorruptData, match="cannot be read"):
            rows.prepare_once(np.array([1]))
        with pytest.raises(CorruptData, match="cannot be read"):
            store.frames("a", start=128, stop=256)


def test_a_map_works_where_pages_cannot_be_asked_for(own, monkeypatch):
    # As older kernels answer.
    monkeypatch.setattr(laughstore.reading.mapping, "_MADV_POPULATE_READ", 9999)
    path = own(64, "none")
    index = open_shards(path)
    ids, bits = truth_of(index, "train")
    with open_rows(index, "train", "map") as rows:
        rows.prepare_once(blocks_of(index, "train"))
        np.testing.assert_array_equal(rows.matrix[rows.row_numbers(ids)], bits)
        os.truncate(path / "shards" / index.split_shards("train")[0].name, 4096)
        with pytest.raises(CorruptData, match=r"/000001: cannot be read"):
            rows.prepare_once(np.array([1]))


@pytest.mark.parametrize("reader", ALL_READERS)
def test_closed_rows_say_so_and_their_arrays_live_on(stores, reader):
    rows = open_rows(open_shards(stores[64, "none"]), "train", reader)
    rows.prepare_once(np.array([0]))
    matrix, numbers = rows.matrix, rows.row_numbers(np.arange(128))
    before = matrix[numbers]
    assert not matrix.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        matrix.flags.writeable = True
    rows.close()
    rows.close()
    np.testing.assert_array_equal(matrix[numbers], before)
    for use in (lambda: rows.matrix, lambda: rows.prepare_once(np.array([0]))):
        with pytest.raises(ValueError, match="were closed"):
            use()


def _in_child(rows: Rows, queue) -> None:
    rows.prepare_once(np.array([0, 1]))  # 0 was ready before the fork, 1 was not
    queue.put(int(rows.matrix[rows.row_numbers(np.arange(256))].sum()))


@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_a_forked_child_reads_on_even_when_the_lock_was_held(stores, codec, reader):
    context = multiprocessing.get_context("fork")
    index = open_shards(stores[64, codec])
    with open_rows(index, "train", reader or "auto") as rows:
        rows.prepare_once(np.array([0]))
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(rows, queue))
        guard = getattr(rows, "_changed", threading.Lock())
        with guard:
            child.start()
        found = queue.get(timeout=30)
        child.join(30)
        assert child.exitcode == 0
        assert found == int(truth_of(index, "train")[1][:256].sum())
        if rows.releases:
            with pytest.raises(ConfigError, match="not ready"):  # the child's window is its own
                rows.row_numbers(np.array([128]))


@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_threads_prepare_and_release_the_same_blocks(stores, codec, reader):
    index = open_shards(stores[64, codec])
    ids, bits = truth_of(index, "train")
    blocks = blocks_of(index, "train")
    faults: list[BaseException] = []

    def work(seed: int, rows: Rows) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(40):
                mine = rng.choice(blocks, 4, replace=False)
                rows.prepare_once(mine)
                chosen = np.flatnonzero(np.isin(ids // 128, mine))
                np.testing.assert_array_equal(
                    rows.matrix[rows.row_numbers(ids[chosen])], bits[chosen]
                )
                rows.release(mine)
        except BaseException as error:
            faults.append(error)

    with open_rows(index, "train", reader or "auto") as rows:
        threads = [threading.Thread(target=work, args=(seed, rows)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not faults
        assert getattr(rows, "num_ready", 0) == 0


def test_a_failed_fetch_leaves_nothing_behind_and_the_next_one_works(own):
    path = own(64, "none")
    index = far_index(open_shards(path))
    shard = index.split_shards("train")[0]
    file = path / "shards" / shard.name
    good = file.read_bytes()
    bad = bytearray(good)
    bad[index.geometry.data_offset(1)] ^= 1
    with open_rows(index, "train") as rows:
        file.write_bytes(bad)
        with pytest.raises(CorruptData):
            rows.prepare_once(np.arange(4))
        with pytest.raises(ConfigError, match="not ready"):
            rows.row_numbers(np.array([128]))
        file.write_bytes(good)
        rows.prepare_once(np.arange(4))
        np.testing.assert_array_equal(
            rows.matrix[rows.row_numbers(np.arange(512))], truth_of(index, "train")[1][:512]
        )


def test_an_index_whose_block_sizes_lie_is_refused_before_anything_is_read(stores):
    index = open_shards(stores[64, "zstd"])
    sizes = index.block_bytes.copy()
    for value in (0, 2**32 - 1, int(sizes[1]) + 512):
        lying = open_shards(stores[64, "zstd"])
        altered = sizes.copy()
        altered[1] = value
        lying.__dict__["block_bytes"] = altered
        with open_rows(lying, "train") as rows, pytest.raises(CorruptData, match="do not add up"):
            rows.prepare_once(np.array([0]))


def test_reprs_say_what_a_row_is(stores):
    for reader in ALL_READERS:
        with open_rows(open_shards(stores[64, "none"]), "train", reader) as rows:
            assert "split 'train', 7 shards, bfloat16[" in repr(rows)
            assert "rows, 64]" in repr(rows)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_numpy_integers_are_integers_each_time(stores, codec, reader, kind):
    store = open_store(stores[64, codec])
    where = "a", EPISODES[0].assignments[1].name, kind(130), kind(200)
    bits = TRUTH(64)("a", 1, 700)[130:200]
    with open_rows(store.index, "train", reader or "auto") as rows:
        for _ in range(2):
            np.testing.assert_array_equal(store.frames(*where).view(np.uint16), bits)
            blocks = rows.blocks_of(*where)
            rows.prepare_once(blocks.astype(kind))
            rows.prepare(blocks.astype(kind), verify=True)
            np.testing.assert_array_equal(rows.matrix[rows.rows_of(*where)], bits)
            rows.release(blocks.astype(kind))
        first = store.stream("a", where[1]).first_block
        rows.prepare_once([first + 1])
        frame = kind(first * 128 + 130) if kind is not np.uint8 else first * 128 + 130
        np.testing.assert_array_equal(rows.matrix[rows.row_numbers([frame])], bits[:1])
        wrong: list[Any] = [(0.0, 5), (0, "5"), (None, 5)]
        for start, stop in wrong:
            for read in (store.frames, rows.rows_of, rows.blocks_of):
                with pytest.raises(ConfigError, match="whole numbers of frames"):
                    read("a", None, start, stop)
        wrong = [[0.5], np.zeros((1, 1), np.int64), np.array([True])]
        for blocks in wrong:
            with pytest.raises(ConfigError, match="a list of whole numbers"):
                rows.prepare_once(blocks)


def test_numbers_of_narrow_types_do_not_wrap_round(stores):
    rows = open_rows(open_shards(stores[64, "none"]), "test")
    with pytest.raises(ConfigError, match="frame 384 is of another split"):
        rows.prepare_once(np.array([3], np.uint8))


def test_what_was_prepared_unchecked_is_checked_when_it_is_asked_for(own):
    path = own(64, "none")
    store = open_store(path)
    index, stream = store.index, store.stream("a")
    file = path / "shards" / index.split_shards("train")[0].name
    data = bytearray(file.read_bytes())
    data[index.geometry.data_offset(1) + 5] ^= 4
    file.write_bytes(data)
    with open_rows(index, "train", "map") as rows:
        rows.prepare(np.array([0, 1]), verify=False)
        with pytest.raises(CorruptData, match=r"/000001: crc32c is"):
            rows.prepare_once(np.array([1]))
    reader = store._readers.of(stream)
    assert isinstance(reader, MappedRows)
    reader.prepare(np.array([0, 1]), verify=False)
    with pytest.raises(CorruptData, match=r"/000001: crc32c is"):
        store.frames("a", start=128, stop=130)


def _constant_blocks(name: str, assignment: int, num_frames: int) -> np.ndarray:
    """Blocks that differ and are of one size, compressed too."""
    rows = np.zeros((num_frames, 64), np.uint16)
    rows[:] = (np.arange(num_frames) // 128 + 40 + 7 * assignment)[:, None]
    return rows


@pytest.mark.parametrize("swapped", ["blocks", "shards"])
@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_sound_bytes_in_another_place_are_found(tmp_path, codec, reader, swapped):
    path = tmp_path / "s"
    episode = [Episode("a", "train", 512)]
    write_store(path, episode, _constant_blocks, dim=64, shard_frames=256, codec=codec)
    store = open_store(path)
    index = store.index
    first, second = (path / "shards" / shard.name for shard in index.split_shards("train")[:2])
    first.chmod(0o644)
    second.chmod(0o644)
    assert len(set(index.block_bytes[:4].tolist())) == 1
    data, other = bytearray(first.read_bytes()), second.read_bytes()
    if swapped == "shards":
        second.write_bytes(data)
        data[:] = other
    else:
        size = int(index.block_bytes[0])
        here, there = index.geometry.block_offsets(index.block_bytes[:2].astype(np.int64)).tolist()
        content = bytes(data[here : here + size])
        assert content != data[there : there + size]
        data[here : here + size] = data[there : there + size]
        data[there : there + size] = content
    first.write_bytes(data)
    with open_rows(index, "train", reader or "auto") as rows:
        for block in (0, 1):
            with pytest.raises(CorruptData, match=f"{first.name}, sample .*/00000{block}: "):
                rows.prepare_once([block])
        rows.prepare_once([4])
    with pytest.raises(CorruptData, match=f"{first.name}, sample "):
        store.frames("a", stop=1)


def _refuse_to_map(*_: object) -> int:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def test_where_the_system_maps_no_more_files_they_are_read(stores, monkeypatch):
    store = open_store(stores[64, "none"])
    ids, bits = truth_of(store.index, "train")
    monkeypatch.setattr(laughstore.reading.mapping.MappedFiles, "_map", _refuse_to_map)
    with pytest.raises(ConfigError, match=r"maps no more of its 7 shards .*vm\.max_map_count"):
        open_rows(store.index, "train", "map")
    with open_rows(store.index, "train") as rows:
        assert rows.releases
        rows.prepare_once(blocks_of(store.index, "train"))
        np.testing.assert_array_equal(rows.matrix[rows.row_numbers(ids)], bits)
    np.testing.assert_array_equal(store.frames("a").view(np.uint16), TRUTH(64)("a", 0, 700))


@pytest.mark.parametrize("dim", [64, 96])
def test_shards_count_as_often_as_they_stand_in_the_map_of_the_process(stores, dim, monkeypatch):
    index = open_shards(stores[dim, "none"])
    shards = index.split_shards("train")
    expected = len(shards)
    before = _num_maps()
    with open_rows(index, "train", "map"):
        # The range's own end may join a neighbour's, or be a piece of its own.
        assert expected - 1 <= _num_maps() - before <= expected + 2
    monkeypatch.setattr(laughstore.reading.rows, "MAX_MAPPED_PIECES", expected)
    assert not open_rows(index, "train").releases
    monkeypatch.setattr(laughstore.reading.rows, "MAX_MAPPED_PIECES", expected - 1)
    assert open_rows(index, "train").releases
    with pytest.raises(ConfigError, match="7 shards are more than a process can map"):
        open_rows(index, "train", "map")


def _num_maps() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize(("codec", "reader"), [("none", "map"), ("none", "window"), ("zstd", None)])
def test_closing_gives_back_files_and_addresses(own, codec, reader):
    path = own(64, codec)
    index = open_shards(path)

    def use() -> None:
        with open_rows(index, "train", reader or "auto") as rows:
            rows.prepare_once(blocks_of(index, "train"))
        with open_store(path) as store:
            store.frames("a")

    use()
    files, maps = _num_open_files(), _num_maps()
    for _ in range(20):
        use()
    assert _num_open_files() == files
    assert _num_maps() - maps < 15
    (path / "shards" / index.split_shards("train")[-1].name).unlink()
    for _ in range(20):
        with pytest.raises(IncompleteStore):
            use()
    assert _num_open_files() == files
    assert _num_maps() - maps < 15


def test_a_file_that_changed_since_its_size_was_looked_at_is_not_mapped(own, monkeypatch):
    path = own(64, "none")
    index = open_shards(path)
    shard = index.split_shards("train")[3]
    file = path / "shards" / shard.name
    data = file.read_bytes()
    monkeypatch.setattr(laughstore.reading.mapped_rows, "_check_size", lambda *_: None)
    maps, files = _num_maps(), _num_open_files()
    file.write_bytes(data[:-1])
    with pytest.raises(CorruptData, match=rf"{shard.name} cannot be mapped \(its size has just"):
        open_rows(index, "train", "map")
    file.rename(path / "elsewhere")
    with pytest.raises(IncompleteStore, match=f"{shard.name} has just gone"):
        open_rows(index, "train", "map")
    (path / "elsewhere").write_bytes(data)
    file.symlink_to(path / "elsewhere")
    with pytest.raises(CorruptData, match=rf"{shard.name} cannot be mapped \(.*symbolic links"):
        open_rows(index, "train", "map")
    assert _num_maps() - maps < 4
    assert _num_open_files() == files


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_release_breaks_no_block(stores, monkeypatch):
    index = open_shards(stores[64, "zstd"])
    expected = truth_of(index, "train")[1][:256]
    children: list[int] = []
    with open_rows(index, "train") as rows:
        assert isinstance(rows, WindowRows)
        rows.prepare_once([0, 1])

        def fork(*_: object) -> None:
            children.append(os.fork())
            if children[-1] == 0:
                signal.alarm(20)
                try:
                    rows.prepare_once([0, 1])
                    found = rows.matrix[rows.row_numbers(np.arange(256))]
                    os._exit(0 if np.array_equal(found, expected) and rows.num_ready == 2 else 3)
                finally:
                    os._exit(4)

        monkeypatch.setattr(rows, "_drop_pages", fork)
        rows.release([0])
    assert [os.waitpid(child, 0)[1] for child in children] == [0]


def test_page_cache_that_can_be_taken_back_is_free_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "none")
    assert memory.available_bytes() is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert memory.available_bytes() == 100
    (tmp_path / "memory.stat").write_text("anon 5\nactive_file 7\ninactive_file 600\n")
    assert memory.available_bytes() == 707
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 0 kB\n")
    assert memory.available_bytes() == 0


@pytest.mark.parametrize(
    ("told", "root", "limit", "used", "page_cache"),
    [
        ("0::/slice/job_7/step_0\n", "", "memory.max", "memory.current", "inactive_file 30"),
        (
            "3:cpu:/\n4:memory:/slice/job_7/step_0\n0::/\n",
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "inactive_file 1\ntotal_active_file 30",
        ),
    ],
)
def test_the_limit_of_a_group_around_this_process_counts(
    told, root, limit, used, page_cache, tmp_path, monkeypatch
):
    """As of a job of a cluster, whose machine has more."""
    for name in ("meminfo", "cgroup"):
        monkeypatch.setattr(memory, f"_{name.upper()}", tmp_path / name)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "meminfo").write_text("MemAvailable: 9000 kB\n")
    (tmp_path / "own").write_text(told)
    job = tmp_path / "cgroup" / root / "slice" / "job_7"
    (job / "step_0").mkdir(parents=True)
    (job / "step_0" / limit).write_text("max\n")
    assert memory.available_bytes() == memory.memory_bytes() == 9000 * 1024
    (job / limit).write_text("1000\n")
    (job / used).write_text("900\n")
    (job / "memory.stat").write_text(f"anon 5\n{page_cache}\n")
    assert (memory.available_bytes(), memory.memory_bytes()) == (130, 1000)
    # In a container this group is the root.
    (tmp_path / "own").write_text(told.replace("/slice", "/elsewhere/slice"))
    assert memory.available_bytes() == 9000 * 1024
    top = tmp_path / "cgroup" / root
    (top / limit).write_text("2000\n")
    (top / used).write_text("900\n")
    assert (memory.available_bytes(), memory.memory_bytes()) == (1100, 2000)


def test_what_is_no_index_and_no_amount_of_memory_is_refused(stores):
    store = open_store(stores[64, "none"])
    for wrong in (store, stores[64, "none"], str(stores[64, "none"])):
        with pytest.raises(ConfigError, match=r"give open_shards\(path\), .* store\.index"):
            open_rows(wrong, "train")  # pyright: ignore[reportArgumentType]
    for max_bytes in (0, -1, 128 * 64 * 2 - 1, 1e9, "1G"):
        with pytest.raises(ConfigError, match=r"max_bytes is .* at least the 16384 of one block"):
            open_rows(store.index, "train", "window", max_bytes=max_bytes)  # pyright: ignore
