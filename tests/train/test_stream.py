import gc
import inspect
import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from laughstore.errors import ConfigError, CorruptData, IncompleteStore
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.reading.rows import open_rows
from laughstore.timebase import Span
from tests.stores import write_store
from train import FrameFilter, FrameStream
from train.streaming.stream import Batch

from .conftest import DIM, Planted, planted_episodes

SMALL = {"global_batch": 96, "lanes": 12, "window_blocks": 2}


def stream(shards: Path, **changes) -> FrameStream:
    return FrameStream(shards, "train", **{**SMALL, **changes})


def kept(batches) -> list[tuple[NDArray, ...]]:
    """Everything of each batch, out of the ring."""
    return [
        (b.frame.numpy(), b.x.view(torch.int16).numpy().copy(), b.y.numpy(), b.weight.numpy())
        for b in batches
    ]


def assert_same(got, expected):
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert np.array_equal(a, b)


def test_every_eligible_frame_comes_once_with_its_own_features_and_target(planted_shards):
    index = read_index(planted_shards)
    with stream(planted_shards) as frames, open_rows(index, "train") as rows:
        selection = frames.selection
        target = dict(zip(selection.frames.tolist(), selection.targets.tolist(), strict=True))
        seen: list[int] = []
        for step, batch in enumerate(frames):
            assert batch.step == step < len(frames)
            real = batch.weight.numpy() > 0
            ids = batch.frame.numpy()[real]
            rows.prepare(np.unique(ids // index.block_frames), verify=True)
            bits = batch.x.view(torch.int16).numpy().view(np.uint16)
            assert np.array_equal(bits[real], rows.matrix[rows.row_numbers(ids)])
            assert batch.y.numpy()[real].tolist() == [target[i] for i in ids.tolist()]
            assert not bits[~real].any()
            assert (batch.frame.numpy()[~real] == -1).all()
            assert batch.num_real == real.sum()
            seen.extend(ids.tolist())
        assert sorted(seen) == sorted(target)
        assert len(seen) == len(set(seen)) == selection.num_rows
        assert len(frames) == frames.num_steps


def test_batches_have_the_promised_types(planted_shards):
    with stream(planted_shards) as frames:
        batch = next(iter(frames))
    assert (batch.x.dtype, tuple(batch.x.shape)) == (torch.bfloat16, (96, DIM))
    assert (batch.y.dtype, batch.weight.dtype) == (torch.float32, torch.float32)
    assert batch.frame.dtype == torch.int64
    assert batch.x.isfinite().all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_resumed_in_epoch_3_go_on_with_the_same_rows(planted_shards, world_size):
    with stream(planted_shards) as whole:
        whole.set_epoch(3)
        expected = kept(whole)
        stop = len(expected) // 2
        state = whole.state_dict(after=_batch_at(whole, stop - 1))
    state = json.loads(json.dumps(state))
    parts = []
    for rank in range(world_size):
        with stream(planted_shards, rank=rank, world_size=world_size) as mine:
            mine.load_state_dict(state)
            assert mine.epoch == 3
            assert len(mine) == len(expected) - stop
            parts.append(kept(mine))
            assert len(mine) == len(expected)  # the next iteration is a whole epoch
    together = [
        tuple(np.concatenate([part[i][j] for part in parts]) for j in range(4))
        for i in range(len(expected) - stop)
    ]
    assert_same(together, expected[stop:])


def _batch_at(frames: FrameStream, step: int) -> Batch:
    return next(batch for batch in frames if batch.step == step)


def test_a_resume_at_every_step_gives_the_same_tail_twice_in_a_row(planted_shards):
    with stream(planted_shards, global_batch=480) as frames:
        expected, states = [], []
        for batch in frames:
            expected += kept([batch])
            states.append(frames.state_dict(after=batch))
        for step, state in enumerate(states):
            for _ in range(2):
                frames.load_state_dict(state)
                assert_same(kept(frames), expected[step + 1 :])
        frames.load_state_dict(states[-1])
        assert list(frames) == []


def test_a_stream_whose_generation_is_collected_meanwhile_goes_on_and_tells_its_place(own_shards):
    with stream(own_shards, verify="never") as frames:
        for columns in own_shards.glob("*.columns"):
            columns.unlink()
        *_, batch = frames
        frames.load_state_dict(frames.state_dict(after=batch) | {"step": 3})
        assert next(iter(frames)).step == 3


def test_a_position_is_of_the_epoch_of_its_batch(planted_shards):
    with stream(planted_shards) as frames:
        batch = next(iter(frames))
        frames.set_epoch(5)
        state = frames.state_dict(after=batch)
        assert (batch.epoch, state["epoch"], state["step"]) == (0, 0, 1)
        assert next(iter(frames)).epoch == 5
        frames.load_state_dict(state)
        resumed = next(iter(frames))
        assert (resumed.epoch, resumed.step) == (0, 1)


@pytest.mark.parametrize(("threads", "loaded"), [(1, False), (3, False), (1, True)])
def test_a_state_without_a_batch_is_that_behind_the_last_one_yielded(
    planted_shards, threads, loaded
):
    with stream(planted_shards, threads=threads) as frames:
        expected = kept(frames)
        frames.set_epoch(1)
        for batch in DataLoader(frames, batch_size=None) if loaded else frames:
            assert frames.state_dict() == frames.state_dict(after=batch)
        assert frames.state_dict()["step"] == frames.num_steps
        frames.set_epoch(0)
        assert frames.state_dict()["step"] == 0
        for batch in frames:
            if batch.step == 4:
                break
        state = frames.state_dict()
        frames.load_state_dict(state)
        assert frames.state_dict() == state
        assert_same(kept(frames), expected[5:])


def test_of_iterations_side_by_side_the_newest_tells_the_state(planted_shards):
    def place(frames: FrameStream) -> tuple[int, int]:
        state = frames.state_dict()
        return state["epoch"], state["step"]

    with stream(planted_shards) as frames:
        old = iter(frames)
        assert place(frames) == (0, 0)
        next(old)
        new = iter(frames)
        next(old)
        assert place(frames) == (0, 2)
        next(new)
        next(old)
        assert place(frames) == (0, 1)
        frames.set_epoch(3)
        next(new)
        assert place(frames) == (3, 0)
        assert place(pickle.loads(pickle.dumps(frames))) == (3, 0)
        next(iter(frames))
        assert place(frames) == (3, 1)


def test_an_iterator_that_is_never_used_takes_no_position_away(planted_shards):
    with stream(planted_shards) as frames:
        frames.load_state_dict(frames.state_dict() | {"step": 4})
        unused = iter(frames)
        assert len(frames) == frames.num_steps - 4
        assert frames.state_dict()["step"] == 4
        assert next(iter(frames)).step == 4
        assert next(unused).step == 0  # the position was used by the other


def test_reading_from_a_closed_stream_says_so(planted_shards):
    with stream(planted_shards) as frames:
        batches = iter(frames)
        first = next(batches)
    out = torch.empty(len(first.frame), DIM, dtype=torch.int16)
    with pytest.raises(ValueError, match="this stream was closed"):
        frames.source.gather(first.frame.numpy(), out)
    with pytest.raises(ValueError, match="closed"):
        list(batches)
    with pytest.raises(ValueError, match="closed"):
        list(frames)


def test_a_stream_that_is_closed_while_a_thread_gathers_says_so(planted_shards):
    with stream(planted_shards, reader="window") as frames:
        source, first = frames.source, next(iter(frames))

        class Closing(np.ndarray):
            """Frame ids; while they are looked at, the stream is closed."""

            def __lt__(self, other):
                source.close()
                return np.asarray(self) < other

        out = torch.empty(len(first.frame), DIM, dtype=torch.int16)
        with pytest.raises(ValueError, match="this stream was closed"):
            source.gather(first.frame.numpy().view(Closing), out)


def test_an_iteration_that_is_closed_ends_what_it_reads_though_somebody_refers_to_that(
    planted_shards,
):
    """As a debugger, or the traceback of an error, may."""
    with stream(planted_shards) as frames:
        iteration: Any = iter(frames)  # its type does not know what it yields from
        next(iteration)
        reached = gc.get_referents(*gc.get_referents(iteration.gi_yieldfrom))
        inner = [x for x in reached if inspect.isgenerator(x)]
        assert [x.gi_frame is not None for x in inner] == [True]
        iteration.close()
        assert [x.gi_frame for x in inner] == [None]


@pytest.mark.parametrize("reader", ["map", "window"])
@pytest.mark.parametrize("mix", ["windows", "global"])
def test_threads_change_nothing_but_the_time(planted_shards, reader, mix):
    changes = {"reader": reader, "mix": mix, "window_blocks": 1}
    with (
        stream(planted_shards, **changes) as one,
        stream(planted_shards, threads=3, **changes) as more,
    ):
        for epoch in range(3):
            one.set_epoch(epoch)
            more.set_epoch(epoch)
            assert_same(kept(more), kept(one))
        held = list(more)  # no batch is overwritten by those behind it
        assert_same(kept(held), kept(one))
        assert more.identity == one.identity
        state = one.state_dict(after=held[4])
        more.load_state_dict(state)
        assert_same(kept(more), kept(held[5:]))


def test_an_epoch_that_is_left_early_ends_its_threads(planted_shards):
    before = threading.active_count()
    with stream(planted_shards, threads=4) as frames:
        batches = iter(frames)
        assert next(batches).step == 0
        assert threading.active_count() > before
        batches.close()
        assert threading.active_count() == before
        assert len(list(frames)) == frames.num_steps


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none_is_refused(planted_shards, threads):
    with pytest.raises(ConfigError, match="threads is"):
        stream(planted_shards, threads=threads)


def test_a_data_loader_without_workers_passes_the_stream_through(planted_shards):
    with stream(planted_shards) as frames:
        assert_same(kept(DataLoader(frames, batch_size=None)), kept(frames))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"global_batch": 48}, "global_batch was 96 and is 48"),
        ({"lanes": 6}, "lanes"),
        ({"window_blocks": 5}, "window_blocks"),
        ({"balance": 2.5}, "balance was None and is 2.5"),
        ({"mix": "global"}, "mix was 'windows' and is 'global'"),
        ({"label": LabelSpec("onset:5f")}, "label"),
        ({"frames": FrameFilter(min_context=Span("9f"))}, "frames"),
    ],
)
def test_a_state_of_another_stream_is_refused_and_the_field_named(planted_shards, changes, field):
    with stream(planted_shards) as saved, stream(planted_shards, **changes) as other:
        with pytest.raises(ConfigError, match=field):
            other.load_state_dict(saved.state_dict())
        assert other.identity != saved.identity


