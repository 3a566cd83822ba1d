"""Write one shard, block by block: a tar, a Zarr shard and a matrix in one pass over the file.

Bytes are a pure function of the features and of what the JSON members say: no time, no user, no
host. `laughstore.geometry` says where everything stands, `docs/format.md` what it means.
"""

import os
import tarfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import crc32c
import numpy as np
from numpy.typing import NDArray

from .codec import Codec, encode_block, member_suffix
from .files import (
    fsync_dir,
    make_dirs,
    named_in_errors,
    start_writeback,
    temporary_sibling,
    try_mode,
)
from .geometry import CRC_BYTES, HUGE_PAGE_BYTES, TAR_BLOCK, ShardGeometry
from .hashing import BackgroundSha256, Piece
from .sealed import canonical_json

FORMAT_VERSION = 1
PREAMBLE_NAME = f"__laughstore__/{FORMAT_VERSION}"
"""Zero-length first member; webdataset skips names that begin and end with underscores."""
EMPTY_SLOT = 2**64 - 1
"""Offset and size of a Zarr index slot that holds no block."""
READ_ONLY = 0o444
"""Mode of a shard."""
_MAX_PIECES = 1024
"""That a system takes in one write (IOV_MAX)."""
_SMALL_BYTES = 64 << 10
"""Blocks up to this size are joined, so that so few pieces hold 2 MiB."""
_WRITEBACK_BYTES = 8 << 20
"""Written to disk in parts of this size while the shard grows, so that its fsync is short."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a finished shard file."""

    num_bytes: int
    sha256: str
    block_crc32c: tuple[int, ...]
    """Of the rows of each block."""
    block_bytes: tuple[int, ...] | None
    """Of each block as stored, checksum included; None for codec none: all are equal."""


class ShardWriter:
    """Write a shard to a temporary sibling; `commit` gives it its name, durably.

    A context manager. Left without a commit (an error, Ctrl-C), it removes what it wrote. Blocks
    are hashed in a thread of its own; about seven blocks and 2 MiB are in memory at a time.
    """

    def __init__(self, path: Path, geometry: ShardGeometry, codec: Codec = "none") -> None:
        self.path = path
        self.geometry = geometry
        self.codec: Codec = codec
        self._temporary = temporary_sibling(path)
        self._sha256 = BackgroundSha256()
        self._crcs: list[int] = []
        self._sizes: list[int] = []
        self._num_bytes = self._num_written = self._num_started = 0
        self._left: deque[memoryview] = deque()
        """Bytes from `_num_written` to `_num_bytes`."""
        make_dirs(path.parent.parent)
        path.parent.mkdir(exist_ok=True)  # durable with the commit: no wait for the disk here
        self._file: BinaryIO = self._temporary.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._sha256.close()
            self._file.close()
        finally:
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
            frames: u2[n, dim] bits of bfloat16, 1 <= n <= block_frames; NaN fills the rest. Copied:
                the caller may use the array again.
            sample: the JSON member, to which `crc32c` is added.
            optional: more of the JSON member, left out key by key where it does not fit; each key
                left out is named by `<key>_cut: true`.
        """
        geometry = self.geometry
        assert len(self._crcs) < geometry.blocks_per_shard, "a shard has no more slots"
        assert frames.shape[1] == geometry.dim, "frames have another dim than the shard"
        content, crc = encode_block(frames, self.codec, geometry)
        text = fit_json({**sample, "crc32c": f"{crc:08x}"}, optional or {}, geometry.json_bytes)
        self._write(
            b"" if self._crcs else tar_header(PREAMBLE_NAME, 0),
            tar_header(f"{key}.json", geometry.json_bytes),
            text,
            tar_header(f"{key}.{member_suffix(self.codec)}", len(content)),
            content,
            bytes(-len(content) % TAR_BLOCK),
        )
        self._crcs.append(crc)
        self._sizes.append(len(content))

    def commit(self) -> ShardRecord:
        """Write the Zarr index, sync, and give the file its name. Returns what was written."""
        geometry = self.geometry
        assert self._crcs, "a shard holds at least one block"
        tail = zarr_index(geometry, self._sizes)
        end = geometry.encoded_shard_bytes(self._sizes)
        self._write(bytes(end - self._num_bytes - len(tail)) + tail)
        self._write_up_to(end)
        try_mode(self._file.fileno(), READ_ONLY)
        with named_in_errors(self.path):
            os.fsync(self._file.fileno())  # while the last blocks are hashed
        self._file.close()
        sha256 = self._sha256.hexdigest()
        self._temporary.replace(self.path)
        fsync_dir(self.path.parent)
        fsync_dir(self.path.parent.parent)
        sizes = None if self.codec == "none" else tuple(self._sizes)
        return ShardRecord(self._num_bytes, sha256, tuple(self._crcs), sizes)

    def _write(self, *pieces: Piece) -> None:
        # A file system makes pages as large as the writes that fill them.
        self._sha256.update(*pieces)
        num_bytes = sum(map(len, pieces))
        if num_bytes <= _SMALL_BYTES:
            pieces = (b"".join(pieces),)
        self._left.extend(memoryview(piece) for piece in pieces if len(piece))
        self._num_bytes += num_bytes
        self._write_up_to(self._num_bytes - self._num_bytes % HUGE_PAGE_BYTES)

    def _write_up_to(self, end: int) -> None:
        descriptor = self._file.fileno()
        while self._num_written < end:  # a file may take a part, as when a disk is nearly full
            parts, room = [], end - self._num_written
            for piece in self._left:
                parts.append(piece[:room])
                room -= len(parts[-1])
                if not room or len(parts) == _MAX_PIECES:
                    break
            with named_in_errors(self.path):
                written = os.writev(descriptor, parts)
            self._num_written += written
            while self._left and written >= len(self._left[0]):
                written -= len(self._left.popleft())
            if written:
                self._left[0] = self._left[0][written:]
        not_started = self._num_written - self._num_started
        if not_started >= _WRITEBACK_BYTES:
            start_writeback(descriptor, self._num_started, not_started)
            self._num_started = self._num_written


def zarr_index(geometry: ShardGeometry, block_bytes: Sequence[int]) -> bytes:
    """Return the Zarr index of a shard of blocks of these encoded sizes: its last bytes."""
    index = np.full((geometry.blocks_per_shard, 2), EMPTY_SLOT, "<u8")
    index[: len(block_bytes), 0] = geometry.block_offsets(block_bytes)
    index[: len(block_bytes), 1] = block_bytes
    slots = index.tobytes()
    return slots + crc32c.crc32c(slots).to_bytes(CRC_BYTES, "little")


def tar_header(name: str, num_bytes: int) -> bytes:
    """Return the 512 bytes before a member of this name and size."""
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    member.mtime = 0
    member.mode = READ_ONLY
    return member.tobuf(tarfile.USTAR_FORMAT)


def fit_json(sample: Mapping[str, object], optional: Mapping[str, object], room: int) -> bytes:
    """Return JSON of exactly `room` bytes, padded with spaces; optional keys while they fit."""
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
