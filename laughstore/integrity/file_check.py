"""Look at files one by one: is it there, is it a file, how large, what is its SHA-256.

Whatever is wrong with a file is told, never raised, so that the rest goes on. Nothing follows a
symbolic link, and nothing waits for a pipe that stands in a file's place.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import CorruptData, NotFound
from ..folders import Folder

_LOCAL_CHUNK_BYTES = 1 << 20
_REMOTE_CHUNK_BYTES = 8 << 20
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
IS_LINK = "is a symbolic link, or stands behind one"


class Stopped(Exception):
    """The verification was given up while a file was being read."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was found under one name."""

    num_bytes: int | None = None
    """None: unknown, because of `problem`."""
    sha256: str | None = None
    """None: not asked for, or not readable."""
    identity: tuple[int, int] | None = None
    """Device and inode: equal for two names of one file. None when it is remote."""
    problem: str | None = None
    """Why there is no whole file to look at."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything under a local folder, as paths relative to it."""

    files: tuple[str, ...]
    links: tuple[str, ...]
    """Symbolic links, to whatever they lead."""
    unreadable: tuple[tuple[str, str], ...]
    """Folders that cannot be listed, with the reason."""


def list_folder(root: Path) -> Listing:
    """Return everything under a folder, sorted; no symbolic link is followed."""
    files: list[str] = []
    links: list[str] = []
    unreadable: list[tuple[str, str]] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_symlink():
                        links.append(path)
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                    else:
                        files.append(path)
        except OSError as error:
            unreadable.append((folder, _reason(error)))
    return Listing(tuple(sorted(files)), tuple(sorted(links)), tuple(sorted(unreadable)))


def look_at(
    folder: Folder,
    path: str,
    wants_hash: Callable[[int], bool],
    stop: threading.Event,
    links: frozenset[str] = frozenset(),
    twin: FileFacts | None = None,
) -> FileFacts:
    """Return what stands under one name.

    Args:
        folder: of the store.
        path: of the file, as a store may name it.
        wants_hash: given the size, whether the content is to be hashed.
        stop: set by whoever gives up.
        links: symbolic links in a local folder; nothing behind them is opened.
        twin: facts of the other name: where both are one file, they are the answer.

    Raises:
        Stopped: `stop` was set.
        Unreachable: the remote side does not answer.
    """
    if folder.local is not None:
        if links and any(str(link) in links for link in PurePosixPath(path).parents):
            return FileFacts(problem=IS_LINK)
        return _look_at_local(f"{folder.local}/{path}", wants_hash, stop, twin)
    try:
        num_bytes = folder.size(path)
        if not wants_hash(num_bytes):
            return FileFacts(num_bytes)
        digest = hashlib.sha256()
        for start in range(0, num_bytes, _REMOTE_CHUNK_BYTES):
            if stop.is_set():
                raise Stopped
            length = min(_REMOTE_CHUNK_BYTES, num_bytes - start)
            digest.update(folder.read_range(path, start, length))
    except NotFound:
        return FileFacts(problem="is missing")
    except CorruptData as error:
        return FileFacts(problem=f"cannot be read ({error})")
    return FileFacts(num_bytes, digest.hexdigest())


def _look_at_local(
    path: str, wants_hash: Callable[[int], bool], stop: threading.Event, twin: FileFacts | None
) -> FileFacts:
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return FileFacts(problem=IS_LINK)
        if not stat.S_ISREG(found.st_mode):
            kind = "folder" if stat.S_ISDIR(found.st_mode) else "device or pipe"
            return FileFacts(problem=f"is a {kind}, not a file")
        identity = found.st_dev, found.st_ino
        if twin is not None and twin.identity == identity:
            return twin
        if not wants_hash(found.st_size):
            return FileFacts(found.st_size, identity=identity)
        return _hashed(path, found.st_size, identity, stop)
    except (FileNotFoundError, NotADirectoryError):
        return FileFacts(problem="is missing")
    except OSError as error:
        return FileFacts(problem=f"cannot be read ({_reason(error)})")


def _hashed(
    path: str, num_bytes: int, identity: tuple[int, int], stop: threading.Event
) -> FileFacts:
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        digest = hashlib.sha256()
        view = memoryview(bytearray(min(_LOCAL_CHUNK_BYTES, num_bytes + 1)))
        num_read = 0
        try:
            while got := os.readv(descriptor, [view]):
                digest.update(view[:got])
                num_read += got
                if stop.is_set():
                    raise Stopped
        except OSError as error:
            problem = f"cannot be read from byte {num_read} on ({_reason(error)})"
            return FileFacts(num_bytes, None, identity, problem)
        return FileFacts(num_read, digest.hexdigest(), identity)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