def test_a_state_of_other_features_of_the_same_shape_is_refused(planted_shards, tmp_path):
    episodes = planted_episodes()
    others = Planted(episodes, strength=2.5)
    write_store(tmp_path / "s", episodes, others, dim=DIM, block_frames=32, shard_frames=256)
    with stream(planted_shards) as saved, stream(tmp_path / "s" / "shards") as other:
        assert saved.num_steps == other.num_steps
        with pytest.raises(ConfigError, match="features was"):
            other.load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: None,
        lambda state: [state],
        lambda state: {},
        lambda state: {**state, "version": 1},
        lambda state: {**state, "step": "1"},
        lambda state: {**state, "step": -1},
        lambda state: {**state, "step": 10**9},
        lambda state: {**state, "epoch": None},
        lambda state: {**state, "epoch": -1},
        lambda state: {**state, "fields": None},
        lambda state: {key: value for key, value in state.items() if key != "fields"},
    ],
)
def test_what_is_no_state_is_refused(planted_shards, change):
    with stream(planted_shards) as frames:
        state = frames.state_dict()
        with pytest.raises(ConfigError):
            frames.load_state_dict(change(state))
        assert frames.state_dict() == state


def test_numbers_of_numpy_are_numbers(planted_shards):
    numbers = {key: np.int32(SMALL[key]) for key in ("global_batch", "lanes", "window_blocks")}
    with (
        stream(planted_shards, seed=0) as one,
        stream(planted_shards, seed=np.uint8(0), **numbers) as two,
    ):
        two.load_state_dict(json.loads(json.dumps(one.state_dict())))
        assert json.dumps(one.state_dict()) == json.dumps(two.state_dict())
        two.set_epoch(*np.array([3]))
        one.load_state_dict(json.loads(json.dumps(two.state_dict(after=next(iter(two))))))
        assert (one.epoch, next(iter(one)).step) == (3, 1)


