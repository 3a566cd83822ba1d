"""One process at a time trains a run: two would write into each other's log and checkpoints."""

import errno
import fcntl
import logging
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from laughstore.errors import ConfigError

logger = logging.getLogger(__name__)

_NAME: Final = ".lock"
_BUSY: Final = (errno.EACCES, errno.EAGAIN)
_UNSUPPORTED: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_WAIT_S: Final = 5.0
"""A process that was killed a moment ago, or whose parent was, is gone by then."""
_POLL_S: Final = 0.1


class RunLock:
    """The lock of a run, once it is taken. A context manager; it ends with its process at latest.

    A lock of the file RUN/.lock, which is never deleted: two files would be two locks.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, run: Path) -> None:
        """Take the lock of a run's folder, if there still is one.

        Raises:
            ConfigError: another process has it.
        """
        assert self._descriptor is None, "one run for each lock"
        path = run / _NAME
        try:
            while self._descriptor is None:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self._wait(run)
                # Who had it may have deleted the run, which held nothing: then this was its lock.
                if not os.path.samestat(os.fstat(self._descriptor), path.stat()):
                    self._let_go()
        except FileNotFoundError:
            self._let_go()

    def _wait(self, run: Path) -> None:
        until_s = time.monotonic() + _WAIT_S
        while not self._try(run):
            if time.monotonic() > until_s:
                raise ConfigError(
                    f"{run} is being trained by another process; wait until it has ended, or stop"
                    " it, or train into another --out"
                )
            time.sleep(_POLL_S)

    def _try(self, run: Path) -> bool:
        assert self._descriptor is not None, "opened"
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if error.errno not in _UNSUPPORTED:
                raise
            logger.warning(
                "%s is on a file system without locks: see to it that nobody else trains it", run
            )
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
