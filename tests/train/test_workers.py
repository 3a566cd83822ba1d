"""The stream under a DataLoader with workers: the same batches, and clear ends when one fails."""

import gc
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from laughstore.errors import ConfigError, CorruptData
from train import FrameStream
from train.streaming import buffers
from train.streaming.position import Position
from train.streaming.stream import Batch

from .test_stream import assert_same, flip_a_bit, kept

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

WIDE = {"global_batch": 480, "lanes": 48, "window_blocks": 2}


def stream(shards: Path, **changes) -> FrameStream:
    return FrameStream(shards, "train", **{**WIDE, **changes})


def loader(frames: FrameStream, num_workers: int, **changes) -> DataLoader[Batch]:
    timeout = 60 if num_workers else 0
    return DataLoader(
        frames, batch_size=None, num_workers=num_workers, **{"timeout": timeout, **changes}
    )


def ranks(shards: Path, world_size: int, num_workers: int, state=None, **changes):
    """Batches of all ranks, joined as the batches of one."""
    parts = []
    for rank in range(world_size):
        with stream(shards, rank=rank, world_size=world_size, **changes) as frames:
            if state is not None:
                frames.load_state_dict(state)
            batches = kept(loader(frames, num_workers))
            assert len(batches) == frames.num_steps - (state["step"] if state else 0)
            parts.append(batches)
    return [
        tuple(np.concatenate([part[i][j] for part in parts]) for j in range(4))
        for i in range(len(parts[0]))
    ]


def check_topology(shards: Path, world_size: int, num_workers: int) -> None:
    with stream(shards) as bare:
        expected = kept(bare)
        together = ranks(shards, world_size, num_workers)
        assert_same(together, expected)
        ids = np.concatenate([batch[0] for batch in together])
        assert np.array_equal(np.sort(ids[ids >= 0]), bare.selection.frames)


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 3), (3, 0), (2, 2)])
def test_ranks_and_workers_yield_the_batches_of_a_bare_stream(
    planted_shards, world_size, num_workers
):
    check_topology(planted_shards, world_size, num_workers)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_every_world_and_number_of_workers_yields_the_same(planted_shards, world_size, num_workers):
    check_topology(planted_shards, world_size, num_workers)


@pytest.mark.parametrize(
    "changes", [{"mix": "global"}, {"balance": 1.5}, {"reader": "window", "mix": "global"}]
)
def test_other_orders_and_readers_are_the_same_under_workers(planted_shards, changes):
    with stream(planted_shards, **changes) as bare:
        expected = kept(bare)
    assert_same(ranks(planted_shards, 1, 2, **changes), expected)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["map", "window"])
def test_spawned_workers_yield_the_same_and_learn_of_another_epoch(planted_shards, reader):
    with stream(planted_shards, reader=reader) as bare:
        expected = [kept(bare)]
        bare.set_epoch(1)
        expected.append(kept(bare))
    with stream(planted_shards, reader=reader) as frames:
        batches = loader(
            frames, 1, multiprocessing_context="spawn", persistent_workers=True, timeout=120
        )
        for epoch in range(2):
            frames.set_epoch(epoch)
            assert_same(kept(batches), expected[epoch])
        del batches


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_and_resumes_reach_workers(planted_shards, persistent):
    with stream(planted_shards) as bare, stream(planted_shards) as frames:
        expected = [kept(bare)]
        for epoch in (1, 2, 3):
            bare.set_epoch(epoch)
            expected.append(kept(bare))
        batches = loader(frames, 2, persistent_workers=persistent)
        for epoch in (0, 1, 3):
            frames.set_epoch(epoch)
            assert_same(kept(batches), expected[epoch])
            pickle.dumps(frames)  # a copy of its own, of which workers know nothing
        assert_same(kept(batches), expected[3])  # nobody set another
        frames.load_state_dict(bare.state_dict() | {"epoch": 3, "step": 5})
        assert len(batches) == len(expected[3]) - 5
        torch.manual_seed(7)
        assert_same(kept(batches), expected[3][5:])
        assert len(batches) == len(expected[3])
        torch.manual_seed(7)  # whoever draws the same numbers is another loader all the same
        assert_same(kept(batches), expected[3])
        frames.load_state_dict(bare.state_dict() | {"epoch": 2, "step": len(expected[2])})
        assert kept(batches) == []
        del batches


class Hesitant(np.ndarray):
    """Words that take a while to be read, so that two processes meet there."""

    def __getitem__(self, key):
        found = super().__getitem__(key)
        time.sleep(0.1)
        return found


def test_of_loaders_that_are_started_at_once_one_goes_on_where_it_was_set():
    fork = multiprocessing.get_context("fork")
    position, both, pipes = Position(), fork.Barrier(2), [fork.Pipe() for _ in range(2)]
    position.set(0, 5)
    position._words = position._words.view(Hesitant)

    def start(loader: int) -> None:
        both.wait()
        pipes[loader][1].send(position.take_in_worker(loader, 1))

    processes = [fork.Process(target=start, args=(loader,), daemon=True) for loader in range(2)]
    for process in processes:
        process.start()
    assert all(ours.poll(60) for ours, _ in pipes)
    assert sorted(ours.recv() for ours, _ in pipes) == [0, 5]
    for process in processes:
        process.join()


