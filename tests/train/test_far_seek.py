"""A stream that goes on at step 1,000,000 of an epoch: the same rows, and as soon as at step 1."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from laughstore.index_file import read_index
from laughstore.reading.rows import open_rows
from tests.stores import Episode, laugh, write_store
from train import FrameStream

FAR = 1_000_000
DIM = 16

pytestmark = pytest.mark.slow


def numbered(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
    """Frames whose first channels are their number within the recording, as bits."""
    bits = np.zeros((num_frames, DIM), np.uint16)
    bits[:, 0], bits[:, 1] = np.divmod(np.arange(num_frames), 1 << 8)
    bits[:, 2] = sum(name.encode()) + assignment
    return bits


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 1,105,000 frames: with a row a step, as many steps."""
    laughs = [laugh(1.0, 2.0, "a")]
    episodes = [Episode(f"episode {i}", "train", 65_000, laughs, ("a",)) for i in range(17)]
    path = tmp_path_factory.mktemp("far") / "store"
    write_store(path, episodes, numbered, dim=DIM, shard_frames=1 << 15, chunk_frames=65_000)
    return path / "shards"


def opened(shards: Path) -> FrameStream:
    return FrameStream(shards, "train", global_batch=1, lanes=1, window_blocks=2)


def going_on(shards: Path, step: int, num_batches: int) -> tuple[float, list[tuple]]:
    """Return seconds to the first batch of a stream told to go on at a step, and some batches."""
    with opened(shards) as frames:
        state = {**frames.state_dict(), "step": step}
        began = time.perf_counter()
        frames.load_state_dict(state)
        batches = iter(frames)
        found = [next(batches)]
        seconds = time.perf_counter() - began
        found += [next(batches) for _ in range(num_batches - 1)]
        return seconds, [(b.step, b.frame.item(), b.x.clone()) for b in found]


def test_going_on_at_step_a_million_costs_what_step_one_costs(shards):
    with opened(shards) as frames:
        assert frames.num_steps > FAR
    near = min(going_on(shards, 1, 1)[0] for _ in range(7))
    far = min(going_on(shards, FAR, 1)[0] for _ in range(7))
    assert far < 3 * near


def test_rows_behind_a_far_step_are_those_of_its_plan_with_their_own_features(shards):
    _, batches = going_on(shards, FAR, 300)  # more than a window has
    assert [step for step, _, _ in batches] == list(range(FAR, FAR + 300))
    _, later = going_on(shards, FAR + 250, 50)
    assert [found[:2] for found in batches[250:]] == [found[:2] for found in later]
    frames = np.array([frame for _, frame, _ in batches])
    assert len(np.unique(frames)) == len(frames)
    with open_rows(read_index(shards), "train") as rows:
        expected = rows.matrix[rows.row_numbers(frames)]
        for (_, _, x), bits in zip(batches, expected, strict=True):
            assert np.array_equal(x.view(torch.int16).numpy()[0].view(np.uint16), bits)
