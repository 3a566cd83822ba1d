"""The exact length of an MP3, found by walking its frames; nothing is decoded.

An MP3 has no header of its own. Encoders put a first frame in front that tells the number of frames
(Xing, Info, VBRI); where there is none, decoders guess the length from the size of the file and the
first frame's bit rate, which can be wrong eight times over, and read no further than they guessed.
Podcast hosts also join files, advertisements in front, and leave the first one's count standing.

So the frames are counted here, a few bytes read of each. Where that count says something else than
the file's first frame, or where there is none, `Mp3.repaired` opens the file with a first frame of
our own that tells the count.
"""

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from .fronted_file import FrontedFile

_WINDOW_BYTES = 1 << 18
_MAX_LEADING_BYTES = 1 << 16
_MAX_RESYNC_BYTES = 1024
"""mpg123, which decodes, gives up after this many bytes that are no audio."""
_TAG_HEADER_BYTES = 10
_MAX_TAGS = 1_000
_SEARCHED_BYTES = 1 << 20
"""Behind the last frame, for more of them."""
# kbit/s by bitrate index (ISO 11172-3 and 13818-3).
_KBPS_V1_L3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_V1_L2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_KBPS_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_V1 = (44_100, 48_000, 32_000)
_VERSION_1, _VERSION_2, _LAYER_3, _LAYER_2, _MONO = 3, 2, 1, 2, 3
_FRAME_STARTS = [
    bytes([0xFF, 0xE0 | version << 3 | layer << 1 | checksum])
    for version in (_VERSION_1, _VERSION_2, 0)
    for layer in (_LAYER_3, _LAYER_2)
    for checksum in (1, 0)
]


@dataclass(frozen=True, slots=True)
class Mp3:
    """The frames of an MP3."""

    path: Path
    start: int
    """Byte of the first frame with sound."""
    num_mpeg_frames: int
    samples_per_mpeg_frame: int
    """Audio samples a channel."""
    claimed: int | None
    """MPEG frames that the file's own first frame tells of."""
    is_told_by_its_header: bool
    """mpg123 finds the right length by itself."""
    is_cut: bool
    """Fewer frames, or bytes, than claimed."""
    damaged_at: int | None
    """Byte from which on there is no audio of this kind, though audio follows."""
    first_header: bytes

    @property
    def num_samples(self) -> int:
        """Audio samples a channel in all frames, as decoded after `repaired`."""
        return self.num_mpeg_frames * self.samples_per_mpeg_frame

    def repaired(self) -> io.BufferedReader:
        """Open the frames behind a first frame that tells their number."""
        return io.BufferedReader(FrontedFile(self._info_frame(), self.path, self.start))

    def _info_frame(self) -> bytes:
        """A silent frame of the same kind, the largest of its kind, with the number of frames."""
        layout = _Layout.of(self.first_header)
        assert layout is not None
        # No checksum, no padding, the highest bit rate.
        header = bytes(
            [0xFF, self.first_header[1] | 1, 0xE0 | self.first_header[2] & 0x0C, layout.mode]
        )
        length = layout.frame_bytes(header)
        assert length is not None
        info = b"Info" + struct.pack(">II", 1, self.num_mpeg_frames)
        return (header + bytes(layout.side_info_bytes) + info).ljust(length, b"\0")


