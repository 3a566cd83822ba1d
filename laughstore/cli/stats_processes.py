"""Processes that share the streams of `laughstore stats`. A stream is computed whole by one."""

import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING

from .. import errors
from ..errors import CorruptData, LaughstoreError
from ..index import Index, Stream
from ..store import open_shards
from .children import interrupts_blocked, signal_name
from .orphans import die_with

if TYPE_CHECKING:
    from train.moments import Moments

    Found = tuple[Stream, Moments | CorruptData]


@dataclass(frozen=True)
class _Work:
    """What a process is told."""

    parent_pid: int
    shards: Path
    index_id: str
    streams: Sequence[Stream]


def moments_by_processes(index: Index, streams: Sequence[Stream], jobs: int) -> "Generator[Found]":
    """Yield the moments of each stream, in the order in which they are known, or what is wrong.

    Of a stream of which a block was altered or cut, or that has no finite moments, comes the error.

    Closing the generator ends the processes.

    Args:
        index: of a store of this machine.
        streams: of it, of any split.
        jobs: number of processes; 1: this one.

    Raises:
        IncompleteStore, CorruptData: shards are missing or have another size.
        LaughstoreError: a process was killed.
    """
    if jobs == 1:
        yield from _moments(index, streams)
        return
    assert index.folder.local is not None, "statistics are kept beside local shards only"
    running: dict[Connection, SpawnProcess] = {}
    try:
        for part in _shares(streams, jobs):
            work = _Work(getpid(), index.folder.local.absolute(), index.index_id, part)
            with interrupts_blocked():  # there for good: this process hears them, and ends those
                pipe, process = _start(work)
                running[pipe] = process
        yield from _results(running)
    finally:
        for pipe, process in running.items():
            process.kill()
            process.join()
            pipe.close()


def _start(work: _Work) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _shares(streams: Sequence[Stream], jobs: int) -> list[list[Stream]]:
    """Deal the streams, the longest first, each to whoever has the fewest frames."""
    shares: list[list[Stream]] = [[] for _ in range(jobs)]
    frames = [0] * jobs
    for stream in sorted(streams, key=lambda item: -item.num_frames):
        least = frames.index(min(frames))
        shares[least].append(stream)
        frames[least] += stream.num_frames
    return shares


def _results(running: dict[Connection, SpawnProcess]) -> "Iterator[Found]":
    """Yield what the processes send; each ends with None, or an error as (name, text)."""
    left = dict(running)
    while left:
        for pipe in wait(list(left)):
            assert isinstance(pipe, Connection), "pipes alone are waited for"
            try:
                message = pipe.recv()
            except (EOFError, OSError):  # OSError: killed in the middle of a message
                left[pipe].join()
                code = left[pipe].exitcode or 0
                how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with {code}"
                raise LaughstoreError(
                    f"a process of the statistics {how}; what was known is kept: run the same"
                    " command again, with fewer --jobs if memory was short"
                ) from None
            match message:
                case None:
                    del left[pipe]
                case (str() as name, str() as text):
                    raise getattr(errors, name, LaughstoreError)(text)
                case _:
                    yield message


def _moments(index: Index, streams: Sequence[Stream]) -> "Iterator[Found]":
    from train.statistics import moments_of
    from train.streaming.source import FrameSource

    # By where they are, not as `streams` has them: folds aside, a split is one mapping.
    splits = {stream: item.split for item in index.recordings for stream in item.streams}
    with ExitStack() as stack:
        sources: dict[str, FrameSource] = {}
        for stream in streams:
            split = splits[stream]
            if split not in sources:
                sources[split] = stack.enter_context(FrameSource(index, split))
            try:
                found = moments_of(stream, sources[split])
            except CorruptData as error:
                found = error
            yield stream, found


def _work(pipe: Connection, work: _Work) -> None:
    """Compute some streams in a process of its own, and send each as it is known."""
    die_with(work.parent_pid)
    try:
        index = open_shards(work.shards)
        if index.index_id != work.index_id:
            raise LaughstoreError(
                f"{index.where}: another generation was published just now; run it again"
            )
        for found in _moments(index, work.streams):
            pipe.send(found)
    except LaughstoreError as error:
        pipe.send((type(error).__name__, str(error)))
    else:
        pipe.send(None)
    pipe.close()
