"""Rows that are mapped: the files themselves, in one range of addresses."""

import errno
from collections.abc import Sequence

import crc32c
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, CorruptData, IncompleteStore, NotFound
from ..folders import LocalFolder
from ..geometry import CRC_BYTES
from ..index import Index, Shard
from .mapping import MappedFiles
from .row_table import Numbers, RowTable, numbers, sample_name
from .rows import Rows


class NoMappings(ConfigError):
    """The system maps no more files; they can still be read."""


class MappedRows(Rows):
    """Shards of a split, mapped. Nothing is copied; `release` has nothing to do.

    Args:
        index: names the shards.
        split: that they are of.
        shards: some of them, in block order.

    Raises:
        IncompleteStore, CorruptData: as `open_rows`.
        NoMappings: the system gives no addresses, or maps no more files.
    """

    releases = False
    blocks_at_once = 1

    def __init__(self, index: Index, split: str, shards: Sequence[Shard]) -> None:
        self.index, self.split = index, split
        self._table = RowTable(index, shards)
        folder = index.folder
        if not isinstance(folder, LocalFolder):
            raise ConfigError(f"{index.where} is remote; copy it here to map its shards")
        for shard in shards:
            _check_size(index, folder, shard)
        files = _map(index, folder, shards)
        assert np.array_equal(files.starts, self._table.starts), "one layout for all readers"
        self._files: MappedFiles | None = files
        self._matrix = files.bytes.view(np.uint16).reshape(-1, self.dim)
        # Single items and masks are set in one step of the interpreter: no lock is needed, and
        # none can be left locked by a fork.
        self._verified = np.zeros(len(self._table.first_row), bool)
        self._populated = np.zeros(len(self._table.first_row), bool)

    @property
    def matrix(self) -> NDArray[np.uint16]:
        """u2[R, dim]: see `Rows.matrix`."""
        self._open()
        return self._matrix

    def prepare(self, blocks: Numbers, *, verify: bool) -> None:
        """Read the pages of these blocks, and check their checksums if asked."""
        files, blocks = self._open(), numbers(blocks)
        places = self._table.places(blocks)
        for block, place in zip(blocks.tolist(), places.tolist(), strict=True):
            self._prepare(files, block, place, verify=verify)

    def prepare_once(self, blocks: Numbers) -> None:
        """Read the pages of these blocks; check checksums the first time in this process."""
        files, blocks = self._open(), numbers(blocks)
        places = self._table.places(blocks)
        known = self._verified[places].tolist()
        for block, place, is_known in zip(blocks.tolist(), places.tolist(), known, strict=True):
            self._prepare(files, block, place, verify=not is_known)

    def are_ready(self, blocks: Numbers, *, checked: bool) -> bool:
        """Whether no page of these blocks is missing; see `Rows.are_ready`."""
        files = self._open()
        places = self._table.places(numbers(blocks))
        known = self._populated[places]
        if checked:
            known &= self._verified[places]
        if not known.all():
            return False
        starts = self._table.first_row[places] * self.index.geometry.row_bytes
        num_bytes = self.index.geometry.data_bytes + CRC_BYTES
        return files.are_populated(starts.tolist(), num_bytes)

    def release(self, blocks: Numbers) -> None:
        """Do nothing: mapped pages belong to the page cache, and the kernel takes them back."""

    def read(self, first_frame: int, num_frames: int) -> NDArray[np.uint16]:
        """Return a fresh u2[num_frames, dim] of consecutive frames of one stream, checked.

        Args:
            first_frame: global frame id.
            num_frames: 0 or more.

        Raises:
            CorruptData: as `prepare`.
            ValueError: this was closed.
        """
        files, matrix = self._open(), self._matrix
        geometry = self.index.geometry
        out = np.empty((num_frames, self.dim), np.uint16)
        block, offset = divmod(first_frame, geometry.block_frames)
        place = block - self._table.low
        done = 0
        while done < num_frames:
            count = min(geometry.block_frames - offset, num_frames - done)
            row = int(self._table.first_row[place]) + offset
            if self._verified[place]:
                self._populate(files, block, row * geometry.row_bytes, count * geometry.row_bytes)
            else:
                self._prepare(files, block, place, verify=True)
            out[done : done + count] = matrix[row : row + count]
            done += count
            block, place, offset = block + 1, place + 1, 0
        return out

    def close(self) -> None:
        """Let go of the mapped files."""
        self._files = None
        self._matrix = np.empty((0, self.dim), np.uint16)  # drops the hold on the mapped range

    def _open(self) -> MappedFiles:
        if self._files is None:
            raise ValueError("these rows were closed; open them again with open_rows")
        return self._files

    def _prepare(self, files: MappedFiles, block: int, place: int, *, verify: bool) -> None:
        geometry = self.index.geometry
        start = int(self._table.first_row[place]) * geometry.row_bytes
        num_bytes = geometry.data_bytes + CRC_BYTES
        if not (self._populated[place] and files.are_populated([start], num_bytes)):
            self._populate(files, block, start, num_bytes)
            self._populated[place] = True
        if verify:
            self._verify(files, block, start)
            self._verified[place] = True

    def _populate(self, files: MappedFiles, block: int, start: int, num_bytes: int) -> None:
        try:
            files.populate(start, num_bytes)
        except OSError as error:
            raise CorruptData(
                f"{self._name(block)}: cannot be read ({error.strerror}); the file was cut, or"
                " the disk failed: restore it"
            ) from error

    def _verify(self, files: MappedFiles, block: int, start: int) -> None:
        end = start + self.index.geometry.data_bytes
        found = crc32c.crc32c(files.bytes[start:end])
        in_file = int.from_bytes(files.bytes[end : end + CRC_BYTES].tobytes(), "little")
        promised = int(self.index.block_crc32c[block])
        if not found == in_file == promised:
            raise CorruptData(
                f"{self._name(block)}: crc32c is {found:08x}, the shard says {in_file:08x}, the"
                f" index {promised:08x}; the file was altered: restore it"
            )

    def _name(self, block: int) -> str:
        return sample_name(self.index, self._table.shard_of(block), block)


