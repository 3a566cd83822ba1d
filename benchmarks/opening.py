"""Opening large stores: how long it takes and what stays in memory."""

import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from laughstore import layout
from laughstore.index import Index
from laughstore.store import open_store

from .large_index import LargeStore
from .measure import Contestant, Result, Unit, measure, summary

_MS = (Unit("ms", 1e3, is_rate=False),)
BYTES_A_BLOCK, BYTES_A_SHARD = 32, 200
"""What an index may take in memory, at most."""


def opening(store: LargeStore, folder: Path, repeats: int) -> list[Result]:
    """Return how long opening takes, beside the parsing of the same JSON, and its memory."""
    store.write(folder)
    opened: list[Index] = []

    def parse() -> float:
        for path in (layout.STORE_JSON, layout.index(1)):
            data = (folder / path).read_bytes()
            hashlib.sha256(data).digest()
            json.loads(data)
        return 1.0

    def run() -> float:
        opened[:] = [open_store(folder).index]
        return 1.0

    def check() -> None:
        store.check(opened.pop())

    group = f"{store.num_recordings} recordings"
    limit = Contestant("limit: read + sha256 + json.loads of both files", parse, _MS, group)
    ours = Contestant("open_store", run, _MS, group, limit, check=check)
    return measure([limit, ours], repeats=repeats, say=print) + _memory(store, folder, repeats)


def _memory(store: LargeStore, folder: Path, repeats: int) -> list[Result]:
    """Return how much fresh processes grow when they open the store under `folder`."""
    opening_mb: list[float] = []
    share_after_use: list[float] = []
    allowed = store.num_blocks * BYTES_A_BLOCK + store.num_shards * BYTES_A_SHARD
    for _ in range(repeats):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            opened, used = pool.submit(_growth, folder).result()
        opening_mb.append(opened / 1e6)
        share_after_use.append(used / allowed)
    name = f"open_store of {store.num_recordings} recordings"
    return [
        summary(f"{name}, resident memory it adds", "MB", opening_mb),
        summary(
            f"{name} and all checksums and shards: memory of {BYTES_A_BLOCK} B a block and"
            f" {BYTES_A_SHARD} B a shard",
            "of it",
            share_after_use,
        ),
    ]


def _growth(folder: Path) -> tuple[int, int]:
    """Return the bytes by which this process grows, opening and using; run in one of its own."""
    before = _resident_bytes()
    index = open_store(folder).index
    opened = _resident_bytes()
    assert len(index.block_crc32c) == index.num_blocks
    assert len(index.shards) == index.num_shards
    return opened - before, _resident_bytes() - before


def _resident_bytes() -> int:
    """Return resident anonymous memory; mapped files are the page cache's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status; this script needs Linux")
