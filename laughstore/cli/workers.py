"""`laughstore build --nproc N`: start workers, show them as one, and replace those that die.

The parent loads no torch and builds nothing. A worker that is killed has lost what it had in work;
another takes that up. A recording that kills its workers again and again is left out, with the
reason, and the rest is built.
"""

import json
import os
import queue
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from extract.config import BuildConfig
from extract.result import BuildResult

from ..buildplan import SkippedRecording
from ..errors import ConfigError, LaughstoreError
from ..finishing import leave_out, quarantine_stamps
from ..progress import Progress
from ..unit import read_unit
from .children import TOLD_TO_STOP, command_of, end_all, interrupts_blocked, signal_name, start_of
from .deaths import MAX_DEATHS, Deaths
from .main import EXIT_USAGE

_POLL_S = 0.2
_TAIL_LINES = 5
_START = start_of("laughstore.cli.worker")


@dataclass
class _Child:
    """A worker process, and what it has told."""

    rank: int
    process: subprocess.Popen[bytes]
    taken: dict[str, int] = field(default_factory=dict)
    """Frames of each recording it took."""
    num_frames: int = 0
    """Extracted, whether they were finished or not."""
    is_extracting: bool = False
    result: dict[str, Any] | None = None  # Any: JSON values
    error: tuple[str, int] | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))


