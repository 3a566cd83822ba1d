"""Which pages this process can touch without a fault: asked of the kernel, not remembered.

`PAGEMAP_SCAN` (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst) walks the page tables of a
range and stops at the first page that is missing. Other systems, and sandboxes without /proc, do
not tell. (mincore(2) tells of files, not of pages that can be touched: of a cut file whose end lay
within a large folio it still calls all pages resident.)
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PAGEMAP_SCAN: Final = 0xC0606610
"""_IOWR('f', 16, struct pm_scan_arg) of include/uapi/linux/fs.h."""
_PAGE_IS_PRESENT: Final = 1 << 3
_ARGUMENT: Final = struct.Struct("=12Q")
"""size, flags, start, end, walk_end, vec, vec_len, max_pages, and the masks of categories: those
that are inverted, needed, enough alone, returned."""
_RANGE: Final = struct.Struct("=2Q")
"""start, end."""
_RANGE_OFFSET: Final = 16
_REGION_BYTES: Final = 24


class _Pagemap:
    """This process's /proc/self/pagemap, opened when it is first asked and then kept."""

    def __init__(self) -> None:
        self._handle: int | None = None

    def handle(self) -> int:
        """Return the open file. Raises OSError."""
        if self._handle is None:
            self._handle = os.open("/proc/self/pagemap", os.O_RDONLY)
        return self._handle

    def forget(self) -> None:
        """In a forked child: the open file tells of the parent's pages."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):  # somebody may have closed all files of the process
                os.close(handle)


_own = _Pagemap()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_own.forget)


def are_mapped(addresses: Sequence[int], num_bytes: int) -> bool:
    """Tell whether all pages of these ranges are mapped now; False where the system does not tell.

    Args:
        addresses: in mapped files or memory: of addresses that are neither the kernel says
            nothing is missing.
        num_bytes: of each range, 1 or more; first and last page count as a whole.
    """
    if fcntl is None:
        return False
    within = mmap.PAGESIZE - 1
    # One buffer for all: what Python does about a range takes as long as what the kernel does.
    buffer = ctypes.create_string_buffer(_ARGUMENT.size + _REGION_BYTES)
    regions = ctypes.addressof(buffer) + _ARGUMENT.size
    # Ask for one page that is not present.
    masks = (_PAGE_IS_PRESENT, _PAGE_IS_PRESENT, 0, _PAGE_IS_PRESENT)
    _ARGUMENT.pack_into(buffer, 0, _ARGUMENT.size, 0, 0, 0, 0, regions, 1, 1, *masks)
    try:
        handle = _own.handle()
        for address in addresses:
            start, end = address & ~within, (address + num_bytes + within) & ~within
            _RANGE.pack_into(buffer, _RANGE_OFFSET, start, end)
            if fcntl.ioctl(handle, _PAGEMAP_SCAN, buffer):
                return False
    except OSError:
        return False
    return True
