"""One worker process of `laughstore build --nproc N`: builds, and tells its parent how far it is.

Started by `workers.Workers` only. It prints nothing on stdout; what happens goes to a pipe of the
parent as lines of JSON, one event a line:

    {"begin": [task, total, unit]}, {"advance": steps}, {"end": true}    how far it is
    {"message": text}                                                    for the user
    {"taken": [recording id, frames]}                                    in work from now on
    {"result": {...}} or {"error": [text, exit code]}                    the last one

The parent sends lines of JSON to its stdin: the ids of recordings that were left out already, and
of those that may kill a process. When its stdin ends, the parent is gone, and the worker ends too.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from extract.result import BuildResult

from ..buildplan import PlannedRecording
from ..errors import LaughstoreError
from ..memory import out_of_memory_told
from ..sharing import Worker
from . import logs
from .build import parse_build
from .interrupts import EXIT_TERMINATED, raise_signal
from .main import EXIT_FAILED, MORE_MEMORY, check_packages, one_line
from .orphans import die_with


class PipeProgress:
    """A `laughstore.progress.Progress` whose listener is another process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def begin(self, task: str, total: int, unit: str) -> None:
        """A task begins."""
        self.send(begin=[task, total, unit])

    def advance(self, amount: int, note: str = "") -> None:
        """Count steps."""
        self.send(advance=amount)

    def message(self, text: str) -> None:
        """Something for the user."""
        self.send(message=text)

    def end(self) -> None:
        """The task is over."""
        self.send(end=True)

    def taken(self, recording: PlannedRecording) -> None:
        """A recording is in work from now on."""
        self.send(taken=[recording.id, recording.num_frames])

    def send(self, **event: object) -> None:
        """Send one event, a JSON value; the parent's end of the pipe never blocks for long."""
        data = json.dumps(event).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class Parent:
    """What the parent has sent so far; another thread adds to it.

    Args:
        descriptor: to read from; its first line is waited for. When it ends, so does this process.
    """

    def __init__(self, descriptor: int) -> None:
        self.suspects: set[str] = set()
        self.left_out: frozenset[str] = frozenset()
        lines = _lines(descriptor)
        first = next(lines, None)
        if first is None:
            os._exit(EXIT_TERMINATED)
        told = json.loads(first)
        self.left_out = frozenset(told["left_out"])
        self.suspects.update(told["suspects"])
        threading.Thread(target=self._follow, args=(lines,), daemon=True, name="parent").start()

    def _follow(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            self.suspects.update(json.loads(line)["suspects"])
        os._exit(EXIT_TERMINATED)


def _lines(descriptor: int) -> Iterator[bytes]:
    # Not through sys.stdin: a thread that waits in it would stop the interpreter from ending.
    rest = b""
    while data := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def main(arguments: Sequence[str], build: Callable[..., BuildResult] | None = None) -> int:
    """Run a worker. Returns the exit code.

    Args:
        arguments: pid of the parent, descriptor of its pipe, local rank, then the words of the
            command line behind `laughstore build`.
        build: as `extract.run.build`, which is imported when it is not given.
    """
    parent_pid, descriptor, local_rank = (int(word) for word in arguments[:3])
    die_with(parent_pid)
    # Ctrl-C reaches all processes of a terminal; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, raise_signal)
    parent = Parent(sys.stdin.fileno())
    progress = PipeProgress(descriptor)
    try:
        flags = parse_build(arguments[3:])
        flags.common.configure_logging()
        check_packages()
        if build is None:
            from extract.run import build
        worker = Worker(
            suspects=parent.suspects,
            left_out=parent.left_out,
            taken=progress.taken,
            tells_waiting=False,
        )
        with out_of_memory_told(MORE_MEMORY):
            result = build(flags.config, progress, worker=worker, local_rank=local_rank)
    except (LaughstoreError, OSError) as error:
        exit_code = getattr(error, "exit_code", EXIT_FAILED)
        if "--debug" in arguments:
            traceback.print_exc()
        progress.send(error=[one_line(error), exit_code])
        return exit_code
    finally:
        logs.stop()
    progress.send(result=asdict(result))
    return 0
