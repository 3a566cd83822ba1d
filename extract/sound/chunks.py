"""Whether all the audio that a sound file's header tells of is in the file.

libsndfile reads what is there of a cut file, and says so at most in its log. So the header is read
here once more: where the audio begins and how many bytes of it there are to be, against the size of
the file. Formats without such a number (PVF, PAF, IRCAM, raw) cannot be told to be cut.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_CHUNKS = 10_000
_MAX_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
_LAST_PAGE = 0x04
_CUT = re.compile(
    r"(\d+) \(should be (\d+)\)|truncated file|to be truncated|should be (\d+)$", re.M
)


def missing_audio(path: Path, file_format: str, log: str) -> str | None:
    """Tell what of a file's audio cannot be read, and what to do about it.

    Args:
        path: of the file.
        file_format: as soundfile names it (`WAV`, `OGG`, ...).
        log: libsndfile's, for formats that are not looked at here.

    Returns:
        None when everything is there, as far as the format can tell.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if file_format == "OGG":
            return _missing_of_ogg(file, size)
        find = _FINDERS.get(file_format)
        if find is None:
            return _cut() if file_format not in ("FLAC", "MP3") and _CUT.search(log) else None
        claim = find(file)
    return None if claim is None else claim.missing(size)


@dataclass(frozen=True, slots=True)
class _Claim:
    """Where a header says that audio is."""

    begin: int
    num_bytes: int
    has_32_bits: bool = False
    """The number cannot tell of more than 4 GB; writers to a pipe put a very large one."""

    def missing(self, size: int) -> str | None:
        present = max(size - self.begin, 0)
        # What writers to a pipe put lies just below 2 and 4 GB.
        stands_for_the_end = self.has_32_bits and (
            0x7FFF_0000 <= self.num_bytes <= 0x8000_0000 or self.num_bytes >= 0xFFFF_0000
        )
        if self.num_bytes > present:
            return None if stands_for_the_end else _cut(present, self.num_bytes)
        spare = present - self.num_bytes
        if self.has_32_bits and spare >= (1 << 16 if stands_for_the_end else 1 << 32):
            return (
                f"holds more audio ({present} bytes) than its header can tell of; convert the file"
                " to RF64 or FLAC"
            )
        return None


def _cut(present: int | None = None, claimed: int | None = None) -> str:
    what = "holds less audio than its header claims"
    if present is not None:
        what = f"holds {present} of the {claimed} bytes of audio that its header claims"
    return f"{what}; the file was cut, copy it again"


def _find_in_wav(file: BinaryIO) -> _Claim | None:
    file.seek(0)
    order = ">" if file.read(4) == b"RIFX" else "<"
    return _find_chunk(file, 12, b"data", f"{order}4sI", has_32_bits=True)


def _find_in_rf64(file: BinaryIO) -> _Claim | None:
    file.seek(12)
    head = file.read(24)  # ds64 comes first: the sizes of the file and of the audio
    claim = _find_chunk(file, 12, b"data", "<4sI")
    if claim is None or claim.num_bytes != 0xFFFF_FFFF or head[:4] != b"ds64" or len(head) < 24:
        return claim
    return _Claim(claim.begin, struct.unpack_from("<Q", head, 16)[0])


def _find_in_aiff(file: BinaryIO) -> _Claim | None:
    return _find_chunk(file, 12, b"SSND", ">4sI", has_32_bits=True)


def _find_in_svx(file: BinaryIO) -> _Claim | None:
    return _find_chunk(file, 12, b"BODY", ">4sI")


def _find_in_caf(file: BinaryIO) -> _Claim | None:
    claim = _find_chunk(file, 8, b"data", ">4sq", align=1)
    return None if claim is None or claim.num_bytes < 0 else claim  # -1: to the end


def _find_in_w64(file: BinaryIO) -> _Claim | None:
    # Sizes count the header of the chunk, names are 16 bytes that start with the four of WAV.
    claim = _find_chunk(file, 40, b"data", "<4s12xq", align=8, counted=24)
    return None if claim is None else _Claim(claim.begin, claim.num_bytes - 24)


def _find_chunk(
    file: BinaryIO,
    begin: int,
    name: bytes,
    layout: str,
    *,
    align: int = 2,
    counted: int = 0,
    has_32_bits: bool = False,
) -> _Claim | None:
    """Return the chunk of this name.

    Args:
        file: that holds the chunks.
        begin: byte of the first chunk.
        name: of the chunk with the audio.
        layout: of a chunk's header: its name, its size.
        align: chunks begin at multiples of it.
        counted: bytes of its header that a chunk's size counts.
        has_32_bits: as in `_Claim`.
    """
    header_bytes = struct.calcsize(layout)
    for _ in range(_MAX_CHUNKS):
        file.seek(begin)
        header = file.read(header_bytes)
        if len(header) < header_bytes:
            return None
        found, num_bytes = struct.unpack(layout, header)
        if found == name:
            return _Claim(begin + header_bytes, num_bytes, has_32_bits)
        if num_bytes < counted:
            return None
        begin += header_bytes + -(-(num_bytes - counted) // align) * align
        if begin >= 1 << 62:
            return None
    return None


def _find_in_au(file: BinaryIO) -> _Claim | None:
    file.seek(0)
    header = file.read(12)
    if len(header) < 12:
        return None
    begin, num_bytes = struct.unpack_from("<II" if header[:4] == b"dns." else ">II", header, 4)
    return None if num_bytes == 0xFFFF_FFFF else _Claim(begin, num_bytes)


def _find_in_nist(file: BinaryIO) -> _Claim | None:
    file.seek(0)
    header = file.read(1024).decode("latin-1")
    begin = re.match(r"NIST_1A\s+(\d+)\s", header)
    fields = {name: int(value) for name, value in re.findall(r"(\w+) -i (\d{1,18})\b", header)}
    wanted = ("sample_count", "channel_count", "sample_n_bytes")
    if begin is None or not all(name in fields for name in wanted):
        return None
    num_samples, channels, sample_bytes = (fields[name] for name in wanted)
    return _Claim(int(begin[1]), num_samples * channels * sample_bytes)


_FINDERS: dict[str, Callable[[BinaryIO], _Claim | None]] = {
    "WAV": _find_in_wav,
    "WAVEX": _find_in_wav,
    "RF64": _find_in_rf64,
    "W64": _find_in_w64,
    "AIFF": _find_in_aiff,
    "SVX": _find_in_svx,
    "CAF": _find_in_caf,
    "AU": _find_in_au,
    "NIST": _find_in_nist,
}


def _missing_of_ogg(file: BinaryIO, size: int) -> str | None:
    """Look at the last page: it is marked as such, and belongs to the first page's stream."""
    file.seek(0)
    first = file.read(27)
    # Behind the last page there may be a tag.
    file.seek(max(size - 2 * _MAX_OGG_PAGE_BYTES, 0))
    tail = file.read()
    at = tail.rfind(b"OggS")
    while at >= 0 and not _is_whole_page(tail[at:]):
        at = tail.rfind(b"OggS", 0, at)
    if at < 0 or not tail[at + 5] & _LAST_PAGE:
        return "ends without the page that is marked as its last; the file was cut, copy it again"
    if tail[at + 14 : at + 18] != first[14:18]:
        return (
            "holds several streams one after the other, and only the first would be read; convert"
            " the file to FLAC or WAV"
        )
    return None


def _is_whole_page(page: bytes) -> bool:
    if len(page) < 27:
        return False
    lacing = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lacing) and len(lacing) == page[26]