def test_a_closed_stream_says_so(planted_shards):
    with stream(planted_shards) as frames:
        pass
    with pytest.raises(ValueError, match="this stream was closed; open it again"):
        next(iter(frames))


def test_world_checks_and_copies_are_no_part_of_the_identity(planted_shards):
    with (
        stream(planted_shards) as one,
        stream(
            planted_shards, rank=1, world_size=2, verify="never", copy=True, reader="window"
        ) as two,
    ):
        assert one.identity == two.identity


def test_the_same_features_elsewhere_are_the_same_stream(planted_shards, own_shards):
    with stream(planted_shards) as one, stream(own_shards) as two:
        two.load_state_dict(one.state_dict())


def flip_a_bit(shards: Path) -> tuple[str, str]:
    """Damage a frame in the middle of the train split; return (shard name, sample key)."""
    index = read_index(shards)
    shard = index.split_shards("train")[4]
    shard_path = shards / shard.name
    geometry = index.geometry
    shard_path.chmod(0o644)
    with shard_path.open("r+b") as file:
        offset = geometry.data_offset(1) + 77
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))
    block = shard.first_block + 1 - shard.stream.first_block
    return shard.name, f"{shard.stream.recording_id}/{shard.stream.assignment}/{block:06d}"


@pytest.mark.parametrize("verify", ["always", "first"])
def test_a_flipped_bit_stops_the_stream_and_names_shard_and_sample(own_shards, verify):
    name, key = flip_a_bit(own_shards)
    with (
        stream(own_shards, verify=verify) as frames,
        pytest.raises(CorruptData, match=f"{name}, sample {key}: crc32c"),
    ):
        list(frames)


