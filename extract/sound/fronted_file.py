"""A file from some byte on, with other bytes in front of it, as one file that is read."""

import io
from collections.abc import Buffer
from pathlib import Path


class FrontedFile(io.RawIOBase):
    """`front`, then the bytes of the file at `path` from byte `start` on; read only."""

    def __init__(self, front: bytes, path: Path, start: int) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be opened.
        """
        self._front = front
        self._start = start
        self._offset = 0
        self.failure: OSError | None = None
        """Of a read that the system refused. libsndfile is told of an end: what a callback raises
        is printed and lost."""
        self._file = path.open("rb", buffering=0)
        self._size = len(front) + self._file.seek(0, io.SEEK_END) - start

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset, counted as `whence` says, and return it counted from the front."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        self._offset = max(base + offset, 0)
        return self._offset

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer with the next bytes; returns how many, 0 at the end and of a `failure`."""
        view = memoryview(buffer).cast("B")
        if self._offset < len(self._front):
            piece = self._front[self._offset : self._offset + len(view)]
        else:
            try:
                self._file.seek(self._start + self._offset - len(self._front))
                piece = self._file.read(len(view)) or b""
            except OSError as error:
                self.failure, piece = error, b""
        view[: len(piece)] = piece
        self._offset += len(piece)
        return len(piece)

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._file.close()
        super().close()
