"""Audio tracks: checked before they are decoded, then streamed as 24 kHz mono in constant memory.

In: a sound file of any rate and channel count that soundfile reads. Out: float32 at 24 kHz, whole
frames of 1,920 audio samples, zeros for ever after the track's end. Channels are averaged.

`probe_audio` reads the header only and refuses what would hurt later: rates and lengths that no
recording has (a 2 kB file can claim hours), cut files, rates whose resampling kernel is huge.
Rates other than 24 kHz go through torchaudio's default kernel, fed block by block with overlap:
what comes out equals resampling the whole track in one piece, and does not depend on how many
frames each `read` asks for, because every block has one shape. A fault found while decoding (a
track shorter than its header says, NaN, numbers far above full scale) is a `BadRecording` that
tells the second; nothing is filled in.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from laughstore.errors import BadRecording
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, num_frames, num_samples_24k

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 192_000
MAX_CHANNELS = 8
MAX_HOURS = 24
MAX_MAGNITUDE = 1e3
"""60 dB above full scale, which is 1. No sound gets there, mixed and amplified as it may be; bytes
of whole numbers read as floats do, and from about 1e19 on the squares overflow inside Mimi."""
BLOCK_SECONDS = 4
"""Audio decoded and resampled at a time."""

_MAX_KERNEL_SIZE = 1 << 22
"""Numbers in a resampling kernel; coprime rates (44,101 Hz) would need a billion."""
_OPEN_ENDED_BYTES = 0x7FFF_0000
"""Writers to a pipe put such lengths in a WAV header: they stand for "to the end of the file"."""
# Default lowpass_filter_width and rolloff of torchaudio.functional.resample.
_FILTER_ZEROS = 6
_ROLLOFF = 0.99
# libsndfile uses what is there of a cut WAV or AIFF file and says so in its log only.
_CUT_CHUNK = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)


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


def probe_audio(path: Path) -> AudioInfo:
    """Return what a sound file's header says, without decoding it.

    Raises:
        BadRecording: no such file, no sound file, or a header outside the limits of this module.
    """
    if not path.is_file():
        raise BadRecording(f"{path}: no such file; put the track there or leave the recording out")
    try:
        header = soundfile.info(str(path))
    # TypeError: soundfile's answer to headerless files, by their suffix.
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        reason = str(error).removeprefix(f"Error opening {str(path)!r}: ").rstrip(".")
        raise BadRecording(
            f"{path}: not readable as sound ({reason}); convert it to 24 kHz WAV"
        ) from error
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
    if num_samples < 1:
        raise BadRecording(f"{path}: holds no audio; export the track again")
    if num_samples > MAX_HOURS * 3600 * rate:
        raise BadRecording(
            f"{path}: the header claims {num_samples / rate / 3600:.3g} hours, at most"
            f" {MAX_HOURS} are read; the header is damaged, or cut the recording into parts"
        )
    cut = _CUT_CHUNK.search(header.extra_info)
    if cut is not None and int(cut[2]) < int(cut[1]) < _OPEN_ENDED_BYTES:
        raise BadRecording(
            f"{path}: holds {cut[2]} of the {cut[1]} bytes of audio that its header claims; the"
            " file was cut, copy it again"
        )
    if rate != SAMPLE_RATE and _Ratio.of(rate).kernel_size > _MAX_KERNEL_SIZE:
        raise BadRecording(
            f"{path}: sample rate {rate} Hz has too little in common with {SAMPLE_RATE} Hz to be"
            " resampled here; convert the file to 24 kHz WAV"
        )
    resampled = num_samples_24k(num_samples, rate)
    return AudioInfo(num_samples, rate, channels, resampled, num_frames(resampled))


class AudioTrack:
    """A sound file as a stream of whole frames, 24 kHz mono, in constant memory.

    Satisfies the `TrackReader` protocol of `extract.features`. A context manager; not thread safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = probe_audio(path)
        """What the header says; `info.num_frames` reads reach the track's end."""
        self._file = soundfile.SoundFile(str(path))
        self._num_decoded = 0
        self._ratio = _Ratio.of(self.info.sample_rate)
        self._block_samples = BLOCK_SECONDS * self.info.sample_rate
        # Input samples [start - context, start + block + context) of the block at hand. Before the
        # first one, its tail already holds what the first block shifts to its front.
        context = self._ratio.context
        self._window = np.zeros(2 * context + self._block_samples, np.float32)
        self._decode_into(self._window[self._window.size - context :])
        self._ready = np.zeros(0, np.float32)
        self._num_resampled = 0

    def read(self, num_frames: int) -> NDArray[np.float32]:
        """Return the next frames.

        Args:
            num_frames: how many, 0 or more.

        Returns:
            f32[num_frames * 1920], a fresh array; zeros after the track's end.

        Raises:
            BadRecording: decoding failed, ended early, or gave numbers that are not finite or
                above `MAX_MAGNITUDE` in any channel.
        """
        out = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float32)
        filled = 0
        while filled < out.size:
            if not self._ready.size and not self._next_block():
                break
            taken = min(out.size - filled, self._ready.size)
            out[filled : filled + taken] = self._ready[:taken]
            self._ready = self._ready[taken:]
            filled += taken
        return out

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _next_block(self) -> bool:
        """Decode and resample one block into `_ready`; False when the track has ended."""
        remaining = self.info.num_samples_24k - self._num_resampled
        if remaining <= 0:
            return False
        overlap = 2 * self._ratio.context
        self._window[:overlap] = self._window[self._block_samples :]
        self._decode_into(self._window[overlap:])
        resampled = self._ratio.resample(self._window)
        # The last block has samples behind the end; they are no part of the track.
        self._ready = resampled[:remaining]
        self._num_resampled += self._ready.size
        return True

    def _decode_into(self, mono: NDArray[np.float32]) -> None:
        """Fill `mono` (f32[n]) with the next input samples, averaged over channels, then zeros."""
        wanted = min(mono.size, self.info.num_samples - self._num_decoded)
        mono[wanted:] = 0
        if not wanted:
            return
        try:
            decoded = np.asarray(
                self._file.read(wanted, dtype="float32", always_2d=True), np.float32
            )
        except soundfile.SoundFileError as error:
            raise self._fault(f"cannot be decoded ({error})", self._num_decoded) from error
        if len(decoded) < wanted:
            raise self._fault("ends, before its header says", self._num_decoded + len(decoded))
        self._refuse_what_is_no_sound(decoded)
        mono[:wanted] = decoded[:, 0] if self.info.channels == 1 else decoded.mean(axis=1)
        self._num_decoded += wanted

    def _refuse_what_is_no_sound(self, decoded: NDArray[np.float32]) -> None:
        """Check f32[n, channels]; before they are averaged, where opposite numbers cancel."""
        fits = np.abs(decoded) <= MAX_MAGNITUDE  # false for NaN
        if fits.all():
            return
        row, channel = np.unravel_index(np.argmin(fits), fits.shape)
        value = float(decoded[row, channel])
        what = f"{value:.3g}, where full scale is 1" if math.isfinite(value) else "NaN or infinity"
        raise self._fault(f"holds {what}", self._num_decoded + int(row))

    def _fault(self, what: str, sample: int) -> BadRecording:
        second = sample / self.info.sample_rate
        return BadRecording(
            f"{self.path}: {what}, from second {second:.3f} on; export the track again, or leave"
            " the recording out"
        )


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A rate as a fraction of 24 kHz: `new` output samples come from `old` input samples."""

    old: int
    new: int
    reach: int
    """Input samples on each side of a group of `old` that its `new` outputs depend on."""

    @classmethod
    def of(cls, sample_rate: int) -> "_Ratio":
        divisor = math.gcd(sample_rate, SAMPLE_RATE)
        old, new = sample_rate // divisor, SAMPLE_RATE // divisor
        if old == new:
            return cls(1, 1, 0)
        # The sinc of the lower of the two rates, up to its sixth zero on either side.
        return cls(old, new, math.ceil(_FILTER_ZEROS * old / (min(old, new) * _ROLLOFF)))

    @property
    def context(self) -> int:
        """Input samples to keep on each side of a block: whole groups, `reach` at least."""
        return -(-self.reach // self.old) * self.old

    @property
    def kernel_size(self) -> int:
        """Numbers in torchaudio's kernel, which it lays out densely."""
        return self.new * (self.old + 2 * self.reach)

    def resample(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the middle of a window at 24 kHz: f32[2 c + k old] to f32[k new], c = context."""
        if self.old == self.new:
            return window.copy()
        # Here, so that looking at headers and data sets does not wait for torch to load.
        import torch
        from torchaudio.functional import resample

        with torch.inference_mode():
            resampled = resample(torch.from_numpy(window), self.old, self.new).numpy()
        edge = self.context // self.old * self.new
        return resampled[edge : resampled.size - edge]