def test_batches_before_a_flipped_bit_come_from_threads_too(own_shards):
    flip_a_bit(own_shards)
    steps: dict[int, list[int]] = {}
    for threads in (1, 3):
        steps[threads] = []
        with stream(own_shards, verify="always", threads=threads) as frames:
            with pytest.raises(CorruptData, match="crc32c"):
                steps[threads].extend(batch.step for batch in frames)
            assert len(steps[threads]) < frames.num_steps
    # Blocks are prepared a few at a time, so that a step may be lost with the one behind it.
    assert len(steps[1]) > 4
    assert abs(len(steps[3]) - len(steps[1])) <= 2
    assert steps[3] == list(range(len(steps[3])))


def test_checks_can_be_switched_off(own_shards):
    flip_a_bit(own_shards)
    with stream(own_shards, verify="never") as frames:
        assert sum(batch.num_real for batch in frames) == frames.selection.num_rows


def test_a_file_cut_while_it_is_mapped_is_an_error_and_no_crash(own_shards):
    index = read_index(own_shards)
    shard = index.split_shards("train")[2]
    with stream(own_shards, verify="never") as frames:
        path = own_shards / shard.name
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(CorruptData, match=shard.name):
            list(frames)


def last_to_be_read(shards: Path) -> tuple[Path, int, int]:
    """Return a file, where in it its last block begins, and the first step that needs that block.

    Of all files, the one whose last block is needed latest.
    """
    index = read_index(shards)
    of_shard = {shard.first_block + shard.num_blocks - 1: shard for shard in index.shards}
    needed: dict[int, int] = {}
    with stream(shards) as frames:
        for batch in frames:
            for block in (batch.frame[batch.weight > 0] // index.block_frames).tolist():
                needed.setdefault(block, batch.step)
    step, block = max((needed[block], block) for block in of_shard if block in needed)
    assert step > 30, "behind all that is read ahead of the first step"
    shard = of_shard[block]
    return shards / shard.name, index.geometry.data_offset(shard.num_blocks - 1), step


@pytest.mark.parametrize("reader", ["map", "window"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_cut_in_the_middle_of_an_epoch_is_an_error_and_no_crash(own_shards, reader, threads):
    path, offset, step = last_to_be_read(own_shards)
    with stream(own_shards, reader=reader, threads=threads, verify="never") as frames:
        batches = iter(frames)
        seen = [next(batches).step]
        path.chmod(0o644)
        os.truncate(path, offset + 10)
        with pytest.raises(CorruptData, match=rf"{path.name}.*the file was cut"):
            seen.extend(batch.step for batch in batches)
    assert seen == list(range(len(seen)))
    assert 1 < len(seen) <= step


@pytest.mark.parametrize("reader", ["map", "window"])
def test_files_that_vanish_in_the_middle_of_an_epoch_are_read_on_or_named(own_shards, reader):
    """A mapped file lives until it is closed; of others the name is needed."""
    with stream(own_shards) as frames:
        expected = kept(frames)
    with stream(own_shards, reader=reader, verify="never") as frames:
        batches = iter(frames)
        got = kept([next(batches)])
        for path in own_shards.glob("*.tar"):
            path.unlink()
        if reader == "map":
            assert_same(got + kept(batches), expected)
        else:
            with pytest.raises(IncompleteStore, match=r"\.tar"):
                got.extend(kept(batches))
            assert_same(got, expected[: len(got)])


def readahead_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "laughstore-readahead"]


def test_an_abandoned_iteration_leaves_no_thread(planted_shards):
    with stream(planted_shards) as frames:
        batches = iter(frames)
        next(batches)
        assert readahead_threads()
        del batches
        gc.collect()
        assert not readahead_threads()


def test_an_error_in_the_consumer_leaves_no_thread(planted_shards):
    with stream(planted_shards) as frames:
        with pytest.raises(ZeroDivisionError):
            sum(1 / batch.step for batch in frames)
        gc.collect()
        assert not readahead_threads()


def test_filters_leave_out_early_rows_and_recordings(planted_shards):
    limits = FrameFilter(
        min_context=Span("50f"), recordings="train-part-*", exclude="train-part-0-*"
    )
    with stream(planted_shards, frames=limits) as frames:
        ids = np.concatenate([batch.frame.numpy() for batch in frames])
        ids = ids[ids >= 0]
        names = {item.recording_id for item in frames.selection.streams}
        assert len(names) == 4
        assert not any(name.startswith("train-part-0-") for name in names)
        for item in frames.selection.streams:
            first = item.first_block * frames.selection.index.block_frames
            assert not ((ids >= first) & (ids < first + 50)).any()


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("tset", {}, "no split 'tset'"),
        (
            "train",
            {"frames": FrameFilter(recordings="nobody*", exclude="b*")},
            r"none of the 5 recordings of split 'train' passes the filter"
            r" \(recordings nobody\*, exclude b\*\); widen --recordings",
        ),
        (
            "train",
            {"frames": FrameFilter(min_context=Span("900s"))},
            r"no row of split 'train' .* passes the filter \(min_context 900s\) of the 5",
        ),
        (
            "train",
            {"label": LabelSpec(lead=Span("900s"))},
            r"no row of split 'train' takes part: the label ignores all \d+ rows of the 5",
        ),
        ("train", {"label": LabelSpec(event="Applause")}, "Applause"),
        ("train", {"world_size": 5}, "lanes is 12.*5 ranks"),
        # A misspelt check must not be none.
        ("train", {"verify": "allways"}, "verify is 'allways'; use always, first or never"),
        ("train", {"verify": True}, "verify is True; use always"),
        ("train", {"seed": 1.5}, "seed is 1.5; it must be a whole number"),
        ("train", {"global_batch": 96.0}, "global_batch is 96.0; it must be a whole number"),
        ("train", {"lanes": "12"}, "lanes is '12'; it must be a whole number"),
        ("train", {"window_blocks": True}, "window_blocks is True"),
        ("train", {"label": "onset:0.8s"}, r"label is 'onset:0.8s'; give a LabelSpec"),
        ("train", {"frames": "b*"}, r"frames is 'b\*'; give a FrameFilter"),
    ],
)
def test_streams_that_cannot_be_are_refused(planted_shards, split, changes, message):
    with pytest.raises(ConfigError, match=message):
        FrameStream(planted_shards, split, **{**SMALL, **changes})


def test_a_negative_min_context_is_refused():
    with pytest.raises(ConfigError, match="min_context -3f"):
        FrameFilter(min_context=Span("-3f"))
