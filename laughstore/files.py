"""Files that are whole or absent: sibling temporary, fsync, rename, fsync of the folder.

Whatever kills the process, a reader sees the old file, the new one or none, never a part.
"""

import ctypes
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

TEMPORARY_MARK = ".partial-"
"""Stands in the name of every file that is being written; whoever finds one may delete it."""
_HASH_CHUNK_BYTES = 4 << 20
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        # Of a disk, its file system and its driver.
        *("EIO", "EREMOTEIO", "ENODATA", "EBADMSG", "EUCLEAN", "ENODEV"),
        # Of a server, the way to it (Lustre: ESHUTDOWN), and tickets for it that have expired.
        *("ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENOTCONN", "ESHUTDOWN", "ENOLINK", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET"),
        *("EKEYEXPIRED", "EKEYREVOKED", "ENOKEY"),
        # Of this machine.
        *("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EAGAIN"),
    )
    if hasattr(errno, name)  # some are of Linux alone
)
_SYNC_FILE_RANGE_WRITE = 2
"""Begin to write dirty pages of the range; do not wait for them (linux/fs.h)."""


def temporary_sibling(path: Path) -> Path:
    """Return a name to write `path` under before its rename, which no other writer uses."""
    return path.with_name(f"{path.name}{TEMPORARY_MARK}{secrets.token_hex(6)}")


def fsync_dir(folder: Path) -> None:
    """Make renames and links in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_writeback(descriptor: int, start: int, num_bytes: int) -> None:
    """Begin to write a part of a file to disk, so that a later fsync has less to wait for.

    A hint: makes nothing durable, and does nothing where the system has no such call.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, num_bytes, _SYNC_FILE_RANGE_WRITE)


def make_dirs(folder: Path) -> None:
    """Create a folder and its parents, each entry durable."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, parent in enumerate(missing) if parent.exists())]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        fsync_dir(made.parent)


def sync_names(root: Path, paths: Iterable[str]) -> None:
    """Make the names of files survive a power cut, whoever gave them.

    A killed process may not have synced the folders of what it finished, nor have others that run.

    Args:
        root: folder of the files; its own name is synced too.
        paths: of the files, relative to it.
    """
    folders = {parent for path in paths for parent in PurePosixPath(path).parents}
    for folder in sorted(folders):
        fsync_dir(root / folder)
    fsync_dir(root.parent)


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Delete `path` when the body raises, so that a full disk leaves no half-written file."""
    try:
        with named_in_errors(path):
            yield
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Let an OSError of the body say which file it is about: those of write() do not.

    Args:
        path: of the file, or the name it is written under before its rename.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path).partition(TEMPORARY_MARK)[0]
        raise


def is_passing(error: BaseException) -> bool:
    """Tell whether an error is of a disk, a server or this machine, and tells nothing of a file.

    Who reads files of others and leaves out what is broken lets it pass: the next run may read it.
    """
    return isinstance(error, OSError) and error.errno in _PASSING


def check_readable(path: Path, num_bytes: int) -> bool:
    """Read the beginning of a file, for an error of the disk that nobody has told.

    Args:
        path: of the file.
        num_bytes: to read, at most.

    Returns:
        False when it cannot be read for a reason of its own.

    Raises:
        OSError: the disk or its server fails, see `is_passing`.
    """
    try:
        with named_in_errors(path), path.open("rb", buffering=0) as file:
            while num_bytes > 0 and (piece := file.read(min(num_bytes, _HASH_CHUNK_BYTES))):
                num_bytes -= len(piece)
    except (OSError, ValueError) as error:
        if is_passing(error):
            raise
        return False
    return True


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a whole file durably, replacing an older one in one step.

    Args:
        path: of the file; its folder is made.
        data: its bytes, or pieces of them in order.
    """
    make_dirs(path.parent)
    temporary = temporary_sibling(path)
    with removed_on_error(temporary):
        with temporary.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    fsync_dir(path.parent)


def create_atomic(path: Path, data: bytes) -> bool:
    """Write a whole file durably unless there is one: of several writers, one wins.

    Returns:
        True when this call wrote it, False when it was there.
    """
    if path.exists():
        return False
    make_dirs(path.parent)
    temporary = temporary_sibling(path)
    with removed_on_error(temporary):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, fails when the name is taken
        except FileExistsError:
            # One of an answer that was lost is ours, see `try_link`.
            if not (path.exists() and path.samefile(temporary)):
                return False
        except OSError:
            temporary.replace(path)  # no links here: the last writer wins, with the same bytes
        finally:
            temporary.unlink(missing_ok=True)
    fsync_dir(path.parent)
    return True


def try_link(source: Path, target: Path) -> bool:
    """Give a file a second name, if the file system can. Returns whether it has it.

    Args:
        source: the file; a symbolic link is not followed.
        target: the name, which nothing else has.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # A server may have made the link and its answer been lost: asked again, it says that the
        # name is taken.
        return target.exists() and target.samefile(source)
    return True


def try_mode(descriptor: int, mode: int) -> None:
    """Set the mode of an open file, if the file system can: that of a shard is a sign, not a lock.

    exFAT and VFAT, whose modes are those of the mount, refuse.
    """
    with suppress(OSError):
        os.fchmod(descriptor, mode)


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a finished file a second name, durably; copy it where links cannot be made.

    Returns:
        True when both names are one file, False when the file system made us copy.
    """
    make_dirs(target.parent)
    temporary = temporary_sibling(target)
    with removed_on_error(temporary):
        linked = try_link(source, temporary)
        if not linked:
            # Never "wb": should the name be one of the source after all, it would be emptied.
            with source.open("rb") as reader, temporary.open("xb") as writer:
                while chunk := reader.read(_HASH_CHUNK_BYTES):
                    writer.write(chunk)
                writer.flush()
                try_mode(writer.fileno(), source.stat().st_mode & 0o777)
                os.fsync(writer.fileno())
        temporary.replace(target)
    # Renaming one name of an inode over another name of it does nothing: drop the spare name.
    temporary.unlink(missing_ok=True)
    fsync_dir(target.parent)
    return linked


def can_link(folder: Path) -> bool:
    """Tell whether a file in a folder can have two names; true where none can be written.

    It is tried out: two names stand there for a moment.
    """
    probe, other = (temporary_sibling(folder / "link") for _ in range(2))
    try:
        probe.touch(exist_ok=False)
    except OSError:
        return True
    try:
        return try_link(probe, other)
    finally:
        for path in (probe, other):
            path.unlink(missing_ok=True)


def unlink_durably(path: Path) -> bool:
    """Delete a file if it is there, so that no power cut brings it back. Returns whether it was."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    fsync_dir(path.parent)
    return True


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, as hex digits."""
    with named_in_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError, TypeError):  # not Linux
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


_sync_file_range = _find_sync_file_range()
