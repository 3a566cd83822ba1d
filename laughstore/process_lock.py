"""A lock that a forked child finds free, whoever held it in the parent."""

import os
import threading
import weakref
from types import TracebackType


class ProcessLock:
    """`with lock:` as of `threading.Lock`; each process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _all.add(self)

    def acquire(self, timeout_s: float) -> bool:
        """Take it within some time, else return False; `release` gives it back."""
        return self._lock.acquire(timeout=timeout_s)

    def release(self) -> None:
        """Give back what `acquire` took."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.Lock()


_all: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_all):
        lock._renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    # In the child's first and only thread: a lock renewed by whoever needs it could be renewed by
    # two at once.
    os.register_at_fork(after_in_child=_renew_all)