def _map(index: Index, folder: LocalFolder, shards: Sequence[Shard]) -> MappedFiles:
    files = [(f"{folder.local}/{shard.name}", shard.num_bytes) for shard in shards]
    try:
        return MappedFiles(files, index.geometry.map_alignment)
    except FileNotFoundError as error:
        raise IncompleteStore(
            f"{error.filename} has just gone, the index names it; restore it"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise NoMappings(
                f"{index.where}: the system maps no more of its {len(shards)} shards"
                f" ({error.strerror}); raise vm.max_map_count (or ulimit -v), or use"
                " reader='window'"
            ) from error
        raise CorruptData(
            f"{error.filename or index.where} cannot be mapped ({error.strerror}); the file was"
            " replaced, or the disk failed: restore it"
        ) from error


def _check_size(index: Index, folder: LocalFolder, shard: Shard) -> None:
    """Raise unless a shard is a plain file of the promised size. Nothing is mapped before."""
    try:
        num_bytes = folder.size(shard.name)
    except NotFound as error:
        raise IncompleteStore(
            f"{folder.describe(shard.name)} is missing, the index names it; restore it, or copy"
            " the shards folder whole; `laughstore build` links it again if its Zarr name is left"
        ) from error
    if num_bytes != shard.num_bytes:
        raise CorruptData(
            f"{folder.describe(shard.name)} has {num_bytes} bytes, the index says"
            f" {shard.num_bytes}; the file was cut or replaced: restore it"
        )
    expected = index.geometry.shard_bytes(shard.num_blocks)
    if num_bytes != expected:
        raise CorruptData(
            f"{folder.describe(shard.name)} has {num_bytes} bytes, {shard.num_blocks} blocks take"
            f" {expected}; the index does not fit its shards"
        )
