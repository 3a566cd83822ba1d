"""A lock that a forked child finds free, whoever held it in the parent."""

import os
import threading
from types import TracebackType


class ProcessLock:
    """`with lock:` as of `threading.Lock`; each process has its own."""

    def __init__(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
