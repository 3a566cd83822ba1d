"""Named arrays in one binary file, each found and read alone: what is large in an index.

A JSON header holds the directory (dtype, offset, count and CRC-32C of every array) and is read
when a store is opened; the arrays are read when somebody asks for them. Little-endian, each array
at a multiple of 8 bytes.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import CorruptData, LaughstoreError
from .folders import Folder
from .values import integer, mapping, text

_ALIGNMENT = 8
_DTYPES = frozenset(["<i8", "<i4", "<u4", "<f4", "|u1"])
_FILE_NAME = re.compile(r"index-[0-9]{6}\.columns")
MAX_BYTES = 4 << 30
"""Of a column file. As many recordings as an index's JSON has room for take less (docs/scaling.md),
and object stores copy files of up to 5 GB in one piece."""
_CRC = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Column:
    """Where an array stands in a column file."""

    dtype: str
    """Of numpy, little-endian."""
    offset: int
    """In bytes."""
    count: int
    crc32c: int
    """Of its bytes."""

    @property
    def num_bytes(self) -> int:
        """Size of the array."""
        return self.count * np.dtype(self.dtype).itemsize


def encode_columns(
    name: str, arrays: Mapping[str, NDArray[Any]]
) -> tuple[bytes, dict[str, object]]:
    """Return (bytes of the file, its directory as a JSON object).

    Args:
        name: of the file.
        arrays: one-dimensional, of dtypes i8, i4, u4, f4 or u1.

    Raises:
        LaughstoreError: together they are larger than readers take.
    """
    num_bytes = sum(array.nbytes + _ALIGNMENT for array in arrays.values())
    if num_bytes > MAX_BYTES:
        raise LaughstoreError(
            f"{name}: {num_bytes} bytes, readers take {MAX_BYTES}; nothing was published: put"
            " fewer recordings into one store (--split, --recordings)"
        )
    data = bytearray()
    directory: dict[str, object] = {}
    for key, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        assert dtype.str in _DTYPES, f"column {key} is {dtype.str}"
        part = np.ascontiguousarray(array, dtype).tobytes()
        directory[key] = {
            "dtype": dtype.str,
            "offset": len(data),
            "count": len(array),
            "crc32c": f"{crc32c.crc32c(part):08x}",
        }
        data += part
        data += bytes(-len(data) % _ALIGNMENT)
    digest = hashlib.sha256(data).hexdigest()
    header = {"name": name, "num_bytes": len(data), "sha256": digest, "arrays": directory}
    return bytes(data), header


class Columns:
    """The arrays of a column file, read when they are asked for.

    Args:
        folder: that the file is in.
        header: the directory that `encode_columns` made.
        where: begins the messages of errors in the directory.

    Raises:
        CorruptData: the directory is malformed or the file has another size.
        NotFound: there is no such file.
    """

    def __init__(self, folder: Folder, header: object, *, where: str) -> None:
        content = mapping(header, where=where)
        self._folder = folder
        self.name = text(content, "name", where=where)
        if not _FILE_NAME.fullmatch(self.name):
            raise CorruptData(f"{where}: columns in {self.name[:80]!r}; do not trust this file")
        self.num_bytes = integer(content, "num_bytes", where=where, high=MAX_BYTES)
        self.sha256 = text(content, "sha256", where=where)
        arrays = mapping(content.get("arrays"), where=where)
        self._columns = {
            key: self._column(item, where=f"{where}: {key}") for key, item in arrays.items()
        }
        end = 0
        for column in sorted(self._columns.values(), key=lambda c: (c.offset, c.count)):
            if column.offset != end:
                raise CorruptData(f"{where}: columns overlap or leave gaps; restore it")
            end += column.num_bytes + -column.num_bytes % _ALIGNMENT
        if end != self.num_bytes:
            raise CorruptData(f"{where}: columns end at {end} of {self.num_bytes}; restore it")
        found = folder.size(self.name)
        if found != self.num_bytes:
            raise CorruptData(
                f"{folder.describe(self.name)} has {found} bytes, its index says {self.num_bytes};"
                " restore the file"
            )

    def __contains__(self, key: str) -> bool:
        return key in self._columns

    def count(self, key: str, dtype: str) -> int:
        """Return the length of an array. Raises CorruptData unless there is one of this dtype."""
        column = self._columns.get(key)
        if column is None or column.dtype != dtype:
            found = None if column is None else column.dtype
            raise CorruptData(
                f"{self._folder.describe(self.name)}: column {key} is {found}, not {dtype};"
                " restore the index"
            )
        return column.count

    def read(self, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return arrays by name, their checksums verified; one read for all of them.

        Args:
            keys: names of arrays that stand close to each other in the file.

        Raises:
            CorruptData: a checksum does not match, or the file was cut.
        """
        columns = [self._columns[key] for key in keys]
        start = min(item.offset for item in columns)
        stop = max(item.offset + item.num_bytes for item in columns)
        data = memoryview(self._folder.read_range(self.name, start, stop - start))
        arrays: dict[str, NDArray[Any]] = {}
        for key, item in zip(keys, columns, strict=True):
            part = data[item.offset - start : item.offset - start + item.num_bytes]
            found = crc32c.crc32c(part)
            if found != item.crc32c:
                raise CorruptData(
                    f"{self._folder.describe(self.name)}: crc32c of {key} is {found:08x}, the index"
                    f" says {item.crc32c:08x}; restore the file"
                )
            array = np.frombuffer(part, item.dtype)
            arrays[key] = array.astype(array.dtype.newbyteorder("="), copy=False)
        return arrays

    def _column(self, item: object, *, where: str) -> Column:
        entry = mapping(item, where=where)
        dtype = text(entry, "dtype", where=where)
        crc = text(entry, "crc32c", where=where)
        if dtype not in _DTYPES or not _CRC.fullmatch(crc):
            raise CorruptData(f"{where}: dtype {dtype[:20]!r}, crc32c {crc[:20]!r}; restore it")
        column = Column(
            dtype,
            integer(entry, "offset", where=where, high=self.num_bytes),
            integer(entry, "count", where=where, high=self.num_bytes),
            int(crc, 16),
        )
        if column.offset % _ALIGNMENT or column.offset + column.num_bytes > self.num_bytes:
            raise CorruptData(f"{where}: reaches beyond its file; restore it")
        return column
