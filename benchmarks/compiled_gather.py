"""The same gather by compiled code whose stores pass the caches by.

A plain store fetches the line that it is about to overwrite. Batches that are larger than the
caches therefore cost three transfers a word where a large memcpy, whose stores need not fetch,
costs two. Batches that the caches hold are better stored there: of those it is slower than numpy.
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .data import FRAME_BYTES

_VECTOR_BYTES: Final = 32
_SOURCE: Final = f"""
#include <immintrin.h>
#include <stdint.h>

enum {{ ROW = {FRAME_BYTES}, PAGE = 4096, AHEAD = 4 }};

__attribute__((target("avx2")))
void gather(const char *rows, const int64_t *numbers, int64_t count, char *out) {{
    for (int64_t i = 0; i < count; i++) {{
        if (i + AHEAD < count)
            for (int64_t page = 0; page < ROW; page += PAGE)
                _mm_prefetch(rows + numbers[i + AHEAD] * ROW + page, _MM_HINT_T0);
        const __m256i *from = (const __m256i *)(rows + numbers[i] * ROW);
        __m256i *to = (__m256i *)(out + i * ROW);
        for (int64_t word = 0; word < ROW / 32; word++)
            _mm256_stream_si256(to + word, _mm256_loadu_si256(from + word));
    }}
    _mm_sfence();
}}
"""


def compiled_gather(
    rows: NDArray[np.int16],
) -> Callable[[NDArray[np.int64], NDArray[np.int16]], None] | None:
    """Return a function that copies rows of these numbers; None where it cannot be made.

    There may be no C compiler, one without headers, a temporary folder whose files cannot be
    executed, no AVX2, or another system than Linux.

    Args:
        rows: i2[R, D] of 8 KiB each.

    Returns:
        (numbers i64[N], out i2[N, D] that begins at a cache line) -> None. Numbers are not checked.

    Raises:
        AssertionError: the arrays are of other types, or lie otherwise in memory.
    """
    compiler = shutil.which("cc")
    flags = Path("/proc/cpuinfo")
    if compiler is None or not flags.is_file() or "avx2" not in flags.read_text().split():
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "gather.c", Path(folder) / "gather.so"
        source.write_text(_SOURCE)
        command = [compiler, "-O3", "-shared", "-fPIC", "-o", str(library), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True)
            function = ctypes.CDLL(str(library)).gather
        except (OSError, subprocess.CalledProcessError):
            return None
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    if rows.strides != (FRAME_BYTES, 2):
        raise AssertionError("rows lie elsewhere than the loop expects")

    def gather(numbers: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        if not (numbers.flags.c_contiguous and out.flags.c_contiguous and len(out) >= len(numbers)):
            raise AssertionError("the loop counts in bytes")
        if numbers.dtype != np.int64 or out.strides != (FRAME_BYTES, 2):
            raise AssertionError("the loop takes numbers of 8 bytes and rows of 8 KiB")
        if out.ctypes.data % _VECTOR_BYTES:
            raise AssertionError("the loop stores to aligned memory alone")
        function(rows.ctypes.data, numbers.ctypes.data, len(numbers), out.ctypes.data)

    return gather
