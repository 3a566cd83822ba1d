"""Memory of this machine and of GPUs: given back to the system, and told of when there is no more.

It knows no torch: what torch raises is told by its text.
"""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .errors import LaughstoreError

_SAID: Final = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""Of torch's RuntimeErrors: of its own allocators, of CUDA and of CUDA's libraries."""
_ON_GPU: Final = re.compile(r"\b(cuda|hip|gpu)|CU(BLAS|DNN)_", re.IGNORECASE)
_AMOUNT: Final = re.compile(r"allocate ([\d.]+ \w+)")


def release_free_memory() -> None:
    """Give back memory that is free, after something large has been read and dropped.

    For moments between two works: others that allocate wait up to a tenth of a second, and what was
    given back has to be fetched again page by page. Each thread of glibc keeps what it has freed,
    behind anything that is still used. Where there is no `malloc_trim` this does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is that memory was used up, whoever raised it."""
    if isinstance(error, RuntimeError):
        text = str(error)
        return any(said in text for said in _SAID)
    return isinstance(error, MemoryError)


@contextmanager
def out_of_memory_told(advice: str) -> Iterator[None]:
    """Let the body end with one line when memory is used up.

    Args:
        advice: what to lower, and how it is now.

    Raises:
        LaughstoreError: memory of this machine or of a GPU was used up.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise LaughstoreError(f"{what_is_full(error)}; {advice}") from error


def what_is_full(error: BaseException) -> str:
    """Return which memory is used up, and how much was asked for, of such an error."""
    text = str(error)
    where = "the GPU" if _ON_GPU.search(text) else "this machine"
    amount = _AMOUNT.search(text)
    return f"{where} is out of memory" + (f" ({amount[1]} were asked for)" if amount else "")
