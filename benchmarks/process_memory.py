"""Fresh processes, and what one holds, as Linux tells it under /proc: memory, files, handles."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.context import BaseContext
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOKS_PER_S = 500


def fresh_processes() -> BaseContext:
    """Return how processes begin: anew, unless somebody has set another way (a quick run does)."""
    return multiprocessing.get_context(multiprocessing.get_start_method(allow_none=True) or "spawn")


def apart[**P, T](run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=fresh_processes()) as pool:
        return pool.submit(run, *args, **kwargs).result()


def anonymous_bytes() -> int:
    """Return this process's resident anonymous memory; mapped files are the page cache's.

    Raises:
        OSError: the system does not tell.
    """
    found = status_bytes(os.getpid(), "RssAnon")
    if not found:
        raise OSError("no RssAnon in /proc/self/status; this script needs Linux")
    return found


def status_bytes(process: int, field: str) -> int:
    """Return a size out of /proc/<process>/status; 0 once it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def children() -> list[int]:
    """Return the process ids of this process's children: workers, of whichever thread."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def num_handles(process: int) -> int:
    """Return how many file handles are open; 0 once it has ended."""
    with suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    return 0


class PeakMemory:
    """The most anonymous memory of this process while the context lasts, seen by a thread.

    The kernel keeps no peak of that alone: VmHWM counts mapped files, too.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            self.bytes = max(self.bytes, anonymous_bytes())
            if self._over.wait(1 / _LOOKS_PER_S):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
