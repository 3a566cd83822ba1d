"""The lock of a cache's folder: of all processes and threads that use it.

A lock belongs to an opened file (flock), so nothing is left locked by a kill. The file is opened
anew each time. A child forked meanwhile has the opened file, too: it closes its own at once, and
whoever holds the lock gives it back by saying so, not by closing alone.
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..process_lock import ProcessLock

_LONGEST_WAIT_S = 2.0
_POLL_S = 0.002
_NO_TRY_S = 30.0
"""After waiting in vain: whoever holds the lock hangs, and would hold up each block."""
_guard = ProcessLock()
_opened: set[int] = set()
"""Descriptors of this process; one at most, as one thread alone asks for a lock."""


class CacheLock:
    """A lock on a file, made if it is missing. Holds nothing open, and may be pickled.

    Of a process one thread alone asks for it: many that ask again and again would keep the one that
    has it from the interpreter.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._no_try_until_s = 0.0

    @contextmanager
    def held(self) -> Iterator[int | None]:
        """Hold it; gives a descriptor of the file, or None after a wait in vain.

        Raises:
            OSError: the file cannot be opened or locked.
        """
        now_s = time.monotonic()
        until_s = now_s + _LONGEST_WAIT_S
        if now_s < self._no_try_until_s:
            yield None
        elif not _guard.acquire(_LONGEST_WAIT_S):
            self._no_try_until_s = until_s + _NO_TRY_S
            yield None
        else:
            try:
                with self._file_locked(until_s) as descriptor:
                    if descriptor is None:
                        self._no_try_until_s = time.monotonic() + _NO_TRY_S
                    yield descriptor
            finally:
                _guard.release()

    @contextmanager
    def _file_locked(self, until_s: float) -> Iterator[int | None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o666)
        _opened.add(descriptor)
        held = False
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise OSError(0, f"{self._path.name} is no file of its own")  # it is written
            held = _try_lock(descriptor)
            while not held and time.monotonic() < until_s:
                time.sleep(_POLL_S)
                held = _try_lock(descriptor)
            yield descriptor if held else None
        finally:
            _opened.discard(descriptor)
            if held:
                _unlock(descriptor)
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    import fcntl  # here, because Windows has none, and reads without a cache

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _forget_opened() -> None:
    """In a forked child: close what a thread of the parent locks, which unlocks nothing there.

    Else a parent that is killed while it holds the lock would leave it to its children.
    """
    for descriptor in _opened:
        with suppress(OSError):
            os.close(descriptor)
    _opened.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_opened)
