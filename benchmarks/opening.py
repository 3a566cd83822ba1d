"""Opening large stores: how long it takes, and what stays in memory."""

import hashlib
import json
from pathlib import Path

from laughstore import layout
from laughstore.index import Index
from laughstore.store import open_store

from .large_index import LargeStore
from .measure import Contestant, Result, Unit, measure, summary
from .process_memory import anonymous_bytes, apart

_MS = (Unit("ms", 1e3, is_rate=False),)
BYTES_A_BLOCK, BYTES_A_SHARD = 32, 200
"""What an index may take in memory, at most."""


def opening_time(store: LargeStore, folder: Path, repeats: int) -> list[Result]:
    """Return how long opening the store under `folder` takes, beside parsing the same JSON."""
    opened: list[Index] = []
    parsed: list[object] = []

    def parse() -> float:
        parsed.clear()
        for path in (layout.STORE_JSON, layout.index(1)):
            data = (folder / path).read_bytes()
            hashlib.sha256(data).digest()
            parsed.append(json.loads(data))
        return 1.0

    def check_parsed() -> None:
        if len(parsed) != 2 or not all(parsed):
            raise AssertionError("a file was not parsed")

    def run() -> float:
        opened[:] = [open_store(folder).index]
        return 1.0

    def check() -> None:
        store.check(opened.pop())

    group = f"{store.num_recordings} recordings"
    name = "limit: read + sha256 + json.loads of both files"
    limit = Contestant(name, parse, _MS, group, check=check_parsed)
    ours = Contestant("open_store", run, _MS, group, limit, check=check)
    return measure([limit, ours], repeats=repeats, say=print)


def opening_memory(store: LargeStore, folder: Path, repeats: int) -> list[Result]:
    """Return how much fresh processes grow when they open the store under `folder`, and use it."""
    allowed_bytes = store.num_blocks * BYTES_A_BLOCK + store.num_shards * BYTES_A_SHARD
    growths = [apart(_growth, folder) for _ in range(repeats)]
    name = f"open_store of {store.num_recordings} recordings"
    limit = summary(
        f"limit: {BYTES_A_BLOCK} B a block and {BYTES_A_SHARD} B a shard of"
        f" {store.num_recordings} recordings",
        "MB",
        [allowed_bytes / 1e6],
    )
    opened = [opened / 1e6 for opened, _ in growths]
    used = [used / 1e6 for _, used in growths]
    return [
        limit,
        summary(f"{name}: memory it adds", "MB", opened, limit),
        summary(f"{name}, and all checksums and shards: the same", "MB", used, limit),
    ]


def _growth(folder: Path) -> tuple[int, int]:
    """Return the bytes by which this process grows, opening and using; run in one of its own."""
    before = anonymous_bytes()
    index = open_store(folder).index
    opened = anonymous_bytes()
    assert len(index.block_crc32c) == index.num_blocks
    assert len(index.shards) == index.num_shards
    return opened - before, anonymous_bytes() - before