def test_a_worker_that_is_late_learns_that_its_place_was_used_before_the_stream_moved_on():
    fork = multiprocessing.get_context("fork")
    position, (ours, theirs) = Position(), fork.Pipe()
    position.set(0, 5)

    def iterate() -> None:
        theirs.recv()
        theirs.send([(position.take_in_worker(0, 1), position.epoch) for _ in range(2)])

    process = fork.Process(target=iterate, daemon=True)
    process.start()
    assert position.take()[0] == 5
    position.set(1, 3)
    ours.send("go on")
    assert ours.poll(60)
    assert ours.recv() == [(0, 0), (3, 1)]
    assert position.start == 0
    process.join()


def test_a_state_under_workers_needs_the_batch_that_was_used(planted_shards):
    with stream(planted_shards) as frames:
        batches = iter(loader(frames, 2))
        batch = [next(batches) for _ in range(3)][-1]
        with pytest.raises(ConfigError, match=r"read ahead.*state_dict\(after=batch\)"):
            frames.state_dict()
        state = frames.state_dict(after=batch)
        assert (state["epoch"], state["step"]) == (0, 3)
        rest = kept(batches)
        frames.load_state_dict(state)
        assert frames.state_dict() == state  # known again
        assert_same(kept(frames), rest)
        del batches


def check_resumes(shards: Path, number: int, max_workers: int) -> None:
    rng = np.random.default_rng(7)
    with stream(shards) as whole:
        expected = []
        for epoch in range(4):
            whole.set_epoch(epoch)
            expected.append(kept(whole))
        for trial in range(number):
            epoch = int(rng.integers(4)) if trial else 3
            last = whole.num_steps
            step = last if trial % 10 == 1 else int(rng.integers(last + 1))
            state = whole.state_dict() | {"epoch": epoch, "step": step}
            world_size, num_workers = int(rng.integers(1, 5)), int(rng.integers(max_workers + 1))
            resumed = ranks(shards, world_size, num_workers, state)
            assert_same(resumed, expected[epoch][step:])
            if len(resumed) > 1:  # once more, from within what was resumed
                more = int(rng.integers(1, len(resumed)))
                again = ranks(shards, 1, 0, state | {"step": step + more})
                assert_same(again, resumed[more:])


def test_resumes_on_any_world_are_bit_identical(planted_shards):
    check_resumes(planted_shards, 12, 0)


@pytest.mark.slow
def test_100_resumes_on_any_world_and_workers_are_bit_identical(planted_shards):
    check_resumes(planted_shards, 100, 3)


def test_batches_of_workers_stay_as_they_are(planted_shards):
    with stream(planted_shards) as frames:
        collected = list(loader(frames, 1))
        assert_same(kept(collected), kept(frames))


def test_a_corrupt_block_raises_with_shard_and_sample_through_workers(own_shards):
    name, key = flip_a_bit(own_shards)
    with stream(own_shards) as frames, pytest.raises(CorruptData, match=f"{name}, sample {key}"):
        list(loader(frames, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("total", "free"), [(200_000, 200_000), (10**9, 10_000)])
def test_a_small_shared_memory_is_an_error_with_the_fix(planted_shards, monkeypatch, total, free):
    monkeypatch.setattr(buffers, "shared_memory_bytes", lambda: (total, free))
    with (
        stream(planted_shards) as frames,
        pytest.raises(ConfigError, match=r"shm is too small.*need .* MiB, it has .*num_workers=0"),
    ):
        list(loader(frames, 2))


@pytest.mark.slow
def test_handles_and_shared_memory_are_given_back(planted_shards):
    def handles() -> int:
        gc.collect()
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    with stream(planted_shards) as frames:
        batches = loader(frames, 2)
        kept(batches)
        before = handles()
        kept(batches)
        # Fewer, if a batch of the first loader was still under way when they were counted.
        assert handles() <= before


@pytest.mark.slow
def test_a_killed_worker_is_an_error_and_no_hang(planted_shards):
    others = set(multiprocessing.active_children())  # those of loaders before may end late
    with stream(planted_shards) as frames:
        batches = iter(loader(frames, 1, prefetch_factor=1))
        next(batches)
        (worker,) = set(multiprocessing.active_children()) - others
        assert worker.pid is not None

        def kill_and_go_on(pid: int) -> None:
            os.kill(pid, signal.SIGKILL)
            try:
                list(batches)
            finally:
                worker.join()  # torch's handler of SIGCHLD raises here at the latest

        # The last two: a batch is under way, whose memory is asked of the dead worker.
        with pytest.raises((RuntimeError, ConnectionError, EOFError)) as told:
            kill_and_go_on(worker.pid)
        if told.type is RuntimeError:
            # By its signal, or, where that is noticed later, as one that is gone.
            assert re.search(
                rf"DataLoader worker \(pid(\(s\))? {worker.pid}\)"
                " (is killed by signal: Killed|exited unexpectedly)",
                str(told.value),
            )


STUCK = """
import os, sys, time
from pathlib import Path
from torch.utils.data import DataLoader
from train import FrameStream
from train.streaming.source import FrameSource

main, gather = os.getpid(), FrameSource.gather

def stuck(self, *arguments, **named):
    if os.getpid() != main:
        time.sleep(600)
    gather(self, *arguments, **named)

FrameSource.gather = stuck
with FrameStream(Path(sys.argv[1]), "train", global_batch=480, lanes=48) as frames:
    try:
        list(DataLoader(frames, batch_size=None, num_workers=2, timeout=2))
    except RuntimeError as error:
        print("ended:", error)
"""


@pytest.mark.slow
def test_a_stuck_worker_is_an_error_and_no_hang(planted_shards):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STUCK, planted_shards],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "ended: DataLoader timed out" in done.stdout
