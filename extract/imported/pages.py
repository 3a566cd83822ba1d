"""Pages of a mapped array, asked for before they are touched.

Touching a page whose file was cut, or whose disk fails, kills the process (SIGBUS). The kernel,
asked for the pages, says so instead.
"""

import ctypes
import errno
import mmap
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MADV_POPULATE_READ: Final = 22
"""Linux 5.14; earlier kernels and other systems do not know it."""
_FAILED: Final = (errno.EFAULT, getattr(errno, "EHWPOISON", errno.EFAULT))


def are_there(rows: NDArray[Any]) -> bool:  # Any: numbers of any kind
    """Read the pages of an array into memory. Returns False when some cannot be had.

    True where nobody can tell, and where single numbers lie far apart.

    Args:
        rows: of a mapped file, or of memory.
    """
    low, high = np.lib.array_utils.byte_bounds(rows)
    if high - low > 2 * rows.nbytes:  # in the order of Fortran: column by column
        return rows.ndim == 1 or all(map(are_there, rows.T))
    low -= low % mmap.PAGESIZE
    if _libc().madvise(low, high - low, _MADV_POPULATE_READ) == 0:
        return True
    return ctypes.get_errno() not in _FAILED


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
