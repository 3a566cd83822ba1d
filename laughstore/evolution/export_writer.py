"""Write units of an exported store: linked, copied and checked, or written again without events."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import layout
from ..annotations import Annotations, Speaker, read_annotations, write_annotations
from ..arrays import CODE_STREAMS
from ..buildplan import BuildPlan, PlannedRecording
from ..codec import decode_block
from ..errors import CorruptData
from ..files import (
    fsync_dir,
    link_or_copy,
    make_dirs,
    removed_on_error,
    temporary_sibling,
    try_link,
    try_mode,
)
from ..geometry import CRC_BYTES
from ..index import Recording
from ..manifest import FileRecord
from ..sealed import read_small
from ..shard import READ_ONLY
from ..store import Store
from ..unit import UnitRecord, is_whole, read_unit, write_unit
from ..unitwriter import UnitWriter

_CHUNK_BYTES = 8 << 20


def bare_annotations(item: Recording) -> Annotations:
    """Return what is left of a recording's annotations when nothing annotated goes along."""
    names = dict.fromkeys(stream.main for stream in item.streams)
    return Annotations(item.name, item.duration_us, tuple(Speaker(name, 0) for name in names))


class ExportWriter:
    """Writes units of the new store from files of the old one.

    Args:
        source: the old store, local or remote.
        out: folder of the new one, begun with `plan`.
        plan: its plan.
        copy: make no links.
    """

    def __init__(self, source: Store, out: Path, plan: BuildPlan, *, copy: bool) -> None:
        self._folder = source.folder
        self._index = source.index
        self._records = {item.path: item for item in source.manifest.files}
        self._out = out
        self._plan = plan
        self._root = None if copy else source.folder.local
        self._to_sync: set[Path] = set()
        self.num_linked = 0
        self.num_copied = 0

    def shard_bytes(self, item: Recording) -> int:
        """Return the bytes of a recording's shards."""
        return sum(self._unit(item).shard_bytes)

    def is_there(self, item: Recording, planned: PlannedRecording) -> bool:
        """Tell whether an earlier run has finished this unit, in the way that is asked for."""
        record = read_unit(self._out, planned.id)
        if record is None or record.status != "done" or not is_whole(self._out, record):
            return False
        root = self._folder.local
        if self._root is not None or root is None:
            return True
        pairs = zip(record.files, self._unit(item).files, strict=True)
        return not any(
            (root / old.path).exists() and (self._out / new.path).samefile(root / old.path)
            for new, old in pairs
        )

    def link_unit(self, item: Recording, planned: PlannedRecording) -> None:
        """Give a unit's files names in the new store; its record last."""
        unit = self._unit(item)
        notes = read_annotations(self._folder, item.annotations_id, item.split, item.id)
        write_annotations(self._out, notes, planned.split, planned.id)
        names = iter(_shard_paths(self._plan, planned))
        files: list[FileRecord] = []
        for record in unit.files:
            new = record if record.also is None else replace(record, path=next(names))
            files.append(new)
            first = new.path if new.also is None else new.also
            self._place(record, self._out / first)
            if new.also is not None:
                link_or_copy(self._out / new.also, self._out / new.path)
        self._sync()
        write_unit(self._out, replace(unit, files=tuple(files)))

    def write_bare_unit(self, item: Recording, planned: PlannedRecording) -> None:
        """Write a unit again from its frames, without anything that was annotated."""
        bare = bare_annotations(item)
        write_annotations(self._out, bare, planned.split, planned.id)
        kind = self._unit(item).device_kind
        with UnitWriter(self._out, self._plan, planned, bare, kind) as writer:
            for features, codes in self._blocks(item):
                writer.write(features, codes)
            record = writer.finish()
        assert record.block_crc32c == self._unit(item).block_crc32c, "frames are the same"
        self.num_copied += len(record.files)

    def _unit(self, item: Recording) -> UnitRecord:
        path = layout.unit(item.id)
        data = read_small(self._folder, path)
        named = self._records.get(path)
        if named is None or hashlib.sha256(data).hexdigest() != named.sha256:
            raise CorruptData(
                f"{self._folder.describe(path)}: its sha256 is not what the manifest says;"
                " restore it"
            )
        return UnitRecord.from_bytes(data, where=self._folder.describe(path))

    def _place(self, record: FileRecord, target: Path) -> None:
        """Link or copy one file of the old store; its name lasts after `_sync`."""
        where = self._folder.describe(record.path)
        if self._folder.size(record.path) != record.num_bytes:
            raise CorruptData(f"{where}: its size is not what its unit says; restore it")
        make_dirs(target.parent)
        temporary = temporary_sibling(target)
        with removed_on_error(temporary):
            if self._root is not None and try_link(self._root / record.path, temporary):
                self.num_linked += 1
            else:
                self._copy(record, temporary)
                self.num_copied += 1
            temporary.replace(target)
        self._to_sync.add(target.parent)

    def _copy(self, record: FileRecord, target: Path) -> None:
        digest = hashlib.sha256()
        with target.open("xb") as file:
            for start in range(0, record.num_bytes, _CHUNK_BYTES):
                num_bytes = min(_CHUNK_BYTES, record.num_bytes - start)
                data = self._folder.read_range(record.path, start, num_bytes)
                digest.update(data)
                file.write(data)
            file.flush()
            if record.also is not None:
                try_mode(file.fileno(), READ_ONLY)
            os.fsync(file.fileno())
        if digest.hexdigest() != record.sha256:
            raise CorruptData(
                f"{self._folder.describe(record.path)}: its sha256 is not what its unit says;"
                " restore it"
            )

    def _sync(self) -> None:
        for folder in self._to_sync:
            fsync_dir(folder)
        self._to_sync.clear()

    def _blocks(self, item: Recording) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.int16]]]:
        """Yield (u2[A, n, dim], i2[A, n, 17]) of block after block, every checksum verified."""
        geometry = self._index.geometry
        first_block = item.streams[0].first_block
        num_blocks = geometry.num_blocks(item.num_frames)
        files = {record.path: record for record in self._unit(item).files}
        for shard in range(geometry.num_shards(item.num_frames)):
            codes = np.stack([self._codes(item, s.assignment, shard, files) for s in item.streams])
            for i in range(geometry.blocks_in_shard(item.num_frames, shard)):
                block = shard * geometry.blocks_per_shard + i
                start = block * geometry.block_frames
                frames = min(geometry.block_frames, item.num_frames - start)
                rows = [
                    self._rows(
                        item, first_block + number * num_blocks, shard, i, stream.first_shard
                    )
                    for number, stream in enumerate(item.streams)
                ]
                part = slice(i * geometry.block_frames, i * geometry.block_frames + frames)
                yield np.stack(rows)[:, :frames], codes[:, part]

    def _rows(
        self, item: Recording, stream_block: int, shard: int, i: int, first_shard: int
    ) -> NDArray[np.uint16]:
        """Read block `i` of a shard of the stream whose first block is `stream_block`."""
        geometry, index = self._index.geometry, self._index
        begin = stream_block + shard * geometry.blocks_per_shard
        end = begin + geometry.blocks_in_shard(item.num_frames, shard)
        sizes = index.block_bytes[begin:end]
        path = layout.shard(item.split, first_shard + shard)
        offset = int(geometry.block_offsets(sizes)[i])
        return decode_block(
            self._folder.read_range(path, offset, int(sizes[i])),
            index.spec.codec,
            geometry,
            where=f"{self._folder.describe(path)}, block {i}",
            expected_crc32c=int(index.block_crc32c[begin + i]),
        )

    def _codes(
        self, item: Recording, assignment: str, shard: int, files: dict[str, FileRecord]
    ) -> NDArray[np.int16]:
        path = layout.chunk(layout.array(layout.CODES, item.split, item.id, assignment), shard)
        shape = (self._index.geometry.shard_frames, CODE_STREAMS)
        num_bytes = shape[0] * shape[1] * 2 + CRC_BYTES
        data = self._folder.read_range(path, 0, num_bytes)
        record = files[path]
        if (record.num_bytes, record.sha256) != (num_bytes, hashlib.sha256(data).hexdigest()):
            raise CorruptData(
                f"{self._folder.describe(path)}: its sha256 is not what its unit says; restore it"
            )
        return np.frombuffer(data, "<i2", shape[0] * shape[1]).reshape(shape)


def _shard_paths(plan: BuildPlan, planned: PlannedRecording) -> Iterator[str]:
    """Tar names of a unit's shards, assignment by assignment."""
    num_shards = plan.geometry.num_shards(planned.num_frames)
    for first in planned.first_shards:
        yield from (layout.shard(planned.split, first + i) for i in range(num_shards))
