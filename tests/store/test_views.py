"""One file, three views: each opened by its stock reader, all with the same bytes."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zarr
from numcodecs.zstd import decompress
from webdataset.compat import WebDataset

from laughstore import open_rows, open_shards, open_store
from laughstore.geometry import ShardGeometry
from laughstore.shard import PREAMBLE_NAME
from tests.stores import Episode, laugh, random_features, write_store

SHARD_FRAMES = 512
LENGTHS = {"one frame": 1, "exactly a shard": 512, "ragged, three shards": 1024 + 128 + 37}
"""Frames of the episodes: a ragged last block, a full last shard, a last shard of one block."""


EVENTS = [laugh(0.0, 0.05), laugh(10.0, 10.2), laugh(30.9, 31.5), laugh(50.0, 51.0)]
"""A block takes 10.24 s: the second event ends 0.04 s before block 1, the third is in block 3."""


@pytest.fixture(scope="module", params=[64, 4096], ids=lambda dim: f"dim{dim}")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    dim = request.param
    episodes = [
        Episode(f'Show, "{name}".', "train", num_frames, EVENTS[:1] if num_frames == 1 else EVENTS)
        for name, num_frames in LENGTHS.items()
    ]
    features = random_features(dim)
    path = tmp_path_factory.mktemp("views") / "store"
    write_store(path, episodes, features, dim=dim, shard_frames=SHARD_FRAMES)
    expected = {
        (episode.name, stream.assignment): features(episode.name, number, episode.num_frames)
        for episode in episodes
        for number, stream in enumerate(open_store(path).index.recording(episode.name).streams)
    }
    return path, dim, expected


@pytest.fixture(scope="module", params=[64, 4096], ids=lambda dim: f"dim{dim}")
def compressed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    dim = request.param
    features = random_features(dim)
    path = tmp_path_factory.mktemp("views") / "store"
    episodes = [Episode("ragged", "train", 512 + 128 + 37, EVENTS[:1])]
    write_store(path, episodes, features, dim=dim, shard_frames=SHARD_FRAMES, codec="zstd")
    stream = open_shards(path).recording("ragged").streams[1]
    return path, dim, stream, features("ragged", 1, 512 + 128 + 37)


def _shards(path: Path) -> list[Path]:
    return sorted((path / "shards").glob("*.tar"))


def test_zarr_opens_every_array_with_the_stock_function(built):
    path, dim, expected = built
    store = open_store(path)
    for (name, assignment), bits in expected.items():
        stream = store.stream(name, assignment)
        folder = path / "features.zarr" / stream.split / stream.recording_id / assignment
        array = zarr.open_array(folder, mode="r", config={"read_missing_chunks": False})
        assert array.shape == (len(bits), dim)
        assert array.dtype == np.dtype(ml_dtypes.bfloat16)
        assert array.metadata.to_dict()["dimension_names"] == ("frame", "channel")
        np.testing.assert_array_equal(np.asarray(array[:]).view(np.uint16), bits)


def test_zarr_groups_lead_from_the_root_to_every_array(built):
    path, _, expected = built
    root = zarr.open_group(path / "features.zarr", mode="r")
    arrays = [name for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)]
    assert len(arrays) == len(expected)


def test_webdataset_yields_every_block_in_order(built):
    path, dim, expected = built
    urls = [str(shard) for shard in _shards(path)]
    names = {recording.id: recording.name for recording in open_store(path).recordings}
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for sample in WebDataset(urls, shardshuffle=False):
        about = json.loads(sample["json"])
        assert len(sample["bf16"]) == 128 * dim * 2 + 4
        bits = np.frombuffer(sample["bf16"][:-4], "<u2").reshape(about["shape"])
        key = names[about["recording"]], about["assignment"]
        assert sample["__key__"] == (
            f"{about['recording']}/{about['assignment']}/{about['start_frame'] // 128:06d}"
        )
        found.setdefault(key, []).append(bits[: about["num_frames"]])
    assert found.keys() == expected.keys()
    for key, blocks in found.items():
        np.testing.assert_array_equal(np.concatenate(blocks), expected[key])


def test_python_tarfile_and_gnu_tar_list_the_same_members(built):
    path, _, _ = built
    for shard in _shards(path):
        with tarfile.open(shard) as archive:
            members = archive.getnames()
        listed = subprocess.run(["tar", "-tf", shard], capture_output=True, text=True, check=True)
        assert listed.stdout.splitlines() == members
        assert listed.stderr == ""
        assert members[0] == PREAMBLE_NAME
        assert [Path(name).suffix for name in members[1:]] == [".json", ".bf16"] * (
            len(members) // 2
        )


def test_gnu_tar_extracts_the_bytes_of_the_frames(built, tmp_path):
    path, dim, expected = built
    stream = open_store(path).stream('Show, "ragged, three shards".')
    shard = path / "shards" / f"train-{stream.first_shard + 2:06d}.tar"
    subprocess.run(["tar", "-xf", shard, "-C", tmp_path], check=True)
    block = tmp_path / stream.recording_id / stream.assignment / "000009.bf16"
    bits = np.frombuffer(block.read_bytes()[:-4], "<u2").reshape(128, dim)
    whole = expected[('Show, "ragged, three shards".', stream.assignment)]
    np.testing.assert_array_equal(bits[:37], whole[9 * 128 :])
    assert np.isnan(bits[37:].view(ml_dtypes.bfloat16)).all()


def test_a_plain_numpy_memmap_is_a_matrix_of_frames(built):
    path, dim, expected = built
    geometry = ShardGeometry(dim, shard_frames=SHARD_FRAMES)
    index = open_shards(path)
    for shard in index.shards:
        matrix = np.memmap(path / "shards" / shard.name, "<u2", "r").reshape(-1, dim)
        assert len(matrix) * geometry.row_bytes == shard.num_bytes
        recording = index.recording(shard.stream.recording_id)
        whole = expected[(recording.name, shard.stream.assignment)]
        first = (shard.first_block - shard.stream.first_block) * 128
        for block in range(shard.num_blocks):
            frames = whole[first + block * 128 : first + (block + 1) * 128]
            row = block * geometry.rows_per_block + geometry.header_rows
            np.testing.assert_array_equal(matrix[row : row + len(frames)], frames)


def test_all_shards_of_a_split_are_one_matrix_and_any_frames_one_gather(built):
    path, _, expected = built
    index = open_shards(path)
    ids, rows = [], []
    for stream in index.streams("train"):
        name = index.recording(stream.recording_id).name
        ids.append(stream.first_block * 128 + np.arange(stream.num_frames))
        rows.append(expected[(name, stream.assignment)])
    frames, bits = np.concatenate(ids), np.concatenate(rows)
    order = np.random.default_rng(0).permutation(len(frames))
    with open_rows(index, "train") as mapped:
        mapped.prepare_once(np.unique(frames // 128))
        gathered = mapped.matrix[mapped.row_numbers(frames[order])]
    np.testing.assert_array_equal(gathered, bits[order])


def test_the_tar_and_the_zarr_chunk_are_one_inode(built):
    path, _, _ = built
    chunks = {chunk.stat().st_ino for chunk in (path / "features.zarr").glob("*/*/*/c/*/0")}
    assert {shard.stat().st_ino for shard in _shards(path)} == chunks
    assert all(shard.stat().st_mode & 0o777 == 0o444 for shard in _shards(path))


def test_the_shards_folder_stands_alone(built, tmp_path):
    path, _, expected = built
    alone = tmp_path / "shards"
    shutil.copytree(path / "shards", alone)
    index = open_shards(alone)
    with open_rows(index, "train") as mapped:
        stream = index.streams("train")[0]
        name = index.recording(stream.recording_id).name
        row = mapped.row_numbers(np.array([stream.first_block * 128]))
        np.testing.assert_array_equal(mapped.matrix[row], expected[(name, stream.assignment)][:1])


def test_codes_stand_beside_the_features(built):
    path, _, _ = built
    store = open_store(path)
    codes = store.codes('Show, "ragged, three shards".')
    assert codes.shape == (1024 + 128 + 37, 17)
    assert codes.dtype == np.int16
    assert np.asarray(codes[5]).tolist() == list(range(5, 22))


def test_events_around_a_block_are_in_its_sample(built):
    path, _, _ = built
    stream = open_store(path).stream('Show, "ragged, three shards".')
    shard = path / "shards" / f"train-{stream.first_shard:06d}.tar"
    found = [
        [event["start_us"] for event in about["events"]]
        if "events" in about
        else about["events_cut"]
        for sample in WebDataset([str(shard)], shardshuffle=False)
        for about in [json.loads(sample["json"])]
    ]
    # From 0.5 s before to 10 s after a block.
    assert found == [[0, 10_000_000], [10_000_000], [30_900_000], [30_900_000, 50_000_000]]


def _array_of(path: Path, stream) -> Path:
    return path / "features.zarr" / stream.split / stream.recording_id / stream.assignment


def test_zarr_opens_a_compressed_array_with_the_stock_function(compressed):
    path, _, stream, expected = compressed
    array = zarr.open_array(
        _array_of(path, stream), mode="r", config={"read_missing_chunks": False}
    )
    np.testing.assert_array_equal(np.asarray(array[:]).view(np.uint16), expected)
    np.testing.assert_array_equal(np.asarray(array[600:650]).view(np.uint16), expected[600:650])


def _tensorstore_bits(folder: Path) -> np.ndarray:
    tensorstore = pytest.importorskip("tensorstore")
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder)},
        "fill_missing_data_reads": False,
    }
    array = tensorstore.open(spec, read=True, open=True).result()
    assert array.domain.labels == ("frame", "channel")
    return array.read().result().view(np.uint16)


def test_tensorstore_reads_every_array(built):
    path, _, expected = built
    for (name, assignment), bits in expected.items():
        stream = open_store(path).stream(name, assignment)
        np.testing.assert_array_equal(_tensorstore_bits(_array_of(path, stream)), bits)


def test_tensorstore_reads_a_compressed_array(compressed):
    path, _, stream, expected = compressed
    np.testing.assert_array_equal(_tensorstore_bits(_array_of(path, stream)), expected)


def test_webdataset_and_a_zstd_library_read_compressed_shards(compressed):
    path, dim, stream, expected = compressed
    urls = [str(path / "shards" / f"train-{stream.first_shard + i:06d}.tar") for i in range(2)]
    blocks = []
    for sample in WebDataset(urls, shardshuffle=False):
        about = json.loads(sample["json"])
        assert about["codec"] == "zstd"
        content = decompress(sample["bf16.zst"])
        assert len(content) == 128 * dim * 2 + 4
        bits = np.frombuffer(content[:-4], "<u2").reshape(about["shape"])
        blocks.append(bits[: about["num_frames"]])
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


def test_gnu_tar_lists_compressed_shards(compressed):
    path, _, stream, _ = compressed
    shard = path / "shards" / f"train-{stream.first_shard:06d}.tar"
    listed = subprocess.run(["tar", "-tf", shard], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    names = listed.stdout.splitlines()
    assert names[0] == PREAMBLE_NAME
    assert [name.rpartition("/")[2] for name in names[1:3]] == ["000000.json", "000000.bf16.zst"]
    assert len(names) == 1 + 2 * 4


def test_both_codecs_have_the_same_checksums_of_rows(compressed, tmp_path):
    path, dim, _, _ = compressed
    episodes = [Episode("ragged", "train", 512 + 128 + 37, EVENTS[:1])]
    write_store(
        tmp_path / "raw", episodes, random_features(dim), dim=dim, shard_frames=SHARD_FRAMES
    )
    raw, zstd = open_shards(tmp_path / "raw"), open_shards(path)
    np.testing.assert_array_equal(raw.block_crc32c, zstd.block_crc32c)
    assert zstd.num_blocks == raw.num_blocks
