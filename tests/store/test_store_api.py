"""The store as a notebook sees it: recordings, arrays, frames, blocks; hostile metadata refused."""

import json
import os
import shutil
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from laughstore import (
    ConfigError,
    CorruptData,
    IncompleteStore,
    NotFound,
    open_rows,
    open_shards,
    open_store,
)
from laughstore.evolution.gc import collect_garbage
from laughstore.store import Store
from tests.store.evolutions import annotate_one, write_first
from tests.stores import Episode, laugh, numbered_codes, random_features, write_store

DIM = 64
EPISODES = [
    Episode("a", "train", 700, [laugh(1, 2)]),
    Episode("b", "test", 128),
    Episode("c", "train", 5, speakers=("Only One",)),
]
FEATURES = random_features(DIM)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module", params=["none", "zstd"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "store"
    return write_store(path, EPISODES, FEATURES, dim=DIM, shard_frames=256, codec=request.param)


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(built, tmp_path / "store"))
    for file in path.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
    return path


def test_recordings_splits_and_assignments_are_listed(built):
    with open_store(built) as store:
        assert [recording.name for recording in store.recordings] == ["a", "b", "c"]
        assert store.splits == ("train", "test")
        assert store.assignments("a") == ("speaker-00--speaker-01", "speaker-01--speaker-00")
        assert store.assignments(store.recordings[2].id) == ("only-one--silence",)
        with pytest.raises(NotFound, match="no recording 'z'"):
            store.assignments("z")


def test_frames_of_a_store_are_bounded(built):
    store = open_store(built)
    frames = store.frames("a", start=130, stop=140)
    assert frames.dtype == BFLOAT16
    np.testing.assert_array_equal(frames.view(np.uint16), FEATURES("a", 0, 700)[130:140])
    assert store.frames("c", "only-one--silence").shape == (5, DIM)
    assert store.frames("a", start=7, stop=7).shape == (0, DIM)
    for start, stop in ((0, 701), (-1, 5), (5, 4)):
        with pytest.raises(ConfigError, match="which has 700 frames"):
            store.frames("a", start=start, stop=stop)
    with pytest.raises(NotFound, match="no assignment 'x'"):
        store.frames("a", "x")


def test_frames_are_fresh_memory_that_the_caller_may_write(built):
    store = open_store(built)
    first = store.frames("a")
    first[:] = 0
    np.testing.assert_array_equal(store.frames("a").view(np.uint16), FEATURES("a", 0, 700))


def test_a_flipped_bit_or_a_lost_shard_closes_only_its_own_frames(own):
    store = open_store(own)
    stream = store.stream("a")
    shard = own / "shards" / f"train-{stream.first_shard + 1:06d}.tar"
    data = bytearray(shard.read_bytes())
    data[store.index.geometry.data_offset(0) + 7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptData, match="restore it"):
        store.frames("a", start=256, stop=300)
    assert len(store.frames("a", stop=256)) == 256
    assert len(store.frames("a", "speaker-01--speaker-00")) == 700
    shard.unlink()
    with pytest.raises((IncompleteStore, CorruptData)):
        open_store(own).frames("a", start=256, stop=300)
    assert len(open_store(own).frames("b")) == 128


def test_blocks_come_in_order_and_hold_every_frame_once(built):
    store = open_store(built)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for block in store.blocks():
        parts = found.setdefault((block.recording, block.assignment), [])
        assert block.start_frame == sum(map(len, parts))
        assert len(block.frames) <= 128
        parts.append(block.frames)
    assert list(found) == [
        (s.recording_id, s.assignment) for r in store.recordings for s in r.streams
    ]
    for recording, episode in zip(store.recordings, EPISODES, strict=True):
        for number, stream in enumerate(recording.streams):
            frames = np.concatenate(found[recording.id, stream.assignment])
            expected = FEATURES(episode.name, number, episode.num_frames)
            np.testing.assert_array_equal(frames.view(np.uint16), expected)


def test_blocks_of_a_split_a_recording_or_an_assignment(built):
    store = open_store(built)
    assert {block.recording for block in store.blocks(split="test")} == {store.recordings[1].id}
    assert len(list(store.blocks(recording="a"))) == 12
    assert len(list(store.blocks(recording="a", assignment="speaker-01--speaker-00"))) == 6
    assert len(list(store.blocks(split="train", assignment="only-one--silence"))) == 1
    with pytest.raises(ConfigError, match="no split 'dev'"):
        store.blocks(split="dev")
    with pytest.raises(NotFound, match="nothing is of split test"):
        store.blocks(split="test", recording="a")
    assert "bfloat16[128, 64] from 10.24 s" in repr(list(store.blocks(recording="a"))[1])


