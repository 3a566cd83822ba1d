"""Streams of remote shards with a cache: the same batches, few requests, many processes."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from laughstore.reading.shard_cache import ShardCache
from tests.store.loopback import FileServer, LoopbackServer
from train import FrameStream, evaluate, train
from train.config import TrainConfig
from train.run import Run

from .conftest import config_for

SMALL: dict[str, Any] = {"global_batch": 96, "lanes": 12, "window_blocks": 2}
PAGES_OF_A_BLOCK = 2
"""32 frames of 64 channels, and their checksum."""


@pytest.fixture
def server(planted_shards: Path) -> Iterator[LoopbackServer]:
    with FileServer(planted_shards.parent) as running:
        yield running


def digest_of(stream: FrameStream) -> str:
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
            with watcher._locked() as held:
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


def test_training_and_evaluation_from_a_url_use_the_cache(planted_shards, server, tmp_path):
    url, folder = f"{server.url}/shards", tmp_path / "c"
    secret = url.replace("http://", "http://someone:canary@")
    changes = {"epochs": 2, "cache": folder, "cache_gb": 0.5}
    run = train(config_for(secret, tmp_path / "run", **changes)).run  # pyright: ignore
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
