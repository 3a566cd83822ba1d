"""Audio tracks: checked before they are decoded, then streamed as 24 kHz mono in constant memory.

In: a sound file of any rate and channel count that soundfile reads. Out: float32 at 24 kHz, whole
frames of 1,920 audio samples, zeros for ever after the track's end. One channel is taken, or all
are averaged; several tracks can be mixed.

Rates other than 24 kHz are resampled block by block with overlap: what comes out equals resampling
the whole track in one piece, and does not depend on how many frames each `read` asks for, because
every block has one shape. A fault found while decoding (a track shorter than its header says, NaN,
numbers far above full scale) is a `BadRecording` that tells the second; nothing is filled in.

Tracks hold no state in common: several threads may read several tracks, each track one thread at a
time.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from numpy.typing import NDArray

from laughstore.closing import ClosedAtExit
from laughstore.errors import BadRecording

from .files import AudioFile, AudioInfo, open_sound, probe_audio
from .resampling import kernel_of

if TYPE_CHECKING:  # torch is not loaded for it
    from ..feeding import TrackReader

__all__ = ["AudioFile", "AudioInfo", "AudioTrack", "MixedTrack", "probe_audio"]

MAX_MAGNITUDE = 1e3
"""60 dB above full scale, which is 1. No sound gets there, mixed and amplified as it may be; bytes
of whole numbers read as floats do, and from about 1e19 on the squares overflow inside Mimi."""
BLOCK_SECONDS = 4
"""Audio decoded and resampled at a time."""


class AudioTrack(ClosedAtExit):
    """A sound file as a stream of whole frames, 24 kHz mono, in constant memory.

    Satisfies the `TrackReader` protocol of `extract.features`. A context manager; not thread safe.
    """

    def __init__(self, file: Path | AudioFile) -> None:
        """Check the header and open the file.

        Raises:
            BadRecording, OSError: as `probe_audio`.
        """
        self.file = AudioFile.of(file)
        self._closing = ExitStack()
        try:
            self._sound, self.info = open_sound(self.file, self._closing)
        except (BadRecording, OSError):
            self.close()
            raise
        self._num_decoded = 0
        self._kernel = kernel_of(self.info.sample_rate)
        self._block_samples = BLOCK_SECONDS * self.info.sample_rate
        # Input samples [start - context, start + block + context) of the block at hand. Before the
        # first one, its tail already holds what the first block shifts to its front.
        context = self._kernel.context
        self._window = np.zeros(2 * context + self._block_samples, np.float32)
        self._ready = np.zeros(0, np.float32)
        self._num_resampled = 0
        try:
            self._decode_into(self._window[self._window.size - context :])
        except (BadRecording, OSError):
            self.close()
            raise

    def read(self, wave: NDArray[np.float32]) -> None:
        """Fill an array with the next frames.

        Args:
            wave: f32[n * 1920], zeros after the track's end.

        Raises:
            BadRecording: decoding failed, ended early, or gave numbers that are not finite or
                above `MAX_MAGNITUDE` in any channel that is used.
            OSError: the disk or its server fails: nothing is known of the file.
        """
        filled = 0
        while filled < wave.size:
            if not self._ready.size and not self._next_block():
                wave[filled:] = 0
                break
            taken = min(wave.size - filled, self._ready.size)
            wave[filled : filled + taken] = self._ready[:taken]
            self._ready = self._ready[taken:]
            filled += taken

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._closing.close()

    def _next_block(self) -> bool:
        """Decode and resample one block into `_ready`; False when the track has ended."""
        remaining = self.info.num_samples_24k - self._num_resampled
        if remaining <= 0:
            return False
        overlap = 2 * self._kernel.context
        self._window[:overlap] = self._window[self._block_samples :]
        self._decode_into(self._window[overlap:])
        resampled = self._kernel.resample(self._window)
        # The last block has samples behind the end; they are no part of the track.
        self._ready = resampled[:remaining]
        self._num_resampled += self._ready.size
        return True

    def _decode_into(self, mono: NDArray[np.float32]) -> None:
        """Fill `mono` (f32[n]) with the next input samples, one channel or the average of all.

        Zeros after the end.
        """
        wanted = min(mono.size, self.info.num_samples - self._num_decoded)
        mono[wanted:] = 0
        if not wanted:
            return
        try:
            decoded: NDArray[np.float32] = self._sound.take(wanted, "float32")
        except soundfile.SoundFileError as error:
            raise self._fault("is damaged and cannot be decoded", self._num_decoded) from error
        if len(decoded) < wanted:
            raise self._fault("ends, before its header says", self._num_decoded + len(decoded))
        if self.file.channel is not None:
            decoded = decoded[:, self.file.channel, None]
        self._refuse_what_is_no_sound(decoded)
        mono[:wanted] = decoded[:, 0] if decoded.shape[1] == 1 else decoded.mean(axis=1)
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
            f"{self.file}: {what}, from second {second:.3f} on; export the track again, or leave"
            " the recording out"
        )


class MixedTrack:
    """Several tracks as one: the sum of their sound, silence where one has ended.

    Satisfies the `TrackReader` protocol. It owns the tracks: closing it closes them.
    """

    def __init__(self, tracks: Sequence["TrackReader"]) -> None:
        assert tracks, "a mix has at least one track"
        self._tracks = tuple(tracks)
        self._one = np.zeros(0, np.float32)

    def read(self, wave: NDArray[np.float32]) -> None:
        """Fill f32[n * 1920] with the next frames.

        Raises:
            BadRecording: one of the tracks cannot be read further.
        """
        if self._one.size < wave.size:
            self._one = np.zeros(wave.size, np.float32)
        one = self._one[: wave.size]
        wave[:] = 0
        for track in self._tracks:
            track.read(one)
            wave += one

    def close(self) -> None:
        """Close all tracks; calling it again does nothing."""
        with ExitStack() as stack:
            for track in self._tracks:
                stack.callback(track.close)
