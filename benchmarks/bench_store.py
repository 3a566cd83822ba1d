"""Writing shards, checking them, reading frames at random, opening large stores.

uv run python -m benchmarks.bench_store [--gb 4] [--dir DIR] [--repeats 5] [--quick]
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laughstore import layout, open_rows
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.files import fsync_dir
from laughstore.geometry import ShardGeometry
from laughstore.naming import block_key
from laughstore.shard import ShardWriter
from laughstore.unitwriter import UnitWriter

from .data import (
    DIM,
    SPEAKERS,
    SPLIT,
    BenchData,
    annotations,
    bench_spec,
    make_data,
    plan_of,
    random_frames,
)
from .large_index import PODCAST_FILLERS, TEN_THOUSAND
from .measure import Contestant, Unit, measure
from .opening import opening_time
from .random_reads import random_reads
from .report import Options, Report, parse_options, working_folder

NAME = "store"
_GB_PER_S = (Unit("GB/s", 1e-9),)
_READ_BYTES = 2 << 20
_BUILD_CHUNK_FRAMES = 256
"""Frames in each call of a model on a GPU."""


@dataclass(frozen=True)
class ShardWork:
    """What is written: the same frames as every shard of both streams of one recording."""

    num_shards: int
    geometry: ShardGeometry

    @classmethod
    def of(cls, options: Options) -> "ShardWork":
        """Half a gigabyte, or a few MB if quick."""
        frames, shards = (256, 2) if options.quick else (4096, 16)
        return cls(shards, ShardGeometry(DIM, shard_frames=frames))

    @property
    def num_bytes(self) -> float:
        """Bytes of all shard files."""
        return float(self.num_shards * self.geometry.shard_bytes(self.geometry.blocks_per_shard))


def writing(work: ShardWork, folder: Path) -> list[Contestant]:
    """Return writers of the same bytes, from memory to synced files."""
    geometry = work.geometry
    frames = random_frames(geometry.shard_frames, seed=0)
    blocks = frames.view(np.uint8).reshape(geometry.blocks_per_shard, -1)
    source, target = folder / "cp-source", folder / "written"

    def before() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)

    def check() -> None:
        paths = list(target.rglob("*.tar"))
        if sum(path.stat().st_size for path in paths) != work.num_bytes:
            raise AssertionError(f"not {work.num_bytes:.0f} bytes of shards were written")
        for path in paths:
            written = np.memmap(path, np.uint8, "r")
            for slot, expected in enumerate(blocks):
                start = geometry.data_offset(slot)
                if not np.array_equal(written[start : start + expected.size], expected):
                    raise AssertionError(f"block {slot} of {path.name} is not what was written")

    def shards(into: Path = target) -> float:
        for number in range(work.num_shards):
            with ShardWriter(into / f"{number}.tar", geometry) as writer:
                for block in range(geometry.blocks_per_shard):
                    start = block * geometry.block_frames
                    part = frames[start : start + geometry.block_frames]
                    writer.write_block(block_key("recording", "a--b", block), part, {})
                writer.commit()
        return work.num_bytes

    before()
    shutil.rmtree(source, ignore_errors=True)
    shards(source)
    payload = (source / "0.tar").read_bytes()

    def plain() -> float:
        for number in range(work.num_shards):
            with (target / f"{number}.tar").open("wb", buffering=0) as file:
                _write_all(file.fileno(), payload)
                os.fsync(file.fileno())
            fsync_dir(target)
        return work.num_bytes

    def cp() -> float:
        subprocess.run(["cp", "-R", "--reflink=never", f"{source}/.", target], check=True)
        for path in [*target.iterdir(), target]:
            _fsync(path)
        return work.num_bytes

    block = memoryview(payload)[: geometry.data_bytes]

    num_blocks = int(work.num_bytes) // len(SPEAKERS) // len(block)
    digests: list[str] = []

    def hash_one_stream() -> str:
        digest = hashlib.sha256()
        for _ in range(num_blocks):
            digest.update(block)
        return digest.hexdigest()

    def hashes() -> float:
        with ThreadPoolExecutor(len(SPEAKERS)) as pool:
            digests[:] = [
                future.result() for future in [pool.submit(hash_one_stream) for _ in SPEAKERS]
            ]
        return work.num_bytes

    expected = hashlib.sha256(bytes(block) * num_blocks).hexdigest()

    def check_hashes() -> None:
        if digests != [expected] * len(SPEAKERS):
            raise AssertionError("a stream was hashed to something else")

    # Not the plain write: cp, which syncs at the end and copies in the kernel, is faster.
    name = "limit: cp of the same files, then fsync"
    limit = Contestant(name, cp, _GB_PER_S, before=before, check=check)
    unit = unit_run(work, target, frames)
    ours = {
        "plain write, fsync of each file": plain,
        "ShardWriter": shards,
        "UnitWriter (with codes, array metadata)": unit,
    }
    return [
        limit,
        Contestant(
            "limit: SHA-256 alone, a thread a stream",
            hashes,
            _GB_PER_S,
            limit=limit,
            check=check_hashes,
        ),
        *(Contestant(name, run, _GB_PER_S, "", limit, before, check) for name, run in ours.items()),
    ]


def unit_run(work: ShardWork, store: Path, frames: np.ndarray) -> Callable[[], float]:
    """Return a run that writes one recording of two streams, as many frames a call as a build."""
    geometry = work.geometry
    num_frames = work.num_shards // len(SPEAKERS) * geometry.shard_frames
    note = annotations("episode", num_frames, max(1, num_frames // 100))
    spec = bench_spec(shard_frames=geometry.shard_frames)
    plan = plan_of([num_frames], [note], spec)
    step = _BUILD_CHUNK_FRAMES
    codes = np.full((len(SPEAKERS), step, CODE_STREAMS), MISSING_CODE, np.int16)

    def run() -> float:
        with UnitWriter(store, plan, plan.recordings[0], note) as writer:
            for start in range(0, num_frames, step):
                row = start % geometry.shard_frames
                part = frames[row : row + step]
                writer.write(np.broadcast_to(part, (len(SPEAKERS), *part.shape)), codes)
            writer.finish()
        return work.num_bytes

    return run


def checking(data: BenchData) -> list[Contestant]:
    """Return passes over all shards: plain read, pages only, checksums of every block."""
    blocks = np.arange(data.index.num_blocks)
    rows = open_rows(data.index, SPLIT)
    buffer = bytearray(_READ_BYTES)
    num_bytes = float(data.index.num_blocks * data.index.geometry.data_bytes)
    read_bytes = 0

    def read() -> float:
        nonlocal read_bytes
        total = 0
        for path in data.shards:
            with path.open("rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    total += got
        read_bytes = total
        return float(total)

    def check_read() -> None:
        if read_bytes != sum(path.stat().st_size for path in data.shards):
            raise AssertionError(f"only {read_bytes} bytes were read")

    def verify() -> float:
        rows.prepare(blocks, verify=True)  # raises at the first block that is not as it was
        return num_bytes

    def check_verified() -> None:
        if not rows.are_ready(blocks, checked=True):
            raise AssertionError("a block was not checked")

    limit = Contestant("limit: plain read of all shards", read, _GB_PER_S, check=check_read)
    name = "CRC-32C of every block"
    return [limit, Contestant(name, verify, _GB_PER_S, limit=limit, check=check_verified)]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/store.json."""
    options = parse_options("Writing, checking and reading shards, opening large stores.", argv)
    report = Report.begin(NAME, options)
    work = ShardWork.of(options)
    large_stores = [PODCAST_FILLERS] if options.quick else [PODCAST_FILLERS, TEN_THOUSAND]
    opened: dict[str, int] = {}
    with working_folder(options) as folder:
        results = measure(writing(work, folder / "writing"), repeats=options.repeats, say=print)
        shutil.rmtree(folder / "writing")
        data = make_data(folder, options.gb)
        results += measure(checking(data), repeats=options.repeats, say=print)
        results += measure(random_reads(data), repeats=options.repeats, say=print)
        for store in large_stores:
            at = store.found(folder)
            results += opening_time(store, at, options.repeats)
            opened[str(store)] = (at / layout.CURRENT_INDEX).stat().st_size
    settings = {
        "written_bytes": int(work.num_bytes),
        "read_bytes": data.index.num_blocks * data.index.geometry.data_bytes,
        "opened_index_bytes": opened,
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
