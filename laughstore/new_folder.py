"""A folder that is whole or absent: made beside its place under another name, then renamed.

Whoever makes one holds a lock of the unfinished folder (flock), which ends with the process however
that ends. So the next one tells what a kill has left from what another process is still making. Of
folders, network file systems lock for one machine alone: what others have made is left alone.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final

from .files import (
    TEMPORARY_MARK,
    fsync_dir,
    make_dirs,
    named_in_errors,
)

logger = logging.getLogger(__name__)

_BUSY: Final = (errno.EACCES, errno.EAGAIN)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when the body is done, and is gone when it fails.

    Unfinished ones of the same `out` that killed processes have left are removed first.

    Args:
        out: that is not there, or is empty.

    Raises:
        OSError: it was filled meanwhile, or nothing can be written there.
    """
    out = out.absolute()
    make_dirs(out.parent)
    _remove_left_over(out)
    building, descriptor = _begin(out)
    try:
        yield building
        fsync_dir(building)
        building.rename(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)
    fsync_dir(out.parent)


def _begin(out: Path) -> tuple[Path, int]:
    """Make an unfinished folder and lock it. Returns its path, and what holds the lock."""
    while True:
        building = out.with_name(f"{out.name}{TEMPORARY_MARK}{_machine()}{secrets.token_hex(4)}")
        building.mkdir()
        try:
            descriptor = os.open(building, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # as below
            continue
        except OSError:
            building.rmdir()
            raise
        with suppress(OSError):  # no locks here: what a kill leaves is told, not removed
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_still(building, descriptor):
            return building, descriptor
        os.close(descriptor)  # somebody took it for a left-over before it was locked


def _machine() -> str:
    """Four hex digits of this machine's name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the folder that was opened still stands at its path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder with all its files durably, in one step; as `new_folder`.

    Args:
        out: that is not there, or is empty.
        files: by their paths in it.
    """
    with new_folder(out) as building:
        folders: set[Path] = set()
        for name, data in files.items():
            path = building / name
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.update(building / folder for folder in PurePosixPath(name).parents)
            with named_in_errors(path), path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for folder in folders - {building}:
            fsync_dir(folder)


def _remove_left_over(out: Path) -> None:
    name = re.compile(rf"{re.escape(out.name + TEMPORARY_MARK + _machine())}[0-9a-f]{{8}}")
    for left in out.parent.iterdir():
        if not name.fullmatch(left.name) or left.is_symlink() or not left.is_dir():
            continue
        try:
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # finished or removed meanwhile, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                logger.warning(
                    "%s may have been left by a killed process (no locks here tell it); delete it"
                    " if no other one is making %s",
                    left,
                    out,
                )
            continue
        else:
            if _is_still(left, descriptor):  # else finished between the two calls above
                shutil.rmtree(left, ignore_errors=True)
                logger.warning("%s was left by a process that was killed: removed", left)
        finally:
            os.close(descriptor)
