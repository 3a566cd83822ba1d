"""Streams of remote shards with a cache: the same batches, few requests, many processes."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from laughstore.cli.main import main
from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from laughstore.reading import window_rows
from laughstore.reading.shard_cache import ShardCache
from laughstore.reading.window_rows import WindowRows
from tests.store.loopback import FileServer, LoopbackServer
from train import FrameStream, evaluate
from train.config import TrainConfig
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.run import Run
from train.streaming.stream import Batch

from .test_stream import assert_same, kept

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

SMALL: dict[str, Any] = {"global_batch": 96, "lanes": 12, "window_blocks": 2}
PAGES_OF_A_BLOCK = 2
"""32 frames of 64 channels, and their checksum."""


@pytest.fixture
def server(planted_shards: Path) -> Iterator[LoopbackServer]:
    with FileServer(planted_shards.parent) as running:
        yield running


def digest_of(stream: Iterable[Batch]) -> str:
    digest = hashlib.sha256()
    for batch in stream:
        for tensor in (batch.x.view(torch.int16), batch.y, batch.weight, batch.frame):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def test_the_second_epoch_asks_for_nothing_and_batches_are_those_of_home(
    planted_shards, server, tmp_path
):
    cache = ShardCache(tmp_path / "c", 10**9)
    far = f"{server.url}/shards"
    with (
        FrameStream(planted_shards, "train", **SMALL) as home,
        FrameStream(far, "train", **SMALL, cache=cache) as stream,
    ):
        assert home.identity == stream.identity
        for epoch in range(2):
            home.set_epoch(epoch)
            stream.set_epoch(epoch)
            server.requests.clear()
            assert digest_of(stream) == digest_of(home)
            assert (server.count() == 0) == (epoch > 0)


_READER = """
import sys
import time
from pathlib import Path
import torch
torch.set_num_threads(1)
from laughstore.reading.shard_cache import ShardCache
from tests.train.test_cached_stream import SMALL, digest_of
from train import FrameStream
cache = ShardCache(Path(sys.argv[2]), int(sys.argv[3]), keep_free_bytes=0)
with FrameStream(sys.argv[1], "train", **SMALL, cache=cache) as stream:
    print("ready", flush=True)
    sys.stdin.readline()
    for epoch in range(2):
        stream.set_epoch(epoch)
        print(digest_of(stream), flush=True)
