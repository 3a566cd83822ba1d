"""Compressed stores: the same stream and the same model, in bounded memory."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from laughstore.errors import CorruptData
from laughstore.index_file import read_index
from laughstore.reading.window_rows import WindowRows
from tests.stores import write_store
from train import FrameStream, train

from .conftest import DIM, Planted, config_for, planted_episodes


def small(shards: Path, **changes) -> FrameStream:
    return FrameStream(
        shards, "train", **{"global_batch": 96, "lanes": 12, "window_blocks": 2, **changes}
    )


def _compressed(path: Path) -> Path:
    episodes = planted_episodes()
    features = Planted(episodes)
    write_store(path, episodes, features, dim=DIM, block_frames=32, shard_frames=256, codec="zstd")
    return path / "shards"


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compressed(tmp_path_factory.mktemp("compressed") / "store")


def window_of(stream: FrameStream) -> WindowRows:
    rows = stream.source._rows
    assert isinstance(rows, WindowRows)
    return rows


def test_batches_are_those_of_raw_shards(planted_shards, compressed):
    with (
        small(planted_shards) as raw,
        small(compressed) as ours,
    ):
        for theirs, mine in zip(raw, ours, strict=True):
            assert torch.equal(mine.x.view(torch.int16), theirs.x.view(torch.int16))
            assert torch.equal(mine.frame, theirs.frame)
            assert torch.equal(mine.y, theirs.y)


def test_blocks_are_released_behind_the_stream(compressed):
    # Few lanes, so that what is open and what is read ahead are a small part of the split.
    with small(compressed, lanes=2) as stream:
        rows = window_of(stream)
        ready = [rows.num_ready for _ in stream]
        assert max(ready) <= 2 * 2 + 2 * 2 + 2 * 2  # open windows, read ahead, cut at lanes
        assert rows.num_ready == 0
        batches = iter(stream)
        next(batches)
        assert rows.num_ready > 0
        batches.close()
        assert rows.num_ready == 0


def test_two_iterations_at_once_do_not_take_blocks_from_each_other(compressed):
    with small(compressed) as stream:
        expected = [batch.x.clone() for batch in stream]
        pairs = zip(stream, stream, strict=True)  # one begins when the other has read a batch
        for (one, other), x in zip(pairs, expected, strict=True):
            assert torch.equal(one.x.view(torch.int16), x.view(torch.int16))
            assert torch.equal(other.x.view(torch.int16), x.view(torch.int16))
        assert window_of(stream).num_ready == 0


def test_a_flipped_bit_ends_the_stream(compressed, tmp_path):
    shards = shutil.copytree(compressed.parent, tmp_path / "store") / "shards"
    index = read_index(shards)
    shard = index.split_shards("train")[2]
    path = shards / shard.name
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[int(index.geometry.block_offsets(index.block_bytes[shard.first_block :][:1])[0]) + 99] ^= 1
    path.write_bytes(data)
    with (
        small(shards, verify="never") as stream,
        pytest.raises(CorruptData, match=shard.name),
    ):
        list(stream)


@pytest.mark.slow  # the batches, of which all else follows, are compared above
def test_training_gives_the_same_model(planted_shards, compressed, tmp_path):
    weights = []
    for shards, name in ((planted_shards, "raw"), (compressed, "compressed")):
        train(config_for(shards, tmp_path / name, epochs=1))
        weights.append(next((tmp_path / name).rglob("model.safetensors")).read_bytes())
    assert weights[0] == weights[1]


def test_moments_release_what_they_read(compressed):
    from train.statistics import stream_moments

    with small(compressed) as stream:
        index = stream.selection.index
        moments = stream_moments(index, index.streams("train")[:2], stream.source)
        assert [item.n for item in moments] == [700, 700]
        assert np.isfinite(moments[0].mean).all()
        assert window_of(stream).num_ready == 0
