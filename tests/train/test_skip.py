"""Blocks that cannot be read, left out by the list of `laughstore verify --bad-blocks`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laughstore.cli.evaluate import report
from laughstore.cli.main import main
from laughstore.errors import ConfigError, NotFound
from laughstore.index_file import read_index
from laughstore.integrity.verify import verify
from laughstore.labels import LabelSpec
from laughstore.timebase import Span
from train import FrameFilter, FrameStream, evaluate, train
from train.runs.folds import choose_fold, with_fold
from train.streaming.selection import select
from train.streaming.skip import skipped_blocks

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
        state = frames.state_dict()
        assert ids_of(frames) == good.tolist()
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


def test_a_corrupt_block_ends_training_with_the_way_around_it(own_shards, tmp_path, capsys):
    _, key = flip_a_bit(own_shards)
    command = ["train", "--shards", str(own_shards), "--out", str(tmp_path / "run"), "-q"]
    assert main([*command, "--epochs", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert key in line
    assert "restore it; or train without what cannot be read: " in line
    assert line.endswith(" verify STORE --bad-blocks LIST, then --skip-corrupt LIST")
    name = read_index(own_shards).split_shards("train")[0].name
    (own_shards / name).unlink()
    command[command.index("--out") + 1] = str(tmp_path / "other")
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is missing" in line
    assert line.endswith(", then --skip-corrupt LIST")


def damage(shards: Path, split: str) -> str:
    """Flip a bit in the second block of a shard of a split; return the block's key."""
    index = read_index(shards)
    shard = index.split_shards(split)[0]
    path = shards / shard.name
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(index.geometry.data_offset(1) + 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    block = shard.first_block + 1 - shard.stream.first_block
    return f"{shard.stream.recording_id}/{shard.stream.assignment}/{block:06d}"


def test_a_skipped_block_is_left_out_on_whichever_side_of_a_fold_it_comes(own_shards, tmp_path):
    key = damage(own_shards, "validation")
    listed = tmp_path / "bad.txt"
    listed.write_text(f"{key}\n")
    index = read_index(own_shards)
    group = index.recording(key.partition("/")[0]).group
    sides = [choose_fold(index, 3, number, seed=0) for number in range(3)]
    for fold in sides:
        split = "validation" if group in fold.validation else "train"
        with FrameStream(
            with_fold(index, fold), split, verify="always", skip_corrupt=listed, **SMALL
        ) as frames:
            assert frames.state_dict()["fields"]["skip"] == [key]
            assert len(list(frames)) == frames.num_steps
    assert {group in fold.validation for fold in sides} == {True, False}


def test_a_run_is_not_gone_on_with_when_its_list_was_edited(own_shards, tmp_path):
    """A block of which no row counts is in no digest of rows, and is context of others."""
    listed = tmp_path / "bad.txt"
    streams = read_index(own_shards).streams("validation")[:2]
    keys = [f"{stream.recording_id}/{stream.assignment}/000000\n" for stream in streams]
    listed.write_text(keys[0])
    early = FrameFilter(min_context=Span("40f"))  # blocks have 32 frames
    config = config_for(own_shards, tmp_path / "run", epochs=2, skip_corrupt=listed, filter=early)
    train(config)
    listed.write_text("".join(keys))
    with pytest.raises(
        ConfigError, match=r"bad\.txt names other blocks .*1 more, like .*/000000\)"
    ):
        train(config, resume=True)
    listed.write_text("")
    with pytest.raises(ConfigError, match="1 fewer"):
        train(config, resume=True)
    listed.write_text(f"\n{keys[0]}{keys[0]}")
    train(config, resume=True)


@pytest.mark.slow
def test_evaluation_leaves_out_the_blocks_that_the_run_left_out(own_shards, tmp_path, capsys):
    key = damage(own_shards, "validation")
    listed = tmp_path / "bad.txt"
    listed.write_text(f"{key}\n")
    config = config_for(own_shards, tmp_path / "run", epochs=1, skip_corrupt=listed)
    best = train(config).best
    listed.unlink()  # the run remembers what it said
    found = evaluate(config.out, timelines=0, device="cpu")
    assert found.metrics == best
    assert found.num_skipped_blocks == found.to_json()["skipped_blocks"] == 1
    report(found, as_json=False)
    assert "1 block left out, as in training" in capsys.readouterr().out
    assert evaluate(config.out, split="train", timelines=0, device="cpu").num_skipped_blocks == 0


def test_a_block_left_out_of_one_assignment_leaves_the_answer_of_the_other(own_shards, tmp_path):
    key = damage(own_shards, "validation")
    listed = tmp_path / "bad.txt"
    listed.write_text(f"{key}\n")
    pair = LabelSpec(whose="pair")
    config = config_for(own_shards, tmp_path / "run", epochs=1, skip_corrupt=listed, label=pair)
    best = train(config).best
    whole = select(read_index(own_shards), "validation", pair)
    # The rows of each recording once, those of the block that one of two assignments lacks, too.
    assert best.num_rows == whole.num_rows / 2


def test_blocks_that_other_shards_lack_are_passed_over(planted_shards):
    index = read_index(planted_shards)
    stream = index.streams("train")[0]
    keys = ["gone-00000000/a--b/000000", f"{stream.recording_id}/{stream.assignment}/000001"]
    found = skipped_blocks(index, "train", keys, where="a run", may_be_gone=True)
    assert found == {stream.first_block + 1: keys[1]}


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