class Workers:
    """Workers of one build.

    Args:
        arguments: words of the command line behind `laughstore build`.
        config: what they mean.
        progress: shows all workers as one.
        start: Python that a worker runs.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        config: BuildConfig,
        progress: Progress,
        *,
        start: str = _START,
    ) -> None:
        self._arguments = list(arguments)
        self._start_code = start
        self._store = config.store
        self._progress = progress
        self._events: queue.SimpleQueue[tuple[_Child, dict[str, Any] | None]] = queue.SimpleQueue()
        self._children: list[_Child] = []
        self._results: list[dict[str, Any]] = []
        self._deaths = Deaths()
        self._first_stamps = quarantine_stamps(config.store)
        self._early_deaths: Counter[int] = Counter()
        self._said: set[str] = set()
        self._shown: _Child | None = None
        self._is_extracting = False

    def run(self, num_workers: int) -> BuildResult:
        """Build with this many workers.

        Raises:
            ConfigError: the workers say that the request is wrong.
            LaughstoreError: one of them has failed, or all died before they took a recording.
            SystemExit: one was told to stop.
        """
        try:
            for rank in range(num_workers):
                self._start(rank)
            while self._children:
                with suppress(queue.Empty):
                    self._take(*self._events.get(timeout=_POLL_S))
        finally:
            self._progress.end()
            self._stop()
        assert self._results, "the last worker has ended with a result, or an error was raised"
        return _merged(self._results)

    def _start(self, rank: int) -> None:
        reader, writer = os.pipe()
        words = [str(os.getpid()), str(writer), str(rank), *self._arguments]
        try:
            with interrupts_blocked():
                process = subprocess.Popen(
                    command_of(self._start_code, words),
                    stdin=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(writer,),
                )
        finally:
            os.close(writer)
        child = _Child(rank, process)
        self._children.append(child)
        self._send(child, left_out=self._left_out_since_begin(), suspects=self._deaths.suspects)
        threading.Thread(target=self._listen, args=(child, reader), daemon=True).start()

    def _listen(self, child: _Child, reader: int) -> None:
        """Queue what a worker tells, then that it has ended. Runs in a thread."""
        errors = threading.Thread(target=self._listen_to_errors, args=(child,), daemon=True)
        errors.start()
        with os.fdopen(reader, "rb") as pipe:
            for line in pipe:
                with suppress(json.JSONDecodeError):  # cut by a kill
                    self._events.put((child, json.loads(line)))
        errors.join()
        child.process.wait()
        self._events.put((child, None))

    def _listen_to_errors(self, child: _Child) -> None:
        assert child.process.stderr is not None
        with child.process.stderr as pipe:
            for line in pipe:
                self._events.put((child, {"stderr": line.decode(errors="replace").rstrip("\n")}))

    def _take(self, child: _Child, event: dict[str, Any] | None) -> None:
        match event:
            case None:
                self._ended(child)
            case {"begin": [str(task), int(total), str(unit)]}:
                self._began(child, task, total, unit)
            case {"advance": int(amount)}:
                child.num_frames += amount if child.is_extracting else 0
                if child.is_extracting or child is self._shown:
                    self._progress.advance(amount)
            case {"end": _}:
                child.is_extracting = False
                if child is self._shown:
                    self._shown = None
                    self._progress.end()
            case {"message": str(text)}:
                self._say(text)
            case {"stderr": str(text)}:
                child.last_lines.append(text)
                self._say(text)
            case {"taken": [str(key), int(num_frames)]}:
                self._early_deaths[child.rank] = 0
                child.taken[key] = num_frames
            case {"result": dict(result)}:
                child.result = result
            case {"error": [str(text), int(exit_code)]}:
                child.error = text, exit_code
            case _:
                raise AssertionError(f"a worker sent {event}")

    def _began(self, child: _Child, task: str, total: int, unit: str) -> None:
        """Show the first worker's look at the data set, then all workers' frames in one bar."""
        if task != "extract":
            if self._shown is None and not self._is_extracting and not self._results:
                self._shown = child
                self._progress.begin(task, total, unit)
            return
        child.is_extracting = True
        if not self._is_extracting:
            self._is_extracting, self._shown = True, None
            self._progress.end()
            self._progress.begin(task, total, unit)

    def _say(self, text: str) -> None:
        # All of them read the same data set, and would all tell the same about it.
        if text not in self._said:
            self._said.add(text)
            self._progress.message(text)

    def _ended(self, child: _Child) -> None:
        self._children.remove(child)
        _close(child.process)
        if child is self._shown:
            self._shown = None
            self._progress.end()
        code = child.process.returncode
        if child.result is not None:
            self._results.append(child.result)
        elif child.error is not None:
            text, exit_code = child.error
            raise (ConfigError if exit_code == EXIT_USAGE else LaughstoreError)(text)
        elif code in TOLD_TO_STOP:
            raise SystemExit(TOLD_TO_STOP[code])
        elif code < 0:
            self._died(child, signal_name(-code))
        else:
            last = next((line for line in reversed(child.last_lines) if line.strip()), "no message")
            raise LaughstoreError(f"a worker ended with exit code {code}: {last}")

    def _died(self, child: _Child, by: str) -> None:
        if self._results:  # who has ended with a result has seen everything settled
            return
        in_work = [key for key in child.taken if self._is_in_work(key)]
        finished = sum(child.taken[key] for key in child.taken if key not in in_work)
        if child.num_frames > finished:
            self._progress.advance(finished - child.num_frames)
        if not in_work:
            self._died_early(child, by)
            return
        given_up = self._deaths.add(in_work)
        if given_up is None:
            what = f"{len(in_work)} recordings" if len(in_work) > 1 else in_work[0]
            self._progress.message(
                f"worker {child.rank} was killed by {by}; {what} will be tried again, alone"
            )
        else:
            why = (
                f"its worker process was killed by {by} {MAX_DEATHS} times, the last time with"
                " nothing else in work; export its audio again, or give the build more memory"
            )
            leave_out(self._store, given_up, why, self._progress)
        for other in self._children:
            self._send(other, suspects=self._deaths.suspects)
        self._start(child.rank)

    def _died_early(self, child: _Child, by: str) -> None:
        self._early_deaths[child.rank] += 1
        if self._early_deaths[child.rank] < MAX_DEATHS:
            self._progress.message(f"worker {child.rank} was killed by {by}; starting it again")
            self._start(child.rank)
        elif self._children:
            self._progress.message(
                f"worker {child.rank} was killed by {by} {MAX_DEATHS} times before it took a"
                f" recording; going on with {len(self._children)}"
            )
        else:
            raise LaughstoreError(
                f"the last worker was killed by {by} {MAX_DEATHS} times before it took a recording;"
                " give it more memory, or a lower --nproc or --rows"
            )

    def _is_in_work(self, key: str) -> bool:
        return read_unit(self._store, key) is None

    def _left_out_since_begin(self) -> list[str]:
        """Recordings that this run has tried; a worker that is started again need not."""
        now = quarantine_stamps(self._store)
        return [key for key, stamp in now.items() if self._first_stamps.get(key) != stamp]

    def _send(self, child: _Child, **told: Sequence[str]) -> None:
        assert child.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died as well, and will be seen to
            child.process.stdin.write(json.dumps(told).encode() + b"\n")
            child.process.stdin.flush()

    def _stop(self) -> None:
        processes = [child.process for child in self._children]
        try:
            end_all(processes)
        finally:
            for process in processes:
                _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _merged(results: Sequence[dict[str, Any]]) -> BuildResult:  # Any: JSON values
    """Return the result of all workers; each has seen the whole store."""
    # One that ended a little later may have seen other parts finished too.
    last = min(reversed(results), key=lambda result: len(result["missing"]))
    return BuildResult(
        num_built=sum(result["num_built"] for result in results),
        left_out=tuple(SkippedRecording(**item) for item in last["left_out"]),
        was_finished=all(result["was_finished"] for result in results),
        notes=tuple(last["notes"]),
        missing=tuple(last["missing"]),
    )
