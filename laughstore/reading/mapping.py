"""Map several files into one range of addresses, read-only, so that they are one matrix.

The range is reserved first and every file mapped over its part of it. Touching a page of a mapped
file that has been cut kills a process with SIGBUS; `MappedFiles.populate` asks the kernel for the
pages instead and turns a cut file or a disk error into an OSError.

Works on Linux and other POSIX systems with a libc; numpy arrays made from it keep it mapped.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .page_tables import are_mapped

_MADV_POPULATE_READ = 22
"""Linux 5.14: read the pages now, failing with EFAULT where an access would raise SIGBUS."""
_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value
_PROT_NONE = 0
_CHUNK_BYTES = 1 << 20


class MappedFiles:
    """Files at multiples of `alignment` in one address range.

    Args:
        paths: files to map, each with the number of its bytes to map (its whole size).
        alignment: a multiple of the page size, in bytes.

    Raises:
        OSError: a file cannot be opened or mapped.
    """

    def __init__(self, paths: Sequence[tuple[str, int]], alignment: int) -> None:
        if os.name != "posix":
            raise ConfigError("shards are mapped on POSIX systems only; use Linux, macOS or WSL")
        assert alignment % mmap.PAGESIZE == 0, "files start at whole pages"
        self.paths = [path for path, _ in paths]
        starts = np.cumsum([0] + [-(-size // alignment) * alignment for _, size in paths])
        self.starts: NDArray[np.int64] = starts[:-1].astype(np.int64)
        """i64[files]: where each file begins, in bytes from the start of the range."""
        self.num_bytes = int(starts[-1])
        self._libc = _libc()
        # One alignment more than needed, so that the range can begin at a multiple of it: rows of
        # a matrix then never straddle a page without need.
        self._reserved_bytes = self.num_bytes + alignment
        self._reserved = self._map(None, self._reserved_bytes, _PROT_NONE, _anonymous(), -1)
        base = -(-self._reserved // alignment) * alignment
        try:
            for (path, size), start in zip(paths, self.starts.tolist(), strict=True):
                self._map_file(path, size, base + start, alignment)
        except BaseException:
            self._libc.munmap(self._reserved, self._reserved_bytes)
            raise
        self._base = base
        self.bytes = self._view(base)
        """u1[num_bytes], read-only. The gaps between files must not be touched."""

    def populate(self, start: int, num_bytes: int) -> None:
        """Read the pages of this byte range into memory.

        Raises:
            OSError: the file behind it was cut, or the disk failed.
        """
        first = start - start % mmap.PAGESIZE
        address, length = self._base + first, start + num_bytes - first
        if self._libc.madvise(address, length, _MADV_POPULATE_READ) == 0:
            return
        number = ctypes.get_errno()
        if number != errno.EINVAL:
            raise OSError(number, os.strerror(number))
        self._populate_by_reading(start, num_bytes)

    def are_populated(self, starts: Sequence[int], num_bytes: int) -> bool:
        """Tell whether no page of these byte ranges is missing now; False where nobody can tell.

        An eighth of the time of `populate`, for what was populated before. Pages that the kernel
        has taken back are missing, and so are those behind the end of a file that was cut.

        Args:
            starts: of the ranges.
            num_bytes: of each range, 1 or more.
        """
        return are_mapped([self._base + start for start in starts], num_bytes)

    def _populate_by_reading(self, start: int, num_bytes: int) -> None:
        """Read the range through the file: kernels without MADV_POPULATE_READ, other systems."""
        file = int(np.searchsorted(self.starts, start, "right")) - 1
        offset = start - int(self.starts[file])
        scratch = bytearray(_CHUNK_BYTES)
        with open(self.paths[file], "rb", buffering=0) as reader:  # noqa: PTH123 (a string)
            reader.seek(offset)
            left = num_bytes
            while left > 0:
                got = reader.readinto(memoryview(scratch)[: min(left, _CHUNK_BYTES)])
                if not got:
                    raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
                left -= got

    def _map_file(self, path: str, num_bytes: int, address: int, alignment: int) -> None:
        # Whoever could swap the file since its size was checked must not lead us elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if os.fstat(descriptor).st_size != num_bytes:
                raise OSError(errno.ESTALE, "its size has just changed")
            flags = mmap.MAP_SHARED | _MAP_FIXED
            # A piece of the process's map for each file, and none for the gap behind it.
            length = -(-num_bytes // alignment) * alignment
            self._map(address, length, mmap.PROT_READ, flags, descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)

    def _map(
        self, address: int | None, num_bytes: int, protection: int, flags: int, descriptor: int
    ) -> int:
        got = self._libc.mmap(address, num_bytes, protection, flags, descriptor, 0)
        if got == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return got

    def _view(self, base: int) -> NDArray[np.uint8]:
        """A numpy view whose last reference unmaps the range: no array can outlive its pages."""
        munmap, reserved, length = self._libc.munmap, self._reserved, self._reserved_bytes

        def unmap(_: ctypes.Array[ctypes.c_char]) -> None:
            munmap(reserved, length)

        plain = ctypes.c_char * self.num_bytes
        methods = {"__del__": unmap}
        owner = cast("type[ctypes.Array[ctypes.c_char]]", type("MappedRange", (plain,), methods))
        # A read-only buffer: nobody can make the array writable, which would end in SIGSEGV.
        return np.frombuffer(memoryview(owner.from_address(base)).toreadonly(), np.uint8)


def _anonymous() -> int:
    return mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
