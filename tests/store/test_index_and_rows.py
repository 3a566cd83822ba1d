"""The index says what is where; mapped rows believe only what they have checked."""

import gc
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from laughstore import ConfigError, CorruptData, IncompleteStore, NotFound, open_rows, open_shards
from laughstore.index_file import read_index
from laughstore.sealed import seal, unseal
from laughstore.store import open_store
from tests.stores import Episode, laugh, random_features, write_store

DIM = 64


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [
        Episode("a", "train", 700, [laugh(1, 2), laugh(3, 4, None)]),
        Episode("b", "train", 128),
        Episode("c", "test", 5, speakers=("Only One",)),
    ]
    path = tmp_path_factory.mktemp("store") / "store"
    return write_store(path, episodes, random_features(DIM), dim=DIM, shard_frames=256)


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    """A store that the test may damage."""
    path = Path(shutil.copytree(built, tmp_path / "store"))
    for shard in (path / "shards").glob("*.tar"):
        shard.chmod(0o644)
    return path


def _blocks(index, split: str) -> np.ndarray:
    return np.concatenate(
        [np.arange(s.first_block, s.first_block + s.num_blocks) for s in index.streams(split)]
    )


def test_global_frame_ids_are_the_same_whatever_the_split(built):
    index = open_shards(built)
    streams = [stream for recording in index.recordings for stream in recording.streams]
    first = 0
    for stream in streams:
        assert stream.first_block == first
        first += stream.num_blocks
    assert first == index.num_blocks
    assert index.splits == ("train", "test")


def test_the_annotation_columns_come_back(built):
    index = open_shards(built)
    tables = index.tables(index.recording("a"))
    assert tables.events.start_us.tolist() == [1_000_000, 3_000_000]
    assert tables.events.speaker.tolist() == [0, -1]
    assert tables.turns is None
    assert tables.intervals is None
    assert index.vocabulary.labels == ("Laughter",)


def test_a_recording_is_found_by_name_and_by_id(built):
    index = open_shards(built)
    assert index.recording("a") is index.recording(index.recordings[0].id)
    with pytest.raises(NotFound, match="laughstore inspect"):
        index.recording("z")


def test_an_unknown_split_names_those_there_are(built):
    with pytest.raises(ConfigError, match="no split 'dev'; it has train, test"):
        open_shards(built).streams("dev")


def test_every_flipped_byte_of_the_index_is_found(own):
    path = own / "shards/index.json"
    data = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(data), 60):
        altered = bytearray(data)
        altered[position] ^= 1 << (position % 8)
        path.write_bytes(altered)
        with pytest.raises(CorruptData):
            read_index(own / "shards")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("version", 2, "version 2 is not readable"), ("format", "other", "other version 1")],
)
def test_unknown_versions_are_refused_by_name(own, field, value, said):
    path = own / "shards/index.json"
    content, _ = unseal(path.read_bytes(), where="index")
    content.pop("sha256", None)
    path.write_bytes(seal(content | {field: value}))
    with pytest.raises(CorruptData, match=said):
        read_index(own / "shards")


@pytest.mark.parametrize("name", ["../../etc", "/abs", "pipe:cat x", "a\0b"])
def test_an_index_whose_names_leave_the_folder_is_refused(own, name):
    path = own / "shards/index.json"
    content, _ = unseal(path.read_bytes(), where="index")
    content["recordings"][0]["split"] = name
    path.write_bytes(seal(content))
    with pytest.raises(CorruptData, match="must not stand in a path"):
        read_index(own / "shards")


def test_every_flipped_bit_of_a_block_is_found_before_it_is_used(own):
    index = open_shards(own)
    shard = index.split_shards("train")[0]
    path = own / "shards" / shard.name
    data = path.read_bytes()
    start = index.geometry.data_offset(1)
    for position in np.random.default_rng(0).integers(0, index.geometry.data_bytes + 4, 40):
        altered = bytearray(data)
        altered[start + position] ^= 4
        path.write_bytes(altered)
        with open_rows(index, "train") as rows:
            rows.prepare(np.array([0]), verify=True)
            with pytest.raises(CorruptData, match=rf"{shard.name}, sample .*/000001: crc32c"):
                rows.prepare(np.array([1]), verify=True)


def test_swapped_shards_of_one_size_are_found(own):
    index = open_shards(own)
    one, two = (own / "shards" / shard.name for shard in index.split_shards("train")[:2])
    first, second = one.read_bytes(), two.read_bytes()
    assert len(first) == len(second)
    one.write_bytes(second)
    two.write_bytes(first)
    with open_rows(index, "train") as rows, pytest.raises(CorruptData, match="the index"):
        rows.prepare(_blocks(index, "train"), verify=True)


def test_a_missing_shard_and_a_shard_of_another_size_are_found_before_mapping(own):
    index = open_shards(own)
    path = own / "shards" / index.split_shards("train")[1].name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptData, match=f"{path.name} has"):
        open_rows(index, "train")
    path.unlink()
    with pytest.raises(IncompleteStore, match=f"{path.name} is missing"):
        open_rows(index, "train")


def test_a_file_cut_after_it_was_mapped_is_an_error_and_no_crash(own):
    index = open_shards(own)
    shard = index.split_shards("train")[0]
    with open_rows(index, "train") as rows:
        rows.prepare(np.array([0]), verify=False)
        with (own / "shards" / shard.name).open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(CorruptData, match=r"sample .*/000001: cannot be read"):
            rows.prepare(np.array([1]), verify=False)


def test_arrays_outlive_the_rows_they_came_from(built):
    index = open_shards(built)
    rows = open_rows(index, "train")
    rows.prepare(np.array([0]), verify=True)
    matrix = rows.matrix
    number = rows.row_numbers(np.array([0]))
    before = matrix[number].copy()
    rows.close()
    del rows
    gc.collect()
    np.testing.assert_array_equal(matrix[number], before)
    assert not matrix.flags.writeable


def test_closed_rows_say_so(built):
    rows = open_rows(open_shards(built), "train")
    rows.close()
    with pytest.raises(ValueError, match="were closed"):
        _ = rows.matrix


def _child_sum(rows, queue) -> None:
    queue.put(int(rows.matrix[rows.row_numbers(np.arange(128))].sum()))


def test_a_forked_process_reads_the_same_rows(built):
    context = multiprocessing.get_context("fork")
    with open_rows(open_shards(built), "train") as rows:
        rows.prepare(np.array([0]), verify=True)
        queue = context.Queue()
        child = context.Process(target=_child_sum, args=(rows, queue))
        child.start()
        assert queue.get(timeout=30) == int(rows.matrix[rows.row_numbers(np.arange(128))].sum())
        child.join(30)
        assert child.exitcode == 0


def test_annotations_that_were_edited_are_found(own):
    store = open_store(own)
    assert [event.start_us for event in store.annotations("a").events] == [1_000_000, 3_000_000]
    path = next((own / "annotations").glob("*/train/a-*.json"))
    path.write_text(path.read_text().replace("1000000", "1000001"))
    with pytest.raises(CorruptData, match="content is not what its name says"):
        store.annotations("a")


def test_reprs_tell_shapes_and_units(built):
    text = repr(open_store(built))
    assert "bfloat16[64] at 12.5 Hz" in text
    assert "3 recordings" in text
