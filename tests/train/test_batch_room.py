"""Batches that have no room in memory are refused before the kernel ends the process."""

from typing import Any

import pytest

from laughstore.errors import ConfigError
from laughstore.reading import memory
from laughstore.timebase import Span
from train import FrameStream, HeadConfig, SequenceShape, train
from train.distributed.place import Place

from .conftest import DIM, config_for
from .processes import on_ranks

SHAPE = SequenceShape(rows=1, context=4096)
LEAST = 64 * 4097 * (2 * DIM + 16)
"""Bytes of 64 sequences: features, targets, weights and frame ids."""


@pytest.fixture
def free_bytes(monkeypatch, tmp_path):
    """Say how much memory is free."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")

    def say(num_bytes: int) -> None:
        (tmp_path / "meminfo").write_text(f"MemAvailable: {-(-num_bytes // 1024)} kB\n")

    return say


def test_a_batch_of_sequences_that_has_no_room_is_refused(planted_shards, free_bytes):
    settings: dict[str, Any] = {"sequence": SHAPE, "global_batch": 64, "lanes": 8}
    free_bytes(LEAST)
    with FrameStream(planted_shards, "train", **settings) as stream:
        assert next(iter(stream)).x.shape == (64, 4097, DIM)
    free_bytes(LEAST - 1024)
    with pytest.raises(ConfigError) as raised:
        FrameStream(planted_shards, "train", **settings)
    said = f"a batch of 64 sequences of 4096 + 1 rows takes {LEAST / 1e9:.3g} GB or more, and"
    assert str(raised.value).startswith(said)
    assert "a shorter --context, a longer --sequence or a lower --global-batch" in str(raised.value)
    # A rank makes its own part.
    FrameStream(planted_shards, "train", rank=1, world_size=8, **settings).close()
    settings["sequence"] = SequenceShape(8, 3)
    FrameStream(planted_shards, "train", **settings).close()


def test_a_batch_of_rows_that_has_no_room_is_refused(planted_shards, free_bytes):
    free_bytes(1 << 20)
    with pytest.raises(ConfigError, match=r"a batch of 1,048,576 rows takes .* use a lower"):
        FrameStream(planted_shards, "train", global_batch=1 << 20)


def test_training_counts_each_process_of_the_machine_and_what_the_head_makes(
    planted_shards, tmp_path, free_bytes
):
    head = HeadConfig("temporal", context=Span("4096f"), channels=64)
    config = config_for(
        planted_shards, tmp_path / "run", head=head, sequence=Span("1f"), global_batch=64, lanes=8
    )
    free_bytes(LEAST + 64 * 4097 * 2 * 4 * 64 - 1024)
    with pytest.raises(ConfigError, match=r"^a batch of 64 sequences of 4096 \+ 1 rows takes"):
        train(config)
    free_bytes(1 << 50)
    with pytest.raises(ConfigError, match="or more in each of 100000000 processes, and"):
        train(config, place=Place(local_world_size=100_000_000))
    assert not (tmp_path / "run").exists()


def test_ranks_need_room_for_the_batch_that_they_make_ahead(planted_shards, tmp_path, free_bytes):
    config = config_for(planted_shards, tmp_path / "run", global_batch=1 << 16, epochs=1)
    part = (1 << 15) * (2 * DIM + 16)
    free_bytes(2 * part - 1024)  # enough for one, as a stream makes them
    for end in on_ranks(2, lambda place: train(config, place=place)):
        assert isinstance(end.error, ConfigError)
        assert "a batch of 32,768 rows, and one made ahead, takes" in str(end.error)
    free_bytes(2 * part)
    for end in on_ranks(2, lambda place: train(config, place=place)):
        assert end.result().steps == 1