@dataclass(frozen=True, slots=True)
class _Layout:
    """What all frames of a stream have in common."""

    version: int
    layer: int
    rate_index: int
    mode: int
    """The fourth byte of the header."""

    @classmethod
    def of(cls, header: bytes) -> "_Layout | None":
        """Return the layout of a frame header (4 bytes), None when these are no such header."""
        if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
            return None
        layout = cls(header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 2 & 3, header[3])
        if layout.version == 1 or layout.layer not in (_LAYER_2, _LAYER_3):
            return None
        return layout if layout.frame_bytes(header) is not None else None

    @property
    def sample_rate(self) -> int:
        return _RATES_V1[self.rate_index] // {_VERSION_1: 1, _VERSION_2: 2}.get(self.version, 4)

    @property
    def samples_per_frame(self) -> int:
        return 576 if self.version != _VERSION_1 and self.layer == _LAYER_3 else 1152

    @property
    def side_info_bytes(self) -> int:
        mono = self.mode >> 6 == _MONO
        if self.version == _VERSION_1:
            return 17 if mono else 32
        return 9 if mono else 17

    def frame_bytes(self, header: bytes) -> int | None:
        """Return the length of a frame of this layout by its header, None for other headers."""
        kind = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 2 & 3
        if kind != (self.version, self.layer, self.rate_index) or self.rate_index == 3:
            return None
        bit_rate, padding = header[2] >> 4, header[2] >> 1 & 1
        if not 1 <= bit_rate <= 14:
            return None
        if self.version != _VERSION_1:
            kbps = _KBPS_V2
        else:
            kbps = _KBPS_V1_L3 if self.layer == _LAYER_3 else _KBPS_V1_L2
        bits = self.samples_per_frame * kbps[bit_rate - 1] * 1_000
        return bits // (8 * self.sample_rate) + padding

    @lru_cache(maxsize=32)  # noqa: B019 (layouts are few, small and equal by value)
    def lengths(self) -> dict[bytes, int]:
        """Return the length of a frame for the first three bytes of every possible header."""
        found: dict[bytes, int] = {}
        for second in (0xE0 | self.version << 3 | self.layer << 1 | crc for crc in (0, 1)):
            for third in range(256):
                header = bytes([0xFF, second, third])
                length = self.frame_bytes(header)
                if length is not None:
                    found[header] = length
        return found


