"""Sound files by their headers: what they hold, and whether it can be all there.

In: a file of any format that soundfile reads, and the channel to take. Out: rate, channels and
length, without decoding. What would hurt later is refused: rates and lengths that no recording has
(a 2 kB file can claim hours), files that were cut, channels that do not exist.
"""

import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile

from laughstore.errors import BadRecording, ConfigError
from laughstore.files import is_passing, named_in_errors
from laughstore.timebase import num_frames, num_samples_24k

from .chunks import missing_audio
from .decoding import ForwardSound, refuse_failing
from .mp3 import Mp3, scan_mp3

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 192_000
MAX_CHANNELS = 8
MAX_HOURS = 24
_HEADER_BYTES = 16 << 20
"""Pictures in the tags of an MP3 stand before its sound."""
_UNKNOWN_LENGTH = (1 << 63) - 1
"""What libsndfile says of a FLAC file without a length."""


@dataclass(frozen=True, slots=True)
class AudioFile:
    """Where a track's sound is."""

    path: Path
    channel: int | None = None
    """From 0; None: the average of all channels."""

    def __post_init__(self) -> None:
        if self.channel is not None and self.channel < 0:
            raise ConfigError(
                f"{self.path}: channel is {self.channel}; channels are counted from 0"
            )

    @classmethod
    def of(cls, file: "Path | AudioFile") -> "AudioFile":
        """Return what is given, a path as the average of its channels."""
        return file if isinstance(file, AudioFile) else cls(file)

    def __str__(self) -> str:
        return str(self.path) if self.channel is None else f"{self.path}, channel {self.channel}"


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a sound file says, and its length once at 24 kHz."""

    num_samples: int
    """Audio samples a channel, at the file's own rate."""
    sample_rate: int
    """Hz, of the file."""
    channels: int
    num_samples_24k: int
    num_frames: int
    """Frames of 80 ms, the last one possibly ragged."""


def probe_audio(file: Path | AudioFile) -> AudioInfo:
    """Return what a sound file holds, without decoding it.

    The length is the one that decoding gives, also where an MP3's own header is wrong or missing.

    Raises:
        BadRecording: no such file, no sound file, no such channel, cut as far as its format can
            tell, or a header outside the limits of this module.
        OSError: the disk or its server fails.
    """
    return _examine(AudioFile.of(file))[0]


def open_sound(file: AudioFile, closing: ExitStack) -> tuple[ForwardSound, AudioInfo]:
    """Return a sound file opened at its beginning, and what it holds.

    Args:
        file: the sound.
        closing: closes what was opened.

    Raises:
        BadRecording, OSError: as `probe_audio`.
    """
    info, mp3 = _examine(file)
    with _refusing(file.path):
        fronted = None if mp3 is None else closing.enter_context(mp3.repaired())
        return closing.enter_context(ForwardSound(file.path, fronted)), info


def _examine(file: AudioFile) -> tuple[AudioInfo, Mp3 | None]:
    """Return what a file holds; with the frames of an MP3 that is to be opened by them."""
    path = file.path
    _check_is_file(path)
    with _refusing(path):
        header = soundfile.info(str(path))
    rate, channels, num_samples = header.samplerate, header.channels, header.frames
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise BadRecording(
            f"{path}: sample rate {rate} Hz is outside {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE};"
            " the header is damaged, or convert the file to 24 kHz WAV"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise BadRecording(
            f"{path}: {channels} channels, at most {MAX_CHANNELS} are read; mix the track to mono"
        )
    if file.channel is not None and file.channel >= channels:
        raise BadRecording(
            f"{path}: has no channel {file.channel}, its {channels} are counted from 0; correct"
            " the channel, or leave the recording out"
        )
    mp3 = None
    with _refusing(path):
        if header.format == "MP3":
            mp3 = _misjudged_mp3(path)
        if mp3 is not None:
            with mp3.repaired() as fronted, ForwardSound(path, fronted) as sound:
                num_samples = sound.frames
    if num_samples < 1:
        raise BadRecording(f"{path}: holds no audio; export the track again")
    if num_samples == _UNKNOWN_LENGTH:
        raise BadRecording(
            f"{path}: its header does not tell its length, as when it was written to a pipe;"
            " convert the file to WAV, or encode it again into a file"
        )
    if num_samples > MAX_HOURS * 3600 * rate:
        raise BadRecording(
            f"{path}: the header claims {num_samples / rate / 3600:.3g} hours, at most"
            f" {MAX_HOURS} are read; the header is damaged, or cut the recording into parts"
        )
    with _refusing(path):
        missing = missing_audio(path, header.format, header.extra_info)
    if missing is None and header.format == "FLAC" and not _reaches_its_end(path, num_samples):
        missing = "ends before its header says, or is damaged there; copy it again"
    if missing is not None:
        raise BadRecording(f"{path}: {missing}")
    resampled = num_samples_24k(num_samples, rate)
    return AudioInfo(num_samples, rate, channels, resampled, num_frames(resampled)), mp3


def _check_is_file(path: Path) -> None:
    """Refuse what is no file before it is opened: opening a pipe would wait for ever."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if is_passing(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadRecording(
            f"{path}: no such file ({reason}); put the track there or leave the recording out"
        ) from error
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe or device"
        raise BadRecording(f"{path}: no such file, it is {what}; give the path of a sound file")


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what reading a header can raise into a BadRecording, but for errors of the disk."""
    try:
        with named_in_errors(path):
            yield
    except UnicodeEncodeError as error:  # soundfile opens no such name
        raise BadRecording(f"{path}: this name is not UTF-8; rename the file or folder") from error
    # TypeError: soundfile's answer to headerless files, by their suffix.
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        if is_passing(error):
            raise
        refuse_failing(path, error, num_bytes=_HEADER_BYTES)
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(text.removeprefix(f"Error opening {str(path)!r}: ").split()).rstrip(".")
        if not reason or "possibly a pipe?" in reason:  # its guess when nothing looks like an MP3
            reason = "no audio found"
        raise BadRecording(
            f"{path}: not readable as sound ({reason}); convert it to 24 kHz WAV"
        ) from error


def _misjudged_mp3(path: Path) -> Mp3 | None:
    """Return the frames of an MP3 of which decoders would guess another length, None for others.

    Raises:
        BadRecording: frames are missing, or there is something else between them.
    """
    mp3 = scan_mp3(path)
    if mp3 is None:
        return None
    if mp3.damaged_at is not None:
        raise BadRecording(
            f"{path}: is damaged, or changes its sample rate, from byte {mp3.damaged_at} on, and"
            " audio follows; copy it again, or convert it to WAV"
        )
    if mp3.is_cut:
        raise BadRecording(
            f"{path}: holds {mp3.num_mpeg_frames} of the {mp3.claimed} MPEG frames that its header"
            " claims; the file was cut, copy it again"
        )
    return None if mp3.is_told_by_its_header else mp3


def _reaches_its_end(path: Path, num_samples: int) -> bool:
    """Tell whether the last audio sample can be decoded."""
    try:
        with soundfile.SoundFile(str(path)) as sound:
            sound.seek(num_samples - 1)
            return len(sound.read(1)) == 1
    except soundfile.SoundFileError as error:
        refuse_failing(path, error)
        return False