def test_codes_are_read_only_zarr(built):
    codes = open_store(built).codes("a", "speaker-01--speaker-00")
    np.testing.assert_array_equal(codes[:], numbered_codes(2, 700)[1])
    assert codes.read_only
    with pytest.raises(ValueError, match="read-only"):
        codes[0] = 1


def test_array_reads_from_the_shards_and_a_lost_one_is_an_error(own):
    shutil.rmtree(own / "features.zarr/train" / open_store(own).recordings[0].id, True)
    store = open_store(own)
    with pytest.raises(CorruptData, match=r"zarr.json is missing"):
        store.array("a")
    array = store.array("b")
    assert (array.shape, array.dtype, array.read_only) == ((128, DIM), BFLOAT16, True)
    np.testing.assert_array_equal(np.asarray(array[:]).view(np.uint16), FEATURES("b", 0, 128))
    (own / "shards" / f"test-{store.stream('b').first_shard:06d}.tar").unlink()
    with pytest.raises(FileNotFoundError):
        array[:]


HOSTILE = [
    ("shape", [2**50, 64]),
    ("shape", [699, 64]),
    ("shape", [700]),
    ("data_type", "float64"),
    ("data_type", {"name": "bytes", "configuration": {"length_bytes": 2**40}}),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [2**40, 64]}}),
    ("codecs", [{"name": "bytes"}]),
    ("codecs", [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 9}}]),
    ("fill_value", 0.0),
    ("dimension_names", ["channel", "frame"]),
    ("chunk_key_encoding", {"name": "default", "configuration": {"separator": "."}}),
    ("storage_transformers", [{"name": "pickle"}]),
    ("zarr_format", 2),
    ("node_type", "group"),
    ("extra", {"must_understand": False}),
]


@pytest.mark.parametrize("root", ["features.zarr", "codes.zarr"])
@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_a_hostile_zarr_json_never_reaches_zarr(own, root, field, value, monkeypatch):
    store = open_store(own)
    stream = store.stream("a")
    path = own / root / "train" / stream.recording_id / stream.assignment / "zarr.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {field: value}))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("zarr was asked to open it")

    monkeypatch.setattr("laughstore.store.open_array", never)
    read = store.array if root == "features.zarr" else store.codes
    with pytest.raises(CorruptData, match=rf"zarr.json: {field} is .* the index says"):
        read("a")


def test_attributes_of_an_array_may_change(own):
    store = open_store(own)
    stream = store.stream("a")
    path = own / "features.zarr/train" / stream.recording_id / stream.assignment / "zarr.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {"attributes": {"note": "seen"}}))
    assert store.array("a").attrs["note"] == "seen"


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"shape": NaN}'])
def test_a_zarr_json_that_is_no_json_is_refused(own, text):
    store = open_store(own)
    stream = store.stream("a")
    path = own / "features.zarr/train" / stream.recording_id / stream.assignment / "zarr.json"
    path.write_text(text)
    with pytest.raises(CorruptData, match=r"zarr\.json"):
        store.array("a")


def test_a_closed_store_says_so_and_what_was_read_stays(built):
    with open_store(built) as store:
        frames = store.frames("a")
        blocks = store.blocks(split="train")
        next(blocks)
    np.testing.assert_array_equal(frames.view(np.uint16), FEATURES("a", 0, 700))
    with pytest.raises(ValueError, match="store was closed; open it again"):
        store.frames("a")
    with pytest.raises(ValueError, match="closed"):
        list(blocks)
    store.close()


