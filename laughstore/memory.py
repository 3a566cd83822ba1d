"""Memory that the C library keeps for later, given back to the system."""

import ctypes


def release_free_memory() -> None:
    """Give back memory that is free, after something large has been read and dropped.

    For moments between two works: others that allocate wait up to a tenth of a second, and what was
    given back has to be fetched again page by page. Each thread of glibc keeps what it has freed,
    behind anything that is still used. Where there is no `malloc_trim` this does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
