"""Where the files of a store are read from: a folder of this machine, an object store, the hub.

Readers name files by their path in the store and never join paths themselves, so that one check
stands before every open: paths are plain relative names, and no symbolic link leads elsewhere.
"""

import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

from .errors import CorruptData, NotFound
from .files import named_in_errors
from .naming import is_store_path

_SCHEME_MARK = "://"
_OPEN_FLAGS = (  # Windows has neither pipes nor links in files' places
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


class Folder(Protocol):
    """A folder that files of a store are read from. Safe to use from several threads."""

    @property
    def local(self) -> Path | None:
        """The folder on this machine; None when it is remote."""
        ...

    def child(self, name: str) -> "Folder":
        """Return a folder in this one."""
        ...

    def parent(self) -> "Folder | None":
        """Return the folder around this one; None when there is none to look into."""
        ...

    def describe(self, path: str = "") -> str:
        """Return where a file is, for messages; without credentials."""
        ...

    def size(self, path: str) -> int:
        """Return the bytes of a file.

        Raises:
            NotFound: there is no such file.
            CorruptData: the path must not be opened.
            Unreachable: the remote side does not answer.
        """
        ...

    def sizes(self, paths: Sequence[str]) -> list[int]:
        """Return the bytes of many files, in their order; remote ones in few requests.

        Raises as `size`.
        """
        ...

    def read(self, path: str) -> bytes:
        """Return a whole file. Raises as `size`."""
        ...

    def read_range(self, path: str, start: int, num_bytes: int) -> bytes:
        """Return exactly these bytes of a file.

        Raises:
            NotFound, CorruptData, Unreachable: as `size`; CorruptData too when the file is shorter.
        """
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file. Raises CorruptData and Unreachable as `size`."""
        ...

    def list_names(self, path: str) -> list[str] | None:
        """Return the names of the files directly in a folder; None where it cannot be listed.

        Raises CorruptData as `size`.
        """
        ...


class LocalFolder:
    """A folder of this machine.

    Symbolic links below it are refused: a store that somebody sent could lead anywhere with them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checked: set[str] = set()

    @property
    def local(self) -> Path:
        """The folder."""
        return self._root

    def child(self, name: str) -> "LocalFolder":
        """Return a folder in this one. Raises CorruptData as `path`."""
        return LocalFolder(self.path(name))

    def parent(self) -> "LocalFolder":
        """Return the folder around this one."""
        return LocalFolder(self._root.absolute().parent)

    def describe(self, path: str = "") -> str:
        """Return a path for messages."""
        return str(self._root / path)

    def path(self, path: str) -> Path:
        """Return the path of a file, checked to be opened safely.

        Raises:
            CorruptData: it is no plain relative path, or a symbolic link stands in it.
        """
        self._check_name(path)
        self._refuse_link(self._root / path)
        return self._root / path

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        self._check_name(path)
        # One call and no pathlib: stores have thousands of shards.
        full = f"{self._root}/{path}"
        try:
            found = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _missing(self._root / path) from error
        if stat.S_ISLNK(found.st_mode):
            raise _link(self._root / path)
        if not stat.S_ISREG(found.st_mode):
            raise _no_file(self._root / path)
        return found.st_size

    def sizes(self, paths: Sequence[str]) -> list[int]:
        """Return the bytes of many files, in their order."""
        return [self.size(path) for path in paths]

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        with named_in_errors(self._root / path), self._open(path) as file:
            return file.read()

    def read_range(self, path: str, start: int, num_bytes: int) -> bytes:
        """Return exactly these bytes of a file."""
        with named_in_errors(self._root / path), self._open(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = b""
            if start + num_bytes <= size:  # or nothing is allocated
                data = os.pread(file.fileno(), num_bytes, start)
            while 0 < len(data) < num_bytes:  # one read gives 2 GiB at most
                more = os.pread(file.fileno(), num_bytes - len(data), start + len(data))
                if not more:
                    break
                data += more
        if len(data) != num_bytes:
            raise CorruptData(
                f"{self.describe(path)} has {size} bytes, {num_bytes} at {start} were asked for;"
                " the file was cut: restore it"
            )
        return data

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return self.path(path).is_file()

    def list_names(self, path: str) -> list[str] | None:
        """Return the names of the files directly in a folder; None where it cannot be listed."""
        folder = self.path(path)
        try:
            return sorted(item.name for item in folder.iterdir() if item.is_file())
        except OSError:
            return None

    def __repr__(self) -> str:
        return f"LocalFolder({str(self._root)!r})"

    def _open(self, path: str) -> FileIO:
        """Open a regular file; a pipe or device in its place is not waited for."""
        full = self.path(path)
        try:
            descriptor = os.open(full, _OPEN_FLAGS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _missing(full) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _no_file(full)
        return FileIO(descriptor, "rb")

    def _check_name(self, path: str) -> None:
        """Check a relative path and the folders in it; the file itself may still be a link."""
        if not is_store_path(path):
            raise CorruptData(
                f"{self._root}: {str(path)[:200]!r} must not be opened; do not trust the file"
                " that names it"
            )
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in self._checked:
                self._refuse_link(self._root / folder)
                self._checked.add(folder)

    @staticmethod
    def _refuse_link(path: Path) -> None:
        if path.is_symlink():
            raise _link(path)


def is_url(path: str | Path) -> bool:
    """Tell a URL from a path of this machine."""
    return isinstance(path, str) and _SCHEME_MARK in path


def open_folder(path: str | Path) -> Folder:
    """Return the folder that a path or URL means; nothing is read yet.

    Args:
        path: of this machine, or `s3://`, `gs://`, `hf://`, `https://` (`http://` to loopback).

    Raises:
        ConfigError: a URL of another kind.
        MissingExtra: a client that the URL needs is not installed.
    """
    if isinstance(path, str) and is_url(path):
        from .remote.folder import open_url

        return open_url(path)
    return LocalFolder(Path(path))


def _no_file(path: Path) -> CorruptData:
    return CorruptData(
        f"{path} is a folder, device or pipe where a file should be; do not trust it"
    )


def _link(path: Path) -> CorruptData:
    return CorruptData(
        f"{path} is a symbolic link; a store holds its files itself: copy it with what its links"
        " lead to (cp -RL)"
    )


def _missing(path: Path) -> NotFound:
    return NotFound(f"{path} does not exist")
