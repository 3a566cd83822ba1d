"""Blocks that cannot be read, left out by the list of `laughstore verify --bad-blocks`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laughstore.errors import ConfigError, NotFound
from laughstore.index_file import read_index
from laughstore.integrity.verify import verify
from train import FrameStream, train

from .conftest import config_for
from .test_stream import flip_a_bit

SMALL: dict[str, Any] = {"global_batch": 96, "lanes": 12, "window_blocks": 2}


def bad_blocks(shards: Path, to: Path) -> Path:
    to.write_text("".join(f"{key}\n" for key in verify(shards).bad_blocks))
    return to


def ids_of(frames: FrameStream) -> list[int]:
    ids = np.concatenate([batch.frame.numpy() for batch in frames])
    return sorted(ids[ids >= 0].tolist())


def test_a_corrupt_block_is_left_out_on_all_ranks_alike(own_shards, tmp_path):
    _, key = flip_a_bit(own_shards)
    listed = bad_blocks(own_shards, tmp_path / "bad.txt")
    assert listed.read_text() == f"{key}\n"
    with FrameStream(own_shards, "train", verify="always", **SMALL) as whole:
        everything = whole.selection.frames
        recording, assignment, number = key.split("/")
        first = whole.selection.index.stream(recording, assignment).first_block
        good = everything[everything // 32 != first + int(number)]
        assert len(good) < len(everything)
    settings = {"verify": "always", "skip_corrupt": listed, **SMALL}
    with FrameStream(own_shards, "train", **settings) as frames:
        assert ids_of(frames) == good.tolist()
        state = frames.state_dict()
        assert state["fields"]["skip"] == [key]
    both: list[int] = []
    for rank in range(2):
        with FrameStream(own_shards, "train", rank=rank, world_size=2, **settings) as frames:
            frames.load_state_dict(state)
            both += ids_of(frames)
    assert sorted(both) == good.tolist()


def test_a_skip_list_is_part_of_the_identity(planted_shards, tmp_path):
    stream = read_index(planted_shards).streams("train")[0]
    listed = tmp_path / "bad.txt"
    listed.write_text(f"{stream.recording_id}/{stream.assignment}/000001\n")
    empty = tmp_path / "none.txt"
    empty.write_text("")
    with (
        FrameStream(planted_shards, "train", **SMALL) as one,
        FrameStream(planted_shards, "train", skip_corrupt=listed, **SMALL) as two,
        FrameStream(planted_shards, "train", skip_corrupt=empty, **SMALL) as three,
    ):
        with pytest.raises(ConfigError, match=r"skip was \[\] and is \['.*/000001'\]"):
            two.load_state_dict(one.state_dict())
        three.load_state_dict(one.state_dict())


def test_blocks_of_a_cut_file_are_left_out(own_shards, tmp_path):
    shard = read_index(own_shards).split_shards("train")[2]
    path = own_shards / shard.name
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(4096)
    listed = bad_blocks(own_shards, tmp_path / "bad.txt")
    with FrameStream(own_shards, "train", skip_corrupt=listed, **SMALL) as frames:
        gone = shard.first_block + np.arange(shard.num_blocks)
        ids = np.array(ids_of(frames))
        assert len(ids)
        assert not np.isin(ids // 32, gone).any()


@pytest.mark.slow
def test_training_leaves_corrupt_blocks_out(own_shards, tmp_path):
    flip_a_bit(own_shards)
    listed = bad_blocks(own_shards, tmp_path / "bad.txt")
    config = config_for(own_shards, tmp_path / "run", epochs=1, skip_corrupt=listed)
    assert train(config).epochs == 1


@pytest.mark.parametrize(
    "key", ["nobody/a--b/000000", "x", "{}/{}/999999", "{}/{}/-00001", "{}/{}"]
)
def test_a_list_of_another_store_is_refused(planted_shards, tmp_path, key):
    stream = read_index(planted_shards).streams("train")[0]
    listed = tmp_path / "bad.txt"
    listed.write_text(key.format(stream.recording_id, stream.assignment) + "\n")
    with pytest.raises(ConfigError, match="names no block"):
        FrameStream(planted_shards, "train", skip_corrupt=listed, **SMALL)


def test_a_list_that_does_not_exist_says_how_to_make_it(planted_shards, tmp_path):
    with pytest.raises(NotFound, match="verify STORE --bad-blocks"):
        FrameStream(planted_shards, "train", skip_corrupt=tmp_path / "none", **SMALL)
