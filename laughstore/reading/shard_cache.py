"""Blocks of remote shards, kept on a disk of this machine within a bound.

One file a block, as it was sent (compressed if it is). Not whole shards: a stream asks for 128
frames here and 128 there, and a rank for its part of them, so a first batch would wait for 32 MiB
where it needs one. The name is made from content: the SHA-256 of the shard, and the block's place
in it. So another URL, copy or generation of a store finds the same files, and a shard that was
built again finds none. The CRC-32C alone would not do as a name: of 100,000 blocks two would share
one. It is what a kept block is checked with whenever it is read, by whoever decodes it, exactly as
if it had just come. (It tells accidents, not forgers: give stores that you do not trust a cache
of their own.)

    DIR/laughstore-cache         marks the folder as ours; without it nothing is ever deleted
    DIR/usage                    bytes in use; its lock is held while they change
    DIR/blocks/ab/abcd...-000012.block

Any number of processes share a folder. Files appear whole, by a rename. Who finds one gone, cut or
altered asks the remote side again. Bytes are counted before a file is made, so that the count is
never below the truth, whatever is killed when; a scan of the folder puts it right when it reaches
the bound. Nothing is synced to disk: what a power cut spoils is fetched again.
"""

import logging
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from ..files import TEMPORARY_MARK, create_atomic, removed_on_error, temporary_sibling
from ..folders import Folder, is_url
from .cache_lock import CacheLock

GB = 1_000_000_000
_MARKER = "laughstore-cache"
_MARKER_TEXT = (
    b"laughstore cache, version 1\n"
    b"Blocks of remote stores. laughstore deletes the files of its own below blocks/ as it needs\n"
    b"room; the whole folder may be deleted at any time.\n"
)
_USAGE, _BLOCKS = "usage", "blocks"
_FOLDER_NAME = re.compile(r"[0-9a-f]{2}")
_FILE_NAME = re.compile(
    rf"[0-9a-f]{{64}}-[0-9]{{6,}}\.block(?P<temporary>{re.escape(TEMPORARY_MARK)}[0-9a-f]{{12}})?"
)
_PAGE_BYTES = 4096
"""Files take whole pages of a disk."""
_STALE_S = 600.0
"""A file that is being written so long is of a process that was killed."""
_GIVEN_BACK = 20
"""One part in so many is freed beyond what is needed, so that few writes look at all files."""
_KEPT_FREE_BYTES = 1 << 30
_log = logging.getLogger(__name__)


class _File(NamedTuple):
    used_ns: int
    num_bytes: int
    path: str
    is_temporary: bool