def scan_mp3(path: Path) -> Mp3 | None:
    """Count the frames of an MP3.

    Returns:
        None where there are none of layer 2 or 3 with a stated bit rate.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        window = _Window(file)
        first = _first_frame(window)
        if first is None:
            return None
        first_bytes = window.at(first, 200)
        layout = _Layout.of(first_bytes)
        assert layout is not None
        claim = _claim(first_bytes, layout)
        start = first
        if claim is not None:
            start += layout.lengths()[first_bytes[:3]]
        num_frames, end = _walk(window, start, layout.lengths())
        damaged = _more_audio(window, end)
    claimed, claimed_bytes = claim or (None, None)
    cut = False
    if claimed is not None and num_frames < claimed:
        # Some encoders count their first frame too.
        cut = num_frames + 1 < claimed or (
            claimed_bytes is not None and first + claimed_bytes > window.size
        )
    return Mp3(
        path=path,
        start=start,
        num_mpeg_frames=num_frames,
        samples_per_mpeg_frame=layout.samples_per_frame,
        claimed=claimed,
        is_told_by_its_header=claimed == num_frames and b"VBRI" not in first_bytes,
        is_cut=cut,
        damaged_at=end if damaged else None,
        first_header=first_bytes[:4],
    )


class _Window:
    """A file read forwards in pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = 0
        self._bytes = b""
        self.size = file.seek(0, io.SEEK_END)

    def at(self, offset: int, num_bytes: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        begin = offset - self._start
        if begin < 0 or begin + num_bytes > len(self._bytes):
            self._file.seek(offset)
            self._bytes = self._file.read(max(_WINDOW_BYTES, num_bytes))
            self._start, begin = offset, 0
        return self._bytes[begin : begin + num_bytes]

    def from_here(self, offset: int) -> bytes:
        """Return what has been read from this byte on, 3 bytes at least before the file's end."""
        self.at(offset, 3)
        return self._bytes[offset - self._start :]


def _first_frame(window: _Window) -> int | None:
    """Return the byte of the first frame: one that another of its kind, or the end, follows."""
    begin = 0
    for _ in range(_MAX_TAGS):
        tag = _tag_bytes(window.at(begin, _TAG_HEADER_BYTES))
        if not tag or begin + tag >= window.size:
            break
        begin += tag
    leading = window.at(begin, _MAX_LEADING_BYTES)
    offset = leading.find(0xFF)
    while offset >= 0:
        layout = _Layout.of(leading[offset : offset + 4])
        if layout is not None:
            lengths = layout.lengths()
            if _is_run(window, begin + offset, lengths, 2):
                return begin + offset
        offset = leading.find(0xFF, offset + 1)
    return None


def _claim(frame: bytes, layout: _Layout) -> tuple[int | None, int | None] | None:
    """Return the frames and bytes that an encoder's first frame tells of, None in other frames."""
    info = frame[4 + layout.side_info_bytes :]
    if layout.layer == _LAYER_3 and info[:4] in (b"Xing", b"Info") and len(info) >= 16:
        (flags,) = struct.unpack_from(">I", info, 4)
        fields = list(struct.unpack_from(">II", info, 8))
        num_frames = fields.pop(0) if flags & 1 else None
        return num_frames, fields.pop(0) if flags & 2 else None
    info = frame[36:]
    if layout.layer == _LAYER_3 and info[:4] == b"VBRI" and len(info) >= 18:
        num_bytes, num_frames = struct.unpack_from(">II", info, 10)
        return num_frames, num_bytes
    return None


def _walk(window: _Window, offset: int, lengths: dict[bytes, int]) -> tuple[int, int]:
    """Return how many whole frames follow, and the byte at which they end."""
    num_frames = num_tags = 0
    while True:
        more, offset = _walk_unbroken(window, offset, lengths)
        num_frames += more
        tag = _tag_bytes(window.at(offset, _TAG_HEADER_BYTES))
        if tag and offset + tag < window.size and num_tags < _MAX_TAGS:
            offset += tag
            num_tags += 1
            continue
        found = _search(window, offset + 1, offset + _MAX_RESYNC_BYTES, lengths)
        if found is None:
            return num_frames, offset
        offset = found


def _walk_unbroken(window: _Window, offset: int, lengths: dict[bytes, int]) -> tuple[int, int]:
    """Return how many whole frames follow without anything between them, and where they end."""
    num_frames = 0
    while True:
        piece = window.from_here(offset)
        at, last = 0, len(piece) - 3
        while at <= last and (length := lengths.get(piece[at : at + 3])):
            if offset + at + length > window.size:
                return num_frames, offset + at
            num_frames += 1
            at += length
        offset += at
        if at <= last or offset >= window.size - 3:
            return num_frames, offset


def _search(window: _Window, begin: int, end: int, lengths: dict[bytes, int]) -> int | None:
    """Return the first byte in [begin, end) at which two frames stand in a row."""
    there = window.at(begin, end - begin)
    found = there.find(0xFF)
    while found >= 0:
        if _is_run(window, begin + found, lengths, 2):
            return begin + found
        found = there.find(0xFF, found + 1)
    return None


def _is_run(window: _Window, offset: int, lengths: dict[bytes, int], number: int) -> bool:
    """Tell whether this many frames stand here, the end of the file counting as one."""
    for _ in range(number):
        if offset == window.size:
            return True
        length = lengths.get(window.at(offset, 3))
        if length is None:
            return False
        offset += length
    return True


def _more_audio(window: _Window, begin: int) -> bool:
    """Tell whether frames of any kind follow behind bytes that are none of this kind."""
    end = min(window.size, begin + _SEARCHED_BYTES)
    while begin < end:
        there = window.at(begin, _WINDOW_BYTES)
        for pattern in _FRAME_STARTS:
            found = there.find(pattern)
            while found >= 0:
                # By chance, two bytes look like a frame's often, but not four frames in a row.
                if _is_chain(window, begin + found):
                    return True
                found = there.find(pattern, found + 1)
        begin += max(len(there) - 1, 1)
    return False


def _is_chain(window: _Window, offset: int) -> bool:
    layout = _Layout.of(window.at(offset, 4))
    if layout is None:
        return False
    for _ in range(4):
        length = layout.lengths().get(window.at(offset, 3))
        if length is None:
            return False
        offset += length
    return True


def _tag_bytes(header: bytes) -> int:
    """Return the length of the ID3v2 tag that starts with these 10 bytes, 0 where none does."""
    if header[:3] != b"ID3" or len(header) < _TAG_HEADER_BYTES or max(header[6:10]) > 0x7F:
        return 0
    a, b, c, d = header[6:10]
    footer = _TAG_HEADER_BYTES if header[5] & 0x10 else 0
    return _TAG_HEADER_BYTES + (a << 21 | b << 14 | c << 7 | d) + footer
