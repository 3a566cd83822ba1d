"""Have the C library keep what is freed, for whoever makes large bytes or arrays anew.

By default glibc gives large pieces back to the system and takes fresh pages, which the kernel
clears, for the next; from which size on changes with what the process freed before. A loader whose
every block is new bytes is then two or three times as slow in one process as in another.
"""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4
_NEVER: Final = -1


def keep_freed_memory() -> bool:
    """Keep what this process frees, from now on. False where the C library has no such setting.

    What was allocated in threads beside the first one is kept with exceptions: glibc gives their
    memory back in pieces of 64 MiB once such a piece is empty.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
