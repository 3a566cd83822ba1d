"""`.npy` files of features, mapped. An array of Python objects is refused unread."""

from pathlib import Path

import numpy as np

from laughstore.errors import BadRecording
from laughstore.files import is_passing

from .files import FeatureFile, as_streams, refuse_dtype

_BFLOAT16 = np.dtype("V2")
"""What numpy calls the bfloat16 of ml_dtypes in a file; it has no name for it."""


def open_npy(path: Path) -> FeatureFile:
    """Open a .npy file.

    Raises:
        BadRecording: it is none, was cut, or holds something else than features.
    """
    try:
        # Maps it, so that a header that claims more bytes than the file has is refused; knows no
        # other form of file; and never unpickles.
        found = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OverflowError, OSError, EOFError, SyntaxError, TypeError) as error:
        if is_passing(error):
            raise
        why = " ".join(str(error).split())[:160]
        raise BadRecording(
            f"{path}: is no whole .npy file of numbers ({why}); write it again"
        ) from error
    streams = as_streams(path, found.shape)
    if found.dtype == _BFLOAT16:
        found = found.view("<u2")
    elif found.dtype.kind != "f" or found.dtype.itemsize not in (2, 4):
        raise refuse_dtype(path, found.dtype)
    return FeatureFile(path, found.reshape(streams))
