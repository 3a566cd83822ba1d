"""Sound that occurs twice in a data set: the same file, or files with the same bytes.

Files of one size are compared by a few bytes first, and only then as a whole: tracks of one
recording have one size, and masked ones begin with the same zeros.

Within a group and split a file may hold two recordings in two channels. Across them the channel
does not matter: channels hear each other, and a file that two splits use is in both of them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from laughstore.files import is_passing, named_in_errors

from ..sound.tracks import AudioFile

_PIECE_BYTES = 1 << 14
_BLOCK_BYTES = 1 << 20


@dataclass
class SoundUse:
    """A sound file, and where it is used."""

    file: AudioFile
    recording: str
    split: str
    group: str
    speaker: str | None
    """None: it is the mix."""
    _digest: bytes | None = None

    def digest(self, num_bytes: int) -> bytes:
        """Return a hash of the file's first, middle and last bytes. Raises OSError."""
        if self._digest is None:
            found = hashlib.sha256()
            with named_in_errors(self.file.path), self.file.path.open("rb") as file:
                for place in (0, num_bytes // 2, max(num_bytes - _PIECE_BYTES, 0)):
                    file.seek(place)
                    found.update(file.read(_PIECE_BYTES))
            self._digest = found.digest()
        return self._digest


class Copies:
    """Remembers the sound files of a data set: about 200 bytes for each."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[SoundUse]] = {}

    def add(self, use: SoundUse) -> SoundUse | None:
        """Remember a sound file. Returns an earlier use of the same sound, if any.

        The mix of a recording may be the track of its only speaker. Files that cannot be read are
        no copies of anything.

        Raises:
            OSError: the disk or its server fails.
        """
        try:
            num_bytes = use.file.path.stat().st_size
            earlier = self._by_size.setdefault(num_bytes, [])
            found = next((item for item in earlier if _is_copy(item, use, num_bytes)), None)
        except OSError as error:
            if is_passing(error):
                raise
            return None
        if found is None:
            earlier.append(use)
        return found


def _is_copy(a: SoundUse, b: SoundUse, num_bytes: int) -> bool:
    if not _may_be_copies(a, b):
        return False
    if a.file.path == b.file.path:
        return True
    if a.digest(num_bytes) != b.digest(num_bytes):
        return False
    if a.file.path.samefile(b.file.path):
        return True
    return all(x == y for x, y in zip(_blocks(a.file.path), _blocks(b.file.path), strict=False))


def _may_be_copies(a: SoundUse, b: SoundUse) -> bool:
    """Tell whether two uses of one file, by their channels, would be a copy."""
    if a.recording == b.recording:
        return a.file.channel == b.file.channel and None not in (a.speaker, b.speaker)
    if (a.split, a.group) != (b.split, b.group):
        return True
    return a.file.channel == b.file.channel or None in (a.file.channel, b.file.channel)


def _blocks(path: Path) -> Iterator[bytes]:
    with named_in_errors(path), path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