def _child(store: Store, pipe: int) -> None:
    same = np.array_equal(store.frames("a").view(np.uint16), FEATURES("a", 0, 700))
    os.write(pipe, b"y" if same else b"n")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_the_same_frames(built):
    store = open_store(built)
    store.frames("a", stop=10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _child(store, writer)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"y"
    assert os.waitpid(child, 0)[1] == 0
    os.close(reader)


def test_threads_read_one_store(built):
    store = open_store(built)
    whole = FEATURES("a", 0, 700)
    faults: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                start, stop = np.sort(rng.integers(0, 701, 2)).tolist()
                frames = store.frames("a", start=start, stop=stop)
                np.testing.assert_array_equal(frames.view(np.uint16), whole[start:stop])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults


def test_long_reads_do_not_push_short_ones_out_of_the_cache(tmp_path):
    from laughstore.reading import blocks

    path = tmp_path / "s"
    write_store(path, [Episode("a", "train", 128 * 40)], FEATURES, dim=DIM, codec="zstd")
    store = open_store(path)
    stream = store.stream("a")
    reader = store._readers.of(stream)
    assert isinstance(reader, blocks.CachedBlocks)
    reader._max_blocks = 8
    first = stream.first_block * 128
    reader.read(first, 128)
    reader.read(first, 128 * 40)
    assert list(reader._cache) == [stream.first_block]
    for block in range(20):
        reader.read(first + block * 128, 1)
    assert list(reader._cache) == [stream.first_block + block for block in range(12, 20)]


def test_streams_used_longest_ago_are_closed_when_there_are_many(built, monkeypatch):
    monkeypatch.setattr("laughstore.reading.frame_readers._MAX_OPEN_SHARDS", 4)
    store = open_store(built)
    for _ in range(2):
        for recording in store.recordings:
            for number, stream in enumerate(recording.streams):
                frames = store.frames(recording.name, stream.assignment)
                expected = FEATURES(recording.name, number, stream.num_frames)
                np.testing.assert_array_equal(frames.view(np.uint16), expected)
    assert sum(stream.num_shards for stream in store._readers._open) <= 4


def test_reprs_tell_shapes_units_and_hours(built):
    store = open_store(built)
    assert "generation 1" in repr(store)
    assert "3 recordings, 1661 frames of bfloat16[64] at 12.5 Hz (0.04 h)" in repr(store)
    assert "'a', id a-" in repr(store.recordings[0])
    assert "700 frames at 12.5 Hz (0.02 h)" in repr(store.recordings[0])
    assert "speaker-00--speaker-01': 700 frames" in repr(store.stream("a"))


def test_what_was_collected_meanwhile_is_named_so_and_nobody_is_told_to_restore_it(tmp_path):
    path = write_first(tmp_path / "s")
    stores = [open_store(path) for _ in range(5)]
    stores[4].frames("one")
    annotate_one(path)
    collect_garbage(path)
    said = "generation 1 was collected .* open the store again"
    for use in (
        lambda: stores[0].frames("one"),
        lambda: stores[1].epochs("Laughter", "1f", "1f"),
        lambda: open_rows(stores[2].index, "train"),
        lambda: stores[3].annotations("one"),
        lambda: stores[4].annotations("one"),
    ):
        with pytest.raises(NotFound, match=said):
            use()
    assert len(stores[4].frames("one")) == 100  # what was read once is kept
    assert stores[4].annotations("two").recording == "two"  # and so is what all generations share
    assert open_store(path).annotations("one").recording == "one"


def test_columns_that_are_lost_were_not_collected(tmp_path):
    path = write_first(tmp_path / "s")
    store, index = open_store(path), open_shards(path / "shards")
    (path / "shards" / "index-000001.columns").unlink()
    with pytest.raises(NotFound, match=r"index-000001\.columns does not exist"):
        store.frames("one")
    (path / "shards" / "index-000001.json").unlink()  # as in a folder of shards that stands alone
    with pytest.raises(NotFound, match=r"index-000001\.columns does not exist"):
        open_rows(index, "train")
    shutil.rmtree(path / "annotations")
    with pytest.raises(CorruptData, match="is missing; restore it"):
        store.annotations("one")


def test_a_block_that_is_kept_keeps_no_others(built):
    for block in open_store(built).blocks():
        owner = block.frames
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        assert owner.nbytes <= 128 * DIM * 2


def test_a_store_closed_between_two_blocks_of_one_stream_says_so(built, monkeypatch):
    monkeypatch.setattr("laughstore.reading.blocks._READ_BYTES", 1)
    store = open_store(built)
    blocks = store.blocks(recording="a", assignment="speaker-00--speaker-01")
    next(blocks)
    store.close()
    with pytest.raises(ValueError, match="this store was closed; open it again"):
        for _ in blocks:
            pass


def test_blocks_are_chosen_by_name(built):
    with pytest.raises(TypeError, match="positional"):
        open_store(built).blocks("a")  # pyright: ignore[reportCallIssue]
