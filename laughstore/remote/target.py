"""What a push needs of the place it goes to, and how it reads the store it comes from."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..errors import CorruptData, IncompleteStore, NotFound
from ..folders import LocalFolder


@dataclass(frozen=True, slots=True)
class FileToSend:
    """A file of a local store and where it goes."""

    path: str
    """Below the URL."""
    source: str
    """In the local store."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What a listing tells of a file at a URL."""

    num_bytes: int
    e_tag: str | None = None
    version: str | None = None
    sha256: str | None = None
    """Where the listing has it."""


class Target(Protocol):
    """Where a store is pushed to. Safe to use from several threads."""

    def describe(self, path: str = "") -> str:
        """Return the URL of a file, for messages."""
        ...

    def list(self) -> dict[str, RemoteFile]:
        """Return every file below the URL."""
        ...

    def is_same(self, folder: LocalFolder, item: FileToSend, there: RemoteFile) -> bool:
        """Tell whether a file there holds what ours holds."""
        ...

    def read_version(self, path: str) -> tuple[bytes, RemoteFile] | None:
        """Return a whole file, and what `replace` takes for it; None if there is none."""
        ...

    def put_file(
        self, folder: LocalFolder, item: FileToSend, advance: Callable[[int], None]
    ) -> None:
        """Send a file. Raises CorruptData and sends nothing when it was altered."""
        ...

    def copy(self, item: FileToSend, source: str) -> bool:
        """Give what lies under `source` a second name there; False when it has to be sent."""
        ...

    def replace(self, path: str, data: bytes, before: RemoteFile | None) -> bool:
        """Write a file if what is there is still `before` (None: nothing).

        Returns:
            Whether it now holds these bytes: also when another writer was first with the same.
        """
        ...

    def finish(self) -> None:
        """Make everything that was sent visible, where that is a step of its own."""
        ...


def read_checked(folder: LocalFolder, item: FileToSend) -> bytes:
    """Return a file of the local store, once it is known to be what the store says.

    Raises:
        CorruptData: it is not.
        IncompleteStore: it is missing.
    """
    with missing_is_told(folder, item.source):
        if folder.size(item.source) != item.num_bytes:
            raise altered(folder, item)
        data = folder.read(item.source)
    if len(data) != item.num_bytes or hashlib.sha256(data).hexdigest() != item.sha256:
        raise altered(folder, item)
    return data


def altered(folder: LocalFolder, item: FileToSend) -> CorruptData:
    """Return the error for a local file that must not be published."""
    return CorruptData(
        f"{folder.describe(item.source)}: its sha256 is not what the store says; it was not sent:"
        " restore it (`laughstore verify` tells more) and push again"
    )


@contextmanager
def missing_is_told(folder: LocalFolder, path: str) -> Iterator[None]:
    """Say of a missing file of the local store what to do. Raises IncompleteStore for NotFound."""
    try:
        yield
    except NotFound as error:
        where = folder.describe(path)
        raise IncompleteStore(f"{where} is missing; restore it, and push again") from error
