"""Arrays inside JSON: base64 of little-endian bytes, for files whose arrays are few and small."""

import base64
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import CorruptData


def encode_array(values: NDArray[Any], dtype: DTypeLike) -> str:  # Any: the column's own dtype
    """Return the base64 text of an array's little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def decode_array(text: object, dtype: DTypeLike, length: int, *, where: str) -> NDArray[Any]:
    """Return the array of `length` items that `encode_array` wrote.

    Raises:
        CorruptData: the text is no base64 of that many items.
    """
    if not isinstance(text, str):
        raise CorruptData(f"{where}: expected base64 text, found {type(text).__name__}")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:  # also of text that is not ASCII
        raise CorruptData(f"{where}: not base64 ({error})") from error
    item = np.dtype(dtype)
    if len(data) != length * item.itemsize:
        raise CorruptData(f"{where}: {len(data)} bytes, {length} items of {item} were promised")
    return np.frombuffer(data, item).astype(item.newbyteorder("="), copy=False)
