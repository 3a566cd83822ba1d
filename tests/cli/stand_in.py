"""What `laughstore build` is without a model: writes small real stores, and dies where it is told.

    python -m tests.cli.stand_in STORE NUM_WORKERS ORDERS     a parent of workers
    python -c START ...                                       one of its workers

Orders are a JSON object, given as the model of the build.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extract.config import BuildConfig
from extract.result import BuildResult
from laughstore.buildplan import BuildPlan, PlannedRecording, begin_plan
from laughstore.cli import worker as worker_module
from laughstore.cli.build import parse_build
from laughstore.cli.interrupts import EXIT_INTERRUPTED, raise_signal
from laughstore.cli.workers import Workers
from laughstore.errors import ConfigError, LaughstoreError
from laughstore.locks import StoreLocks
from laughstore.progress import NoProgress, Progress
from laughstore.sharing import Share, Worker, build_together
from laughstore.unit import UnitRecord, write_unit
from tests.stores import Episode, plan_for, random_features, spec_for, write_recording

START = (
    "import sys,json; sys.path[:]=json.loads(sys.argv.pop(1));"
    "from tests.cli.stand_in import main; sys.exit(main(sys.argv[1:]))"
)
SPEC = spec_for(8, block_frames=32, shard_frames=64)
EPISODES = [Episode(f"episode {i}", num_frames=30 + 10 * i, speakers=("A",)) for i in range(8)]


def plan() -> BuildPlan:
    """The plan of all that is built here."""
    return plan_for(EPISODES, SPEC)


def arguments(store: Path, **orders: object) -> list[str]:
    """Words of the command line.

    Args:
        store: folder of the store.
        orders: slots: recordings in work side by side. pause_s: before each is written. bad: names
            to leave out. kills: names that kill their worker. once: path of a file; with it,
            `kills` kill only the first time. killed_ranks: workers that die before they begin.
            fails, is_wrong: words of an error of all workers. breaks: of one that nobody expected.
    """
    return ["nowhere", "--store", str(store), "--model", json.dumps(orders)]


def workers(store: Path, progress: Progress | None = None, **orders: object) -> Workers:
    """Workers of a build that stands in."""
    words = arguments(store, **orders)
    return Workers(words, parse_build(words).config, progress or NoProgress(), start=START)


def build(
    config: BuildConfig, progress: Progress, *, worker: Worker, local_rank: int
) -> BuildResult:
    """Build as `extract.run.build` does."""
    orders = json.loads(config.model)
    if local_rank in orders.get("killed_ranks", ()):
        os.kill(os.getpid(), signal.SIGSEGV)
    if "fails" in orders:
        raise LaughstoreError(orders["fails"])
    if "is_wrong" in orders:
        raise ConfigError(orders["is_wrong"])
    if "breaks" in orders:
        raise RuntimeError(orders["breaks"])
    progress.begin("survey", len(EPISODES), "recording")
    progress.message("left out: one that nobody can read")
    for _ in EPISODES:
        progress.advance(1)
    progress.end()
    begun = begin_plan(config.store, plan())
    num_taken = 0

    def write(share: Share) -> None:
        nonlocal num_taken
        num_taken += _write(config.store, share, progress, orders)

    with StoreLocks(config.store) as locks:
        left_out = build_together(
            config.store, begun, locks, write, worker=worker, progress=NoProgress()
        )
    return BuildResult(num_taken - len(left_out), left_out, notes=("a note",))


def _write(store: Path, share: Share, progress: Progress, orders: dict[str, Any]) -> int:
    seats: list[PlannedRecording] = []
    num_taken = 0
    first = share.take()
    if first is None:
        return 0
    seats.append(first)
    progress.begin("extract", sum(i.num_frames for i in (first, *share.left)), "frame")
    while seats:
        while len(seats) < orders.get("slots", 1) and (item := share.take()) is not None:
            seats.append(item)
        for item in seats:
            progress.advance(item.num_frames // 2)
            _may_die(item.name, orders)
        item = seats.pop(0)
        num_taken += 1
        time.sleep(orders.get("pause_s", 0))
        if item.name in orders.get("bad", ()):
            write_unit(store, UnitRecord(item.id, "quarantined", f"{item.name}: bad"))
            progress.advance(-(item.num_frames // 2))
        else:
            episode = next(e for e in EPISODES if e.name == item.name)
            write_recording(store, plan(), item, episode, random_features(SPEC.dim))
            progress.advance(item.num_frames - item.num_frames // 2)
        for other in seats:
            progress.advance(-(other.num_frames // 2))
        if not seats and (again := share.take()) is not None:
            seats.append(again)
    progress.end()
    return num_taken


def _may_die(name: str, orders: dict[str, Any]) -> None:
    if name not in orders.get("kills", ()):
        return
    if (once := orders.get("once")) is not None:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)


def main(words: Sequence[str]) -> int:
    """Run a worker."""
    return worker_module.main(words, build)


def parent() -> int:
    """Run a parent, as the command does."""
    store, num_workers, orders = sys.argv[1:]
    signal.signal(signal.SIGTERM, raise_signal)
    try:
        workers(Path(store), **json.loads(orders)).run(int(num_workers))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(parent())
