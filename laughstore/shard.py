"""Write one shard, block by block: a tar, a Zarr shard and a matrix in one pass over the file.

Bytes are a pure function of the features and of what the JSON members say: no time, no user, no
host. `laughstore.geometry` says where everything stands, `docs/format.md` what it means.
"""

import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import CorruptData
from .files import fsync_dir, make_dirs, removed_on_error, temporary_sibling
from .geometry import CRC_BYTES, TAR_BLOCK, ShardGeometry
from .sealed import canonical_json

FORMAT_VERSION = 1
PREAMBLE_NAME = f"__laughstore__/{FORMAT_VERSION}"
"""Zero-length first member; webdataset skips names that begin and end with underscores."""
EMPTY_SLOT = 2**64 - 1
"""Offset and size of a Zarr index slot that holds no block."""
PAD_BITS = 0x7FC0
"""bfloat16 NaN: fills the frames of a ragged last block, so that using one by mistake shows."""
_READ_ONLY = 0o444


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard file."""

    num_bytes: int
    sha256: str
    block_crc32c: tuple[int, ...]


class ShardWriter:
    """Write a shard to a temporary sibling; `commit` gives it its name, durably.

    Left without a commit (an error, Ctrl-C), it removes what it wrote.
    """

    def __init__(self, path: Path, geometry: ShardGeometry) -> None:
        self.path = path
        self.geometry = geometry
        self._temporary = temporary_sibling(path)
        self._hash = hashlib.sha256()
        self._crcs: list[int] = []
        self._num_bytes = 0
        make_dirs(path.parent)
        self._file: BinaryIO = self._temporary.open("wb", buffering=0)
        with removed_on_error(self._temporary):
            self._write(_tar_header(PREAMBLE_NAME, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write_block(
        self,
        key: str,
        frames: NDArray[np.uint16],
        sample: Mapping[str, object],
        optional: Mapping[str, object] | None = None,
    ) -> None:
        """Append one block.

        Args:
            key: `laughstore.naming.block_key` of the block.
            frames: u2[n, dim] bits of bfloat16, 1 <= n <= block_frames; NaN fills the rest.
            sample: the JSON member, to which `crc32c` is added.
            optional: more of the JSON member, left out key by key where it does not fit; each key
                left out is named by `<key>_cut: true`.
        """
        geometry = self.geometry
        assert len(self._crcs) < geometry.blocks_per_shard, "a shard has no more slots"
        assert frames.dtype == np.uint16, "frames are the bits of bfloat16"
        assert frames.shape[1] == geometry.dim, "frames have another dim than the shard"
        if len(frames) < geometry.block_frames:
            padding = np.full(
                (geometry.block_frames - len(frames), geometry.dim), PAD_BITS, np.uint16
            )
            frames = np.concatenate([frames, padding])
        data = np.ascontiguousarray(frames, "<u2")
        crc = crc32c.crc32c(data)
        text = _fit_json({**sample, "crc32c": f"{crc:08x}"}, optional or {}, geometry.json_bytes)
        self._write(
            _tar_header(f"{key}.json", geometry.json_bytes)
            + text
            + _tar_header(f"{key}.bf16", geometry.data_bytes + CRC_BYTES)
        )
        assert self._num_bytes == geometry.data_offset(len(self._crcs)), "the geometry is wrong"
        self._write(memoryview(data).cast("B"))
        self._write(crc.to_bytes(CRC_BYTES, "little") + bytes(TAR_BLOCK - CRC_BYTES))
        self._crcs.append(crc)

    def commit(self) -> ShardRecord:
        """Write the Zarr index, sync, and give the file its name. Returns what was written."""
        geometry = self.geometry
        index = np.full((geometry.blocks_per_shard, 2), EMPTY_SLOT, "<u8")
        for block in range(len(self._crcs)):
            index[block] = geometry.data_offset(block), geometry.data_bytes + CRC_BYTES
        slots = index.tobytes()
        tail = slots + crc32c.crc32c(slots).to_bytes(CRC_BYTES, "little")
        end = geometry.shard_bytes(len(self._crcs))
        self._write(bytes(end - self._num_bytes - len(tail)) + tail)
        os.fchmod(self._file.fileno(), _READ_ONLY)
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        fsync_dir(self.path.parent)
        return ShardRecord(self._num_bytes, self._hash.hexdigest(), tuple(self._crcs))

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self._hash.update(view)
        self._num_bytes += len(view)
        while view:  # an unbuffered file may take a part, as when a disk is nearly full
            view = view[self._file.write(view) :]


def read_block_crcs(path: Path, geometry: ShardGeometry, num_blocks: int) -> tuple[int, ...]:
    """Return the stored CRC-32C of each block of a shard file, its Zarr index checked on the way.

    Raises:
        CorruptData: the file's size or its index is not that of a shard of `num_blocks` blocks.
    """
    size = path.stat().st_size
    if size != geometry.shard_bytes(num_blocks):
        raise CorruptData(
            f"{path}: {size} bytes, a shard of {num_blocks} blocks has"
            f" {geometry.shard_bytes(num_blocks)}; restore it, or build the store again"
        )
    with path.open("rb") as file:
        file.seek(size - geometry.index_bytes)
        tail = file.read(geometry.index_bytes)
        slots, stored = tail[:-CRC_BYTES], int.from_bytes(tail[-CRC_BYTES:], "little")
        index = np.frombuffer(slots, "<u8").reshape(-1, 2)
        offsets = [geometry.data_offset(block) for block in range(num_blocks)]
        sound = (
            crc32c.crc32c(slots) == stored
            and index[:num_blocks, 0].tolist() == offsets
            and (index[:num_blocks, 1] == geometry.data_bytes + CRC_BYTES).all()
            and (index[num_blocks:] == EMPTY_SLOT).all()
        )
        if not sound:
            raise CorruptData(f"{path}: the Zarr index at its end was altered; restore the file")
        crcs = []
        for offset in offsets:
            file.seek(offset + geometry.data_bytes)
            crcs.append(int.from_bytes(file.read(CRC_BYTES), "little"))
    return tuple(crcs)


def _tar_header(name: str, num_bytes: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    member.mtime = 0
    member.mode = _READ_ONLY
    return member.tobuf(tarfile.USTAR_FORMAT)


def _fit_json(sample: Mapping[str, object], optional: Mapping[str, object], room: int) -> bytes:
    """JSON of exactly `room` bytes, padded with spaces; optional keys as long as they fit."""
    chosen = {**sample, **optional}
    text = canonical_json(chosen)
    for key in reversed(list(optional)):
        if len(text) <= room:
            break
        del chosen[key]
        chosen[f"{key}_cut"] = True
        text = canonical_json(chosen)
    assert len(text) <= room, "names and ids are cut so that the smallest JSON member fits"
    return text.ljust(room)
