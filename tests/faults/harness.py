"""Run any function of a store's path under faults: killed at a call, out of space, sync that fails.

    def write(store: Path) -> None: ...           # in tests/faults/writers.py
    server.run("tests.faults.writers:write", store, arm=Arm("kill before", 17))

`calls` of an outcome are all calls that changed files under the folder that the store stands in, in
their order.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from laughstore import layout, open_store
from laughstore.errors import IncompleteStore
from laughstore.files import TEMPORARY_MARK, sha256_file

ROOT = Path(__file__).parents[2]
WRITE, SYNC, CREATE, NAME, REMOVE, OTHER = 1, 2, 4, 8, 16, 32
"""Kinds of calls, as in syscalls.c."""
ANY = WRITE | SYNC | CREATE | NAME | REMOVE | OTHER
NEEDS_SPACE = WRITE | CREATE | NAME

Action = Literal["watch", "kill before", "kill after", "kill torn", "fail", "fail torn"]
_ACTIONS: tuple[Action, ...] = (
    "watch",
    "kill before",
    "kill after",
    "kill torn",
    "fail",
    "fail torn",
)


@dataclass(frozen=True)
class Arm:
    """What happens, and at which call."""

    action: Action = "watch"
    nth: int = 0
    """Counts from 1, calls of these kinds only; a failure goes on from there."""
    kinds: int = ANY
    error: int = errno.ENOSPC


@dataclass(frozen=True)
class Call:
    """One call that changed files, or tried to."""

    begin: int
    end: int
    name: str
    """open (to write), write, fsync, rename, link, unlink, mkdir, chmod."""
    error: int
    """0, or the errno it failed with."""
    path: str
    """Relative to the store: `.` is its folder, `..` the one it stands in."""
    second: str
    """New name of a rename or link."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    status: int
    """Exit code, or minus the signal."""
    result: Any  # Any: a JSON value
    error: tuple[str, ...]
    """Classes of the exception that ended it, the most special first."""
    message: str
    calls: tuple[Call, ...]

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class FaultServer:
    """Children under the shim, one or many at a time. A context manager."""

    def __init__(self, shim: Path, folder: Path) -> None:
        self._folder = folder
        self._num_runs = 0
        self._logs: dict[int, tuple[Path, Path]] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            cwd=ROOT,
            env=os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "ready" in self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not by closing its input: any process that was forked here meanwhile holds that open.
        with suppress(BrokenPipeError):
            self._ask({"end": True})
        self._process.communicate()

    def start(self, function: str, store: Path, arm: Arm | None = None, **arguments: object) -> int:
        """Start `module:function` on a store in a child. Returns its pid."""
        self._num_runs += 1
        log = self._folder / f"calls-{self._num_runs}.tsv"
        arm = arm or Arm()
        self._ask(
            {
                "run": function,
                "store": str(store),
                "arm": [_ACTIONS.index(arm.action), arm.kinds, arm.nth, arm.error, str(log)],
                "arguments": arguments,
            }
        )
        pid = self._answer()["pid"]
        self._logs[pid] = log, store
        return pid

    def wait(self, pid: int) -> Outcome:
        """Wait for a child."""
        self._ask({"wait": pid})
        answer = self._answer()
        log, store = self._logs.pop(pid)
        # SIGKILL may cut the last line.
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        calls = tuple(_call(line.removesuffix("\n"), store) for line in lines)
        log.unlink()
        return Outcome(
            answer["status"],
            answer.get("result"),
            tuple(answer.get("error", ())),
            answer.get("message", ""),
            tuple(sorted(calls, key=lambda call: call.begin)),
        )

    def run(
        self, function: str, store: Path, arm: Arm | None = None, **arguments: object
    ) -> Outcome:
        """Start a child and wait for it."""
        return self.wait(self.start(function, store, arm, **arguments))

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server has ended; see its stderr"
        return json.loads(line)


def _call(line: str, store: Path) -> Call:
    begin, end, name, result, path, second = line.split("\t")
    return Call(
        int(begin), int(end), name, -int(result), _relative(path, store), _relative(second, store)
    )


def _relative(path: str, store: Path) -> str:
    return os.path.relpath(path.removesuffix(" (deleted)"), store) if path else ""


def compile_shim(folder: Path) -> Path:
    """Compile syscalls.c. Returns the library."""
    library = folder / "faults.so"
    source = Path(__file__).with_name("syscalls.c")
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def tree(store: Path) -> dict[str, str]:
    """SHA-256 of every file of a store that has its final name, by its path."""
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != layout.LOCK and TEMPORARY_MARK not in path.name
    }


def leftovers(store: Path) -> list[str]:
    """Names of files that were being written."""
    return [path.name for path in store.rglob(f"*{TEMPORARY_MARK}*") if path.is_file()]


def read_all(store: Path) -> int | None:
    """Read a whole store. Returns its generation, or None when it says that it is not finished."""
    try:
        opened = open_store(store)
    except IncompleteStore:
        return None
    for recording in opened.recordings:
        opened.annotations(recording.id)
        for stream in recording.streams:
            opened.frames(recording.id, stream.assignment)
            opened.codes(recording.id, stream.assignment)[:]
    return opened.manifest.generation


def fresh(folder: Path, before: Path | None) -> Path:
    """An empty place for a store, or a copy of a store, hard links kept."""
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    if before is not None:
        subprocess.run(["cp", "-a", str(before), str(store)], check=True)
    return store