"""


@pytest.mark.slow
def test_two_processes_share_a_tiny_cache_and_read_the_same(planted_shards, server, tmp_path):
    num_bytes = 20 * PAGES_OF_A_BLOCK * 4096  # of some 180 blocks
    arguments = [f"{server.url}/shards", str(tmp_path / "c"), str(num_bytes)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _READER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    watcher = ShardCache(tmp_path / "c", num_bytes, keep_free_bytes=0)
    most, found = 0, []
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        while any(child.poll() is None for child in children):
            with watcher._lock.held() as held:
                if held is not None:
                    most = max(most, watcher.num_bytes())
            time.sleep(0.02)  # outside of the lock, which is not granted in turn
        found = [child.communicate()[0].split() for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert [child.returncode for child in children] == [0, 0]
    with FrameStream(planted_shards, "train", **SMALL) as home:
        expected = []
        for epoch in range(2):
            home.set_epoch(epoch)
            expected.append(digest_of(home))
    assert found == [expected, expected]
    assert num_bytes // 2 < most <= num_bytes


def loader(stream: FrameStream, num_workers: int, method: str | None) -> DataLoader[Batch]:
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=method,
        timeout=120 if num_workers else 0,
    )


def home_epochs(shards: Path, num_epochs: int) -> list[list[tuple[NDArray, ...]]]:
    """What a bare stream of the local shards yields."""
    found = []
    with FrameStream(shards, "train", **SMALL) as home:
        for epoch in range(num_epochs):
            home.set_epoch(epoch)
            found.append(kept(home))
    return found


def check_spawned(planted_shards, server, cache: ShardCache | None, num_workers: int) -> None:
    with FrameStream(f"{server.url}/shards", "train", **SMALL, cache=cache) as stream:
        method = "spawn" if num_workers else None
        batches = loader(stream, num_workers, method)
        for epoch, expected in enumerate(home_epochs(planted_shards, 2)):
            stream.set_epoch(epoch)
            server.requests.clear()
            assert_same(kept(batches), expected)
            asked = server.count("GET", r"\.tar")
            # Workers that read the same block at the same time may both ask for it, once.
            assert (asked == 0) == (cache is not None and epoch > 0)


def test_no_workers_without_a_cache_yield_the_batches_of_home(planted_shards, server):
    check_spawned(planted_shards, server, None, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "num_workers"), [("none", 1), ("none", 2), ("large", 1), ("large", 2)]
)
def test_spawned_workers_yield_the_batches_of_home(
    planted_shards, server, tmp_path, kind, num_workers
):
    cache = None if kind == "none" else ShardCache(tmp_path / "c", 10**9)
    check_spawned(planted_shards, server, cache, num_workers)


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_forked_workers_read_what_is_kept_and_are_told_to_be_spawned_for_the_rest(
    planted_shards, server, tmp_path, num_workers
):
    """Clients of remote stores do not survive a fork, the cache does."""
    far = f"{server.url}/shards"
    (expected,) = home_epochs(planted_shards, 1)
    cache = ShardCache(tmp_path / "c", 10**9)
    with FrameStream(far, "train", **SMALL, cache=cache) as stream:
        assert_same(kept(stream), expected)
    with FrameStream(far, "train", **SMALL, cache=cache) as stream:
        server.requests.clear()
        assert_same(kept(loader(stream, num_workers, "fork")), expected)
        assert server.count() == 0
        # One block is gone, by whatever hand: told, no hang, no other batches.
        next((cache.folder / "blocks").rglob("*.block")).unlink()
        with pytest.raises(ConfigError, match="start workers with the method spawn"):
            kept(loader(stream, num_workers, "fork"))


@pytest.mark.slow
def test_forked_workers_without_a_cache_are_told_to_be_spawned(server):
    with (
        FrameStream(f"{server.url}/shards", "train", **SMALL) as stream,
        pytest.raises(ConfigError, match="start workers with the method spawn"),
    ):
        kept(loader(stream, 2, "fork"))


@pytest.mark.slow
def test_a_cache_smaller_than_a_window_is_only_slower(planted_shards, server, tmp_path):
    cache = ShardCache(tmp_path / "c", 3 * PAGES_OF_A_BLOCK * 4096, keep_free_bytes=0)
    expected = home_epochs(planted_shards, 2)
    with FrameStream(f"{server.url}/shards", "train", **SMALL, cache=cache) as stream:
        for epoch in range(2):
            stream.set_epoch(epoch)
            assert_same(kept(stream), expected[epoch])
            assert 0 < cache.num_bytes() <= cache.max_bytes


def most_blocks_needed(stream: FrameStream, lag: int) -> int:
    """That a step needs together with so many before it."""
    reads = stream._order.plan.reads(0)
    steps = np.arange(stream.num_steps)[:, None]
    is_held = (reads.step <= steps) & (reads.last_step >= steps - lag)
    return max(len(np.unique(reads.block[held])) for held in is_held)


def allow(monkeypatch: pytest.MonkeyPatch, shards: Path, num_blocks: int) -> None:
    """Have memory for so many blocks of a window."""
    free = (num_blocks + 0.5) * read_index(shards).geometry.data_bytes / 0.6
    monkeypatch.setattr(window_rows, "available_bytes", lambda: int(free))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_needs_no_more_memory_than_its_steps_and_reads_ahead_into_the_rest(
    planted_shards, monkeypatch, threads
):
    settings = {**SMALL, "threads": threads}
    with FrameStream(planted_shards, "train", **settings) as home:
        expected = kept(home)
        least = most_blocks_needed(home, threads if threads > 1 else 0)
    allow(monkeypatch, planted_shards, least)
    with FrameStream(planted_shards, "train", reader="window", **settings) as stream:
        rows = stream.source._rows
        assert isinstance(rows, WindowRows)
        batches = iter(stream)
        first = next(batches)
        until_s = time.monotonic() + 20
        while rows.room() and time.monotonic() < until_s:
            time.sleep(0.001)
        assert rows.room() == 0, "the next windows, as far as there is room"
        assert_same(kept([first, *batches]), expected)
        assert rows.num_ready == 0


def test_a_stream_whose_windows_have_no_room_says_what_takes_less(planted_shards, monkeypatch):
    with FrameStream(planted_shards, "train", **SMALL) as home:
        least = most_blocks_needed(home, 0)
    allow(monkeypatch, planted_shards, least - 1)
    with (
        FrameStream(planted_shards, "train", reader="window", **SMALL) as stream,
        pytest.raises(ConfigError, match=r"with fewer lanes, window_blocks or num_workers"),
    ):
        list(stream)


def test_memory_of_a_stream_is_that_of_two_rounds_of_windows(planted_shards, server):
    """As long as a step takes a part of a window: the rounds that are used and the next."""
    most = 0
    with FrameStream(f"{server.url}/shards", "train", **SMALL) as stream:
        rows = stream.source._rows
        assert isinstance(rows, WindowRows)
        for _ in stream:
            most = max(most, rows._num_kept)
    round_of_windows = SMALL["lanes"] * SMALL["window_blocks"]
    assert round_of_windows < most <= 2.5 * round_of_windows


@pytest.mark.slow
def test_training_and_evaluation_from_a_url_use_the_cache(planted_shards, server, tmp_path):
    url, folder = f"{server.url}/shards", tmp_path / "c"
    secret = url.replace("http://", "http://someone:canary@")
    run = tmp_path / "run"
    flags = ["--cache", folder, "--cache-gb", 0.5, "--epochs", 2, "--device", "cpu", "-q"]
    assert main([str(word) for word in ["train", "--shards", secret, "--out", run, *flags]]) == 0
    assert ShardCache(folder, 10**9).num_bytes() > 0
    opened = Run.open(run).config
    assert (opened.shards, opened.cache, opened.cache_gb) == (url, None, TrainConfig.cache_gb)
    assert "canary" not in (run / "config.json").read_text()
    server.requests.clear()
    scored = evaluate(run, cache=folder, cache_gb=0.5, timelines=0)
    assert server.count(path=r"\.tar") == 0
    assert server.count() > 0
    home = evaluate(run, shards=planted_shards, out=tmp_path / "e", timelines=0)
    assert scored.metrics == home.metrics


def test_answers_that_come_late_are_waited_for_together_and_ahead(planted_shards):
    late_s, step_s = 0.05, 0.02

    def answer(request):
        if request.path.endswith(".tar"):
            time.sleep(late_s)
        request.reply_file(planted_shards / request.path.lstrip("/"))

    with (
        LoopbackServer(answer) as server,
        FrameStream(server.url, "train", **SMALL) as stream,
    ):
        batches = iter(stream)
        next(batches)
        waited_s = 0.0
        for _ in range(len(stream) - 1):
            began_s = time.monotonic()
            next(batches)
            waited_s += time.monotonic() - began_s
            time.sleep(step_s)  # as training would
        num_answers = server.count("GET", r"\.tar")
    one_by_one_s = late_s * num_answers
    assert one_by_one_s > 2 * step_s * len(stream), "enough to hide"
    assert waited_s < 0.2 * one_by_one_s


@pytest.mark.slow
def test_sigterm_while_the_server_stalls_saves_the_last_step_at_once(planted_shards, tmp_path):
    stalls, stalled, over = threading.Event(), threading.Event(), threading.Event()

    def answer(request):
        if stalls.is_set() and request.path.endswith(".tar"):
            stalled.set()
            over.wait(60)
        request.reply_file(planted_shards / request.path.lstrip("/"))

    out = tmp_path / "run"
    with LoopbackServer(answer) as server:
        flags = ["--shards", server.url, "--out", out, "--epochs", 2000, "--patience", 2000]
        process = subprocess.Popen(
            [sys.executable, "-m", "laughstore", "train", *map(str, flags), "--lanes", "16"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "epoch 1: validation AP" in line:
                    break
            stalls.set()
            assert stalled.wait(60)
            time.sleep(1)  # what was read ahead is used up
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=10)[1]
        finally:
            over.set()
            process.kill()
            process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    step = load_checkpoint(checkpoint_path(out / "checkpoints", "last")).state["step"]
    assert f"stopped at step {step}, saved in " in said
