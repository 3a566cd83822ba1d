"""A Zarr store whose keys are files of a folder under other names.

The chunk `features.zarr/.../c/0/0` of a store IS a shard: a remote copy holds it once, as
`shards/....tar`, and serves it here under its Zarr key. Works for local folders too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NoReturn, Protocol

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from .errors import CorruptData, LaughstoreError
from .folders import Folder


class Check(Protocol):
    """What the files behind the keys must be. Called from several threads."""

    def size(self, path: str, num_bytes: int) -> None:
        """Raise CorruptData if a file has another size than was written."""
        ...

    def content(self, path: str, start: int, data: bytes) -> None:
        """Raise CorruptData if these bytes of a file, from `start` on, are not what was written."""
        ...


class ZarrFolder(Store):
    """Read-only Zarr keys served from files of a folder.

    A key that is not in the map does not exist. One that is, but whose file is gone, raises
    NotFound: an array must not read as fill values because a shard was lost.
    """

    def __init__(
        self,
        folder: Folder,
        keys: Mapping[str, str],
        max_bytes: int = 1 << 40,
        check: Check | None = None,
        known: Mapping[str, bytes] | None = None,
    ) -> None:
        """Serve files of a folder.

        Args:
            folder: of the files.
            keys: Zarr key -> path of the file in the folder.
            max_bytes: of a file read whole.
            check: sees all that is read; without it zarr's own checksums are all there is.
            known: content of files, by path, that were read and checked already.
        """
        super().__init__(read_only=True)
        self._check = check
        self._known = known or {}
        self._max_bytes = max_bytes
        self._folder = folder
        self._keys = keys

    @property
    def supports_writes(self) -> bool:
        """False."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """False."""
        return False

    @property
    def supports_listing(self) -> bool:
        """True: all keys are known."""
        return True

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value of a key, or a part of it; None when there is none."""
        if key not in self._keys:
            return None
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As `get`, in the calling thread."""
        path = self._keys.get(key)
        if path is None:
            return None
        prototype = prototype or default_buffer_prototype()
        return prototype.buffer.from_bytes(self._read(path, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return the parts asked for, in their order."""
        return list(
            await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))
        )

    async def get_ranges(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        **limits: int,
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield parts of a key; our own errors come as they are, not as a group."""
        try:
            async for parts in super().get_ranges(key, byte_ranges, prototype=prototype, **limits):
                yield parts
        except BaseExceptionGroup as group:
            ours = group.subgroup(LaughstoreError)
            if ours is None:
                raise
            error: BaseException = ours
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
        else:
            return
        raise error

    async def exists(self, key: str) -> bool:
        """Tell whether a key is in the map."""
        return key in self._keys

    async def getsize(self, key: str) -> int:
        """Return the bytes of a key's file."""
        if key not in self._keys:
            raise FileNotFoundError(key)
        return await asyncio.to_thread(self._folder.size, self._keys[key])

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        for key in self._keys:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with a prefix."""
        for key in self._keys:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly under a prefix."""
        prefix = prefix and prefix.rstrip("/") + "/"
        names = {key[len(prefix) :].split("/")[0] for key in self._keys if key.startswith(prefix)}
        for name in sorted(names):
            yield name

    async def set(self, key: str, value: Buffer) -> NoReturn:
        """Refuse: read-only."""
        raise ValueError("this Zarr store is read-only")

    async def delete(self, key: str) -> NoReturn:
        """Refuse: read-only."""
        raise ValueError("this Zarr store is read-only")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ZarrFolder)
            and self._folder is other._folder
            and self._keys == other._keys
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"ZarrFolder({self._folder.describe()!r}, {len(self._keys)} keys)"

    def _read(self, path: str, part: ByteRequest | None) -> bytes:
        known = self._known.get(path)
        size = self._folder.size(path) if known is None else len(known)
        if self._check is not None:
            self._check.size(path, size)
        start, stop = 0, size
        if part is None:
            if size > self._max_bytes:
                raise CorruptData(
                    f"{self._folder.describe(path)} has {size} bytes, at most"
                    f" {self._max_bytes} were written; the file was replaced: restore it"
                )
        elif isinstance(part, RangeByteRequest):
            # The end may lie behind the end of the file: the rest of it is meant.
            start, stop = part.start, min(part.end, size)
        elif isinstance(part, OffsetByteRequest):
            start = min(part.offset, size)
        else:
            assert isinstance(part, SuffixByteRequest), part
            start = max(0, size - part.suffix)
        if known is not None:
            return known[start:stop]
        # By its size, for whole files too: no more is taken, whatever a server sends.
        data = self._folder.read_range(path, start, max(0, stop - start))
        if self._check is not None:
            self._check.content(path, start, data)
        return data
