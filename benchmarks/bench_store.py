"""Writing shards, checking them, opening the index of a large store.

uv run python -m benchmarks.bench_store [--gb 4] [--dir DIR] [--repeats 5] [--quick]
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from laughstore import open_rows, open_shards
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.files import fsync_dir
from laughstore.geometry import ShardGeometry
from laughstore.index import Index
from laughstore.layout import INDEX_NAME
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
from .large_index import LARGE_INDEX, check_large_index, write_large_index
from .measure import Contestant, Result, Unit, measure, summary
from .report import Options, Report, parse_options, working_folder

NAME = "store"
_GB_PER_S = (Unit("GB/s", 1e-9),)
_MS = (Unit("ms", 1e3, is_rate=False),)
_READ_BYTES = 2 << 20


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
    source, target = folder / "cp-source", folder / "written"

    def before() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)

    def check() -> None:
        found = sum(path.stat().st_size for path in target.rglob("*.tar"))
        if found != work.num_bytes:
            raise AssertionError(f"{found} bytes of shards were written, not {work.num_bytes:.0f}")

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

    # Not the plain write: cp, which syncs at the end and copies in the kernel, is faster.
    limit = Contestant("limit: cp of the same files, then fsync", cp, _GB_PER_S, "", None, before)
    limit = replace(limit, check=check)
    unit = unit_run(work, target, frames)
    ours = {
        "plain write, fsync of each file": plain,
        "ShardWriter": shards,
        "UnitWriter (with codes, array metadata)": unit,
    }
    return [limit] + [
        Contestant(name, run, _GB_PER_S, "", limit, before, check) for name, run in ours.items()
    ]


def unit_run(work: ShardWork, store: Path, frames: np.ndarray) -> Callable[[], float]:
    """Return a run that writes one recording of two streams, 64 frames a call."""
    geometry = work.geometry
    num_frames = work.num_shards // len(SPEAKERS) * geometry.shard_frames
    note = annotations("episode", num_frames, max(1, num_frames // 100))
    spec = bench_spec(shard_frames=geometry.shard_frames)
    plan = plan_of([num_frames], [note], spec)
    step = spec.numerics.chunk_frames
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

    def read() -> float:
        total = 0
        for path in data.shards:
            with path.open("rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    total += got
        return float(total)

    def verify() -> float:
        rows.prepare(blocks, verify=True)
        return num_bytes

    limit = Contestant("limit: plain read of all shards", read, _GB_PER_S)
    return [limit, Contestant("CRC-32C of every block", verify, _GB_PER_S, limit=limit)]


def opening(folder: Path) -> list[Contestant]:
    """Return ways to open the index of a store as large as PodcastFillers."""
    write_large_index(folder)
    path = folder / INDEX_NAME
    opened: list[Index] = []

    def parse() -> float:
        data = path.read_bytes()
        hashlib.sha256(data).digest()
        json.loads(data)
        return 1.0

    def run() -> float:
        opened[:] = [open_shards(folder)]
        return 1.0

    def check() -> None:
        check_large_index(opened.pop())

    limit = Contestant("limit: read + sha256 + json.loads of the index", parse, _MS)
    name = "open_shards, PodcastFillers-sized"
    return [limit, Contestant(name, run, _MS, "", limit, check=check)]


def opening_memory(folder: Path, repeats: int) -> Result:
    """Return how much a fresh process grows when it opens the index under `folder`."""
    grown: list[float] = []
    for _ in range(repeats):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            grown.append(pool.submit(_growth_of_opening, folder).result() / 1e6)
    return summary("open_shards, resident memory it adds", "MB", grown)


def _growth_of_opening(folder: Path) -> int:
    """Return the bytes by which this process grows; run in one of its own."""
    before = _resident_bytes()
    index = open_shards(folder)
    grown = _resident_bytes() - before
    check_large_index(index)
    return grown


def _resident_bytes() -> int:
    """Return resident anonymous memory; mapped files are the page cache's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status; this script needs Linux")


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
    options = parse_options("Writing and checking shards, opening a large index.", argv)
    report = Report.begin(NAME, options)
    work = ShardWork.of(options)
    with working_folder(options) as folder:
        index_folder = folder / "large-index"
        results = measure(writing(work, folder / "writing"), repeats=options.repeats, say=print)
        shutil.rmtree(folder / "writing")
        data = make_data(folder, options.gb)
        results += measure(checking(data), repeats=options.repeats, say=print)
        results += measure(opening(index_folder), repeats=options.repeats, say=print)
        results.append(opening_memory(index_folder, options.repeats))
        index_bytes = (index_folder / INDEX_NAME).stat().st_size
    settings = {
        "written_bytes": int(work.num_bytes),
        "read_bytes": data.index.num_blocks * data.index.geometry.data_bytes,
        "index_bytes": index_bytes,
        "index_holds": LARGE_INDEX,
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
