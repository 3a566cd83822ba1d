"""Sequences against a slow reading of their definition, and the stream of them on any topology."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.reading.rows import open_rows
from laughstore.reading.window_rows import WindowRows
from laughstore.timebase import Span
from tests.store.loopback import FileServer
from train import FrameFilter, FrameStream, SequenceShape
from train.plan import PAD, Plan
from train.streaming.selection import Selection, select
from train.streaming.sequences import ABSENT, Sequences

from .test_skip import bad_blocks
from .test_stream import assert_same, flip_a_bit, kept

BLOCK = 32
SHAPES = [(1, 0), (1, 3), (4, 7), (8, 40), (16, 32), (32, 33), (32, 100)]


def slow_sequences(selection: Selection, shape: SequenceShape) -> Iterator[dict[str, list[float]]]:
    """The sequences of a selection, one row at a time, as they are written down."""
    rows, context = shape.rows, shape.context
    assert rows is not None
    number_of = {int(block): number for number, block in enumerate(selection.blocks)}

    def row_of(stream: Any, t: int) -> tuple[int, float, float]:
        """Frame id, target and weight of row t of a stream."""
        if not 0 <= t < stream.num_frames:
            return -1, 0, 0
        number = number_of[stream.first_block + t // BLOCK]
        if selection.left_out is not None and selection.left_out[number]:
            return -1, 0, 0
        frame = stream.first_block * BLOCK + t
        if not selection.eligible[number, t % BLOCK]:
            return frame, 0, 0
        return frame, float(selection.y[number, t % BLOCK]), 1

    for stream in selection.streams:
        for start in range(0, stream.num_blocks * BLOCK, rows):
            found = [row_of(stream, t) for t in range(start - context, start + rows)]
            frame, y, weight = (list(column) for column in zip(*found, strict=True))
            for i in range(context):
                y[i], weight[i] = 0, 0
            if any(weight):
                yield {"frame": frame, "y": y, "weight": weight}


@pytest.fixture(scope="module")
def some_rows(planted_shards) -> Selection:
    return select(read_index(planted_shards), "train", LabelSpec(), FrameFilter(exclude="*-4-*"))


def thinned(selection: Selection, seed: int) -> Selection:
    """Some rows only, in patches; some blocks cannot be read."""
    rng = np.random.default_rng(seed)
    left_out = rng.random(len(selection.blocks)) < 0.2
    patches = np.repeat(rng.random((len(selection.blocks), BLOCK // 4)) < rng.random(), 4, axis=1)
    eligible = selection.eligible & patches & ~left_out[:, None]
    return replace(selection, eligible=eligible, left_out=left_out if seed % 3 else None)


@settings(max_examples=100)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 999))
def test_sequences_are_those_of_the_definition(some_rows, shape, seed):
    selection, of = thinned(some_rows, seed), SequenceShape(*shape).of_blocks(BLOCK)
    expected = list(slow_sequences(selection, of))
    sequences = Sequences(selection, of)
    assert sequences.block_counts.sum() == len(expected)
    units = np.append(np.arange(len(expected)), PAD)
    frames, (y, weight) = sequences.frames(units), sequences.targets(units)
    assert frames[:-1].tolist() == [item["frame"] for item in expected]
    assert y[:-1].tolist() == [item["y"] for item in expected]
    assert weight[:-1].tolist() == [item["weight"] for item in expected]
    assert sequences.num_targets(units).tolist() == [*weight[:-1].sum(axis=1).tolist(), 0]
    assert (frames[-1] == ABSENT).all()
    assert not y[-1].any()
    assert not weight[-1].any()
    read = sequences.rows_read().frames
    assert read.tolist() == sorted({frame for item in expected for frame in item["frame"]} - {-1})
    # Each row is a target once.
    assert np.array_equal(np.sort(frames[weight > 0]), selection.frames)


@settings(max_examples=100)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 999),
    world=st.sampled_from([1, 2, 3, 4]),
    stride=st.sampled_from([1, 2, 3]),
    mix=st.sampled_from(["windows", "global"]),
    data=st.data(),
)
def test_reads_name_every_block_of_a_step_and_none_that_is_left_out(
    some_rows, shape, seed, world, stride, mix, data
):
    selection, of = thinned(some_rows, seed), SequenceShape(*shape).of_blocks(BLOCK)
    sequences = Sequences(selection, of)
    plan = Plan(
        sequences.block_counts,
        seed=seed,
        epoch=1,
        global_batch=24,
        lanes=12,
        window_blocks=3,
        mix=mix,
    )
    start = data.draw(st.integers(0, plan.num_steps))
    for rank in range(world):
        share = {"rank": rank, "world_size": world, "stride": stride}
        reads = sequences.reads(plan.reads(start, **share))
        assert (np.diff(reads.step) >= 0).all()
        assert (reads.step <= reads.last_step).all()
        if selection.left_out is not None:
            assert not selection.left_out[reads.block].any()
        used: set[int] = set()
        for number, units in enumerate(plan.batches(start, **share)):
            step = start + number * stride
            frames = sequences.frames(units)
            blocks = np.unique(frames[frames >= 0] // BLOCK)
            open_now = (reads.step <= step) & (reads.last_step >= step)
            assert np.isin(blocks, selection.blocks[reads.block[open_now]]).all()
            used |= set(blocks.tolist())
        if start == 0 and world == stride == 1:
            assert set(selection.blocks[reads.block].tolist()) == used, "none is read for nothing"


SMALL: dict[str, Any] = {"global_batch": 192, "lanes": 12, "window_blocks": 2}
SHAPE = SequenceShape(8, 37)


def stream(shards: Path | str, **changes) -> FrameStream:
    return FrameStream(shards, "train", **{**SMALL, "sequence": SHAPE, **changes})


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (SHAPE, {"reader": "map"}),
        (SHAPE, {"reader": "window", "window_blocks": 1}),
        (SHAPE, {"reader": "window", "mix": "global", "threads": 2}),
        (SHAPE, {"preload": "cpu"}),
        (SHAPE, {"preload": "gpu", "preload_to": torch.device("cpu")}),
        (SequenceShape(16), {"frames": FrameFilter(min_context=Span("50f")), "threads": 3}),
        (SequenceShape(None, 70), {"label": LabelSpec("onset:5f"), "global_batch": 12 * BLOCK}),
    ],
)
def test_every_row_is_a_target_once_behind_its_own_context(planted_shards, shape, changes):
    index = read_index(planted_shards)
    with (
        stream(planted_shards, sequence=shape, **changes) as frames,
        open_rows(index, "train") as rows,
    ):
        selection, of = frames.selection, shape.of_blocks(index.block_frames)
        rows.prepare(selection.blocks, verify=True)
        target = dict(zip(selection.frames.tolist(), selection.targets.tolist(), strict=True))
        expected = {
            tuple(item["frame"]): (item["y"], item["weight"])
            for item in slow_sequences(selection, of)
        }
        length, seen = of.context + (of.rows or 0), []
        b = frames.global_batch // (of.rows or 1)
        step = -1
        for step, batch in enumerate(frames):
            assert batch.step == step
            assert batch.x.dtype == torch.bfloat16
            assert tuple(batch.x.shape) == (b, length, index.dim)
            assert batch.frame.shape == batch.y.shape == batch.weight.shape == (b, length)
            assert torch.equal(batch.present, batch.frame >= 0)
            assert repr(batch).startswith(f"Batch(epoch 0, step {step}, x bf16[{b}, {length}, ")
            ids, present = batch.frame.numpy(), batch.present.numpy()
            bits = batch.x.view(torch.int16).numpy().view(np.uint16)
            assert np.array_equal(bits[present], rows.matrix[rows.row_numbers(ids[present])])
            assert not bits[~present].any()
            weight = batch.weight.numpy()
            assert batch.num_real == weight.sum() > 0
            seen.extend(ids[weight > 0].tolist())
            for i in range(b):
                if present[i].any():
                    told = (batch.y[i].tolist(), batch.weight[i].tolist())
                    assert expected.pop(tuple(ids[i].tolist())) == told
        assert not expected
        assert sorted(seen) == sorted(target)
        assert len(frames) == frames.num_steps == step + 1
        if changes.get("reader") == "window":
            window = frames.source._rows
            assert isinstance(window, WindowRows)
            assert window.num_ready == 0, "no block is held behind the last step"


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_resumed_at_any_step_go_on_with_the_same_sequences(planted_shards, world_size):
    with stream(planted_shards, global_batch=768) as whole:
        whole.set_epoch(3)
        expected = kept(whole)
        num_real = [batch.num_real for batch in whole]
        states = [
            json.loads(json.dumps(whole.state_dict() | {"epoch": 3, "step": step}))
            for step in range(len(expected))
        ]
    for step, state in enumerate(states):
        parts = []
        for rank in range(world_size):
            with stream(planted_shards, global_batch=768, rank=rank, world_size=world_size) as mine:
                mine.load_state_dict(state)
                assert len(mine) == len(expected) - step
                batches = list(mine)
                assert [batch.num_real for batch in batches] == num_real[step:]
                parts.append(kept(batches))
        together = [
            tuple(np.concatenate([part[i][j] for part in parts]) for j in range(4))
            for i in range(len(expected) - step)
        ]
        assert_same(together, expected[step:])


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("reader", ["map", "window"])
def test_workers_of_a_loader_yield_the_same_sequences(planted_shards, reader):
    with stream(planted_shards, global_batch=768, reader=reader) as frames:
        expected, num_real = kept(frames), [batch.num_real for batch in frames]
        found = list(DataLoader(frames, batch_size=None, num_workers=2, timeout=60))
        assert_same(kept(found), expected)
        assert [batch.num_real for batch in found] == num_real


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["map", "window"])
def test_spawned_workers_of_a_loader_yield_the_same_sequences(planted_shards, reader):
    with stream(planted_shards, global_batch=768, reader=reader) as frames:
        loader = DataLoader(
            frames, batch_size=None, num_workers=2, multiprocessing_context="spawn", timeout=120
        )
        assert_same(kept(loader), kept(frames))


def test_sequences_of_remote_shards_are_those_of_home(planted_shards):
    with (
        FileServer(planted_shards.parent) as server,
        stream(planted_shards, global_batch=768) as home,
        stream(f"{server.url}/shards", global_batch=768) as far,
    ):
        assert far.identity == home.identity
        assert_same(kept(far), kept(home))


def test_a_block_that_cannot_be_read_is_absent_from_the_context_behind_it(own_shards, tmp_path):
    _, key = flip_a_bit(own_shards)
    listed = bad_blocks(own_shards, tmp_path / "bad.txt")
    changes = {"verify": "always", "skip_corrupt": listed, "sequence": SequenceShape(32, 40)}
    with stream(own_shards, global_batch=12 * BLOCK, **changes) as frames:
        recording, assignment, number = key.split("/")
        stream_of_it = frames.selection.index.stream(recording, assignment)
        bad = stream_of_it.first_block + int(number)
        behind = 0
        for batch in frames:
            assert not bool((batch.frame // BLOCK == bad).any())
            for i in range(len(batch.frame)):
                if int(batch.frame[i, -1]) // BLOCK == bad + 1:
                    behind += 1
                    # 8 rows of the block before, which can be read, then the bad one's, then ours.
                    assert batch.present[i].tolist() == [True] * 8 + [False] * 32 + [True] * 32
                    assert not batch.x[i, 8:40].any()
        assert behind == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sequence": SequenceShape(12)},
            "rows is 12, which does not divide the 32.* are 8 and 16",
        ),
        ({"sequence": SequenceShape(64)}, "does not divide the 32 frames .* that work are 32"),
        (
            {"sequence": SequenceShape(32)},
            r"is 192, .* lanes \(12\) times rows of a sequence \(32\); .* work are 384",
        ),
        ({"global_batch": 204}, r"global_batch is 204, .* work are 192 and 288"),
        ({"global_batch": 200}, r"200, which is no multiple of lanes \(12\); "),
        ({"balance": 2.0}, "balance is 2: single rows cannot be left out of sequences"),
        ({"world_size": 5}, "lanes is 12.*5 ranks"),
    ],
)
def test_sequences_that_cannot_be_are_refused(planted_shards, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        stream(planted_shards, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "sequence rows is 0; it must be at least 1"),
        ({"rows": 8.0}, "sequence rows is 8.0; it must be a whole number"),
        ({"context": -1}, "sequence context is -1; it must be at least 0"),
        ({"context": None}, "sequence context is None"),
    ],
)
def test_shapes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SequenceShape(**settings)


def test_the_shape_is_part_of_the_identity_and_rows_have_none(planted_shards):
    with (
        stream(planted_shards, sequence=None) as rows,
        stream(planted_shards) as one,
        stream(planted_shards, sequence=SequenceShape(8, 38)) as two,
        stream(planted_shards, sequence=SequenceShape(*np.array([8, 37]))) as same,
    ):
        assert "sequence" not in rows.state_dict()["fields"]
        assert one.state_dict()["fields"]["sequence"] == [8, 37]
        same.load_state_dict(json.loads(json.dumps(one.state_dict())))
        with pytest.raises(ConfigError, match=r"sequence was \[8, 37\] and is \[8, 38\]"):
            two.load_state_dict(one.state_dict())
        with pytest.raises(ConfigError, match=r"sequence was None and is \[8, 37\]"):
            one.load_state_dict(rows.state_dict())
        with pytest.raises(ConfigError, match=r"sequence was \[8, 37\] and is None"):
            rows.load_state_dict(one.state_dict())
        assert "bf16[24, 45, 64] a batch" in repr(one)


def test_epochs_and_lanes_shuffle_sequences(planted_shards):
    def firsts(batch: Any) -> NDArray[np.int64]:
        return batch.frame[:, -1].numpy() // BLOCK

    with stream(
        planted_shards, global_batch=12 * BLOCK, sequence=SequenceShape(BLOCK, 3)
    ) as frames:
        one = next(iter(frames))
        frames.set_epoch(1)
        two = next(iter(frames))
    assert len(np.unique(firsts(one))) == 12
    assert not np.array_equal(firsts(one), firsts(two))
