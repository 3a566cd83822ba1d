"""Locks of writers: who may finish a store, and which process writes which recording.

POSIX record locks on bytes of one empty file, `STORE/.lock`. They end with the process that holds
them, however it ends, so that nothing stale is ever left behind. Byte 0 is the lock of the whole
store: shared by those who write recordings, exclusive for the one who commits or collects garbage.
Every recording of a plan has a byte of its own, its claim. Locks save work and keep commits apart;
what is written is the same bytes without them. Readers take none.

Such locks belong to the process and go when it closes *any* descriptor of the file: a process has
one descriptor for each store, shared by all that use it, and nothing else may open the file. A
child of a fork holds none of its parent's locks. The file is never deleted: two files would be two
locks.
"""

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import layout
from .closing import ClosedAtExit
from .errors import CorruptData, LaughstoreError
from .process_lock import ProcessLock
from .progress import NoProgress, Progress

POLL_S = 0.2
"""Between two tries for a lock that another process holds."""
_STORE_BYTE = 0
_FIRST_CLAIM_BYTE = 1
_BUSY = (errno.EACCES, errno.EAGAIN)
_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
_ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_log = logging.getLogger(__name__)


@dataclass
class _LockFile:
    """The one descriptor of a lock file in this process, and what is held through it."""

    descriptor: int
    num_users: int = 0
    works: bool | None = None
    """Whether its file system knows locks, as the first try for one has told; None before it."""
    claims: set[int] = field(default_factory=set)
    store_held: bool = False


_open_files: dict[tuple[int, int, int], _LockFile] = {}
"""By (process, device, inode): a forked child finds none of its parent's."""
_guard = ProcessLock()


class StoreLocks(ClosedAtExit):
    """The locks of one store. A context manager: leaving it gives up what it holds.

    Args:
        store: folder of a store that was begun.
        progress: told once when another process has to be waited for.

    Raises:
        CorruptData: a link, a pipe or something else stands where the lock file should be.
    """

    def __init__(self, store: Path, progress: Progress | None = None) -> None:
        self._store = store
        self._path = store / layout.LOCK
        self._progress = progress or NoProgress()
        self._told = False
        self._claims: set[int] = set()
        self._closed = False
        self._key, self._file = _open(self._path)

    def close(self) -> None:
        """Give up all claims; the file is closed when nobody in this process uses it."""
        for number in list(self._claims):
            self.release(number)
        with _guard:
            if self._closed:  # the descriptor may belong to others by now
                return
            self._closed = True
            self._file.num_users -= 1
            if not self._file.num_users and _open_files.pop(self._key, None) is not None:
                os.close(self._file.descriptor)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the store together with other writers; waits while one holds it for itself."""
        while not self._hold_store(_SHARED):
            self._wait("another process is finishing this store; waiting for it")
        try:
            yield
        finally:
            self._drop_store()

    @contextmanager
    def exclusive(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the store alone; gives whether it is held, which is always so after a wait.

        Args:
            wait: until the last other writer has let go (Ctrl-C ends it); otherwise try once.
        """
        held = self._hold_store(_ALONE)
        while wait and not held:
            self._wait("another process is still writing this store; waiting for it")
            held = self._hold_store(_ALONE)
        try:
            yield held
        finally:
            if held:
                self._drop_store()

    def claim(self, number: int) -> bool:
        """Try to become the one writer of a recording. Returns whether this process is it now.

        Args:
            number: of the recording, see `claim_number`.
        """
        with _guard:
            claims = self._checked_file().claims
            # The kernel would grant a process its own lock a second time.
            if number in claims or not self._lock(_FIRST_CLAIM_BYTE + number, _ALONE):
                return False
            claims.add(number)
        self._claims.add(number)
        return True

    def release(self, number: int) -> None:
        """Give up a claim that this object holds."""
        self._claims.remove(number)
        with _guard:
            self._lock(_FIRST_CLAIM_BYTE + number, fcntl.LOCK_UN)
            self._checked_file().claims.remove(number)

    def _hold_store(self, how: int) -> bool:
        with _guard:
            file = self._checked_file()
            assert not file.store_held, "this process holds the store's lock already"
            file.store_held = self._lock(_STORE_BYTE, how)
            return file.store_held

    def _drop_store(self) -> None:
        with _guard:
            self._lock(_STORE_BYTE, fcntl.LOCK_UN)
            self._checked_file().store_held = False
        self._told = False

    def _wait(self, text: str) -> None:
        if not self._told:
            self._progress.message(f"{self._store}: {text}")
            self._told = True
        time.sleep(POLL_S)

    def _checked_file(self) -> _LockFile:
        assert self._key[0] == os.getpid(), "locks do not pass to a forked child: open them there"
        return self._file

    def _lock(self, byte: int, how: int) -> bool:
        """Try to lock or unlock one byte. Returns False when another process holds it.

        Raises:
            LaughstoreError: the file system, which knows locks, gives none now. To go on without
                could remove what another process writes.
        """
        if self._file.works is False:
            return True
        try:
            fcntl.lockf(self._file.descriptor, how, 1, byte)
        except OSError as error:
            if error.errno in _BUSY:
                self._file.works = True
                return False
            if error.errno not in _UNSUPPORTED:
                error.filename = str(self._path)
                raise
            if self._file.works and how == fcntl.LOCK_UN:
                _log.warning(
                    "%s: a lock could not be given up (%s); others wait for this process to end",
                    self._path,
                    error.strerror,
                )
                return True
            if self._file.works:
                raise LaughstoreError(
                    f"{self._path}: its file system gives no lock any more ({error.strerror});"
                    " see that its server is well, and run the same command again"
                ) from error
            self._file.works = False
            _log.warning(
                "%s: its file system knows no locks (%s); build it with one process at a time",
                self._store,
                error.strerror,
            )
            return True
        self._file.works = True
        return True


def claim_number(plan: int, position: int) -> int:
    """Return the number of a recording's claim: the number of its plan, its position there."""
    assert 0 <= position < 1 << 32, "a plan has fewer recordings"
    return (plan << 32) + position


def _open(path: Path) -> tuple[tuple[int, int, int], _LockFile]:
    with _guard:
        try:
            status = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            key = None
        else:
            # Before it is opened: to open a device may do something already.
            _refuse_other_kinds(path, status)
            key = (os.getpid(), status.st_dev, status.st_ino)
        if key not in _open_files:
            # Mode as of other files, so that the group that may write the store may lock it too.
            descriptor = os.open(path, _OPEN_FLAGS, 0o666)
            status = os.fstat(descriptor)
            key = (os.getpid(), status.st_dev, status.st_ino)
            _open_files[key] = _LockFile(descriptor)
        assert key is not None
        _open_files[key].num_users += 1
        return key, _open_files[key]


def _refuse_other_kinds(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CorruptData(
            f"{path} is a link, folder, pipe or device; locks need an empty file of the store's"
            " own: move it away"
        )
