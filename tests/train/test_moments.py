import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laughstore.index import read_index
from laughstore.rows import open_rows
from laughstore.sealed import unseal
from train.moments import Moments, Standardiser, merged, stream_moments
from train.source import FrameSource

from .conftest import DIM


def true_rows(shards: Path) -> np.ndarray:
    """f8[T, D] of all frames of the train split."""
    index = read_index(shards)
    with open_rows(index, "train") as rows:
        parts = []
        for stream in index.streams("train"):
            blocks = stream.first_block + np.arange(stream.num_blocks)
            rows.prepare(blocks, verify=True)
            frames = stream.first_block * index.block_frames + np.arange(stream.num_frames)
            bits = rows.matrix[rows.row_numbers(frames)].astype(np.uint32) << 16
            parts.append(bits.view(np.float32).astype(np.float64))
    return np.concatenate(parts)


def test_the_standardiser_of_a_split_is_that_of_numpy_in_float64(own_shards):
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        total = merged(stream_moments(index, index.streams("train"), source), DIM)
    rows = true_rows(own_shards)
    assert total.n == len(rows)
    live = rows.std(axis=0) > 0
    assert live.sum() == DIM - 1
    assert total.mean == pytest.approx(rows.mean(axis=0), rel=1e-7)
    assert total.m2[live] == pytest.approx(rows.var(axis=0)[live] * len(rows), rel=1e-5)
    standardiser = Standardiser.of(total)
    assert standardiser.std[live] == pytest.approx(rows.std(axis=0)[live], rel=1e-5)
    # The dead channel is held to a thousandth of the median spread.
    median = float(np.median(rows.std(axis=0)[live]))
    assert standardiser.std[~live] == pytest.approx(median / 1000, rel=1e-4)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 1000))
def test_moments_of_parts_merge_to_those_of_the_whole(lengths, seed):
    rng = np.random.default_rng(seed)
    parts = [
        torch.from_numpy(rng.standard_normal((n, 3)) * [1, 50, 0.01] + [0, 400, 3]).bfloat16()
        for n in lengths
    ]
    total = merged((Moments.of(part) for part in parts), 3)
    whole = torch.cat(parts).double().numpy()
    assert total.n == len(whole)
    scale = whole.std(axis=0) + abs(whole.mean(axis=0))
    assert (abs(total.mean - whole.mean(axis=0)) <= 1e-6 * scale).all()
    expected = whole.var(axis=0) * len(whole)
    assert total.m2 == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_constant_rows_are_standardised_by_one():
    moments = Moments.of(torch.full((5, 2), 3.0).bfloat16())
    assert Standardiser.of(moments).std.tolist() == [1.0, 1.0]
    assert Standardiser.of(moments).mean.tolist() == [3.0, 3.0]


def test_moments_are_kept_beside_the_store_and_not_computed_twice(own_shards):
    index = read_index(own_shards)
    streams = index.streams("train")
    calls: list[tuple[int, int]] = []
    with FrameSource(index, "train") as source:
        first = stream_moments(
            index, streams[:3], source, progress=lambda *done: calls.append(done)
        )
        assert calls == [(1, 3), (2, 3), (3, 3)]
        stream_moments(index, streams, source, progress=lambda *done: calls.append(done))
        assert calls[3:] == [(i + 1, len(streams) - 3) for i in range(len(streams) - 3)]
        del calls[:]
        again = stream_moments(
            index, streams[:3], source, progress=lambda *done: calls.append(done)
        )
    assert not calls
    for mine, theirs in zip(first, again, strict=True):
        assert mine.n == theirs.n
        assert np.array_equal(mine.mean, theirs.mean)
        assert np.array_equal(mine.m2, theirs.m2)
    path = own_shards.parent / "stats" / f"{index.index_id}.json"
    content, _ = unseal(path.read_bytes(), where="stats")
    assert content["index_id"] == index.index_id


def test_damaged_moments_are_computed_again_and_the_log_says_so(own_shards, caplog):
    index = read_index(own_shards)
    streams = index.streams("validation")
    path = own_shards.parent / "stats" / f"{index.index_id}.json"
    with FrameSource(index, "validation") as source:
        first = stream_moments(index, streams, source)
        path.write_text(json.dumps({"streams": {}}))
        again = stream_moments(index, streams, source)
    assert "computed again" in caplog.text
    assert np.array_equal(first[0].mean, again[0].mean)


def test_a_store_that_cannot_be_written_is_no_obstacle(own_shards):
    (own_shards.parent / "stats").write_text("in the way")
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        assert len(stream_moments(index, index.streams("train")[:1], source)) == 1
