"""Files that a rival needs of its own: written once under the frames' folder, then found again."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from laughstore.reading.memory import memory_bytes

from .data import BenchData
from .warmth import read_files

_COPIES = 7
"""Of all frames: the store, the flat file, one for each peer, and the episodes' .pt files."""
_MOST_OF_MEMORY = 0.6


class KeptFiles:
    """A folder of files, and their place in the page cache.

    Args:
        data: whose frames they hold, in whose folder they lie.
        name: of the folder; what is there of a finished write is used again.
        write: given an empty folder.
    """

    def __init__(self, data: BenchData, name: str, write: Callable[[Path], None]) -> None:
        self.folder = data.flat.parent / name
        if not self.folder.is_dir():
            partial = self.folder.with_name(f"{name}.partial")
            _empty(partial)
            write(partial)
            partial.replace(self.folder)
        # A copy for each of them: all together may not fit in memory.
        needed, memory = _COPIES * data.flat.stat().st_size, memory_bytes()
        self._too_much = memory is not None and needed > _MOST_OF_MEMORY * memory

    def paths(self) -> list[Path]:
        """Return all files, in the order of their names."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def warm(self, paths: Sequence[Path] | None = None) -> None:
        """Put files (None: all) in the page cache. Not timed."""
        read_files(self.paths() if paths is None else paths)

    def forget(self) -> None:
        """Leave the page cache to the others, where it is too small for all. Not timed."""
        if not self._too_much:
            return
        for path in self.paths():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
