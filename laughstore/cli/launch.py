"""`laughstore train --nproc N`: start N ranks of one training on this machine, and end with them.

The parent loads no torch. When a rank is killed, all begin again at the last checkpoint, a few
times; when one fails with an error, all end, and the error is told once. What ends the parent ends
them.
"""

import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import ConfigError, LaughstoreError
from .children import TOLD_TO_STOP, command_of, end_all, interrupts_blocked, signal_name, start_of
from .main import EXIT_USAGE
from .progress import TerminalProgress

MAX_RESTARTS = 3
"""Of all ranks, after one was killed."""
_POLL_S = 0.1
_FOLLOW_S = 6.0
"""How long the others may take to end by themselves after one has: they save, and say who."""
_THREADS = "OMP_NUM_THREADS"


@dataclass
class _Child:
    rank: int
    process: subprocess.Popen[bytes]
    errors: BinaryIO
    """What it tells of the error that ended it."""

    def error(self) -> tuple[str, int, bool] | None:
        """(text, exit code, whether it only says that another rank is gone), if it told one."""
        data = self.errors.read()
        return tuple(json.loads(data)) if data else None


class Launch:
    """The ranks of one training.

    Args:
        arguments: words of the command line behind `laughstore train`.
        num_ranks: processes to start.
        progress: told of deaths.
    """

    def __init__(
        self, arguments: Sequence[str], num_ranks: int, progress: TerminalProgress
    ) -> None:
        self._arguments, self._num_ranks, self._progress = list(arguments), num_ranks, progress
        self._children: list[_Child] = []

    def run(self) -> None:
        """Train.

        Raises:
            ConfigError, LaughstoreError: what a rank has failed with.
            SystemExit, KeyboardInterrupt: one, or this process, was told to stop.
        """
        for attempt in itertools.count():
            try:
                self._start(attempt)
                killed = self._wait()
            finally:
                self._stop()
            if killed is None:
                return
            by = f"rank {killed.rank} was killed by {signal_name(-killed.process.returncode)}"
            if attempt == MAX_RESTARTS:
                raise LaughstoreError(
                    f"{by}, and ranks were killed {MAX_RESTARTS} times before; give them more"
                    " memory, or a lower --nproc or --window-blocks, and go on with --resume"
                )
            self._progress.message(f"{by}; all {self._num_ranks} go on from the last checkpoint")

    def _start(self, attempt: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.set_inheritable(True)
            port, listener = server.getsockname()[1], server.fileno()
            for rank in range(self._num_ranks):
                self._children.append(self._child(rank, port, listener, attempt))

    def _child(self, rank: int, port: int, listener: int, attempt: int) -> _Child:
        reader, writer = os.pipe()
        first = rank == 0
        place = {
            "rank": rank,
            "local_rank": rank,
            "world_size": self._num_ranks,
            "local_world_size": self._num_ranks,
            "port": port,
            "keeps_store": first,
            "listener": listener if first else None,
        }
        words = [str(os.getpid()), str(writer), json.dumps(place), *self._arguments]
        words += ["--resume"] if attempt and "--resume" not in words else []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        try:
            with interrupts_blocked():
                process = subprocess.Popen(
                    command_of(start_of("laughstore.cli.rank_process"), words),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(writer, listener) if first else (writer,),
                    # Each would else compute in as many threads as there are cores.
                    env={_THREADS: str(max(1, cores // self._num_ranks)), **os.environ},
                )
        finally:
            os.close(writer)
        return _Child(rank, process, os.fdopen(reader, "rb"))

    def _wait(self) -> _Child | None:
        """Wait until all have ended, or one was killed: return that one.

        Raises:
            ConfigError, LaughstoreError, SystemExit: how one of them has ended.
        """
        running = list(self._children)
        while running:
            ended = [child for child in running if child.process.poll() is not None]
            running = [child for child in running if child not in ended]
            if any(child.process.returncode for child in ended):
                return self._failed()
            if not ended:
                time.sleep(_POLL_S)
        return None

    def _failed(self) -> _Child | None:
        """Return the rank that was killed, or raise what else has ended one."""
        until_s = time.monotonic() + _FOLLOW_S
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(until_s - time.monotonic(), 0))
        ended = [child for child in self._children if child.process.returncode]
        for child in ended:
            if child.process.returncode in TOLD_TO_STOP:
                raise SystemExit(TOLD_TO_STOP[child.process.returncode])
        told = [(child, error) for child in ended if (error := child.error()) is not None]
        # One's own fault first; then a death; that another is missing explains the least.
        for child, (text, exit_code, is_lost) in told:
            if not is_lost:
                raise self._error(child, text, exit_code, len(told))
        for child in ended:
            if child.process.returncode < 0:
                return child
        for child, (text, exit_code, _) in told:
            raise self._error(child, text, exit_code, len(told))
        child = ended[0]
        raise LaughstoreError(f"rank {child.rank} ended with exit code {child.process.returncode}")

    def _error(self, child: _Child, text: str, exit_code: int, num_told: int) -> LaughstoreError:
        where = "" if num_told == self._num_ranks or child.rank == 0 else f"rank {child.rank}: "
        return (ConfigError if exit_code == EXIT_USAGE else LaughstoreError)(where + text)

    def _stop(self) -> None:
        children, self._children = self._children, []
        try:
            end_all([child.process for child in children])
        finally:
            for child in children:
                child.errors.close()
