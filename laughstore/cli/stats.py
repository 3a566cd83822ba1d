"""`laughstore stats`: channel statistics of a store's streams, before a training asks for them."""

import json
import os
import shlex
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..errors import ConfigError, CorruptData, LaughstoreError
from ..store import open_shards
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .stats_processes import moments_by_processes
from .text import counted, program

if TYPE_CHECKING:
    from train.moments import Moments

    from ..index import Stream

_KEEP_EVERY_S = 60.0
_BYTES_A_PROCESS = 2 << 30
"""About what one process computes while another loads torch."""


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[Path]
    """A store of this machine, or its shards folder."""
    common: CommonFlags
    jobs: int | None = None
    """Processes that share the streams; the numbers are the same. Default: one for each CPU, fewer
    where there is little to do."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"jobs is {self.jobs}; it must be at least 1")


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "stats",
        arguments,
        "Compute mean and spread of every channel, by recording and assignment, in one pass over"
        " all frames, checksums checked, and keep them in STORE/stats, where `train` finds them."
        " What is there already costs no pass; a training computes what it misses by itself.",
    )
    flags.common.configure_logging()
    from train.kept_moments import KeptMoments, stream_key

    began_s = time.monotonic()
    index = open_shards(flags.store)
    files = KeptMoments(index)
    if files.folder is None:
        raise ConfigError(
            f"{index.where} stands in no store, and statistics are kept in a store's folder; give"
            " the store (training on shards alone computes them by itself)"
        )
    streams = [stream for recording in index.recordings for stream in recording.streams]
    known = files.read(streams)
    missing = [stream for stream in streams if stream_key(stream) not in known]
    if missing:
        _check_writable(files.folder)
    num_bytes = sum(stream.num_frames for stream in missing) * index.geometry.row_bytes
    jobs = flags.jobs or min(_num_cpus(), 1 + num_bytes // _BYTES_A_PROCESS)
    jobs = min(jobs, max(1, len(missing)))
    progress = TerminalProgress(quiet=flags.common.quiet)
    again = f"{program()} {shlex.join(['stats', *arguments])}"
    to_keep: dict[str, Moments] = {}
    damaged: list[CorruptData] = []

    def keep() -> None:
        if to_keep and not files.write(to_keep):
            raise _unwritable(files.folder)
        to_keep.clear()

    progress.begin("statistics", sum(stream.num_frames for stream in missing), "frame")
    kept_s = time.monotonic()
    try:
        with closing(moments_by_processes(index, missing, jobs)) as found:
            for stream, moments in found:
                if isinstance(moments, CorruptData):
                    damaged.append(moments)
                else:
                    to_keep[stream_key(stream)] = moments
                progress.advance(stream.num_frames)
                if time.monotonic() - kept_s >= _KEEP_EVERY_S:
                    keep()
                    kept_s = time.monotonic()
        keep()
    except BaseException as error:
        files.write(to_keep)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            progress.message(f"stopped; what is known is kept. Go on with:\n  {again}")
        raise
    finally:
        progress.end()
    if damaged:
        others = len(damaged) - 1
        more = f" (and so for {counted(others, 'streams')} more)" if others else ""
        raise CorruptData(f"{damaged[0]}{more}; statistics of all sound streams are kept")
    _report(flags, files.folder, streams, len(missing), time.monotonic() - began_s)
    return 0


def _check_writable(folder: Path) -> None:
    """Refuse before a long pass, not after it."""
    around = folder if folder.exists() else folder.parent
    if not around.is_dir() or not os.access(around, os.W_OK):
        raise _unwritable(folder)


def _unwritable(folder: Path | None) -> LaughstoreError:
    return LaughstoreError(
        f"{folder} cannot be written, so nothing is kept there; a training on this"
        " store computes its statistics by itself"
    )


def _num_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _report(
    flags: _Flags, folder: Path, streams: "Sequence[Stream]", num_computed: int, seconds: float
) -> None:
    num_frames = sum(stream.num_frames for stream in streams)
    if flags.common.json:
        result = {
            "folder": str(folder),
            "streams": len(streams),
            "computed": num_computed,
            "frames": num_frames,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(result, indent=2))
        return
    print(
        f"{folder}: statistics of {counted(len(streams), 'streams')}, {num_frames:,} frames;"
        f" {num_computed:,} computed in {seconds:.1f} s, {len(streams) - num_computed:,} were there"
    )
    shards = shlex.quote(str(folder.parent / "shards"))
    print(f"next: {program()} train --shards {shards} --out RUN")
