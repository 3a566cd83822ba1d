"""SHA-256 of a stream of bytes, computed in a thread beside the one that writes them.

On CPUs without SHA instructions SHA-256 is slower than a disk: the hash of one block is computed
while the next one is encoded and written. hashlib and the system calls release Python's lock.
"""

import hashlib
import queue
import threading

QUEUED_BLOCKS = 4
"""Blocks that wait to be hashed; with the one being hashed and the one being written, six are held
in memory for each file, and those that its next write waits for."""
_ALONE_BYTES = 64 << 10
"""Files of smaller pieces than this are hashed by the caller: handing over would cost more."""

Piece = bytes | memoryview


class BackgroundSha256:
    """SHA-256 of pieces, in order. Close it, or its thread stays until the process ends.

    What is handed over must not change until `hexdigest` or `close`.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[tuple[Piece, ...] | None] = queue.Queue(QUEUED_BLOCKS)
        self._thread: threading.Thread | None = None
        self._dropped = False
        self._error: BaseException | None = None

    def update(self, *pieces: Piece) -> None:
        """Append pieces; waits while too much is queued."""
        if self._thread is None:
            if sum(map(len, pieces)) < _ALONE_BYTES:
                self._add(pieces)
                return
            self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
            self._thread.start()
        self._queue.put(pieces)

    def hexdigest(self) -> str:
        """Wait for the hash of everything and return it as hex digits. Ends the thread."""
        self._end()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread, whatever is queued."""
        self._dropped = True
        self._end()

    def _end(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (pieces := self._queue.get()) is not None:
            if self._dropped or self._error is not None:
                continue  # so that whoever waits for room goes on
            try:
                self._add(pieces)
            except BaseException as error:  # raised again by hexdigest
                self._error = error

    def _add(self, pieces: tuple[Piece, ...]) -> None:
        for piece in pieces:
            self._hash.update(piece)
