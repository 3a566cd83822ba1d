"""What the bytes behind a Zarr array must be, told by the store's index and records.

zarr-python compares each chunk with the checksum beside it. Two whole shards that changed places
pass that; here they are compared with what was written.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import layout
from ..codec import decode_block
from ..errors import CorruptData, NotFound
from ..folders import Folder
from ..index import Index, Shard
from ..manifest import FileRecord, Manifest
from ..sealed import read_small
from ..shard import zarr_index
from ..unit import UnitRecord
from .blocks import encoded_sizes
from .row_table import sample_name


class _Layout(NamedTuple):
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    tail: bytes
    """The Zarr index: the file's last bytes."""


class ShardChecks:
    """Compares what is read of shards with the index: sizes, Zarr index, and the rows' CRC-32C.

    A block is decoded here when it is first read, as for `frames`. Safe to use from several
    threads.

    Args:
        index: names the shards.
        shards: by their path in the store.
    """

    def __init__(self, index: Index, shards: Mapping[str, Shard]) -> None:
        self._index, self._shards = index, shards
        self._layouts: dict[str, _Layout] = {}
        self._sound: set[int] = set()

    def size(self, path: str, num_bytes: int) -> None:
        """Raise CorruptData if a shard has another size than the index says."""
        shard = self._shards.get(path)
        if shard is not None and num_bytes != shard.num_bytes:
            raise CorruptData(
                f"{self._index.folder.describe(shard.name)} has {num_bytes} bytes, the index says"
                f" {shard.num_bytes}; the file was cut or replaced: restore it"
            )

    def content(self, path: str, start: int, data: bytes) -> None:
        """Raise CorruptData if a whole block, or the Zarr index, is not what was written."""
        shard = self._shards.get(path)
        if shard is None:
            return
        index, view, stop = self._index, memoryview(data), start + len(data)
        offsets, sizes, tail = self._layout(path, shard)
        tail_start = shard.num_bytes - len(tail)
        if start <= tail_start and stop == shard.num_bytes and view[tail_start - start :] != tail:
            raise CorruptData(
                f"{index.folder.describe(shard.name)}: its Zarr index is not the one of this"
                " shard; the file was altered or replaced: restore it"
            )
        inside = (offsets >= start) & (offsets + sizes <= stop)
        for slot in np.flatnonzero(inside).tolist():
            block = shard.first_block + slot
            if block in self._sound:
                continue
            begin = int(offsets[slot]) - start
            decode_block(
                view[begin : begin + int(sizes[slot])],
                index.spec.codec,
                index.geometry,
                where=sample_name(index, shard, block),
                expected_crc32c=int(index.block_crc32c[block]),
            )
            self._sound.add(block)

    def _layout(self, path: str, shard: Shard) -> _Layout:
        if path not in self._layouts:
            geometry, sizes = self._index.geometry, encoded_sizes(self._index, shard)
            tail = zarr_index(geometry, sizes.tolist())
            self._layouts[path] = _Layout(geometry.block_offsets(sizes), sizes, tail)
        return self._layouts[path]


class FileChecks:
    """Compares files, read whole, with the SHA-256 that was written down for them."""

    def __init__(self, folder: Folder, records: Mapping[str, FileRecord]) -> None:
        self._folder, self._records = folder, records

    def size(self, path: str, num_bytes: int) -> None:
        """Raise CorruptData if a file has another size than was written."""
        record = self._records.get(path)
        if record is not None and num_bytes != record.num_bytes:
            raise CorruptData(
                f"{self._folder.describe(path)} has {num_bytes} bytes, {record.num_bytes} were"
                " written; the file was cut or replaced: restore it"
            )

    def content(self, path: str, start: int, data: bytes) -> None:
        """Raise CorruptData if a file is not what was written; for a part all of it is read."""
        record = self._records.get(path)
        if record is None:
            return
        if len(data) != record.num_bytes:
            data = self._folder.read_range(path, 0, record.num_bytes)
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise CorruptData(
                f"{self._folder.describe(path)}: its sha256 is not what was written; the file was"
                " altered or replaced: restore it"
            )


def files_of_unit(
    folder: Folder, manifest: Manifest, recording_id: str, paths: Iterable[str]
) -> dict[str, FileRecord]:
    """Return what a recording's record says of some of its files.

    Raises:
        CorruptData: the record is missing, was altered, or does not name a file.
    """
    name = layout.unit(recording_id)
    where = folder.describe(name)
    try:
        data = read_small(folder, name)
    except NotFound as error:
        raise CorruptData(f"{where} is missing; restore it") from error
    digest = hashlib.sha256(data).hexdigest()
    if not any(item.path == name and item.sha256 == digest for item in manifest.files):
        raise CorruptData(f"{where}: not what {manifest.where} says; restore it")
    found = {item.path: item for item in UnitRecord.from_bytes(data, where=where).files}
    missing = [path for path in paths if path not in found]
    if missing:
        raise CorruptData(f"{where} does not name {missing[0]}; restore it")
    return {path: found[path] for path in paths}