class ShardCache:
    """A bounded folder of blocks, the least recently used of which go first.

    Safe to use from several threads and processes; it holds nothing open, and may be pickled. Only
    files with names of its own, in a folder that it began itself, are ever deleted. When a block
    cannot be kept (a full disk, lost rights), that is logged once, and reading goes on without.

    Args:
        folder: on a local disk; made if it is missing. An empty one is taken.
        max_bytes: that its blocks may take on disk, over all processes that use it. Of processes
            with different bounds, each keeps to its own when it writes.
        keep_free_bytes: of the disk, that are left to others.

    Raises:
        ConfigError: the folder holds other files, or cannot be written; max_bytes is below 1; or
            the system is not POSIX, and has no locks that caches could share.
    """

    def __init__(
        self, folder: Path, max_bytes: int, *, keep_free_bytes: int = _KEPT_FREE_BYTES
    ) -> None:
        if os.name != "posix":
            raise ConfigError("a cache needs a POSIX system; read without one here")
        if is_url(str(folder)):
            # Not shown: it may hold a password.
            raise ConfigError("the cache is a URL; give a folder of this machine")
        if max_bytes < 1:
            raise ConfigError(f"the bound of the cache is {max_bytes} bytes; it must be at least 1")
        self.folder, self.max_bytes = folder.absolute(), max_bytes
        self._keep_free_bytes = keep_free_bytes
        self._stopped = False
        self._lock = CacheLock(self.folder / _USAGE)
        try:
            self._begin()
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot hold a cache ({error.strerror}); give another folder"
            ) from error

    def get(self, shard_sha256: str, slot: int, num_bytes: int) -> bytes | None:
        """Return a block as it was put, and note its use; None when it is not here.

        Args:
            shard_sha256: of the whole shard file, 64 hex digits.
            slot: of the block in its shard, from 0.
            num_bytes: of the block; a file of another size is none. What is returned has not been
                checked further.
        """
        path = self._path(shard_sha256, slot)
        if not self._is_ours(path.parent):
            return None
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = b""
            with suppress(OSError):  # a failing disk
                data = os.read(descriptor, num_bytes + 1)
            if len(data) == num_bytes:
                with suppress(OSError):  # it may be lent read-only
                    _touch(descriptor)
                return data
        finally:
            os.close(descriptor)
        self.discard(shard_sha256, slot)
        return None

    def put(self, shard_sha256: str, slot: int, data: bytes | memoryview) -> None:
        """Keep a block that was fetched and checked, unless that is impossible now.

        Args:
            shard_sha256: of the whole shard file, 64 hex digits.
            slot: of the block in its shard, from 0.
            data: the block as it is stored.
        """
        if self._stopped:
            return
        try:
            self._write(self._path(shard_sha256, slot), data)
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)

    def discard(self, shard_sha256: str, slot: int) -> None:
        """Delete a block that turned out to be damaged, if it is here."""
        path = self._path(shard_sha256, slot)
        with suppress(OSError):  # its bytes stay counted until the next scan: never too few
            if self._is_ours(path.parent):
                path.unlink()

    def num_bytes(self) -> int:
        """Return the bytes that the cache's files take now, by looking at all of them."""
        return sum(file.num_bytes for file in self._scan())

    def __repr__(self) -> str:
        return f"ShardCache({str(self.folder)!r}, {self.max_bytes / GB:g} GB)"

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / _MARKER
        if not marker.exists():
            # Another process may just be writing the marker.
            names = [entry.name for entry in self.folder.iterdir()]
            foreign = [name for name in names if not name.startswith(_MARKER)]
            if foreign and not marker.exists():
                raise ConfigError(
                    f"{self.folder} holds other files ({min(foreign)}) and is no cache; give an"
                    " empty folder, or one that does not exist"
                )
            create_atomic(marker, _MARKER_TEXT)
        self._check_marker()
        (self.folder / _BLOCKS).mkdir(exist_ok=True)
        if not self._is_ours(self.folder / _BLOCKS):
            raise ConfigError(f"{self.folder / _BLOCKS} is a link; give another folder")
        with self._lock.held() as descriptor:
            if descriptor is None:
                return
            used = _read_usage(descriptor)
            if used is None or used > self.max_bytes:
                _write_usage(descriptor, self._evict(0))

    def _check_marker(self) -> None:
        path = self.folder / _MARKER
        status = path.lstat()
        is_plain = stat.S_ISREG(status.st_mode) and status.st_size == len(_MARKER_TEXT)
        if not is_plain or path.read_bytes() != _MARKER_TEXT:  # a pipe would wait for ever
            raise ConfigError(
                f"{path} is not this release's mark of a cache; give an empty folder, or one that"
                " does not exist"
            )

    def _is_ours(self, folder: Path) -> bool:
        """Whether a folder of blocks is a real one: a link would lead to files of others."""
        return _is_real_folder(self.folder / _BLOCKS) and _is_real_folder(folder)

    def _path(self, shard_sha256: str, slot: int) -> Path:
        return self.folder / _BLOCKS / shard_sha256[:2] / f"{shard_sha256}-{slot:06d}.block"

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        num_bytes = _disk_bytes(len(data))
        if num_bytes > self.max_bytes:
            return
        temporary = temporary_sibling(path)
        with removed_on_error(temporary):
            file = self._reserved(temporary, len(data), num_bytes)
            if file is None:
                return
            with file:
                view = memoryview(data).cast("B")
                while len(view):
                    view = view[file.write(view) or 0 :]
                _touch(file.fileno())
            # No file changes its name while others are counted.
            with self._lock.held() as descriptor:
                if descriptor is None:
                    temporary.unlink(missing_ok=True)
                    return
                try:
                    temporary.replace(path)
                except (FileNotFoundError, IsADirectoryError):
                    # Somebody took it for one that was left behind, or made a folder there.
                    temporary.unlink(missing_ok=True)

    def _reserved(self, temporary: Path, size: int, num_bytes: int) -> FileIO | None:
        """Return a new file for which there is room, already of its full size; None without room.

        Others see its bytes, in the count and in the folder, before the first is written.
        """
        with self._lock.held() as descriptor:
            if descriptor is None:
                return None
            used = _read_usage(descriptor)
            if used is None or used + num_bytes > self.max_bytes:
                used = self._evict(num_bytes)
                _write_usage(descriptor, used)
            if used + num_bytes > self.max_bytes:
                return None
            disk = os.statvfs(self.folder)
            if disk.f_bavail * disk.f_frsize < self._keep_free_bytes + num_bytes:
                self._stop(f"fewer than {self._keep_free_bytes} bytes of its disk would be free")
                return None
            temporary.parent.mkdir(exist_ok=True)
            if not self._is_ours(temporary.parent):
                raise OSError(0, f"{temporary.parent} is reached by a link")
            _write_usage(descriptor, used + num_bytes)
            file = FileIO(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
            try:
                os.ftruncate(file.fileno(), size)
            except BaseException:
                file.close()
                raise
            return file

    def _evict(self, num_bytes: int) -> int:
        """Delete files until so many more bytes fit. Returns the bytes in use; locked by us."""
        try:
            self._check_marker()
        except ConfigError as error:
            raise OSError(0, str(error)) from error
        files = sorted(self._scan())
        used = sum(file.num_bytes for file in files)
        stale_ns = time.time_ns() - int(_STALE_S * 1e9)
        limit = self.max_bytes - num_bytes
        if used > limit and num_bytes:
            limit -= self.max_bytes // _GIVEN_BACK // num_bytes * num_bytes
        for file in files:
            if file.used_ns < stale_ns if file.is_temporary else used > limit:
                with suppress(FileNotFoundError):  # found damaged, and deleted, by a reader
                    Path(file.path).unlink()
                used -= file.num_bytes
        return used

    def _scan(self) -> Iterator[_File]:
        """Yield the files that the cache made: names of its own, in real folders of its own."""
        if not self._is_ours(self.folder / _BLOCKS):
            return
        for path in _entries(str(self.folder / _BLOCKS)):
            if not _FOLDER_NAME.fullmatch(path.name) or not path.is_dir(follow_symlinks=False):
                continue
            for item in _entries(path.path):
                match = _FILE_NAME.fullmatch(item.name)
                if match is None or not item.name.startswith(path.name):
                    continue
                if not item.is_file(follow_symlinks=False):
                    continue
                with suppress(FileNotFoundError):  # found damaged, and deleted, by a reader
                    status = item.stat(follow_symlinks=False)
                    is_temporary = match["temporary"] is not None
                    num_bytes = _disk_bytes(status.st_size)
                    yield _File(status.st_mtime_ns, num_bytes, item.path, is_temporary)

    def _stop(self, why: str) -> None:
        if not self._stopped:
            self._stopped = True
            _log.warning(
                "%s: no more blocks are kept (%s); reading goes on without", self.folder, why
            )


def open_cache(folder: Path | None, gb: float, shards: Folder) -> ShardCache | None:
    """Return the cache that a command was asked for; None if it was not, or has no use for one.

    Args:
        folder: of `ShardCache`; not touched when the shards are on this machine, which is logged.
        gb: bound in units of 10^9 bytes.
        shards: what is read.

    Raises:
        ConfigError: as `ShardCache`.
    """
    if folder is None:
        return None
    if not (math.isfinite(gb) and gb > 0):
        raise ConfigError(f"cache_gb is {gb}; it must be above 0 and finite")
    if shards.local is not None:
        _log.warning("%s is on this machine: the cache %s is not used", shards.describe(), folder)
        return None
    return ShardCache(folder, max(1, int(gb * GB)))


def _touch(descriptor: int) -> None:
    """Note a use, by the fine clock: that of the kernel's file times stands still for 4 ms."""
    now_ns = time.time_ns()
    os.utime(descriptor, ns=(now_ns, now_ns))


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _is_real_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _disk_bytes(num_bytes: int) -> int:
    return -(-num_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _read_usage(descriptor: int) -> int | None:
    text = os.pread(descriptor, 64, 0)
    return int(text) if re.fullmatch(rb"\d{20}\n", text) else None


def _write_usage(descriptor: int, used: int) -> None:
    os.ftruncate(descriptor, os.pwrite(descriptor, b"%020d\n" % used, 0))
